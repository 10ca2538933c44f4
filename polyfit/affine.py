"""gd and momentum on a squared objective as what they are: one affine map, raised to powers.

One update's map is taken from autograd at one point, and where it leads after many updates comes
from repeated squaring: the same trajectory to rounding, at a cost that does not grow with the
updates between two records. All in float64; coefficients and records are rounded to the dtype of
the fit. What overflows on its way is iterated instead, so that it ends as the iteration says.

Shapes as in ``fit``; ``S`` = M (1 + moments) numbers of a fit's state, ``G`` distinct maps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit import kernels
from polyfit.blocks import PARAMETERS, POINTS, Leap
from polyfit.fit import COMPLETED, DIVERGED, LOSS_GROWTH, Outcome, fit, objective_of, usable
from polyfit.model import (
    MOMENTS,
    Array,
    Hyper,
    Kind,
    Problems,
    gradient,
    norm,
    squared,
    traced_gradient,
    updated,
)

__all__ = ["difference", "leap", "tolerance"]

_NEAR_OVERFLOW: Final = 1e-8
"""Of the largest number of a dtype: what has come this near may have overflowed on its way."""

_CPU: Final = torch.device("cpu")


def leap(
    kind: Kind,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
) -> Outcome:
    """``fit`` for a squared objective with gd or momentum and no stop rule, on the CPU.

    Raises:
        ClusterError: there is no C++ compiler.
    """
    fits = np.flatnonzero(usable(kind, problems, lr_B))
    if not len(fits):  # fit says of these what there is to say
        return fit(kind, problems, start_BM, lr_B, updates, record, _CPU, "eager")
    run = _Leaps(kind, problems, start_BM, lr_B, fits, record, len(updates))
    at = 0
    for slot, update in enumerate(updates):
        run.to(update - at)
        run.keep(slot)
        at = update
    run.to(kind.steps - at)
    outcome = run.ended()
    strange = fits[run.strange]
    if len(strange):
        part = replace(problems, of_B=problems.of_B[strange])
        found = fit(kind, part, start_BM[strange], lr_B[strange], updates, record, _CPU, "eager")
        outcome.coefficients_BM[strange] = found.coefficients_BM
        outcome.steps_taken_B[strange] = found.steps_taken_B
        outcome.status_B[strange] = found.status_B
        for name, values in found.recorded.items():
            outcome.recorded[name][:, strange] = values
    return outcome


def tolerance(kind: Kind) -> float:
    """How far an iteration may be from the leaps: some roundings per update, all one way.

    Momentum remembers each of them for 1 / (1 - beta) updates.
    """
    memory = 1.0 / (1.0 - kind.optimizer.beta)
    return 8.0 * max(kind.steps, 100) * memory * torch.finfo(kind.dtype).eps


def difference(one: Outcome, other: Outcome) -> float:
    """The largest difference of coefficients, relative to the largest of each fit.

    Fits that have diverged are left out: their growth amplifies every rounding.
    """
    sound = (one.status_B != DIVERGED) & (other.status_B != DIVERGED)
    if (one.status_B[sound] != other.status_B[sound]).any():
        return float("inf")
    a, b = (o.coefficients_BM[sound].astype(np.float64) for o in (one, other))
    if not len(a):
        return 0.0
    scale = np.maximum(np.abs(b).max(axis=1), np.finfo(np.float32).tiny)
    return float((np.abs(a - b).max(axis=1) / scale).max())


class _Leaps:
    """A batch on its way: the state after so many updates, as S vectors of shape (B,)."""

    def __init__(
        self,
        kind: Kind,
        problems: Problems,
        start_BM: npt.NDArray[np.float32],
        lr_B: Array,
        fits: npt.NDArray[np.int64],
        record: Sequence[str],
        slots: int,
    ) -> None:
        self.kind, self.fits = kind, fits
        batch, size = start_BM.shape
        self.dtype = np.float32 if kind.dtype == torch.float32 else np.float64
        shapes = {"loss": (), "gradient_norm": (), "coefficients": (size,)}
        self.outcome = Outcome(
            start_BM.astype(self.dtype),
            np.zeros(batch, dtype=np.int64),
            np.full(batch, DIVERGED, dtype=np.int8),
            {
                name: np.full((slots, batch, *shapes[name]), np.nan, dtype=self.dtype)
                for name in record
            },
        )
        self.strange = np.zeros(len(fits), dtype=np.bool_)
        self.problems = replace(problems, of_B=problems.of_B[fits])
        self.maps = _Maps(kind, self.problems, lr_B[fits])
        count = size * (1 + MOMENTS[kind.optimizer.name])
        start = np.zeros((count, len(fits)))
        start[:size] = start_BM[fits].T
        self.sides = [torch.tensor(start), torch.empty(count, len(fits), dtype=torch.float64)]
        self.losses, self.extreme = (torch.empty(len(fits), dtype=torch.float64) for _ in "12")
        self.data = self._data()
        self.to(0)
        self.first = self.losses.numpy().copy()

    def _data(self) -> list[Tensor]:
        problems, of = self.problems, self.problems.of_B
        upper = np.triu_indices(self.kind.size)
        R = problems.R_PMM[:, upper[0], upper[1]]
        self.one_R = not np.ptp(R, axis=0).any()
        parameters = np.zeros(PARAMETERS)
        parameters[POINTS] = self.kind.points
        arrays = (R[0] if self.one_R else R[of].T, problems.q_PM[of].T, problems.rest_P[of])
        return [torch.tensor(np.ascontiguousarray(array)) for array in (*arrays, parameters)]

    def to(self, updates: int) -> None:
        """Go so many updates on."""
        matrix, offset = self.maps.power(updates)
        one = matrix.shape[-1] == 1
        count = len(offset)
        spread = matrix[..., 0] if one else matrix[..., self.maps.of_B]
        shift = offset[..., 0] if one else offset[..., self.maps.of_B]
        flat = spread.reshape(count * count, *spread.shape[2:])
        maps = [torch.tensor(np.ascontiguousarray(array)) for array in (flat, shift)]
        kernel = kernels.load(Leap(self.kind, (one, self.one_R)).recipe(), _CPU)
        kernel.bind(
            [*self.sides[0], *maps, *self.data], [*self.sides[1], self.losses, self.extreme]
        )()
        self.sides.reverse()
        self._watch()

    def _watch(self) -> None:
        """Mark the fits that come near overflow in their dtype."""
        most = _NEAR_OVERFLOW * float(np.finfo(self.dtype).max)
        if not float(self.extreme.max()) <= most:  # nor is NaN
            self.strange |= ~(self.extreme <= most).numpy()

    def keep(self, slot: int) -> None:
        """Record the present state."""
        c = self.sides[0][: self.kind.size]
        with np.errstate(over="ignore"):
            self._keep(slot, c)

    def _keep(self, slot: int, c: Tensor) -> None:
        for name, kept in self.outcome.recorded.items():
            if name == "loss":
                values = self.losses
            elif name == "coefficients":
                values = c.T
            else:
                exact = replace(self.kind, dtype=torch.float64)
                every = np.arange(len(self.fits))
                objective = objective_of(exact, self.problems, every, _CPU)
                with torch.enable_grad():
                    values = norm(gradient(objective, [row.clone() for row in c])[1])
            if len(self.fits) == kept.shape[1]:
                kept[slot] = values.numpy()
            else:
                kept[slot, self.fits] = values.numpy()

    def ended(self) -> Outcome:
        """The outcome, the present state being the last."""
        fits = self.fits
        with np.errstate(over="ignore"):
            self.outcome.coefficients_BM[fits] = self.sides[0][: self.kind.size].numpy().T
        self.outcome.steps_taken_B[fits] = self.kind.steps
        grown = self.losses.numpy() > LOSS_GROWTH * self.first
        self.outcome.status_B[fits] = np.where(grown, DIVERGED, COMPLETED)
        return self.outcome


class _Maps:
    """The affine maps of a batch: s -> A s + b, one per problem and rate."""

    def __init__(self, kind: Kind, problems: Problems, lr_B: Array) -> None:
        pairs = np.stack([problems.of_B.astype(np.float64), lr_B])
        if len(lr_B) and not np.ptp(pairs, axis=1).any():
            first, self.of_B = np.zeros(1, dtype=np.int64), np.zeros(len(lr_B), dtype=np.int64)
        else:
            _, first, self.of_B = np.unique(pairs, axis=1, return_index=True, return_inverse=True)
        self.known: dict[int, tuple[Array, Array]] = {}
        self.matrix_SSG, self.offset_SG = _one_step(kind, problems, lr_B[first], first)

    def power(self, updates: int) -> tuple[Array, Array]:
        """The map of so many updates: A^n, shape (S, S, G), and its offset, shape (S, G)."""
        if updates not in self.known:
            count = len(self.offset_SG)
            matrix = np.broadcast_to(np.eye(count)[:, :, None], self.matrix_SSG.shape)
            offset = np.zeros_like(self.offset_SG)
            square = (self.matrix_SSG, self.offset_SG)
            left = updates
            with np.errstate(all="ignore"):
                while left:
                    if left & 1:
                        matrix, offset = _after(square, (matrix, offset))
                    left >>= 1
                    if left:
                        square = _after(square, square)
            self.known[updates] = (matrix, offset)
        return self.known[updates]


def _after(second: tuple[Array, Array], first: tuple[Array, Array]) -> tuple[Array, Array]:
    """The map ``first`` followed by ``second``; sums written out, elementwise over the maps."""
    (A, b), (C, d) = second, first
    matrix, offset = np.zeros_like(A), b.copy()
    for k in range(len(b)):
        matrix += A[:, k, None] * C[None, k]
        offset += A[:, k] * d[k]
    return matrix, offset


def _one_step(
    kind: Kind, problems: Problems, lr_G: Array, first: npt.NDArray[np.int64]
) -> tuple[Array, Array]:
    """One update's matrix, shape (S, S, G), and offset, shape (S, G), by autograd."""
    size = kind.size
    upper = np.triu_indices(size)
    of = problems.of_B[first]
    arrays = (problems.R_PMM[:, upper[0], upper[1]][of], problems.q_PM[of], problems.rest_P[of])
    R, q, rest, lr = (torch.tensor(array) for array in (*arrays, lr_G))
    count = size * (1 + MOMENTS[kind.optimizer.name])
    hyper = Hyper(kind.optimizer.name, kind.optimizer.beta)
    mean = float(kind.points) if kind.objective == "mse" else None

    def step(s: Tensor, R: Tensor, q: Tensor, rest: Tensor, lr: Tensor) -> Tensor:
        values = list(s.unbind(0))
        c, moments = values[:size], [values[size:]] if count > size else []
        _, g = traced_gradient(squared(R.unbind(0), q.unbind(0), rest, mean), c)
        c, moments = updated(hyper, c, moments, lr, g)
        return torch.stack([*c, *(vector for moment in moments for vector in moment)])

    zero = torch.zeros(len(first), count, dtype=torch.float64)
    matrix = torch.func.vmap(torch.func.jacrev(step))(zero, R, q, rest, lr)
    offset = torch.func.vmap(step)(zero, R, q, rest, lr)
    return (
        np.ascontiguousarray(matrix.detach().numpy().transpose(1, 2, 0)),
        np.ascontiguousarray(offset.detach().numpy().T),
    )
