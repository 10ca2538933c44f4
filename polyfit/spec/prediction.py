"""What will come of the fits of a sweep: which diverge, and after how many updates others are done.

Of squared objectives, with gradient descent and momentum, from the eigenvalues of the Hessian: in
exact arithmetic, expected over the random starts. Made without torch.

Shapes: F kinds of fits, M = degree + 1 coefficients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from polyfit.numerics.arrays import Array, Index
from polyfit.numerics.design import design
from polyfit.numerics.formula import Formula
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noisy, target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.descents import Descents
from polyfit.spec.fit_table import FitTable
from polyfit.spec.future import KIND_FIELDS, Future, Kind
from polyfit.spec.representatives import first_of_each_kind, spread_order
from polyfit.spec.sweep import Sweep

__all__ = ["Prediction", "StartOf"]

MAX_KINDS: Final = 1 << 12
MAX_COST: Final = 100_000_000
"""Additions that designs, observations and their directions may cost: about a second. Of more
kinds a sample is looked at."""

_KIND_COST: Final = 200_000
"""Of a kind's descent, in additions."""

_MAX_NUMBERS: Final = 1 << 18
"""Numbers of an array: two megabytes."""

_SVD_COST: Final = 30.0
"""Additions for each M^3 of a singular value decomposition."""

StartOf = Callable[[Index, int], Array]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was found of the ``kinds`` of fits; ``unchecked`` fits were not looked at."""

    fits: int
    kinds: tuple[Kind, ...]
    unchecked: int

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        max_cost: int = MAX_COST,
        max_kinds: int = MAX_KINDS,
        start_of: StartOf | None = None,
    ) -> "Prediction":
        """Look at ``sweep``, at the cost of so many additions and kinds of fit at most.

        With ``start_of``, which gives the start values of some fits (F,) that have so many
        coefficients, the prediction is that of the first fit of each kind, and exact.
        """
        found: list[Kind] = []
        for start, grid in zip(sweep.starts, sweep.grids, strict=True):
            fits, weights = first_of_each_kind(grid, max_kinds, _decides, spread=True)
            table = FitTable(grid, fits, KIND_FIELDS)
            budget = max_cost // len(sweep.grids)
            found += _Predictor(table, start + fits, weights, budget, start_of).kinds()
        looked_at = sum(kind.fits for kind in found)
        return cls(sweep.size, tuple(found), sweep.size - looked_at)

    def count(self, future: Future) -> int:
        """How many fits have this future."""
        return sum(kind.fits for kind in self.kinds if kind.future == future)


def _decides(field: str) -> bool:
    return field in KIND_FIELDS and field != "noise_seed"


class _Predictor:
    """Predicts piece by piece: kinds that share points, degree and basis, and are few enough."""

    def __init__(
        self,
        table: FitTable,
        fits: Index,
        weights: Index,
        budget: int,
        start_of: StartOf | None,
    ) -> None:
        self._table, self._fits, self._weights = table, fits, weights
        self._budget, self._start_of = float(budget), start_of

    def kinds(self) -> list[Kind]:
        table, found = self._table, []
        for group in table.groups(("points", "degree", "basis"), self._affordable()):
            points, degree, basis = table.values(("points", "degree", "basis"), group[0])
            most = max(1, _MAX_NUMBERS // max(points, (degree + 1) ** 2))
            for low in range(0, len(group), most):
                grid = Grid(-1.0, 1.0, points, degree, basis)
                found += self._piece(group[low : low + most], grid)
        return sorted(found, key=lambda kind: kind.fit)

    def _affordable(self) -> Index:
        """All kinds if the budget covers them, else a sample, none of which takes more than half
        of what is left."""
        every = np.arange(self._table.num_fits)
        first, design_of = self._table.distinct(("points", "degree", "basis"), every)
        own, design = self._costs()
        if own.sum() + design[first].sum() <= self._budget:
            return every
        chosen, made = [], set()
        for kind in spread_order(len(every)).tolist():
            cost = own[kind] + (0.0 if design_of[kind] in made else design[kind])
            if cost <= self._budget / 2:
                chosen.append(kind)
                made.add(design_of[kind])
                self._budget -= cost
        return np.array(sorted(chosen), dtype=np.int64)

    def _costs(self) -> tuple[Array, Array]:
        """The cost of each kind, and of its design, which it may share."""
        points, terms = self._table.numbers("points"), self._table.numbers("degree") + 1.0
        formula = self._table.view("target", lambda text: float(Formula(text).cost))
        own = points * (formula + 20.0 + 3.0 * terms) + _SVD_COST * terms**3 + _KIND_COST
        return own, 4.0 * points * terms**2

    def _piece(self, kinds: Index, grid: Grid) -> list[Kind]:
        """The kinds, which have the points, degree and basis of ``grid``."""
        table = self._table
        first, of = table.distinct(("range",), kinds)
        with np.errstate(all="ignore"):
            found = design(table.grids(kinds[first], grid.points, grid.degree, grid.basis))
            q_FM, rest_F = self._reduced(kinds, grid)
            starts = self._start_of
            pieces = [
                Descents(
                    table,
                    kinds[some],
                    grid,
                    found,
                    of[some],
                    q_FM[some],
                    rest_F[some],
                    starts(self._fits[kinds[some]], grid.degree + 1) if starts else None,
                )
                for some in self._groups(kinds)
            ]
            return [
                kind
                for piece in pieces
                for kind in piece.found(self._fits[piece.kinds], self._weights[piece.kinds])
            ]

    def _groups(self, kinds: Index) -> list[Index]:
        """Places in ``kinds`` that have the same dtype, objective and optimizer."""
        groups = self._table.groups(("dtype", "objective", "optimizer"), kinds)
        return [np.searchsorted(kinds, group) for group in groups]

    def _reduced(self, kinds: Index, grid: Grid) -> tuple[Array, Array]:
        """The observations of the kinds, reduced: q, shape (F, M), and the optimum, shape (F,)."""
        table = self._table
        q, rest = np.empty((len(kinds), grid.degree + 1)), np.empty(len(kinds))
        for group in table.groups(("target",), kinds):
            grids = table.grids(group, grid.points, 0, "power")
            y = target_values(table.value("target", group[0]), grids)
            seeds = table.columns["noise_seed"].array(np.uint64)[group]
            y = noisy(y, np.arange(len(y)), table.numbers("noise")[group], seeds)
            at = np.searchsorted(kinds, group)
            q[at], rest[at] = reduce(grid.degree, y)
        return q, rest
