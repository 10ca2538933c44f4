"""Which fits two sweeps have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Index
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.sweep import Column, Sweep

__all__ = ["Overlap"]


class Overlap:
    """The indices that the fits of one sweep have in another.

    A fit is its fields, not its index: the sweeps are compared field by field. An index in one
    becomes an index in the other by formula, whatever their sizes.

    Args:
        new: the sweep whose fits are looked for.
        old: the sweep that they are looked for in.
    """

    def __init__(self, new: Sweep, old: Sweep) -> None:
        self._new, self._old = new, old
        varied = {name for axis in old.axes for name in axis.fields}
        fixed = [name for name in CANONICAL_ORDER if name not in varied]
        axes = [  # a fixed field that differs counts as an axis of one value
            *([(name, old.values(name))] for name in fixed if old.values(name) != new.values(name)),
            *([(values.field, values.items) for values in axis.values] for axis in old.axes),
        ]
        self._axes = [
            {name: _AxisField.of(items, new.values(name)) for name, items in axis} for axis in axes
        ]

    def indices(self, fits: Index) -> Index:
        """The indices in the old sweep of the new one's ``fits``; -1 where it has no such fit."""
        index = np.zeros(len(fits), dtype=np.int64)
        found = np.ones(len(fits), dtype=np.bool_)
        for axis in self._axes:
            places = [part.places(self._new.column(name, fits)) for name, part in axis.items()]
            row = _row(list(axis.values()), places)
            found &= row >= 0
            index = index * len(next(iter(axis.values())).items) + row
        return np.where(found, index, -1)


@dataclass(frozen=True, slots=True)
class _AxisField:
    """One field of an axis of the old sweep: the first place of each value among ``items``.

    ``by_code`` is that place by the codes of the new sweep's column; ``by_place`` by the places of
    the items themselves, since a zip may repeat values. Both are None where the values are a
    ``range``, which may be too long to list.
    """

    items: Sequence[Any]
    by_code: Index | None
    by_place: Index | None

    @classmethod
    def of(cls, items: Sequence[Any], new: Sequence[Any]) -> "_AxisField":
        return cls(items, _first_places(items, new), _first_places(items, items))

    def places(self, column: Column) -> Index:
        """The place of each fit's value, -1 where it has none."""
        if self.by_code is not None:
            return self.by_code[column.codes]
        values = column.array(np.uint64)
        if isinstance(self.items, range):
            return _places_in_range(self.items, values)
        return _places_among(np.array(self.items, dtype=np.uint64), values)

    def first(self, rows: Index) -> Index:
        """The first place that has the same value as each of the places ``rows``."""
        return rows if self.by_place is None else self.by_place[rows]


def _first_places(items: Sequence[Any], values: Sequence[Any]) -> Index | None:
    """The first place of each of ``values`` among ``items``, -1 where it has none; None where
    ``values`` are a range."""
    if isinstance(values, range):
        return None
    if isinstance(items, range):
        found = [items.index(value) if value in items else -1 for value in values]
    else:
        first = {value: place for place, value in reversed(list(enumerate(items)))}
        found = [first.get(value, -1) for value in values]
    return np.array(found, dtype=np.int64)


def _row(fields: list[_AxisField], places: list[Index]) -> Index:
    """The row of an axis in which each field has the value at its place; -1 where there is none.

    An axis of several fields is a zip: row i has the i-th value of each field.
    """
    for field, place in zip(fields, places, strict=True):
        if isinstance(field.items, range):  # has no value twice: its place is the row
            pairs = zip(fields, places, strict=True)
            same = [other.first(place) == other_place for other, other_place in pairs]
            return np.where(np.all(same, axis=0), place, -1)
    row = places[0]
    if len(fields) > 1:
        all_rows = np.arange(len(fields[0].items))
        firsts = fields[0].first(all_rows)
        for field, place in zip(fields[1:], places[1:], strict=True):
            keys = firsts * len(all_rows) + field.first(all_rows)
            wanted = np.where((row < 0) | (place < 0), -1, row * len(all_rows) + place)
            firsts, row = _places_among(keys, keys), _places_among(keys, wanted)
    return row


def _places_among(items: npt.NDArray[Any], values: npt.NDArray[Any]) -> Index:
    """The first place of each value among ``items``, -1 where it has none."""
    distinct, first = np.unique(items, return_index=True)
    near = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
    return np.where(distinct[near] == values, first[near], -1)


def _places_in_range(items: range, values: npt.NDArray[np.uint64]) -> Index:
    """The place of each value in ``items``, -1 where it has none."""
    ascending = items if items.step > 0 else items[::-1]
    start, step = np.uint64(ascending.start), np.uint64(ascending.step)
    quotient, rest = np.divmod(values - start, step)  # wraps around where a value is below start
    found = (values >= start) & (rest == 0) & (quotient < len(items))
    place = quotient.astype(np.int64)
    return np.where(found, place if items.step > 0 else len(items) - 1 - place, -1)
