"""Some fits of a grid as columns, such as what decides whether each of them can start."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyfit.numerics.arrays import Array, Index
from polyfit.numerics.grid import Grid
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.representatives import DECIDING_FIELDS

__all__ = ["FitTable"]


class FitTable:
    """The ``fields`` of ``fits``, which are numbered from 0 here.

    ``path`` is where the spec states their axes; ``smallest`` and ``largest``, shape (fits,), bound
    the normal numbers of each fit's dtype.
    """

    def __init__(
        self, grid: ParameterGrid, fits: Index, fields: Sequence[str] = DECIDING_FIELDS
    ) -> None:
        columns = {name: grid.column(name, fits) for name in fields}
        self.num_fits, self.path = len(fits), grid.path
        self.places = {name: column.codes for name, column in columns.items()}
        self.columns = {name: column.compact() for name, column in columns.items()}
        dtypes = {name: np.finfo(name) for name in ("float32", "float64")}
        self.largest = self.view("dtype", lambda name: float(dtypes[name].max))
        self.smallest = self.view("dtype", lambda name: float(dtypes[name].tiny))

    def numbers(self, field: str) -> Array:
        """The values of a numeric field, shape (fits,)."""
        return self.columns[field].array(np.float64)

    def view(self, field: str, part: Callable[[Any], Any], width: int = 0) -> Array:
        """A number of each value of a field, shape (fits,), or ``width`` numbers of each."""
        column = self.columns[field]
        values = np.array([part(item) for item in column.items], dtype=np.float64)
        return values.reshape((-1, width) if width else -1)[column.codes]

    def value(self, field: str, fit: int) -> Any:
        """The value of a field in one fit."""
        column = self.columns[field]
        return column.items[int(column.codes[fit])]

    def values(self, fields: Sequence[str], fit: int) -> list[Any]:
        """The values of some fields in one fit."""
        return [self.value(field, fit) for field in fields]

    def groups(self, fields: Sequence[str], among: Index) -> list[Index]:
        """``among`` in groups with the same values of these fields, in the order of the fits."""
        if not len(among):
            return []
        first, group_of = self.distinct(fields, among)
        order = np.argsort(group_of, kind="stable")
        sizes = np.bincount(group_of, minlength=len(first))
        groups = np.split(among[order], np.cumsum(sizes)[:-1])
        return sorted(groups, key=lambda group: int(group[0]))

    def distinct(self, fields: Sequence[str], among: Index) -> tuple[Index, Index]:
        """The first place in ``among`` of each combination of these fields.

        Returns also the number of each one's combination.
        """
        codes = [self.columns[field].codes[among] for field in fields]
        mixed = codes[0]
        for more in codes[1:]:
            mixed = np.unique(mixed * (more.max() + 1) + more, return_inverse=True)[1]
        _, first, number_of = np.unique(mixed, return_index=True, return_inverse=True)
        return first, number_of

    def grids(self, fits: Index, points: int, degree: int, basis: str) -> Grid:
        """The grids of fits that differ in their range alone."""
        ends = np.array([self.value("range", fit) for fit in fits], dtype=np.float64)
        return Grid(ends[:, 0], ends[:, 1], points, degree, basis)

    def grid(self, fit: int) -> Grid:
        """The grid of one fit, as one of many."""
        return self.grids(np.array([fit]), *self.values(("points", "degree", "basis"), fit))
