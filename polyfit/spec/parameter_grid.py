"""Index <-> parameters of one grid: the product of some axes, less what is excluded.

Without conditions an index is a mixed-radix number with one digit per axis, the slowest axis first;
with them it is the rank among the combinations that are kept, in the same order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from math import prod
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.spec.axis import Axis, Values
from polyfit.spec.column import Column
from polyfit.spec.decision_diagram import DecisionDiagram
from polyfit.spec.document import Path
from polyfit.spec.exclusion import Kept
from polyfit.spec.field_conditions import FieldCondition
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit

__all__ = ["ParameterGrid"]

_MAX_LISTED_STEPS: Final = 100_000
"""Integers in even steps that ``combinations`` goes through one by one."""


@dataclass(frozen=True)
class ParameterGrid:
    """Fits that are combinations of the values of some axes.

    ``base`` holds the fields that no axis varies, and the defaults of the others; ``axes`` stand in
    canonical order, the slowest first; ``exclude`` are the conditions for which there is no fit.
    ``path`` is where the spec states the axes.
    """

    base: Fit
    axes: tuple[Axis, ...]
    exclude: tuple[FieldCondition, ...] = ()
    path: Path = field(default=("sweep",), compare=False)

    @classmethod
    def of(
        cls, fit: Fit, axes: tuple[Axis, ...], exclude: tuple[FieldCondition, ...], path: Path
    ) -> "ParameterGrid":
        """The grid of these axes; ``fit`` may state fields that an axis varies.

        Raises:
            ValueError: a condition does not suit the values, or names too many.
        """
        varied = [name for axis in axes for name in axis.fields]
        base = replace(fit, **{name: FIELDS[name].default for name in varied})
        grid = cls(base, axes, exclude, path)
        _ = grid.kept
        return grid

    @cached_property
    def kept(self) -> Kept:
        """Which combinations of the axes' segments are fits."""
        return Kept(self.base, self.axes, self.exclude)

    @cached_property
    def _diagram(self) -> DecisionDiagram | None:
        """None where every combination is a fit: indices are computed faster then."""
        if self.kept.mask.all():
            return None
        return DecisionDiagram.of(self.kept.mask, self.kept.lengths)

    @property
    def full_size(self) -> int:
        """The number of all combinations, also of those that are excluded."""
        return prod(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """The number of fits, an exact integer of any size."""
        return self.full_size if self._diagram is None else self._diagram.size

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields that an axis varies."""
        return tuple(name for axis in self.axes for name in axis.fields)

    # --- index -> parameters, and back ---

    def fit(self, index: int) -> Fit:
        """The parameters of fit ``index``, which is one of the grid's."""
        values: dict[str, Any] = {}
        for axis, digit in zip(self.axes, self._digits(index), strict=True):
            values.update({column.field: column.items[digit] for column in axis.values})
        return replace(self.base, **values)

    def _digits(self, index: int) -> list[int]:
        if self._diagram is not None:
            dtype = np.int64 if self.full_size < 2**63 else object
            places = self._diagram.places(np.array([index], dtype=dtype))
            return [int(place[0]) for place in places]
        digits = []
        for axis in reversed(self.axes):
            index, digit = divmod(index, len(axis))
            digits.append(digit)
        return digits[::-1]

    def column(self, name: str, fits: Index) -> Column:
        """Field ``name`` of the fits with the indices ``fits`` (int64, shape (fits,)).

        Its items are all values along the axis, in order.
        """
        for number, axis in enumerate(self.axes):
            for values in axis.values:
                if values.field == name:
                    # A value twice on an axis of its own is refused; within a zip it is not.
                    return Column(values.items, self._places(number, fits), len(axis.values) == 1)
        return Column([getattr(self.base, name)], np.zeros(len(fits), dtype=np.int64))

    def _places(self, number: int, fits: Index) -> Index:
        """The places of ``fits`` on an axis."""
        if self._diagram is not None:
            return next(p for k, p in enumerate(self._diagram.places(fits)) if k == number)
        stride = prod(len(axis) for axis in self.axes[number + 1 :])
        return fits // stride % len(self.axes[number])

    def indices(self, places: Sequence[Index]) -> Index:
        """The indices of combinations given by their places (n,) on each axis.

        -1 where a place is, or the combination is excluded.
        """
        if self._diagram is not None:
            return self._diagram.ranks(places)
        index, found = np.zeros(len(places[0]), dtype=np.int64), places[0] >= 0
        for axis, place in zip(self.axes, places, strict=True):
            index = index * len(axis) + place
            found = found & (place >= 0)
        return np.where(found, index, -1)

    # --- values ---

    def items(self, name: str) -> Sequence[Any]:
        """The values of a field along its axis; those of a zip may repeat."""
        for axis in self.axes:
            for values in axis.values:
                if values.field == name:
                    return values.items
        return [getattr(self.base, name)]

    def values(self, name: str) -> Iterable[Any]:
        """The values that a field takes in any fit; some may repeat."""
        for number, axis in enumerate(self.axes):
            for column in axis.values:
                if column.field == name:
                    counts = self.kept.counts([number])
                    segments = zip(self.kept.segments(number), counts, strict=True)
                    kept = (column.items[s.start : s.stop] for s, count in segments if count)
                    return chain.from_iterable(kept)
        return [getattr(self.base, name)]

    def combinations(
        self,
        names: tuple[str, ...],
        view: Callable[[str, Any], Any] = lambda name, value: value,
    ) -> Iterator[tuple[Any, ...]]:
        """All distinct combinations of (a view of) the named fields, without walking the fits.

        Of a long axis of integers in even steps only the ends of its segments: enough for monotone
        rules.
        """
        involved = [k for k, axis in enumerate(self.axes) if set(axis.fields) & set(names)]
        counts = self.kept.counts(involved)
        fixed = {name: view(name, getattr(self.base, name)) for name in names}
        choices = [list(self._rows(number, names, view)) for number in involved]
        may_repeat = any(size > 1 for size in counts.shape)  # in another segment
        seen: set[tuple[Any, ...]] = set()
        for parts in product(*choices):
            if counts[tuple(segment for segment, _ in parts)]:
                merged = dict(fixed)
                for _, row in parts:
                    merged.update(row)
                combination = tuple(merged[name] for name in names)
                if not may_repeat:
                    yield combination
                elif combination not in seen:
                    seen.add(combination)
                    yield combination

    def _rows(
        self, number: int, names: tuple[str, ...], view: Callable[[str, Any], Any]
    ) -> Iterator[tuple[int, tuple[tuple[str, Any], ...]]]:
        """The distinct rows of the named fields on an axis, with the segments they stand in."""
        columns = [values for values in self.axes[number].values if values.field in names]
        fields = [values.field for values in columns]
        for segment, places in enumerate(self.kept.segments(number)):
            rows = zip(*(_few(values, places) for values in columns), strict=True)
            for row in dict.fromkeys(tuple(map(view, fields, row)) for row in rows):
                yield segment, tuple(zip(fields, row, strict=True))

    # --- as JSON ---

    def canonical(self) -> dict[str, Any]:
        """As JSON: the fixed fields and the axes, in canonical order."""
        fixed = {
            name: FIELDS[name].write(getattr(self.base, name))
            for name in CANONICAL_ORDER
            if name not in self.varied
        }
        axes = [{values.field: values.source for values in axis.values} for axis in self.axes]
        return {"fit": fixed, "sweep": axes}

    @classmethod
    def restore(
        cls, source: dict[str, Any], exclude: tuple[FieldCondition, ...], path: Path
    ) -> "ParameterGrid":
        """The grid that ``canonical`` wrote."""
        base = Fit(**{name: FIELDS[name].read(raw) for name, raw in source["fit"].items()})
        axes = tuple(
            Axis(tuple(Values.read(name, axis[name], len(axis) == 1) for name in _ordered(axis)))
            for axis in source["sweep"]
        )
        return cls.of(base, axes, exclude, path)


def _few(values: Values, places: range) -> Sequence[Any]:
    items = values.items[places.start : places.stop]
    if isinstance(items, range) and len(items) > _MAX_LISTED_STEPS:
        return items[0], items[-1]
    return items


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=CANONICAL_ORDER.index)  # JSON's own order is alphabetical
