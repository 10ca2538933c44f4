"""Newton's method: a few updates, each of many terms, one operation of torch at a time."""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from polyfit.engine.eager import Eager
from polyfit.engine.model import Coefficients
from polyfit.engine.outcome import Index, Numbers

__all__ = ["Newton"]


class Newton(Eager):
    """Newton's method, damped as Levenberg and Marquardt do: a few updates, each of many terms.

    The Hessian gets a share ``damping`` of its bound's diagonal. A step that does not lessen the
    loss is not taken, and the next is damped ten times more; one that does is followed by ten
    times less. A fit has converged where no step can lessen its loss any more.

    Marquardt, An algorithm for least-squares estimation of nonlinear parameters (1963).
    """

    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        R_PMM = self.problems.R_PMM
        share = {"sse": 2.0, "mse": 2.0 / self.kind.points}.get(self.kind.objective, 1.0)
        with np.errstate(all="ignore"):  # beyond float64 no fit has come here
            self.bound_PM = share * (R_PMM * R_PMM).sum(axis=1)
        super()._begin(fits, start_BM, lr_B)
        # Beside the coefficients: the damping, and whether no step lessens the loss any more.
        self.moments = [[torch.full_like(self.lr, _DAMPING), torch.zeros_like(self.lr)]]
        self.hessian: list[list[Tensor]] = []

    def _take_up(self, fits: Index) -> None:
        super()._take_up(fits)
        of = self.problems.of_B[fits]
        self.bounds = [self._vector(column[of]).to(self.lr.dtype) for column in self.bound_PM.T]

    def _compact(self, losses: Tensor, g: Coefficients) -> tuple[Tensor, Coefficients]:
        running, size = self.going.nonzero().squeeze(1), self.kind.size
        kept = super()._compact(losses, g)
        self.hessian = [
            [self.hessian[i][j].index_select(0, running) for j in range(i + 1)] for i in range(size)
        ]
        return kept

    def _gradient(self) -> tuple[Tensor, Coefficients]:
        for value in self.c:
            value.requires_grad_()
        losses = self.objective(self.c)
        ones = torch.ones_like(losses)
        g = torch.autograd.grad(losses, self.c, ones, create_graph=True)
        self.hessian = [
            [
                torch.zeros_like(losses) if part is None else part
                for part in torch.autograd.grad(
                    slope, self.c[: i + 1], ones, retain_graph=True, allow_unused=True
                )
            ]
            if slope.requires_grad
            else [torch.zeros_like(losses)] * (i + 1)
            for i, slope in enumerate(g)
        ]
        for value in self.c:
            value.requires_grad_(False)
        return losses.detach(), [slope.detach() for slope in g]

    def _update(self, update: int, losses: Tensor, g: Coefficients) -> None:
        damping, settled = self.moments[0]
        matrix = [
            [*row[:-1], row[-1] + damping * bound]
            for row, bound in zip(self.hessian, self.bounds, strict=True)
        ]
        step = _solved(matrix, g)
        trial = [c - self.lr * d for c, d in zip(self.c, step, strict=True)]
        with torch.no_grad():
            lessened = losses - self.objective(trial)
        promised = step[0] * g[0]  # twice what the step lessens on a quadratic
        for d, slope in zip(step[1:], g[1:], strict=True):
            promised = promised + d * slope
        epsilon = torch.finfo(losses.dtype).eps
        unseen = promised.abs() <= _NOISE * epsilon * losses
        straight = torch.zeros_like(unseen)  # no curvature: a step is as short as it is damped
        for row, bound in zip(self.hessian, self.bounds, strict=True):
            straight = straight | (row[-1] <= epsilon * bound)
        better = lessened >= 0.0
        self.c = [torch.where(better, t, c) for t, c in zip(trial, self.c, strict=True)]
        ratio = lessened / promised
        change = torch.where(ratio > 0.1, 1.0, 3.0).to(losses.dtype)
        longer = (ratio > 0.4) | (unseen & straight)
        change = torch.where(longer, torch.full_like(change, 0.1), change)
        change = torch.where(better, change, torch.full_like(change, 10.0))
        free = (damping <= _SMALL_DAMPING) & ~straight
        flat = unseen & (free | (damping <= _LEAST_DAMPING))
        stuck = (damping >= _MOST_DAMPING) & ~straight & torch.isfinite(promised)
        settled = torch.where(flat | stuck, torch.ones_like(settled), settled)
        self.moments = [[(damping * change).clamp(_LEAST_DAMPING, _MOST_DAMPING), settled]]

    def _stopped(self, losses: Tensor, g: Coefficients) -> Tensor:
        return (self.moments[0][1] > 0.5) | super()._stopped(losses, g)


_NOISE: Final = 64.0
"""In units of the last place of a loss: changes below are rounding, not progress."""
_SMALL_DAMPING: Final = 1e-2
"""A step damped more than this may be short for the damping's sake alone."""
_DAMPING: Final = 1e-3
_LEAST_DAMPING: Final = 1e-18
"""Below every rounding error of a Hessian: as good as none."""
_MOST_DAMPING: Final = 1e9
"""Steps this small, along the gradient, are lost in the coefficients' rounding."""


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
        # Until here row[j] was L D; the other rows need L alone on one side of each product.
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
