"""Rows of another run that need no fitting again: which they are, and taking them.

A fit is what its fields are, not its index: two sweeps are compared field by field, and an index
in one becomes the index in the other by formula, whatever their sizes. A row is taken only where
a fit would have the same bits, so that a shard is the same object with and without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd, lcm
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.fields import CANONICAL_ORDER, Values
from polyfit.sweep import Column, Sweep

__all__ = ["Overlap"]

COUNTED: Final = 1 << 24
"""Combinations that are looked through one by one to count what two sweeps share."""

_CHUNK: Final = 1 << 18

Index = npt.NDArray[np.int64]


# --- which -----------------------------------------------------------------------------------


class Overlap:
    """Where the fits of one sweep stand in another."""

    def __init__(self, new: Sweep, old: Sweep) -> None:
        self._new, self._old = new, old
        varied = {name for axis in old.axes for name in axis.fields}
        fixed = [name for name in CANONICAL_ORDER if name not in varied]
        axes = [
            *([(name, old.values(name))] for name in fixed if old.values(name) != new.values(name)),
            *([(values.field, values.items) for values in axis.values] for axis in old.axes),
        ]
        self._axes = [
            {name: _Places.of(items, new.values(name)) for name, items in axis} for axis in axes
        ]

    def places(self, fits: Index) -> Index:
        """The indices in the old sweep of the new one's ``fits``; -1 where it has no such fit."""
        index = np.zeros(len(fits), dtype=np.int64)
        there = np.ones(len(fits), dtype=np.bool_)
        for axis in self._axes:
            codes = [part.codes(self._new.column(name, fits)) for name, part in axis.items()]
            row = _row(list(axis.values()), codes)
            there &= row >= 0
            index = index * len(next(iter(axis.values())).items) + row
        return np.where(there, index, -1)

    @cached_property
    def count(self) -> int | None:
        """How many fits the two have in common; None where that takes too long to find out."""
        total: int | None = 1
        for names in self._tied():
            shared = _shared(self._only(self._new, names), self._only(self._old, names))
            if shared == 0:
                return 0
            total = None if shared is None or total is None else total * shared
        return total

    def _tied(self) -> list[set[str]]:
        """The fields in groups; an axis of either sweep ties its fields together."""
        groups = [{name} for name in CANONICAL_ORDER]
        for axis in (*self._new.axes, *self._old.axes):
            touched = [group for group in groups if group & set(axis.fields)]
            groups = [group for group in groups if group not in touched]
            groups.append(set().union(*touched))
        return groups

    def _only(self, sweep: Sweep, names: set[str]) -> Sweep:
        """``sweep`` in these fields alone; all others are as the new sweep's base has them."""
        base = replace(self._new.base, **{name: getattr(sweep.base, name) for name in names})
        return Sweep(base, tuple(axis for axis in sweep.axes if set(axis.fields) & names))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where values of a field stand among ``items``, those of an old axis: the first such place.

    ``table`` tells it by the codes of the new sweep's column, ``again`` by the places of the items
    themselves, which a zip may repeat; None where those are a ``range``, whose values are never
    listed.
    """

    items: Sequence[Any]
    table: Index | None
    again: Index | None

    @classmethod
    def of(cls, items: Sequence[Any], new: Sequence[Any]) -> "_Places":
        return cls(items, _table(items, new), _table(items, items))

    def codes(self, column: Column) -> Index:
        """The place of each fit's value, -1 where it has none."""
        if self.table is not None:
            return self.table[column.codes]
        values = column.array(np.uint64)
        if isinstance(self.items, range):
            return _in_range(self.items, values)
        return _among(np.array(self.items, dtype=np.uint64), values)

    def first(self, rows: Index) -> Index:
        """The first place with the value that stands at each of ``rows``."""
        return rows if self.again is None else self.again[rows]


def _table(items: Sequence[Any], values: Sequence[Any]) -> Index | None:
    """The first place of each of ``values`` among ``items``, -1 where it has none."""
    if isinstance(values, range):
        return None
    if isinstance(items, range):
        found = [items.index(value) if value in items else -1 for value in values]
    else:
        first = {value: place for place, value in reversed(list(enumerate(items)))}
        found = [first.get(value, -1) for value in values]
    return np.array(found, dtype=np.int64)


def _row(columns: list[_Places], codes: list[Index]) -> Index:
    """The row of an axis in which each column has its code; -1 where there is none."""
    for column, code in zip(columns, codes, strict=True):
        if isinstance(column.items, range):  # it has no value twice: the place is the row
            pairs = zip(columns, codes, strict=True)
            same = [other.first(code) == found for other, found in pairs]
            return np.where(np.all(same, axis=0), code, -1)
    row = codes[0]
    if len(columns) > 1:
        every = np.arange(len(columns[0].items))
        rows = columns[0].first(every)
        for column, code in zip(columns[1:], codes[1:], strict=True):
            keys = rows * len(every) + column.first(every)
            asked = np.where((row < 0) | (code < 0), -1, row * len(every) + code)
            rows, row = _among(keys, keys), _among(keys, asked)
    return row


def _among(items: npt.NDArray[Any], values: npt.NDArray[Any]) -> Index:
    """The first place of each value among ``items``, -1 where it has none."""
    distinct, first = np.unique(items, return_index=True)
    near = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
    return np.where(distinct[near] == values, first[near], -1)


def _in_range(items: range, values: npt.NDArray[np.uint64]) -> Index:
    """The place of each value in ``items``, -1 where it has none."""
    rising = items if items.step > 0 else items[::-1]
    start, step = np.uint64(rising.start), np.uint64(rising.step)
    place, rest = np.divmod(values - start, step)  # modulo 2^64 where a value is below the start
    there = (values >= start) & (rest == 0) & (place < len(items))
    found = place.astype(np.int64)
    return np.where(there, found if items.step > 0 else len(items) - 1 - found, -1)


def _shared(one: Sweep, other: Sweep) -> int | None:
    """How many fits two sweeps have in common, None where both are too large to look through."""
    if len(one.axes) == len(other.axes) == 1:
        match one.axes[0].values, other.axes[0].values:
            case (Values(items=range() as a),), (Values(items=range() as b),):
                return _common(a, b)
    small, large = sorted((one, other), key=lambda sweep: sweep.size)
    if small.size > COUNTED:
        return None
    overlap = Overlap(small, large)
    return sum(int((overlap.places(fits) >= 0).sum()) for fits in _chunks(small.size))


def _chunks(size: int) -> Iterator[Index]:
    for start in range(0, size, _CHUNK):
        yield np.arange(start, min(start + _CHUNK, size), dtype=np.int64)


def _common(a: range, b: range) -> int:
    """How many numbers two ranges share: the Chinese remainder theorem."""
    one, other = (items if items.step > 0 else items[::-1] for items in (a, b))
    divisor, step = gcd(one.step, other.step), lcm(one.step, other.step)
    apart, rest = divmod(other.start - one.start, divisor)
    if rest:
        return 0
    cycle = other.step // divisor
    first = one.start + one.step * (apart * pow(one.step // divisor, -1, cycle) % cycle)
    first += -(-(max(one.start, other.start) - first) // step) * step
    return len(range(first, min(one[-1], other[-1]) + 1, step))
