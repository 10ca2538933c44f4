"""Index <-> parameters: fit ``i`` of ``N`` is computed from ``i`` alone.

A sweep is one grid, or grids that follow one another. Nothing here holds a list of fits; a shard's
parameters are arrays of its own length.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.spec.column import Column
from polyfit.spec.field_conditions import FieldCondition
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import Fit
from polyfit.spec.generators import is_random
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.spec import Spec

__all__ = ["Sweep"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The fits of a spec, in canonical order: those of the first grid, of the second, ...

    No grid is empty.
    """

    grids: tuple[ParameterGrid, ...]

    @classmethod
    def of(cls, spec: Spec) -> "Sweep":
        """The sweep of ``spec``, without its grids of which everything is excluded."""
        return cls(tuple(grid for grid in spec.grids if grid.size))

    @property
    def size(self) -> int:
        """The number of fits, an exact integer of any size."""
        return sum(grid.size for grid in self.grids)

    @property
    def starts(self) -> tuple[int, ...]:
        """The index of each grid's first fit."""
        return tuple(accumulate((grid.size for grid in self.grids[:-1]), initial=0))

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields that an axis of any grid varies."""
        return tuple(dict.fromkeys(name for grid in self.grids for name in grid.varied))

    @property
    def generates_reals(self) -> bool:
        """Whether the values of a generator depend on how this version computes them."""
        columns = (values for grid in self.grids for axis in grid.axes for values in axis.values)
        return any(
            isinstance(c.source, dict) and (FIELDS[c.field].real or is_random(c.source))
            for c in columns
        )

    def fit(self, index: int) -> Fit:
        """The parameters of fit ``index``.

        Raises:
            IndexError: there is no such fit.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"fit {index} of {self.size}")
        start, grid = next(
            (start, grid)
            for start, grid in zip(self.starts, self.grids, strict=True)
            if index < start + grid.size
        )
        return grid.fit(index - start)

    def column(self, field: str, fits: Index) -> Column:
        """Field ``field`` of the fits with the indices ``fits`` (int64, shape (fits,))."""
        if len(self.grids) == 1:
            return self.grids[0].column(field, fits)
        items: list[Any] = []
        codes = np.empty(len(fits), dtype=np.int64)
        for grid, places, own in self.parts(fits):
            column = grid.column(field, own).compact()
            codes[places] = column.codes + len(items)
            items += column.items
        return Column(items, codes)

    def parts(self, fits: Index) -> Iterable[tuple[ParameterGrid, Index, Index]]:
        """``fits`` by the grid that has them: their places in ``fits``, and their indices there."""
        starts = np.array(self.starts, dtype=np.int64)
        numbers = np.searchsorted(starts, fits, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield self.grids[number], places, fits[places] - starts[number]

    def values(self, field: str) -> Iterable[Any]:
        """The values that ``field`` takes anywhere in the sweep; some may repeat."""
        return chain.from_iterable(grid.values(field) for grid in self.grids)

    def canonical(self) -> dict[str, Any]:
        """As JSON, in canonical order."""
        grids = [grid.canonical() for grid in self.grids]
        exclude = [condition.text for condition in self.grids[0].exclude]
        source = grids[0] if len(grids) == 1 else {"grids": grids}
        return source | ({"exclude": exclude} if exclude else {})

    @classmethod
    def restore(cls, source: dict[str, Any]) -> "Sweep":
        """The sweep that ``canonical`` wrote."""
        exclude = tuple(FieldCondition.parse(text) for text in source.get("exclude", ()))
        if "grids" not in source:
            return cls((ParameterGrid.restore(source, exclude, ("sweep",)),))
        return cls(
            tuple(
                ParameterGrid.restore(grid, exclude, ("sweep", number))
                for number, grid in enumerate(source["grids"])
            )
        )
