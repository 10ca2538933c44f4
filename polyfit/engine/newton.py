"""Newton's method: few updates, each of many terms, one operation of torch at a time."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from polyfit.engine.batch import BatchConfig, Index, Problems
from polyfit.engine.objective import Coefficients, Objective
from polyfit.engine.optimizer import UpdateRule

__all__ = ["Newton"]

_NOISE: Final = 64.0
"""In units of the last place of a loss: smaller changes are rounding, not progress."""
_SMALL_DAMPING: Final = 1e-2
"""A step with more damping than this may be short because of the damping alone."""
_FIRST_DAMPING: Final = 1e-3
_LEAST_DAMPING: Final = 1e-18
"""Below every rounding error of a Hessian: no damping at all."""
_MOST_DAMPING: Final = 1e9
"""Such small steps along the gradient are lost in the rounding of the coefficients."""


class Newton(UpdateRule):
    """Newton's method, damped as Levenberg and Marquardt do.

    The Hessian gets a share ``damping`` of its bound's diagonal. A step that does not reduce the
    loss is not taken, and the next is damped ten times more; one that does is followed by ten
    times less. A fit has converged when no step can reduce its loss any more.

    Marquardt, An algorithm for least-squares estimation of nonlinear parameters (1963).
    """

    def __init__(
        self, config: BatchConfig, problems: Problems, fits: Index, c: Coefficients, lr: Tensor
    ) -> None:
        self.c, self.lr = c, lr
        share = {"sse": 2.0, "mse": 2.0 / config.points}.get(config.objective, 1.0)
        with np.errstate(all="ignore"):  # fits that overflow here are not started
            bound_PM = share * (problems.R_PMM * problems.R_PMM).sum(axis=1)
        bound_BM = torch.tensor(bound_PM[problems.of_B[fits]]).to(lr.device, lr.dtype)
        self.bounds = list(bound_BM.T.contiguous())
        self.damping = torch.full_like(lr, _FIRST_DAMPING)
        self.stuck = torch.zeros_like(lr, dtype=torch.bool)
        self.hessian: list[list[Tensor]] = []

    def settled(self) -> Tensor:
        return self.stuck

    def select(self, fits: Tensor) -> None:
        def pick(vectors: list[Tensor]) -> list[Tensor]:
            return [vector.index_select(0, fits) for vector in vectors]

        self.c, self.bounds = pick(self.c), pick(self.bounds)
        self.lr, self.damping, self.stuck = pick([self.lr, self.damping, self.stuck])

    def gradient(self, objective: Objective) -> tuple[Tensor, Coefficients]:
        """Losses and the gradient; the Hessian's lower triangle is kept for the update."""
        for value in self.c:
            value.requires_grad_()
        losses = objective(self.c)
        ones, zeros = torch.ones_like(losses), torch.zeros_like(losses)
        g = torch.autograd.grad(losses, self.c, ones, create_graph=True)
        self.hessian = [
            [
                zeros if part is None else part
                for part in torch.autograd.grad(
                    slope, self.c[: i + 1], ones, retain_graph=True, allow_unused=True
                )
            ]
            if slope.requires_grad
            else [zeros] * (i + 1)
            for i, slope in enumerate(g)
        ]
        for value in self.c:
            value.requires_grad_(False)
        return losses.detach(), [slope.detach() for slope in g]

    def update(self, number: int, objective: Objective, losses: Tensor, g: Coefficients) -> None:
        damping = self.damping
        matrix = [
            [*row[:-1], row[-1] + damping * bound]
            for row, bound in zip(self.hessian, self.bounds, strict=True)
        ]
        step = _solved(matrix, g)
        trial = [c - self.lr * d for c, d in zip(self.c, step, strict=True)]
        with torch.no_grad():
            reduction = losses - objective(trial)
        promised = step[0] * g[0]  # twice the reduction on a quadratic
        for d, slope in zip(step[1:], g[1:], strict=True):
            promised = promised + d * slope
        epsilon = torch.finfo(losses.dtype).eps
        in_noise = promised.abs() <= _NOISE * epsilon * losses
        straight = torch.zeros_like(in_noise)  # no curvature: damping alone limits the step
        for row, bound in zip(self.hessian, self.bounds, strict=True):
            straight = straight | (row[-1] <= epsilon * bound)
        better = reduction >= 0.0
        self.c = [torch.where(better, t, c) for t, c in zip(trial, self.c, strict=True)]
        ratio = reduction / promised
        factor = torch.where(ratio > 0.1, 1.0, 3.0).to(losses.dtype)
        longer = (ratio > 0.4) | (in_noise & straight)
        factor = torch.where(longer, torch.full_like(factor, 0.1), factor)
        factor = torch.where(better, factor, torch.full_like(factor, 10.0))
        undamped = (damping <= _SMALL_DAMPING) & ~straight
        flat = in_noise & (undamped | (damping <= _LEAST_DAMPING))
        short = (damping >= _MOST_DAMPING) & ~straight & torch.isfinite(promised)
        self.stuck = self.stuck | flat | short
        self.damping = (damping * factor).clamp(_LEAST_DAMPING, _MOST_DAMPING)


def _solved(matrix: list[list[Tensor]], right: Coefficients) -> Coefficients:
    """Solve a symmetric positive definite system per fit, from its lower triangle.

    Factors L D L', elementwise over the fits: Golub and Van Loan, Matrix Computations, 4th ed.,
    algorithm 4.1.2.
    """
    size = len(right)
    lower: list[list[Tensor]] = []
    pivots: list[Tensor] = []
    for i in range(size):
        row: list[Tensor] = []
        for j in range(i):
            entry = matrix[i][j]
            for k in range(j):
                entry = entry - row[k] * lower[j][k]
            row.append(entry)
        pivot = matrix[i][i]
        for j in range(i):
            scaled = row[j] / pivots[j]
            pivot = pivot - row[j] * scaled
            row[j] = scaled
        lower.append(row)
        pivots.append(pivot)
    return _substituted(lower, pivots, right)


def _substituted(
    lower: list[list[Tensor]], pivots: list[Tensor], right: Coefficients
) -> Coefficients:
    size = len(right)
    z: Coefficients = []
    for i in range(size):
        value = right[i]
        for j in range(i):
            value = value - lower[i][j] * z[j]
        z.append(value)
    x = [value / pivot for value, pivot in zip(z, pivots, strict=True)]
    for i in reversed(range(size)):
        for j in range(i + 1, size):
            x[i] = x[i] - lower[j][i] * x[j]
    return x
