"""What will come of the fits of a sweep: which diverge, and after how many updates others are done.

Of squared objectives, with gradient descent and momentum, from the eigenvalues of the Hessian: in
exact arithmetic, expected over the random starts. Made without torch.

Shapes: F kinds of fits, M = degree + 1 coefficients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Array, Index, Mask
from polyfit.numerics.convergence import (
    NEAR,
    NEVER,
    Descent,
    Directions,
    rounding_loss,
)
from polyfit.numerics.design import Design, design
from polyfit.numerics.dtypes import holds_problem, holds_rate
from polyfit.numerics.formula import Formula
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noisy, target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.fit import CANONICAL_ORDER, LOSS_GROWTH, SQUARED, Rate
from polyfit.spec.fit_table import FitTable
from polyfit.spec.optimizer import Optimizer
from polyfit.spec.rate import curvature, learning_rate, stability_limit
from polyfit.spec.representatives import first_of_each_kind, spread_order
from polyfit.spec.sweep import Sweep

__all__ = ["Future", "Kind", "Prediction", "two_digits"]

MAX_KINDS: Final = 1 << 12
MAX_COST: Final = 100_000_000
"""Additions that designs, observations and their directions may cost: about a second. Of more
kinds a sample is looked at."""

_SURE: Final = 1e6
"""The loss expected over random starts grows by so much more than tenfold where all diverge: of a
thousand starts not one lies so near the stable directions."""

_AT_LIMIT: Final = 4.0
"""In units of rounding of the dtype: a rate so near the limit may be on either side of it."""

_NEWTON: Final = "1 to 20"
"""Updates of Newton's method where the condition is below 100 / epsilon, by trial."""

_KIND_COST: Final = 200_000
"""Of a kind's descent, in additions."""

_MAX_NUMBERS: Final = 1 << 18
"""Numbers of an array: two megabytes."""

_SVD_COST: Final = 30.0
"""Additions for each M^3 of a singular value decomposition."""

StartOf = Callable[[Index, int], Array]

_FIELDS: Final = tuple(name for name in CANONICAL_ORDER if name not in ("seed", "stop"))


class Future(StrEnum):
    """What is predicted of a kind of fits."""

    DIVERGES = "diverges"
    CONVERGES = "converges"
    """Within its steps."""
    TOO_SLOW = "not within its steps"
    ENDS = "ends by itself"
    """Newton's method."""
    STABLE = "not above the limit"
    """It does not grow without end; there is no prediction of how fast it is."""
    AT_LIMIT = "at the limit"
    """It swings for ever: neither comes near the optimum nor grows without end."""
    GROWS = "grows"
    """It is above the limit, and its steps are too few to diverge from any start."""
    UNSTABLE = "above the limit"
    """It may diverge, which its start decides; or its objective bends, and it may not."""
    UNKNOWN = "unknown"
    CANNOT_START = "cannot start"


@dataclass(frozen=True, slots=True)
class Kind:
    """Fits that differ in their seeds alone.

    ``limit`` and ``share`` are None where there is no stability limit, ``condition`` (of the
    Hessian or its bound) where it is beyond float64; ``updates`` until the loss is near the optimum
    is None where that is not predicted or never comes. ``remedy`` is a change that would help, with
    the updates that it would then take.
    """

    fit: int
    fits: int
    values: dict[str, Any]
    limit: float | None
    share: float | None
    condition: float | None
    future: Future
    updates: int | None
    remedy: str | None

    @property
    def steps(self) -> int:
        return int(self.values["steps"])


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
            table = FitTable(grid, fits, _FIELDS)
            budget = max_cost // len(sweep.grids)
            found += _Predictor(table, start + fits, weights, budget, start_of).kinds()
        looked_at = sum(kind.fits for kind in found)
        return cls(sweep.size, tuple(found), sweep.size - looked_at)

    def count(self, future: Future) -> int:
        """How many fits have this future."""
        return sum(kind.fits for kind in self.kinds if kind.future == future)


def _decides(field: str) -> bool:
    return field in _FIELDS and field != "noise_seed"


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
                _Descents(
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


class _Descents:
    """Kinds that share points, degree, basis, dtype, objective and optimizer."""

    def __init__(
        self,
        table: FitTable,
        kinds: Index,
        grid: Grid,
        found: Design,
        of_F: Index,
        q_FM: Array,
        rest_F: Array,
        start_FM: Array | None,
    ) -> None:
        self.kinds, self._table, self._grid, self._of_F = kinds, table, grid, of_F
        self._q_FM, self._rest_F, self._start_FM = q_FM, rest_F, start_FM
        self._design = found
        self._dtype, self._objective, optimizer = table.values(
            ("dtype", "objective", "optimizer"), kinds[0]
        )
        self._optimizer: Optimizer = optimizer
        self._steps_F = table.columns["steps"].array(np.int64)[kinds]
        self._squared = self._objective in SQUARED

    def found(self, fits: Index, weights: Index) -> list[Kind]:
        """The kinds with what is predicted of them."""
        futures, updates = self._futures()
        remedies = self._remedies(futures)
        return [
            Kind(
                int(fits[k]),
                int(weights[k]),
                {name: self._table.value(name, kind) for name in _FIELDS},
                _finite(self._limit_F[k]),
                _finite(self._share_F[k]),
                _finite(self._condition_F[k]),
                futures[k],
                int(updates[k]) if futures[k] in _COUNTED and updates[k] < NEVER else None,
                remedies[k],
            )
            for k, kind in enumerate(self.kinds.tolist())
        ]

    # --- what is known of the kinds ---

    @cached_property
    def _directions(self) -> Directions:
        return Directions.of(self._design.R_MM).take(self._of_F)

    @cached_property
    def _bound_F(self) -> Array:
        return curvature(self._objective, self._design.sigma, self._grid.points)[self._of_F]

    @cached_property
    def _limit_F(self) -> Array:
        linear = self._optimizer.traits.linear
        limit = stability_limit(self._optimizer, self._bound_F)
        return limit if linear else np.full_like(limit, np.nan)

    @cached_property
    def _rate_F(self) -> Array:
        return self._rates([self._table.value("lr", kind) for kind in self.kinds])

    def _rates(self, asked: Sequence[Rate]) -> Array:
        return learning_rate(asked, np.arange(len(asked)), self._optimizer, self._bound_F)

    @cached_property
    def _share_F(self) -> Array:
        return self._rate_F / self._limit_F

    @cached_property
    def _condition_F(self) -> Array:
        sigma = self._directions.sigma_FM
        return (sigma[:, 0] / sigma[:, -1]) ** 2

    @cached_property
    def _newton_F(self) -> Mask:
        """Where Newton's method surely comes near the optimum: its rounding hides no direction."""
        return np.asarray(self._condition_F * np.finfo(self._dtype).eps < 100.0)

    @cached_property
    def _near_F(self) -> Array:
        """The excess that counts as near the optimum, of the sum of squares."""
        R_FMM = self._design.R_MM[self._of_F]
        return NEAR * self._rest_F + rounding_loss(self._dtype, R_FMM, self._q_FM)

    @cached_property
    def _starts(self) -> Mask:
        """Which kinds can start."""
        newton = self._optimizer.traits.second_order
        R_FMM = self._design.R_MM[self._of_F]
        held = holds_problem(self._dtype, newton, R_FMM, self._q_FM)
        return held & holds_rate(self._dtype, self._rate_F)

    # --- what follows ---

    def _futures(self) -> tuple[list[Future], Index]:
        """What is predicted, and the updates until the loss is near the optimum."""
        never = np.full(len(self.kinds), NEVER)
        if self._optimizer.traits.second_order:
            return self._if_started([Future.ENDS] * len(never)), never
        if not self._optimizer.traits.linear or self._objective == "l1":
            return self._if_started([Future.UNKNOWN] * len(never)), never
        if not self._squared:
            bent = [Future.UNSTABLE if share > 1 else Future.STABLE for share in self._share_F]
            return self._if_started(bent), never
        descent = self._descent(self._directions, self._rate_F)
        updates = descent.first_below(self._near_F)
        above = self._above(descent)
        late = np.where(updates > self._steps_F, Future.TOO_SLOW, Future.CONVERGES)
        off = self._share_F - 1.0
        tiny = _AT_LIMIT * np.finfo(self._dtype).eps
        found = np.where(off > tiny, above, np.where(off >= -tiny, Future.AT_LIMIT, late))
        return self._if_started([Future(future) for future in found]), updates

    def _above(self, descent: Descent) -> npt.NDArray[Any]:
        """What is predicted of each kind if its rate is above the limit."""
        first, last = (
            self._rest_F + descent.excess(k) for k in (np.zeros_like(self._steps_F), self._steps_F)
        )
        sure = 1.0 if self._start_FM is not None else _SURE
        never = descent.largest_growth(self._steps_F) <= LOSS_GROWTH
        grows = np.where(never, Future.GROWS, Future.UNSTABLE)
        return np.where(last > sure * LOSS_GROWTH * first, Future.DIVERGES, grows)

    def _if_started(self, futures: list[Future]) -> list[Future]:
        pairs = zip(self._starts, futures, strict=True)
        return [future if starts else Future.CANNOT_START for starts, future in pairs]

    def _descent(self, directions: Directions, rate_F: Array) -> Descent:
        divisor = self._grid.points if self._objective == "mse" else 1
        z_FM = rate_F[:, None] * 2.0 * directions.sigma_FM**2 / divisor
        excess_FM = directions.excess(self._q_FM, self._start_FM)
        return Descent(z_FM, excess_FM, self._optimizer.beta)

    def _remedies(self, futures: list[Future]) -> list[str | None]:
        """A change that would help each kind that diverges or is too slow."""
        ill = np.array([future in _ILL for future in futures])
        remedies: list[str | None] = [None] * len(futures)
        if not (self._squared and ill.any()):
            return remedies
        half = self._rates([Rate("auto")] * len(futures))
        by_rate = self._descent(self._directions, half).first_below(self._near_F)
        by_basis = self._in_chebyshev()
        for k in np.flatnonzero(ill).tolist():
            steps, rate = self._steps_F[k], self._table.value("lr", int(self.kinds[k]))
            if by_rate[k] <= steps:
                remedies[k] = f"lr: auto (~{two_digits(by_rate[k]):,})"
            elif by_basis[k] <= steps:
                also = "" if rate in (Rate("auto"), Rate("of_limit", 0.5)) else ", lr: auto"
                remedies[k] = f"basis: chebyshev{also} (~{two_digits(by_basis[k]):,})"
            elif self._newton_F[k]:
                also = "" if rate.kind == "auto" else ", lr: auto"
                remedies[k] = f"optimizer: newton{also} ({_NEWTON})"
        return remedies

    def _in_chebyshev(self) -> Index:
        """The updates in Chebyshev polynomials at half the limit; q does not depend on the basis"""
        grid = Grid(-1.0, 1.0, self._grid.points, self._grid.degree, "chebyshev")
        found = design(grid)
        of_F = np.zeros(len(self.kinds), dtype=np.int64)
        bound = curvature(self._objective, np.atleast_1d(found.sigma), grid.points)
        rate_F = 0.5 * stability_limit(self._optimizer, bound)[of_F]
        descent = self._descent(Directions.of(found.R_MM[None]).take(of_F), rate_F)
        return descent.first_below(self._near_F)


_COUNTED: Final = (Future.CONVERGES, Future.TOO_SLOW)
_ILL: Final = (*(Future.DIVERGES, Future.UNSTABLE, Future.GROWS, Future.AT_LIMIT, Future.TOO_SLOW),)


def two_digits(updates: int) -> int:
    """A number of updates with two digits: more would promise what no start keeps."""
    return int(float(f"{updates:.2g}"))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
