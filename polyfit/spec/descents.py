"""The descent of kinds of fits on one design: whether it ends near the optimum, and when.

Shapes: F kinds of fits, M = degree + 1 coefficients.
"""

from collections.abc import Sequence
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
from polyfit.numerics.grid import Grid
from polyfit.spec.fit import LOSS_GROWTH, SQUARED, Rate
from polyfit.spec.fit_table import FitTable
from polyfit.spec.future import KIND_FIELDS, Future, Kind, two_digits
from polyfit.spec.optimizer import Optimizer
from polyfit.spec.rate import curvature, learning_rate, limit_share, stability_limit

__all__ = ["Descents"]

_SURE: Final = 1e6
"""The loss expected over random starts grows by so much more than tenfold where all diverge: of a
thousand starts not one lies so near the stable directions."""

_AT_LIMIT: Final = 4.0
"""In units of rounding of the dtype: a rate so near the limit may be on either side of it."""

_NEWTON: Final = "1 to 20"
"""Updates of Newton's method where the condition is below 100 / epsilon, by trial."""


class Descents:
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
                {name: self._table.value(name, kind) for name in KIND_FIELDS},
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
        return self._rates(self._asked)

    @cached_property
    def _asked(self) -> list[Rate]:
        return [self._table.value("lr", kind) for kind in self.kinds]

    def _rates(self, asked: Sequence[Rate]) -> Array:
        return learning_rate(asked, np.arange(len(asked)), self._optimizer, self._bound_F)

    @cached_property
    def _share_F(self) -> Array:
        return limit_share(self._asked, np.arange(len(self.kinds)), self._rate_F, self._limit_F)

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


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
