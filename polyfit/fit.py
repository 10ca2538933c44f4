"""The iteration: a batch of fits from its start values to its ends. This module alone iterates.

Shapes: ``B`` fits in a batch, ``M`` = degree + 1 coefficients, ``N`` points, ``P`` problems,
``K`` recorded updates. What one update does stands in ``model``; here is when a fit ends, what is
recorded of it, and how the batch is kept full of fits that still run. Two engines do the same
work: ``eager`` runs one operation at a time, ``compiled`` a block of updates per kernel.
"""

from abc import ABC, abstractmethod
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
from polyfit.kernels import Kernel, Link
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
from polyfit.problem import holds_problem, holds_rate

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

_FULL_ENOUGH: Final = 0.75
"""Of a batch: with fewer fits still running they are moved together."""

_LOOK_EVERY: Final = 100
"""Updates between two looks at what has ended, where little will or a look costs time."""

_CALM: Final = 1.0 / 16.0
"""Of the largest number of a dtype: a loss below is far from overflow, whatever its rounding."""

_CACHE: Final = 1 << 16
"""Bytes of the state and the problems of a compiled tile: well within a core's own cache, and so
much that its calls are few."""

_LEAST_TILE: Final = 64
"""Fits of a tile: with fewer the calls would cost as much as the work."""

_DIVISORS: Final = 4096
"""Updates whose divisors are brought to the device at a time."""

_KEPT: Final = 3
"""The vector of losses at the last test before a span; 0 is that of the losses at its start, 1
and 2 are those of the last test after it and of a later update."""

_GOING: Final = _LOOK_EVERY // CHECK_EVERY + CHECK_EVERY
"""Vectors that tell which fits go on: before a span, after its start and its tests, and after the
updates before its first whole block and after its last one."""

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
    # Without the check it is what torch was built for, on machines that have none too.
    check = torch.accelerator.current_accelerator
    device = check(check_available=True) if accelerated else None
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
    return run.ended()


def _waits(device: torch.device) -> bool:
    """Whether a look at numbers has to wait for the device."""
    return device.type != "cpu"


class _Run(ABC):
    """One batch on its way: ``fits`` are the places in the batch of those that it still holds.

    Between two looks at what has ended nothing waits for the device: what is recorded and how
    fits ended is kept there.
    """

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
        # Whoever looks late has iterated for nothing what has ended.
        self.look_every = _LOOK_EVERY if _waits(device) else CHECK_EVERY
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
        self.recorded = {  # on the CPU it is the memory of the outcome
            name: torch.from_numpy(values).to(device)
            for name, values in self.outcome.recorded.items()
        }
        fits = np.flatnonzero(usable(kind, problems, lr_B))
        self._begin(fits, start_BM[fits].astype(numpy_dtype), lr_B[fits].astype(numpy_dtype))

    @abstractmethod
    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        """Take up these fits of the batch."""

    @abstractmethod
    def iterate(self) -> None:
        """Bring all fits to their ends."""

    def ended(self) -> Outcome:
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
        self.c = [self._vector(column) for column in start_BM.T]
        self.lr = self._vector(lr_B)
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
            self.objective = objective_of(self.kind, self.problems, fits, self.device)

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
        hyper = Hyper(optimizer.name, optimizer.beta, *unbiasing(update))
        self.c, self.moments = updated(hyper, self.c, self.moments, self.lr, g)

    def _stopped(self, losses: Tensor, g: Coefficients) -> Tensor:
        stop = self.kind.stop
        if stop is None:
            return torch.zeros_like(losses, dtype=torch.bool)
        return stopped(stop.kind, losses, self.last_loss, g, stop.tolerance)

    def _test(self, update: int, losses: Tensor, g: Coefficients) -> None:
        """Note how fits ended that have diverged, converged or come to their last update."""
        sound = finite(self.c, losses)
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
            self._keep("gradient_norm", slot, norm(g))
        if "coefficients" in self.recorded:
            self._keep("coefficients", slot, torch.stack(self.c, dim=1))


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


# --- compiled --------------------------------------------------------------------------------


def _count(kind: Kind) -> int:
    """Updates per block."""
    return unrolled(kind) if kind.squared and kind.steps > 1 else 1


def _spans(steps: int, updates: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """The updates from the first to the last in spans of at most ``most``, as (start, end).

    Each of ``updates`` starts one: losses are had where one starts.
    """
    start = 0
    for end in [*updates, steps]:
        while start < end:
            yield start, min(start + most, end)
            start = min(start + most, end)


def blocks(kind: Kind, updates: Sequence[int], shared: tuple[bool, bool]) -> list[Block]:
    """The blocks that the compiled engine runs for such a batch; see ``fit`` and ``Block``."""
    if kind.optimizer.name == "newton":
        return []
    count = _count(kind)
    found = [Block(kind, count, shared)]
    if kind.steps > count:
        found.append(Block(kind, count, shared, testing=False))
    if any(update % count for update in (*updates, kind.steps)):
        found.append(Block(kind, 1, shared))
    return found


@dataclass(frozen=True, slots=True)
class _Span:
    """Blocks in a row, called at once.

    ``tests`` are the updates before which fits may end, counted from the span's first, each with
    the vector that tells which go on after it. ``going`` and ``losses`` are the vectors written
    last, ``tested`` the losses at the last test. ``flips``: the new state is on the other side.
    """

    call: Callable[[], None]
    tests: list[tuple[int, Tensor]]
    going: Tensor
    losses: Tensor
    tested: Tensor | None
    flips: bool


class _Compiled(_Run):
    """Blocks of updates, each one kernel, called in spans: up to what is recorded or looked at.

    The state stands on two sides: a block reads the one and writes the other. A fit that has
    ended keeps its state, and its place until a quarter of the batch has ended. On the CPU the
    batch lies in tiles, and each goes through a span within the fastest cache: a vector of the
    batch has the shape (tiles, fits of a tile).

    Under gd a squared objective is a convex function of the update: a constant and the squares of
    powers 1 - lr times an eigenvalue. What is finite before a span and after it was so within, and
    what is not stays so; the batch is ``calm``, and is tested at its end alone. Where a loss comes
    near overflow the batch begins again, and is tested after every tenth update.
    """

    def _begin(self, fits: Index, start_BM: Numbers, lr_B: Numbers) -> None:
        self.calm = self.kind.squared and self.kind.optimizer.name == "gd" and not self.kind.stop
        self.given = fits, start_BM, lr_B
        self._start()

    def _start(self) -> None:
        fits, start_BM, lr_B = self.given
        self.count = _count(self.kind)
        self.kernels: dict[Block, Kernel] = {}
        if self.kind.stop is None:  # hardly a fit ends before the last update
            self.look_every = _LOOK_EVERY
        self.highest = torch.zeros((), dtype=self.kind.dtype, device=self.device)
        self.divisors, self.divisors_from = self._divisors(0), 0
        moments = np.zeros((self.kind.size * MOMENTS[self.kind.optimizer.name], len(fits)))
        state = np.concatenate([start_BM.T, moments.astype(start_BM.dtype)])
        unknown = torch.zeros(len(fits), dtype=self.kind.dtype, device=self.device)
        self._lay_out(fits, self._tensor(state), self._tensor(lr_B), unknown, unknown)

    def _tensor(self, values: Numbers) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values)).to(self.kind.dtype).to(self.device)

    def _lay_out(
        self, fits: Index, state: Tensor, lr: Tensor, first_loss: Tensor, last_loss: Tensor
    ) -> None:
        """Vectors for these fits, which have the columns of ``state``."""
        kind, count = self.kind, len(state)
        self._hold(fits)
        self.first_loss = first_loss
        self.taken = torch.full_like(self.places, kind.steps)
        self.side, self.running = 0, len(fits)
        own, common = self._data()
        rows = [count, count, 1, _GOING, _KEPT + 1, *map(len, own)]
        lanes = kernels.LANES if kind.squared else 1  # no fit is ever in a remainder
        tile = len(fits)
        if kind.squared and self.device.type == "cpu":
            tile = max(_LEAST_TILE, _CACHE // ((2 * count + sum(map(len, own))) * lr.itemsize))
        self.tiles = max(1, -(-len(fits) // max(tile, 1)))
        self.width = max(lanes, -(-len(fits) // (self.tiles * lanes)) * lanes)
        room = -(-self.width // kernels.LANES) * kernels.LANES  # all vectors begin aligned
        memory = torch.zeros(self.tiles, sum(rows), room, dtype=kind.dtype, device=self.device)
        memory = memory[..., : self.width]
        here, there, rates, going, losses, *data = memory.split(rows, dim=1)
        for place, values in zip(
            (here, rates, losses[:, _KEPT:], going[:, :1], *data),
            (state, lr[None], last_loss[None], torch.ones_like(lr)[None], *own),
            strict=True,
        ):
            wide = values.new_zeros(len(values), self.tiles * self.width)
            wide[:, : len(fits)] = values
            place.copy_(wide.view(len(values), self.tiles, self.width).transpose(0, 1))
        self.sides = [here.unbind(1), there.unbind(1)]
        self.lr, self.going, self.losses = rates[:, 0], going.unbind(1), losses.unbind(1)
        if kind.squared:  # R and q are blocks of rows, the rest is a vector
            self.data = [*map(self._for_all, common), *data[:-1], data[-1][:, 0]]
        else:
            self.data = [*map(self._for_all, common)]
        parameters = torch.zeros(2, PARAMETERS, dtype=kind.dtype)  # of no test, and of a test
        parameters[:, POINTS], parameters[:, BETA] = kind.points, kind.optimizer.beta
        parameters[1, CHECK] = 1.0
        if kind.stop is not None:
            parameters[:, TOLERANCE] = kind.stop.tolerance
        self.parameters = parameters.to(self.device)
        self.unbias = torch.zeros_like(self.divisors[: self._divisors_per_span])
        self.spans: dict[tuple[bool, int, int, bool, int], _Span] = {}
        self.links: dict[tuple[int, int, int, int, int | None, bool, int], Link] = {}
        self.objective: Objective | None = None

    def _for_all(self, values: Tensor) -> Tensor:
        """What serves every tile."""
        return values.expand(self.tiles, *values.shape)

    def _of_fits(self, vector: Tensor) -> Tensor:
        """A vector of the batch without its padding, shape (fits,)."""
        return vector.reshape(-1)[: len(self.fits)]

    def _state(self, count: int) -> Coefficients:
        return [self._of_fits(vector) for vector in self.sides[self.side][:count]]

    def _data(self) -> tuple[list[Tensor], list[Tensor]]:
        """The problems of the fits as a block takes them: rows of the fits' own, and for all."""
        problems, of, size = self.problems, self.problems.of_B[self.fits], self.kind.size
        if not self.kind.squared:
            one, same = len(problems.functions_PMN) == 1, len(problems.y_PN) == 1
            self.shared = (one, same)
            functions = problems.functions_PMN[0] if one else (
                problems.functions_PMN.transpose(1, 0, 2)[:, of]
            )  # fmt: skip
            y = problems.y_PN if same else problems.y_PN[of]
            return [], [self._tensor(functions), self._tensor(y)]
        upper = np.triu_indices(size)
        R = problems.R_PMM[:, upper[0], upper[1]]
        one = not np.ptp(R, axis=0).any()
        self.shared = (one, False)
        own = [self._tensor(problems.q_PM[of].T), self._tensor(problems.rest_P[of])[None]]
        if one:
            return own, [self._tensor(R[0])]
        return [self._tensor(R[of].T), *own], []

    def iterate(self) -> None:
        if not self._iterated():
            self.calm = False
            self._start()
            self._iterated()

    def _iterated(self) -> bool:
        """Bring all fits to their ends; False where a calm batch turns out not to be."""
        for update, end in _spans(self.kind.steps, self.updates, self.look_every):
            if not self.running:
                return True
            slot = self.slots.get(update)
            self._record_state(slot)
            if self.kind.optimizer.name == "adam":
                self._unbias(update)
            final = end == self.kind.steps
            span = self._span(update, end, final)
            span.call()
            losses = self._of_fits(self.losses[0])
            if update == 0:
                self.first_loss.copy_(losses)
            if self.calm and not self._low(losses, self._of_fits(span.losses), final):
                return False
            if slot is not None:
                self._keep("loss", slot, losses)
            self._pass_on(update, span, final)
        return True

    @property
    def _divisors_per_span(self) -> int:
        return self.look_every + self.count

    def _divisors(self, update: int) -> Tensor:
        """Adam's divisors from ``update`` on, for so many spans that to bring them to the device
        costs little; without adam of one."""
        if self.kind.optimizer.name != "adam":
            return self._tensor(np.ones((self._divisors_per_span, 2)))
        count = self._divisors_per_span + min(_DIVISORS, self.kind.steps - update)
        return self._tensor(np.array([unbiasing(update + k) for k in range(count)]))

    def _unbias(self, update: int) -> None:
        """The divisors of the span that starts with ``update``."""
        at = update - self.divisors_from
        if at + len(self.unbias) > len(self.divisors):
            self.divisors, self.divisors_from, at = self._divisors(update), update, 0
        self.unbias.copy_(self.divisors[at : at + len(self.unbias)])

    def _low(self, before: Tensor, after: Tensor, final: bool) -> bool:
        """Whether all losses so far are far from overflow; NaN is not. Where that takes a wait it
        is asked at the end alone."""
        self.highest = torch.maximum(self.highest, torch.maximum(before.max(), after.max()))
        if _waits(self.device) and not final:
            return True
        return bool(self.highest <= _CALM * torch.finfo(self.kind.dtype).max)

    def _span(self, start: int, end: int, final: bool) -> _Span:
        key = (start == 0, start % CHECK_EVERY, end - start, final, self.side)
        if key not in self.spans:
            self.spans[key] = self._joined(start, end, final)
        return self.spans[key]

    def _joined(self, start: int, end: int, final: bool) -> _Span:
        """The blocks of the updates from ``start`` to ``end``, and where all ends the last test."""
        links: list[Link] = []
        tests: list[tuple[int, Tensor]] = []
        side, told, last, told_losses, update = self.side, 0, _KEPT, 0, start
        while update < end or (final and update == end):
            # Of a batch that is tested, blocks begin where tests fall.
            aligned = self.calm or update % self.count == 0
            whole = update == end or (aligned and update + self.count <= end)
            count = self.count if whole else 1
            tenth = update > 0 and update % CHECK_EVERY == 0
            test = update == end or (tenth and not self.calm)
            # The first losses are recorded; of the others those of the last test are kept, to be
            # compared with those of the next.
            losses = 0 if update == start else 2 if last == 1 else 1
            testing = losses if test or update == start or not whole else None
            links.append(self._link(count, side, told, last, testing, test, update - start))
            if testing is not None:
                told, told_losses = told + 1, testing
                last = testing if test or update == 0 else last
            if test:
                tests.append((update - start, self.going[told]))
            side = side if update == end else 1 - side
            update += count
        return _Span(
            kernels.chain(links), tests, self.going[told], self.losses[told_losses],
            None if last == _KEPT else self.losses[last], side != self.side,
        )  # fmt: skip

    def _link(
        self, count: int, side: int, told: int, last: int, testing: int | None, test: bool, at: int
    ) -> Link:
        """A block of ``count`` updates, ``at`` of them after the span's first.

        ``told`` and ``last`` are the vectors of ``going`` and ``losses`` that it reads, ``testing``
        the losses that it writes; without them it is the leaner block that does not test.
        """
        adam = self.kind.optimizer.name == "adam"
        key = (count, side, told, last if test else _KEPT, testing, test, at if adam else 0)
        if key not in self.links:
            inputs = [
                *self.sides[side], self.lr, self.going[told], self.losses[last], *self.data,
                self._for_all(self.parameters[int(test)]),
                self._for_all(self.unbias[key[-1] :][:count]),
            ]  # fmt: skip
            outputs = [*self.sides[1 - side]]
            if testing is not None:
                outputs += [self.going[told + 1], self.losses[testing]]
            self.links[key] = self._kernel(count, testing is not None).link(inputs, outputs)
        return self.links[key]

    def _kernel(self, count: int, testing: bool) -> Kernel:
        block = Block(self.kind, count, self.shared, testing)
        if block not in self.kernels:
            self.kernels[block] = kernels.load(block.recipe(), self.device)
        return self.kernels[block]

    def _pass_on(self, update: int, span: _Span, final: bool) -> None:
        """After a span: turn to the state it made, and end what has ended."""
        if span.flips:
            self.side = 1 - self.side
        if not self.calm:
            running = int((self._of_fits(span.going) > 0.5).sum())
            if running < self.running:
                self._end(update, span)
                self.running = running
        if self.kind.stop is not None and span.tested is not None:
            self.losses[_KEPT].copy_(span.tested)
        if final or self.running < _FULL_ENOUGH * len(self.fits):
            self._keep_all(span)
            if self.running and not final:
                self._compact()

    def _end(self, update: int, span: _Span) -> None:
        """Note when the fits ended that have ended in a span."""
        before = self._of_fits(self.going[0])
        for test, vector in span.tests:
            after = self._of_fits(vector)
            self.taken = torch.where(after < before, update + test, self.taken)
            before = after
        self.going[0].copy_(span.going)

    def _keep_all(self, span: _Span) -> None:
        """Keep how fits ended: what has ended keeps its state, and so has the same losses since."""
        c, losses = self._state(self.kind.size), self._of_fits(span.losses)
        ended = self._of_fits(span.going) < 0.5
        status = _status(finite(c, losses), losses, self.first_loss, ended)
        self._keep_ends(self.taken, status, c)

    def _compact(self) -> None:
        alive = (self._of_fits(self.going[0]) > 0.5).cpu().numpy()
        lanes = torch.from_numpy(np.flatnonzero(alive)).to(self.device)

        def pick(vector: Tensor) -> Tensor:
            return self._of_fits(vector).index_select(0, lanes)

        self._lay_out(
            self.fits[alive], torch.stack([*map(pick, self.sides[self.side])]),
            pick(self.lr), self.first_loss.index_select(0, lanes), pick(self.losses[_KEPT]),
        )  # fmt: skip

    def _record_state(self, slot: int | None) -> None:
        """What is recorded of the state before a span, other than its loss."""
        if slot is None or set(self.recorded) <= {"loss"}:
            return
        c = self._state(self.kind.size)
        self._keep("coefficients", slot, torch.stack(c, dim=1))
        if "gradient_norm" in self.recorded:
            if self.objective is None:
                self.objective = objective_of(self.kind, self.problems, self.fits, self.device)
            found = gradient(self.objective, [value.clone() for value in c])[1]
            self._keep("gradient_norm", slot, norm(found))


_ENGINES: Final[dict[str, type[_Run]]] = {"eager": _Eager, "compiled": _Compiled}


def usable(kind: Kind, problems: Problems, lr_B: Array) -> npt.NDArray[np.bool_]:
    """Which fits can be iterated in dtype: those whose problem and rate it holds."""
    dtype, newton = str(kind.dtype).removeprefix("torch."), kind.optimizer.name == "newton"
    sound_P = holds_problem(dtype, newton, problems.R_PMM, problems.q_PM)
    return sound_P[problems.of_B] & holds_rate(dtype, lr_B)


# --- the end pass ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Final64:
    """A batch judged at its final coefficients, in float64; arrays of shape (B,).

    ``excess`` is NaN where the objective has no closed-form optimum.
    """

    loss: Array
    excess: Array
    gradient_norm: Array


def evaluate(
    kind: Kind, problems: Problems, coefficients_BM: Array, device: torch.device
) -> Final64:
    """Loss, excess over the optimum and gradient norm at ``coefficients_BM`` (float64).

    The excess of a squared objective is the reduced sum of squares itself, which keeps its
    precision where the loss and the optimum agree to the last bit.
    """
    exact = replace(kind, dtype=torch.float64)
    fits = np.arange(len(coefficients_BM))
    c = [torch.tensor(np.ascontiguousarray(column)).to(device) for column in coefficients_BM.T]
    with torch.enable_grad():
        losses, g = gradient(objective_of(exact, problems, fits, device), c)
    if not kind.squared:
        excess = torch.full_like(losses, torch.nan)
    else:
        whole = replace(problems, rest_P=np.zeros_like(problems.rest_P))
        excess = objective_of(exact, whole, fits, device)(c)
    loss, excess_loss, gradient_norm = torch.stack([losses, excess, norm(g)]).cpu().numpy()
    return Final64(loss, excess_loss, gradient_norm)
