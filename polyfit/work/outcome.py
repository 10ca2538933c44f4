"""How the fits of a batch ended, judged after their evaluation: near the optimum or not, and why.

Shapes: B fits, M = degree + 1 coefficients, P problems, K recorded updates. Arithmetic on fits is
elementwise over the batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from polyfit.engine.batch import (
    COMPLETED,
    CONVERGED,
    DIVERGED,
    STATUSES,
    BatchConfig,
    BatchInputs,
    BatchResult,
)
from polyfit.engine.batch_data import BatchData
from polyfit.engine.evaluation import Evaluation
from polyfit.numerics.arrays import Array, Index, Mask, chunks
from polyfit.numerics.convergence import NEAR, rounding_loss
from polyfit.numerics.dtypes import holds_problem, holds_rate
from polyfit.run.schema import REASONS, STALLED

__all__ = ["ROW_STATUSES", "Outcome"]

ROW_STATUSES: Final = (*STATUSES, STALLED)
"""The statuses of rows: an engine's, and one that it cannot know."""

_STALLED: Final = len(STATUSES)

_CHUNK: Final = 1 << 20
"""Recorded numbers that are compared at a time."""


@dataclass(frozen=True)
class Outcome:
    """A batch's inputs, its results, and what its rows say of the final coefficients.

    ``limit_B`` are the stability limits, NaN where there is none.
    """

    inputs: BatchInputs
    data: BatchData
    limit_B: Array
    result: BatchResult
    found: Evaluation

    @property
    def status_B(self) -> Index:
        """Each fit's place in ``ROW_STATUSES``: converged far from the optimum is stalled."""
        stalled = (self.result.status_B == CONVERGED) & self._far
        return np.where(stalled, _STALLED, self.result.status_B).astype(np.int64)

    @property
    def steps_to_1pct_B(self) -> Index:
        """The first recorded update with a loss near the optimum, else the end; -1 for neither.

        Only where losses are recorded and the optimum is known.
        """
        losses, updates = self.result.recorded.get("loss"), np.array(self.inputs.updates)
        if losses is None or not self.inputs.config.squared:
            return np.full(len(self.limit_B), -1, dtype=np.int64)
        taken = self.result.steps_taken_B
        found = np.where((self.found.excess <= self._allowed) & (taken > 0), taken, -1)
        with np.errstate(all="ignore"):
            most = self._optimum + self._allowed
        for some in chunks(len(found), len(updates), _CHUNK) if len(updates) else ():
            near = (losses[:, some] <= most[some]) & (updates[:, None] < taken[some])
            found[some] = np.where(near.any(axis=0), updates[near.argmax(axis=0)], found[some])
        return found

    def reasons(self) -> Iterator[tuple[Index, str]]:
        """Fits of the batch and why they ended so, as texts of ``REASONS``; the others need none.

        Each fit comes once.
        """
        status, started = self.result.status_B, self.result.steps_taken_B > 0
        if not started.all():
            yield from self._unstarted(~started)
        diverged, above = started & (status == DIVERGED), self.inputs.lr_B > self.limit_B
        finite = self.found.loss <= np.finfo(self.inputs.config.numpy_dtype).max
        stop = self.inputs.config.stop
        completed = (status == COMPLETED) & self._far
        stalled = (status == CONVERGED) & self._far
        cases = (
            ("above limit", (diverged | completed) & above),
            ("grown", diverged & ~above & finite),
            ("not finite", diverged & ~above & ~finite),
            ("steps", completed & ~above),
            (stop.kind if stop else "newton", stalled),
        )
        yield from ((np.flatnonzero(some), REASONS[cause]) for cause, some in cases if some.any())

    @cached_property
    def _far(self) -> Mask:
        """Which fits ended above what counts as near the optimum; none where that is unknown."""
        if not self.inputs.config.squared:
            return np.zeros(len(self.limit_B), dtype=np.bool_)
        return np.asarray(self.found.excess > self._allowed)

    @cached_property
    def _optimum(self) -> Array:
        problems, config = self.inputs.problems, self.inputs.config
        return problems.rest_P[problems.of_B] / _divisor(config)

    @cached_property
    def _allowed(self) -> Array:
        """The excess over the optimum that counts as near it, shape (B,)."""
        config, problems = self.inputs.config, self.inputs.problems
        rounding_P = rounding_loss(config.numpy_dtype, problems.R_PMM, problems.q_PM)
        with np.errstate(all="ignore"):
            return NEAR * self._optimum + rounding_P[problems.of_B] / _divisor(config)

    def _unstarted(self, fits: Mask) -> Iterator[tuple[Index, str]]:
        """Why ``fits`` could not start; the first of several reasons."""
        config, problems, lr = self.inputs.config, self.inputs.problems, self.inputs.lr_B
        dtype, newton = np.dtype(config.numpy_dtype), config.optimizer.traits.second_order
        of, q = problems.of_B, problems.q_PM
        for text, bad_P in self._bad_targets():
            yield np.flatnonzero(fits & bad_P[of]), text
            fits = fits & ~bad_P[of]
        data = ~(np.abs(q) <= np.finfo(dtype).max).all(axis=1)[of]
        basis = ~holds_problem(dtype.name, newton, problems.R_PMM, np.zeros_like(q))[of]
        rate, large = ~holds_rate(dtype.name, lr), lr > 1.0
        cases = (
            ("data", data),
            ("basis", basis & ~data),
            ("rate overflows", rate & large & ~basis & ~data),
            ("rate underflows", rate & ~large & ~basis & ~data),
        )
        yield from ((np.flatnonzero(fits & some), REASONS[cause]) for cause, some in cases)

    def _bad_targets(self) -> Iterator[tuple[str, Mask]]:
        """Targets that are not finite, by the first x where: the text, and which problems, (P,)."""
        data = self.data
        finite_CN = np.isfinite(data.clean_CN)
        bad_P = ~np.asarray(finite_CN.all(axis=1))[data.clean_of_P]
        if bad_P.any():
            first = finite_CN.argmin(axis=1)[data.clean_of_P]
            x = data.grid.middle + data.grid.half * data.grid.t()[first]
            for value in np.unique(x[bad_P]):
                yield REASONS["target"].format(x=value), bad_P & (x == value)


def _divisor(config: BatchConfig) -> int:
    return config.points if config.objective == "mse" else 1
