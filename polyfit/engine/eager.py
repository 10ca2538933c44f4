"""The eager engine: one operation of torch at a time on a whole batch.

It is the reference that the compiled engine is compared with, and needs no machine code. Shapes:
B fits in a batch, M = degree + 1 coefficients, N points, P problems, K recorded updates.
"""

from operator import call
from typing import Final

import numpy as np
import torch
from torch import Tensor

from polyfit.engine.batch import (
    CHECK_EVERY,
    COMPLETED,
    CONVERGED,
    DIVERGED,
    LOSS_GROWTH,
    BatchConfig,
    BatchInputs,
    BatchResult,
    Floats,
    Index,
    Problems,
    startable,
)
from polyfit.engine.newton import Newton
from polyfit.engine.objective import Coefficients, Objective, norm, residual, squared_loss
from polyfit.engine.optimizer import FirstOrder, UpdateRule
from polyfit.engine.penalty import PENALTIES, SMOOTH_PENALTIES
from polyfit.numerics.arrays import Array

__all__ = ["Eager", "objective_of"]

_RELEASE_EVERY: Final = 100
"""Updates after which ended fits are released, on a device whose numbers have to be waited for."""


def _asynchronous(device: torch.device) -> bool:
    """Whether reading a number has to wait for the device."""
    return device.type != "cpu"


def objective_of(
    config: BatchConfig, problems: Problems, fits: Index, device: torch.device, halved: bool = False
) -> Objective:
    """The objective of the named fits of the batch: their losses, shape (fits,)."""
    select = torch.tensor(problems.of_B[fits]).to(device)

    def spread(values: Array, shared: bool) -> Tensor:
        tensor = torch.tensor(np.ascontiguousarray(values)).to(config.dtype).to(device)
        return tensor if shared else tensor.index_select(0, select)

    if config.squared:
        # With one problem a scalar has the same bits as a vector of equals, and needs no memory.
        one = len(problems.rest_P) == 1
        size = config.size
        R, q = problems.R_PMM, problems.q_PM
        entries = [spread(R[:, i, j], one) for i in range(size) for j in range(i, size)]
        values = [spread(q[:, i], one) for i in range(size)]
        rest, name, points = spread(problems.rest_P, one), config.objective, config.points
        return lambda c: squared_loss(call, name, entries, values, rest, points, c, halved)
    functions = problems.functions_PMN
    rows = [spread(functions[:, k], len(functions) == 1) for k in range(1, config.size)]
    y = spread(problems.y_PN, len(problems.y_PN) == 1)
    second_order = config.optimizer.traits.second_order
    penalty = (SMOOTH_PENALTIES if second_order else PENALTIES)[config.objective]

    def loss(c: Coefficients) -> Tensor:
        """Of one row of N residuals per fit."""
        columns = [coefficient.unsqueeze(1) for coefficient in c]
        total: Tensor = penalty(residual(call, columns, rows, y)).sum(dim=1)
        return total

    return loss


class Eager:
    """One batch; ``fits`` are the places in the batch of those that it still iterates.

    Between two releases of ended fits nothing waits for the device: results stay there.
    """

    def __init__(self, inputs: BatchInputs, device: torch.device) -> None:
        self.config, self.problems, self.device = inputs.config, inputs.problems, device
        # Releasing rarely wastes updates on fits that have ended, often it waits for the device.
        self.release_every = _RELEASE_EVERY if _asynchronous(device) else CHECK_EVERY
        self.slots = {update: k for k, update in enumerate(inputs.updates)}
        blank = BatchResult.unstarted(inputs)
        self.final, self.taken, self.status = (
            torch.from_numpy(array).to(device)
            for array in (blank.coefficients_BM, blank.steps_taken_B, blank.status_B)
        )
        self.recorded = {
            name: torch.from_numpy(array).to(device) for name, array in blank.recorded.items()
        }
        fits, dtype = np.flatnonzero(startable(inputs)), self.config.numpy_dtype
        c = [self._vector(column) for column in inputs.start_BM[fits].astype(dtype).T]
        lr = self._vector(inputs.lr_B[fits].astype(dtype))
        self.rule: UpdateRule = (
            Newton(self.config, self.problems, fits, c, lr)
            if self.config.optimizer.traits.second_order
            else FirstOrder(self.config, c, lr)
        )
        self.first_loss = self.last_loss = torch.empty(0)
        self._hold(fits)

    def iterate(self) -> BatchResult:
        """Iterate all fits to their ends."""
        if len(self.fits):
            self._iterate()
        return BatchResult(
            self.final.cpu().numpy(),
            self.taken.cpu().numpy(),
            self.status.cpu().numpy(),
            {name: values.cpu().numpy() for name, values in self.recorded.items()},
        )

    def _iterate(self) -> None:
        steps = self.config.steps
        for update in range(steps + 1):
            if update % self.release_every == 1:  # the losses of the last test are not needed now
                self._release()
            losses, g = self.rule.gradient(self.objective)
            if update == 0:
                self.first_loss = self.last_loss = losses
            elif update % CHECK_EVERY == 0 or update == steps:
                self._test(update, losses, g)
            if update == steps or (update % self.release_every == 0 and not self.going.any()):
                return
            if update in self.slots:
                self._record(self.slots[update], losses, g)
            self.rule.update(update, self.objective, losses, g)

    def _vector(self, values: Floats) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values)).to(self.device)

    def _hold(self, fits: Index) -> None:
        """Iterate these fits, none of which has ended."""
        self.fits, self.places = fits, torch.from_numpy(fits).to(self.device)
        self.going = torch.ones_like(self.places, dtype=torch.bool)
        if len(fits):
            self.objective = objective_of(
                self.config, self.problems, fits, self.device, self.config.halved
            )

    # --- tests -------------------------------------------------------------------------------

    def _test(self, update: int, losses: Tensor, g: Coefficients) -> None:
        """Keep the results of fits that have diverged, converged or reached their last update."""
        sound = torch.isfinite(losses)
        for value in self.rule.c:
            sound = sound & torch.isfinite(value)
        converged = sound & (self.rule.settled() | self._stop_is_met(losses, g))
        self.last_loss = losses
        ended = self.going
        if update < self.config.steps:
            ended = ended & (converged | ~sound)
            if not (_asynchronous(self.device) or bool(ended.any())):
                return
        self.going = self.going & ~ended
        grown = losses > LOSS_GROWTH * self.first_loss
        status = torch.where(converged, CONVERGED, COMPLETED)
        status = torch.where(sound & ~grown, status, DIVERGED).to(torch.int8)
        places, c = self.places, torch.stack(self.rule.c, dim=1)
        self.taken[places] = torch.where(ended, update, self.taken[places])
        self.status[places] = torch.where(ended, status, self.status[places])
        self.final[places] = torch.where(ended[:, None], c, self.final[places])

    def _stop_is_met(self, losses: Tensor, g: Coefficients) -> Tensor:
        stop = self.config.stop
        if stop is None:
            return torch.zeros_like(losses, dtype=torch.bool)
        if stop.kind == "gradient":
            return self._norm(g) <= stop.tolerance
        return (self.last_loss - losses).abs() <= stop.tolerance * self.last_loss.abs()

    def _norm(self, g: Coefficients) -> Tensor:
        """The norm of the whole gradient."""
        return norm(g) * 2.0 if self.config.halved else norm(g)

    def _release(self) -> None:
        """Iterate on without the fits that have ended, if there are any."""
        running = self.going.nonzero().squeeze(1)
        if len(running) == len(self.fits):
            return
        self.rule.select(running)
        self.first_loss, self.last_loss = (
            losses.index_select(0, running) for losses in (self.first_loss, self.last_loss)
        )
        self._hold(self.fits[running.cpu().numpy()])

    # --- records -----------------------------------------------------------------------------

    def _record(self, slot: int, losses: Tensor, g: Coefficients) -> None:
        if "loss" in self.recorded:
            self._keep("loss", slot, losses)
        if "gradient_norm" in self.recorded:
            self._keep("gradient_norm", slot, self._norm(g))
        if "coefficients" in self.recorded:
            self._keep("coefficients", slot, torch.stack(self.rule.c, dim=1))

    def _keep(self, name: str, slot: int, values: Tensor) -> None:
        kept = self.recorded[name][slot]
        if len(self.fits) == len(kept):
            kept.copy_(values)
        else:
            kept.index_copy_(0, self.places, values)
