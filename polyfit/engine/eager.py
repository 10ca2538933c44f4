"""The eager engine: one operation of torch at a time on a whole batch, as plain as can be.

It is the reference that the compiled engine is compared with, and needs no machine code. Shapes:
``B`` fits in a batch, M = degree + 1 coefficients, N points, P problems, K recorded updates.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit.engine.model import (
    MOMENTS,
    Array,
    BatchConfig,
    Coefficients,
    Hyperparameters,
    Objective,
    Problems,
    gradient,
    norm,
    pointwise,
    squared,
    unbiasing,
    updated,
)
from polyfit.engine.outcome import BatchResult, Index, Numbers, usable
from polyfit.engine.status import (
    CHECK_EVERY,
    COMPLETED,
    CONVERGED,
    DIVERGED,
    LOSS_GROWTH,
)

__all__ = ["Eager", "objective_of"]

_LOOK_EVERY: Final = 100
"""Updates between two looks at what has ended, where a look waits for a device."""


def _waits(device: torch.device) -> bool:
    """Whether a look at numbers has to wait for the device."""
    return device.type != "cpu"


def objective_of(
    kind: BatchConfig, problems: Problems, fits: Index, device: torch.device, halved: bool = False
) -> Objective:
    """The objective of the named fits of the batch: their losses, shape (fits,)."""
    select = torch.tensor(problems.of_B[fits]).to(device)

    def spread(values: Array, shared: bool) -> Tensor:
        tensor = torch.tensor(np.ascontiguousarray(values)).to(kind.dtype).to(device)
        return tensor if shared else tensor.index_select(0, select)

    if kind.squared:
        # One problem: a scalar has the same bits as a vector of equals, and costs no memory.
        one = len(problems.rest_P) == 1
        size = kind.size
        R, q = problems.R_PMM, problems.q_PM
        entries = [spread(R[:, i, j], one) for i in range(size) for j in range(i, size)]
        values = [spread(q[:, i], one) for i in range(size)]
        mean = kind.points if kind.objective == "mse" else None
        return squared(entries, values, spread(problems.rest_P, one), mean, halved)
    functions = problems.functions_PMN
    rows = [spread(functions[:, k], len(functions) == 1) for k in range(kind.size)]
    y = spread(problems.y_PN, len(problems.y_PN) == 1)
    return pointwise(kind.objective, rows, y, smooth=kind.optimizer.name == "newton")


class Eager:
    """One batch: ``fits`` are the places in the batch of those that it still holds.

    Between two looks at what has ended nothing waits for the device: what is recorded and how
    fits ended is kept there.
    """

    def __init__(
        self,
        kind: BatchConfig,
        problems: Problems,
        start_BM: npt.NDArray[np.float32],
        lr_B: Array,
        updates: Sequence[int],
        record: Sequence[str],
        device: torch.device,
    ) -> None:
        self.kind, self.problems, self.device = kind, problems, device
        self.updates = updates
        # Looking rarely wastes updates on fits that have ended, looking often waits for a device.
        self.look_every = _LOOK_EVERY if _waits(device) else CHECK_EVERY
        self.slots = {update: k for k, update in enumerate(updates)}
        self.outcome = BatchResult.unstarted(kind, start_BM, updates, record)
        self.recorded = {  # on the CPU it is the memory of the outcome
            name: torch.from_numpy(values).to(device)
            for name, values in self.outcome.recorded.items()
        }
        fits = np.flatnonzero(usable(kind, problems, lr_B))
        dtype = self.outcome.coefficients_BM.dtype
        self._begin(fits, start_BM[fits].astype(dtype), lr_B[fits].astype(dtype))

    def ended(self) -> BatchResult:
        """How they ended."""
        if self.device.type != "cpu":
            for name, values in self.recorded.items():
                self.outcome.recorded[name][:] = values.cpu().numpy()
        return self.outcome

    def _hold(self, fits: Index) -> None:
        """These fits are what the batch still holds."""
        self.fits, self.places = fits, torch.from_numpy(fits).to(self.device)

    def _keep_ends(self, taken: Tensor, status: Tensor, c: Coefficients) -> None:
        """How the fits held ended; of those that go on it is said again later."""
        self.outcome.steps_taken_B[self.fits] = taken.cpu().numpy()
        self.outcome.status_B[self.fits] = status.cpu().numpy()
        self.outcome.coefficients_BM[self.fits] = torch.stack(c, dim=1).cpu().numpy()

    def _keep(self, name: str, slot: int, values: Tensor) -> None:
        if name in self.recorded:
            kept = self.recorded[name][slot]
            if len(self.fits) == len(kept):
                kept.copy_(values)
            else:
                kept.index_copy_(0, self.places, values)

    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        self.c = [self._vector(column) for column in start_BM.T]
        self.lr = self._vector(lr_B) * (2.0 if self.kind.halved else 1.0)
        self.moments = [
            [torch.zeros_like(v) for v in self.c] for _ in range(MOMENTS[self.kind.optimizer.name])
        ]
        self.first_loss = self.last_loss = torch.empty(0)
        self._take_up(fits)

    def _take_up(self, fits: Index) -> None:
        """The fits of the vectors, none of which has ended."""
        self._hold(fits)
        self.going = torch.ones_like(self.lr, dtype=torch.bool)
        self.taken = torch.zeros_like(self.lr, dtype=torch.int64)
        self.status = torch.zeros_like(self.lr, dtype=torch.int8)
        self.ends = self.c
        if len(fits):
            self.objective = objective_of(
                self.kind, self.problems, fits, self.device, self.kind.halved
            )

    def _vector(self, values: Numbers) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values)).to(self.device)

    def iterate(self) -> None:
        for update in range(self.kind.steps + 1):
            if not len(self.fits):
                return
            losses, g = self._gradient()
            final = update == self.kind.steps
            if update == 0:
                self.first_loss = self.last_loss = losses
            elif update % CHECK_EVERY == 0 or final:
                self._test(update, losses, g)
                if update % self.look_every == 0 or final:
                    losses, g = self._look(losses, g)
                if not len(self.fits):
                    return
            if update in self.slots:
                self._record(self.slots[update], losses, g)
            self._update(update, losses, g)

    def _gradient(self) -> tuple[Tensor, Coefficients]:
        return gradient(self.objective, self.c)

    def _update(self, update: int, losses: Tensor, g: Coefficients) -> None:
        optimizer = self.kind.optimizer
        hyper = Hyperparameters(optimizer.name, optimizer.beta, *unbiasing(update))
        self.c, self.moments = updated(hyper, self.c, self.moments, self.lr, g)

    def _stopped(self, losses: Tensor, g: Coefficients) -> Tensor:
        stop = self.kind.stop
        if stop is None:
            return torch.zeros_like(losses, dtype=torch.bool)
        if stop.kind == "gradient":
            return self._norm(g) <= stop.tolerance
        return (self.last_loss - losses).abs() <= stop.tolerance * self.last_loss.abs()

    def _norm(self, g: Coefficients) -> Tensor:
        """Of the whole gradient."""
        return norm(g) * 2.0 if self.kind.halved else norm(g)

    def _test(self, update: int, losses: Tensor, g: Coefficients) -> None:
        """Note how fits ended that have diverged, converged or come to their last update."""
        sound = _finite(self.c, losses)
        converged = sound & self._stopped(losses, g)
        self.last_loss = losses
        ended = self.going
        if update < self.kind.steps:
            ended = ended & (converged | ~sound)
            if not (_waits(self.device) or bool(ended.any())):
                return
        status = _status(sound, losses, self.first_loss, converged)
        self.taken = torch.where(ended, update, self.taken)
        self.status = torch.where(ended, status, self.status)
        self.ends = [torch.where(ended, c, end) for c, end in zip(self.c, self.ends, strict=True)]
        self.going = self.going & ~ended

    def _look(self, losses: Tensor, g: Coefficients) -> tuple[Tensor, Coefficients]:
        """Keep how fits ended, if any has, and let go of those."""
        if int(self.going.sum()) == len(self.fits):
            return losses, g
        self._keep_ends(self.taken, self.status, self.ends)
        return self._compact(losses, g)

    def _compact(self, losses: Tensor, g: Coefficients) -> tuple[Tensor, Coefficients]:
        running = self.going.nonzero().squeeze(1)

        def pick(vector: Tensor) -> Tensor:
            return vector.index_select(0, running)

        self.c, self.lr = list(map(pick, self.c)), pick(self.lr)
        self.moments = [list(map(pick, moment)) for moment in self.moments]
        self.first_loss, self.last_loss = pick(self.first_loss), pick(self.last_loss)
        self._take_up(self.fits[self.going.cpu().numpy()])
        return pick(losses), list(map(pick, g))

    def _record(self, slot: int, losses: Tensor, g: Coefficients) -> None:
        self._keep("loss", slot, losses)
        if "gradient_norm" in self.recorded:
            self._keep("gradient_norm", slot, self._norm(g))
        if "coefficients" in self.recorded:
            self._keep("coefficients", slot, torch.stack(self.c, dim=1))


def _status(sound: Tensor, losses: Tensor, first_loss: Tensor, converged: Tensor) -> Tensor:
    """How fits that end with these losses ended, shape (B,), int8."""
    grown = losses > LOSS_GROWTH * first_loss
    status = torch.where(converged, CONVERGED, COMPLETED)
    return torch.where(sound & ~grown, status, DIVERGED).to(torch.int8)


def _finite(c: Coefficients, losses: Tensor) -> Tensor:
    """Which fits have a finite loss and finite coefficients, shape (B,), bool."""
    sound = torch.isfinite(losses)
    for value in c:
        sound = sound & torch.isfinite(value)
    return sound
