"""Index <-> parameters: fit ``i`` of ``N`` is computed from ``i`` alone.

An index is a mixed-radix number with one digit per axis, the slowest axis first. Nothing here
holds a list of fits; a shard's parameters are arrays of its own length.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Index
from polyfit.spec.axis import Axis, Values
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit
from polyfit.spec.spec import Spec

__all__ = ["Column", "Sweep"]


@dataclass(frozen=True, slots=True)
class Column:
    """One field over a range of fits: fit ``k`` has ``items[codes[k]]``.

    ``codes`` is int64, of shape (fits,); ``items`` may be a ``range`` of any length. ``distinct``:
    whether all of ``items`` are known to differ.
    """

    items: Sequence[Any]
    codes: Index
    distinct: bool = False

    def array(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The values of a numeric field, shape (fits,)."""
        if isinstance(self.items, range):
            # Modulo 2^64, since a noise_seed may be beyond int64; no field is negative.
            start, step = (np.uint64(n % 2**64) for n in (self.items.start, self.items.step))
            return (start + step * self.codes.astype(np.uint64)).astype(dtype)
        return np.array(self.items, dtype=dtype)[self.codes]

    def compact(self) -> "Column":
        """The same column with only the values that occur, each once."""
        if len(self.codes) and (self.codes == self.codes[0]).all():
            return Column([self.items[int(self.codes[0])]], np.zeros_like(self.codes))
        used, codes = np.unique(self.codes, return_inverse=True)
        if self.distinct:
            return Column([self.items[code] for code in used.tolist()], codes, distinct=True)
        places: dict[Any, int] = {}
        merged = [places.setdefault(self.items[int(code)], len(places)) for code in used]
        return Column(list(places), np.array(merged, dtype=np.int64)[codes])


@dataclass(frozen=True, slots=True)
class Sweep:
    """The fits of a spec, in canonical order. ``base`` holds the fields no axis varies."""

    base: Fit
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, spec: Spec) -> "Sweep":
        """The sweep of ``spec``; fields that an axis varies are at their defaults in ``base``."""
        varied = [field for axis in spec.axes for field in axis.fields]
        return cls(replace(spec.fit, **{f: FIELDS[f].default for f in varied}), spec.axes)

    @property
    def size(self) -> int:
        """The number of fits, an exact integer of any size."""
        return prod(len(axis) for axis in self.axes)

    @property
    def generates_reals(self) -> bool:
        """Whether a generator makes the values of a field of real numbers."""
        columns = (values for axis in self.axes for values in axis.values)
        return any(FIELDS[c.field].real and isinstance(c.source, dict) for c in columns)

    def fit(self, index: int) -> Fit:
        """The parameters of fit ``index``.

        Raises:
            IndexError: there is no such fit.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"fit {index} of {self.size}")
        values: dict[str, Any] = {}
        for axis in reversed(self.axes):
            index, digit = divmod(index, len(axis))
            values.update({column.field: column.items[digit] for column in axis.values})
        return replace(self.base, **values)

    def column(self, field: str, fits: Index) -> Column:
        """Field ``field`` of the fits with the indices ``fits`` (int64, any shape (fits,))."""
        stride = 1
        for axis in reversed(self.axes):
            for values in axis.values:
                if values.field == field:
                    # A value twice on an axis of its own is refused; within a zip it is not.
                    distinct = len(axis.values) == 1
                    return Column(values.items, fits // stride % len(axis), distinct)
            stride *= len(axis)
        return Column([getattr(self.base, field)], np.zeros(len(fits), dtype=np.int64))

    def values(self, field: str) -> Sequence[Any]:
        """The values that ``field`` takes anywhere in the sweep; those of a zip may repeat."""
        for axis in self.axes:
            for values in axis.values:
                if values.field == field:
                    return values.items
        return [getattr(self.base, field)]

    def canonical(self) -> dict[str, Any]:
        """As JSON: the fixed fields and the axes, in canonical order."""
        varied = {field for axis in self.axes for field in axis.fields}
        fixed = {
            name: FIELDS[name].write(getattr(self.base, name))
            for name in CANONICAL_ORDER
            if name not in varied
        }
        axes = [{values.field: values.source for values in axis.values} for axis in self.axes]
        return {"fit": fixed, "sweep": axes}

    @classmethod
    def restore(cls, source: dict[str, Any]) -> "Sweep":
        """The sweep that ``canonical`` wrote."""
        base = Fit(**{name: FIELDS[name].read(raw) for name, raw in source["fit"].items()})
        axes = tuple(
            Axis(tuple(Values.read(name, axis[name], len(axis) == 1) for name in _ordered(axis)))
            for axis in source["sweep"]
        )
        return cls(base, axes)


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=CANONICAL_ORDER.index)  # JSON's own order is alphabetical
