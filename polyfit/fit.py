"""The iteration: a batch of fits from its start values to its ends. This module alone iterates.

Shapes: ``B`` fits in a batch, ``M`` = degree + 1 coefficients, ``N`` points, ``P`` problems,
``K`` recorded updates. What one update does stands in ``model``; here is when a fit ends, what is
recorded of it, and how the batch is kept full of fits that still run. Two engines do the same
work: ``eager`` runs one operation at a time, ``compiled`` a block of updates per kernel.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit import kernels
from polyfit.blocks import (
    BETA,
    CHECK,
    PARAMETERS,
    POINTS,
    TOLERANCE,
    Block,
    finite,
    stopped,
    unrolled,
)
from polyfit.errors import ClusterError
from polyfit.model import (
    MOMENTS,
    Array,
    Coefficients,
    Hyper,
    Kind,
    Objective,
    Problems,
    gradient,
    norm,
    pointwise,
    squared,
    unbiasing,
    updated,
)

__all__ = [
    "CHECK_EVERY",
    "COMPLETED",
    "CONVERGED",
    "DIVERGED",
    "LOSS_GROWTH",
    "STATUSES",
    "Final64",
    "Outcome",
    "blocks",
    "evaluate",
    "fit",
    "objective_of",
    "pick_device",
    "usable",
]

STATUSES: Final = ("completed", "converged", "diverged")
COMPLETED, CONVERGED, DIVERGED = range(3)
CHECK_EVERY: Final = 10
"""Updates between two tests of finiteness and of the stop rule."""

LOSS_GROWTH: Final = 10.0
"""A fit whose loss ends above this many times its loss at the start has diverged."""

_LANES: Final = 16
"""A compiled batch is padded to full vector registers: no fit is ever in a remainder."""

_FULL_ENOUGH: Final = 0.75
"""Of a batch: with fewer fits still running they are moved together."""

_LOOK_EVERY: Final = 100
"""Updates between two looks of the host at what an accelerator has ended."""

Index = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the fits of a batch ended; arrays in the order of the batch.

    ``coefficients_BM`` has the dtype of the iteration. Recorded values have the shape (K, B), of
    coefficients (K, B, M); those at or after a fit's ``steps_taken`` mean nothing.
    """

    coefficients_BM: Numbers
    steps_taken_B: npt.NDArray[np.int64]
    status_B: npt.NDArray[np.int8]
    recorded: dict[str, Numbers]


def pick_device(accelerated: bool) -> torch.device:
    """The current accelerator where one is wanted and there, else the CPU.

    Raises:
        ClusterError: the accelerator has no float64.
    """
    device = torch.accelerator.current_accelerator() if accelerated else None
    if device is None:
        return torch.device("cpu")
    if device.type in ("mps", "xpu"):
        raise ClusterError(
            f"the accelerator {device.type!r} has no float64; run on the CPU with gpus_per_actor: 0"
        )
    return device


def fit(
    kind: Kind,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
    device: torch.device,
    engine: str = "eager",
) -> Outcome:
    """Fit a batch.

    Args:
        kind: what the fits share.
        problems: their problems.
        start_BM: their start values, shape (B, M).
        lr_B: their rates, shape (B,), float64.
        updates: the updates to record, counted from 0, rising, below ``kind.steps``.
        record: what to record of "loss", "coefficients", "gradient_norm".
        device: where to iterate.
        engine: "eager" or "compiled"; newton takes few updates, and runs in one way only.

    The value recorded for an update is that before it. A fit whose rate or R is not finite in
    dtype, or underflows in it, ends at once as diverged.

    Raises:
        ClusterError: ``compiled`` without a C++ compiler.
    """
    chosen = _Newton if kind.optimizer.name == "newton" else _ENGINES[engine]
    run = chosen(kind, problems, start_BM, lr_B, updates, record, device)
    with torch.enable_grad():
        run.iterate()
    return run.outcome


class _Run(ABC):
    """One batch on its way: ``fits`` are the places in the batch of those that it still holds."""

    def __init__(
        self,
        kind: Kind,
        problems: Problems,
        start_BM: npt.NDArray[np.float32],
        lr_B: Array,
        updates: Sequence[int],
        record: Sequence[str],
        device: torch.device,
    ) -> None:
        self.kind, self.problems, self.device = kind, problems, device
        self.updates = updates
        self.slots = {update: k for k, update in enumerate(updates)}
        batch, size = start_BM.shape
        numpy_dtype = np.float32 if kind.dtype == torch.float32 else np.float64
        shapes = {"loss": (), "gradient_norm": (), "coefficients": (size,)}
        self.outcome = Outcome(
            start_BM.astype(numpy_dtype),
            np.zeros(batch, dtype=np.int64),
            np.full(batch, DIVERGED, dtype=np.int8),
            {
                name: np.full((len(updates), batch, *shapes[name]), np.nan, dtype=numpy_dtype)
                for name in record
            },
        )
        fits = np.flatnonzero(usable(kind, problems, lr_B))
        self._begin(fits, start_BM[fits].astype(numpy_dtype), lr_B[fits].astype(numpy_dtype))

    @abstractmethod
    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        """Take up these fits of the batch."""

    @abstractmethod
    def iterate(self) -> None:
        """Bring all fits to their ends."""

    def _keep_ends(
        self, fits: Index, taken: int | Index, status: npt.NDArray[np.int8], c_BM: Numbers
    ) -> None:
        self.outcome.steps_taken_B[fits] = taken
        self.outcome.status_B[fits] = status
        self.outcome.coefficients_BM[fits] = c_BM

    def _keep(self, name: str, fits: Index, slot: int, values: Tensor) -> None:
        if name in self.outcome.recorded:
            kept = self.outcome.recorded[name][slot]
            if len(fits) == len(kept):
                kept[:] = values.cpu().numpy()
            else:
                kept[fits] = values.cpu().numpy()


def objective_of(kind: Kind, problems: Problems, fits: Index, device: torch.device) -> Objective:
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
        return squared(entries, values, spread(problems.rest_P, one), mean)
    functions = problems.functions_PMN
    rows = [spread(functions[:, k], len(functions) == 1) for k in range(kind.size)]
    y = spread(problems.y_PN, len(problems.y_PN) == 1)
    return pointwise(kind.objective, rows, y, smooth=kind.optimizer.name == "newton")


# --- eager -----------------------------------------------------------------------------------


class _Eager(_Run):
    """One operation of torch at a time."""

    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        self.fits = fits
        self.c = [self._vector(column) for column in start_BM.T]
        self.lr = self._vector(lr_B)
        self.moments = [
            [torch.zeros_like(v) for v in self.c] for _ in range(MOMENTS[self.kind.optimizer.name])
        ]
        self.objective = objective_of(self.kind, self.problems, fits, self.device)
        self.first_loss = self.last_loss = torch.empty(0)

    def _vector(self, values: Numbers) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values)).to(self.device)

    def iterate(self) -> None:
        for update in range(self.kind.steps + 1):
            if not len(self.fits):
                return
            losses, g = self._gradient()
            if update == 0:
                self.first_loss = self.last_loss = losses
            elif update % CHECK_EVERY == 0 or update == self.kind.steps:
                losses, g = self._end(update, losses, g)
                if not len(self.fits):
                    return
            if update in self.slots:
                self._record(self.slots[update], losses, g)
            self._update(update, losses, g)

    def _gradient(self) -> tuple[Tensor, Coefficients]:
        return gradient(self.objective, self.c)

    def _update(self, update: int, losses: Tensor, g: Coefficients) -> None:
        optimizer = self.kind.optimizer
        hyper = Hyper(optimizer.name, optimizer.beta, *unbiasing(update))
        self.c, self.moments = updated(hyper, self.c, self.moments, self.lr, g)

    def _stopped(self, losses: Tensor, g: Coefficients) -> Tensor:
        stop = self.kind.stop
        if stop is None:
            return torch.zeros_like(losses, dtype=torch.bool)
        return stopped(stop.kind, losses, self.last_loss, g, stop.tolerance)

    def _end(self, update: int, losses: Tensor, g: Coefficients) -> tuple[Tensor, Coefficients]:
        """End the fits that have diverged, converged or come to their last update."""
        sound = finite(self.c, losses)
        converged = sound & self._stopped(losses, g)
        self.last_loss = losses
        ended = converged | ~sound
        if update == self.kind.steps:
            ended = torch.ones_like(ended)
        elif not bool(ended.any()):
            return losses, g
        status = _status(sound, losses, self.first_loss, converged)
        gone = ended.cpu().numpy()
        self._keep_ends(self.fits[gone], update, status.cpu().numpy()[gone], _rows(self.c)[gone])
        return self._compact(~ended, losses, g)

    def _compact(
        self, going: Tensor, losses: Tensor, g: Coefficients
    ) -> tuple[Tensor, Coefficients]:
        running = going.nonzero().squeeze(1)

        def pick(vector: Tensor) -> Tensor:
            return vector.index_select(0, running)

        self.fits = self.fits[going.cpu().numpy()]
        self.c, self.lr = list(map(pick, self.c)), pick(self.lr)
        self.moments = [list(map(pick, moment)) for moment in self.moments]
        self.first_loss, self.last_loss = pick(self.first_loss), pick(self.last_loss)
        if len(self.fits):
            self.objective = objective_of(self.kind, self.problems, self.fits, self.device)
        return pick(losses), list(map(pick, g))

    def _record(self, slot: int, losses: Tensor, g: Coefficients) -> None:
        self._keep("loss", self.fits, slot, losses)
        if "gradient_norm" in self.outcome.recorded:
            self._keep("gradient_norm", self.fits, slot, norm(g))
        if "coefficients" in self.outcome.recorded:
            self._keep("coefficients", self.fits, slot, torch.stack(self.c, dim=1))


def _status(sound: Tensor, losses: Tensor, first_loss: Tensor, converged: Tensor) -> Tensor:
    """How fits that end with these losses ended, shape (B,), int8."""
    grown = losses > LOSS_GROWTH * first_loss
    status = torch.where(converged, CONVERGED, COMPLETED)
    return torch.where(sound & ~grown, status, DIVERGED).to(torch.int8)


class _Newton(_Eager):
    """Newton's method, damped as Levenberg and Marquardt do: a few updates, each of many terms.

    The Hessian gets a share ``damping`` of its bound's diagonal. A step that does not lessen the
    loss is not taken, and the next is damped ten times more; one that does is followed by ten
    times less. A fit has converged where no step can lessen its loss any more.

    Marquardt, An algorithm for least-squares estimation of nonlinear parameters (1963).
    """

    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        super()._begin(fits, start_BM, lr_B)
        # Beside the coefficients: the damping, and whether no step lessens the loss any more.
        self.moments = [[torch.full_like(self.lr, _DAMPING), torch.zeros_like(self.lr)]]
        self.hessian: list[list[Tensor]] = []
        R_PMM = self.problems.R_PMM
        share = {"sse": 2.0, "mse": 2.0 / self.kind.points}.get(self.kind.objective, 1.0)
        with np.errstate(all="ignore"):  # beyond float64 no fit has come here
            self.bound_PM = share * (R_PMM * R_PMM).sum(axis=1)

    def _compact(
        self, going: Tensor, losses: Tensor, g: Coefficients
    ) -> tuple[Tensor, Coefficients]:
        kept = super()._compact(going, losses, g)
        running = going.nonzero().squeeze(1)
        size = self.kind.size
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
        (damping, settled), of = self.moments[0], self.problems.of_B[self.fits]
        bounds = [self._vector(column[of]).to(losses.dtype) for column in self.bound_PM.T]
        matrix = [
            [*row[:-1], row[-1] + damping * bound]
            for row, bound in zip(self.hessian, bounds, strict=True)
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
        for row, bound in zip(self.hessian, bounds, strict=True):
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


# --- compiled --------------------------------------------------------------------------------


def _count(kind: Kind) -> int:
    """Updates per block."""
    return unrolled(kind.degree) if kind.squared else 1


def blocks(
    kind: Kind, updates: Sequence[int], record: Sequence[str], shared: tuple[bool, bool]
) -> list[Block]:
    """The blocks that the compiled engine runs for such a batch; see ``fit`` and ``Block``."""
    if kind.optimizer.name == "newton":
        return []
    count = _count(kind)
    found = [Block(kind, count, shared)]
    if count > 1:
        places = {update % count for update in updates}
        whole = {0, count - 1} if set(record) <= {"loss"} else {0}
        if kind.steps % count or not places <= whole:
            found.append(Block(kind, 1, shared))
    elif not kind.squared:
        found.append(Block(kind, 1, shared, testing=False))
    return found


class _Compiled(_Run):
    """Blocks of updates, each one kernel.

    The state stands in two buffers: a block reads the one and writes the other. A fit that has
    ended keeps its state, and its place until a quarter of the batch has ended.
    """

    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        self.count = _count(self.kind)
        self.only_loss = set(self.outcome.recorded) <= {"loss"}
        moments = np.zeros((self.kind.size * MOMENTS[self.kind.optimizer.name], len(fits)))
        state = np.concatenate([start_BM.T, moments.astype(start_BM.dtype)])
        unknown = torch.zeros(len(fits), dtype=self.kind.dtype, device=self.device)
        counted = None
        if self.device.type != "cpu":
            counted = torch.zeros(len(fits), dtype=torch.int64, device=self.device)
        self._lay_out(fits, self._tensor(state), self._tensor(lr_B), unknown, unknown, counted)

    def _tensor(self, values: Numbers) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values)).to(self.kind.dtype).to(self.device)

    def _lay_out(
        self,
        fits: Index,
        state: Tensor,
        lr: Tensor,
        first_loss: Tensor,
        last_loss: Tensor,
        taken: Tensor | None,
    ) -> None:
        """Buffers for these fits, which have the columns of ``state``.

        Updates taken are counted on an accelerator; the CPU sees at once when a fit ends.
        """
        self.fits, kind = fits, self.kind
        lanes = _LANES if kind.squared else 1
        self.width = max(lanes, -(-len(fits) // lanes) * lanes)
        self.alive = np.ones(len(fits), dtype=np.bool_)
        self.side, self.running = 0, len(fits)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=kind.dtype, device=self.device)

        def padded(values: Tensor) -> Tensor:
            wide = values.new_zeros((*values.shape[:-1], self.width))
            wide[..., : len(fits)] = values
            return wide

        self.state = [padded(state), zeros(len(state), self.width)]
        self.going = [padded(torch.ones_like(lr)), zeros(self.width)]
        self.lr, self.first_loss, self.last_loss = map(padded, (lr, first_loss, last_loss))
        self.taken = None if taken is None else padded(taken)
        self.before_first, self.before_last = zeros(self.width), zeros(self.width)
        self.parameters = zeros(2, PARAMETERS)  # of blocks that do not test, and that do
        self.parameters[:, POINTS], self.parameters[:, BETA] = kind.points, kind.optimizer.beta
        self.parameters[1, CHECK] = 1.0
        if kind.stop is not None:
            self.parameters[:, TOLERANCE] = kind.stop.tolerance
        self.unbias = {k: zeros(k, 2) for k in {1, self.count}}
        self.data, self.shared = self._data(padded)
        self.calls: dict[tuple[int, bool, bool, int], Callable[[], None]] = {}
        self.objective: Objective | None = None

    def _data(self, padded: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], tuple[bool, bool]]:
        """The problems of the fits as a block takes them, and whether one serves all."""
        problems, of, size = self.problems, self.problems.of_B[self.fits], self.kind.size
        if not self.kind.squared:
            one, same = len(problems.functions_PMN) == 1, len(problems.y_PN) == 1
            functions = problems.functions_PMN[0] if one else (
                problems.functions_PMN.transpose(1, 0, 2)[:, of]
            )  # fmt: skip
            y = problems.y_PN if same else problems.y_PN[of]
            return [self._tensor(functions), self._tensor(y)], (one, same)
        upper = np.triu_indices(size)
        R = problems.R_PMM[:, upper[0], upper[1]]
        one = not np.ptp(R, axis=0).any()
        entries = self._tensor(R[0]) if one else padded(self._tensor(R[of].T))
        q, rest = problems.q_PM[of].T, problems.rest_P[of]
        return [entries, padded(self._tensor(q)), padded(self._tensor(rest))], (one, False)

    def iterate(self) -> None:
        for update, count in self._segments():
            if not self.running:
                return
            test = update > 0 and update % CHECK_EVERY == 0
            slot = self.slots.get(update)
            # Over all points losses cost time: they are made where they are needed.
            testing = self.kind.squared or test or slot is not None or update == 0
            self._record_state(slot)
            self._run(update, count, testing, test)
            if update == 0:
                self.first_loss.copy_(self.before_first)
                self.last_loss.copy_(self.before_first)
            if slot is not None:
                self._keep_loss(slot, self.before_first)
            last = self.slots.get(update + count - 1) if count > 1 else None
            if last is not None:
                self._keep_loss(last, self.before_last)
            self._pass_on(update, count, testing, test)
        if self.running:
            self._run(self.kind.steps, self.count, testing=True, test=True)
            self._look(self.kind.steps)

    def _segments(self) -> Iterator[tuple[int, int]]:
        """Updates at which blocks start, and their lengths: as long as nothing is recorded inside.

        A loss can also be had before a block's last update.
        """
        update, steps = 0, self.kind.steps
        while update < steps:
            count, end = 1, update + self.count
            if update % self.count == 0 and end <= steps:
                inside = bisect_right(self.updates, update)
                beyond = bisect_left(self.updates, end - 1 if self.only_loss else end)
                count = self.count if inside >= beyond else 1
            yield update, count
            update += count

    def _run(self, update: int, count: int, testing: bool, test: bool) -> None:
        """One block, from this side's buffers to the other's."""
        if self.kind.optimizer.name == "adam":
            divisors = [unbiasing(update + k) for k in range(count)]
            self.unbias[count].copy_(torch.tensor(divisors, dtype=torch.float64))
        key = (count, testing, test, self.side)
        if key not in self.calls:
            self.calls[key] = self._bound(count, testing, test)
        self.calls[key]()

    def _bound(self, count: int, testing: bool, test: bool) -> Callable[[], None]:
        block = Block(self.kind, count, self.shared, testing)
        kernel = kernels.load(block.recipe(), self.device)
        side, other = self.side, 1 - self.side
        inputs = [
            *self.state[side], self.lr, self.going[side], self.last_loss, *self.data,
            self.parameters[int(test)], self.unbias[count],
        ]  # fmt: skip
        outputs = [*self.state[other]]
        if testing:
            outputs += [self.going[other], self.before_first]
            outputs += [self.before_last] if count > 1 else []
        return kernel.bind(inputs, outputs)

    def _pass_on(self, update: int, count: int, testing: bool, test: bool) -> None:
        """After a block: end what has ended, and turn to what it wrote."""
        going = self.going[1 - self.side]
        if not testing:
            going.copy_(self.going[self.side])
        if self.taken is not None:
            self.taken += going.to(torch.int64) * count
        if test:
            if self.taken is None or update % _LOOK_EVERY == 0:
                self._look(update)
            if self.kind.stop is not None:
                self.last_loss.copy_(self.before_first)
        self.side = 1 - self.side
        if 0 < self.running < _FULL_ENOUGH * len(self.fits):
            self._compact()

    def _look(self, update: int) -> None:
        """Keep the ends of the fits that have ended since the last look, or all at the last."""
        going = self.going[1 - self.side][: len(self.fits)]
        last = update == self.kind.steps
        if not last and int(going.sum()) == self.running:
            return
        still = going.cpu().numpy() > 0.5
        gone = self.alive if last else self.alive & ~still
        lanes = torch.tensor(np.flatnonzero(gone)).to(self.device)
        c = [vector.index_select(0, lanes) for vector in self.state[self.side][: self.kind.size]]
        losses = self.before_first.index_select(0, lanes)
        status = _status(
            finite(c, losses), losses, self.first_loss.index_select(0, lanes),
            torch.tensor(~still[gone]).to(self.device),
        )  # fmt: skip
        taken = update if self.taken is None else self.taken.index_select(0, lanes).cpu().numpy()
        self._keep_ends(self.fits[gone], taken, status.cpu().numpy(), _rows(c))
        self.alive = self.alive & ~gone
        self.running = int(self.alive.sum())

    def _compact(self) -> None:
        lanes = torch.tensor(np.flatnonzero(self.alive)).to(self.device)

        def pick(values: Tensor) -> Tensor:
            return values.index_select(-1, lanes)

        self._lay_out(
            self.fits[self.alive], pick(self.state[self.side]), pick(self.lr),
            pick(self.first_loss), pick(self.last_loss),
            None if self.taken is None else pick(self.taken),
        )  # fmt: skip

    def _keep_loss(self, slot: int, losses: Tensor) -> None:
        self._keep("loss", self.fits, slot, losses[: len(self.fits)])

    def _record_state(self, slot: int | None) -> None:
        """What is recorded of the state before a block, other than its loss."""
        if slot is None or self.only_loss:
            return
        c = [vector[: len(self.fits)] for vector in self.state[self.side][: self.kind.size]]
        self._keep("coefficients", self.fits, slot, torch.stack(c, dim=1))
        if "gradient_norm" in self.outcome.recorded:
            if self.objective is None:
                self.objective = objective_of(self.kind, self.problems, self.fits, self.device)
            found = gradient(self.objective, [value.clone() for value in c])[1]
            self._keep("gradient_norm", self.fits, slot, norm(found))


_ENGINES: Final[dict[str, type[_Run]]] = {"eager": _Eager, "compiled": _Compiled}


def usable(kind: Kind, problems: Problems, lr_B: Array) -> npt.NDArray[np.bool_]:
    """Which fits can be iterated in dtype: rate and R finite, and no pivot lost to underflow."""
    info = torch.finfo(kind.dtype)
    pivots = np.abs(np.diagonal(problems.R_PMM, axis1=1, axis2=2))
    with np.errstate(all="ignore"):
        sound_P = (np.abs(problems.R_PMM) <= info.max).all(axis=(1, 2))
        sound_P &= (np.abs(problems.q_PM) <= info.max).all(axis=1)
        sound_P &= (pivots >= info.tiny).all(axis=1)
        if kind.optimizer.name == "newton":  # it squares R
            squares = (problems.R_PMM * problems.R_PMM).sum(axis=1)
            sound_P &= (squares <= info.max).all(axis=1)
        sound_B = (lr_B >= info.tiny) & (lr_B <= info.max)
    return np.asarray(sound_P)[problems.of_B] & sound_B


def _rows(c: Coefficients) -> Numbers:
    """M vectors of shape (B,) as one array, shape (B, M)."""
    rows: Numbers = torch.stack(c, dim=1).cpu().numpy()
    return rows


# --- the end pass ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Final64:
    """A batch judged at its final coefficients, in float64 on the CPU; arrays of shape (B,).

    ``excess`` is NaN where the objective has no closed-form optimum.
    """

    loss: Array
    excess: Array
    gradient_norm: Array


def evaluate(kind: Kind, problems: Problems, coefficients_BM: Array) -> Final64:
    """Loss, excess over the optimum and gradient norm at ``coefficients_BM`` (float64).

    The excess of a squared objective is the reduced sum of squares itself, which keeps its
    precision where the loss and the optimum agree to the last bit.
    """
    exact = replace(kind, dtype=torch.float64)
    cpu = torch.device("cpu")
    fits = np.arange(len(coefficients_BM))
    c = [torch.tensor(np.ascontiguousarray(column)) for column in coefficients_BM.T]
    with torch.enable_grad():
        losses, g = gradient(objective_of(exact, problems, fits, cpu), c)
    if not kind.squared:
        excess = torch.full_like(losses, torch.nan)
    else:
        whole = replace(problems, rest_P=np.zeros_like(problems.rest_P))
        excess = objective_of(exact, whole, fits, cpu)(c)
    return Final64(losses.numpy(), excess.numpy(), norm(g).numpy())
