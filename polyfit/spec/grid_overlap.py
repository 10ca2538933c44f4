"""Which fits two grids have in common, found by formula, whatever their sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Index
from polyfit.spec.column import Column
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.parameter_grid import ParameterGrid

__all__ = ["GridOverlap"]


class GridOverlap:
    """The indices that the fits of one grid have in another.

    A fit is its fields, not its index: the grids are compared field by field.

    Args:
        new: the grid whose fits are looked for.
        old: the grid that they are looked for in.
    """

    def __init__(self, new: ParameterGrid, old: ParameterGrid) -> None:
        self._new, self._old = new, old
        fixed = [name for name in CANONICAL_ORDER if name not in old.varied]
        self._fixed = [  # a fixed field that differs is looked for among one value
            (name, _AxisField.of(old.items(name), new.items(name)))
            for name in fixed
            if old.items(name) != new.items(name)
        ]
        self._axes = [
            {v.field: _AxisField.of(v.items, new.items(v.field)) for v in axis.values}
            for axis in old.axes
        ]

    def indices(self, fits: Index) -> Index:
        """The indices in the old grid of the new one's ``fits``; -1 where it has no such fit."""
        found = np.ones(len(fits), dtype=np.bool_)
        for name, part in self._fixed:
            found &= part.places(self._new.column(name, fits)) >= 0
        rows = []
        for axis in self._axes:
            places = [part.places(self._new.column(name, fits)) for name, part in axis.items()]
            rows.append(_row(list(axis.values()), places))
        index = self._old.indices(rows) if rows else np.zeros(len(fits), dtype=np.int64)
        return np.where(found, index, -1)


@dataclass(frozen=True, slots=True)
class _AxisField:
    """One field of an axis of the old grid: the first place of each value among ``items``.

    ``by_code`` is that place by the codes of the new grid's column; ``by_place`` by the places of
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
