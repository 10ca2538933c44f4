"""gd and momentum on a squared objective as what they are: one affine map, raised to powers.

One update's map is taken from autograd at one point, and where it leads after many updates comes
from repeated squaring: the same trajectory to rounding, at a cost that does not grow with the
updates between two records. All in float64; coefficients and records are rounded to the dtype of
the fit. What overflows on its way is iterated instead, so that it ends as the iteration says.

Shapes: B fits, M = degree + 1 coefficients, S = M (1 + moments) numbers of a state, K records, T =
M (M + 1) / 2, J different numbers of updates between records, G maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine import cpu
from polyfit.engine.emit import Emitter, Loop
from polyfit.engine.fit import fit
from polyfit.engine.kernel import Kernel
from polyfit.engine.model import (
    MOMENTS,
    Array,
    BatchConfig,
    Hyperparameters,
    Problems,
    squared,
    squared_loss,
    updated,
)
from polyfit.engine.outcome import BatchResult, usable
from polyfit.engine.status import COMPLETED, DIVERGED, LOSS_GROWTH
from polyfit.engine.tape import Tape

__all__ = ["AffinePower", "difference", "fit_affine", "tolerance"]

_NEAR_OVERFLOW: Final = 1e-8
"""Of the largest number of a dtype: what has come this near may have overflowed on its way."""

_MAPS: Final = 1 << 27
"""Bytes of the maps of a batch."""

_BYTES: Final = 8
_CPU: Final = torch.device("cpu")

Index = npt.NDArray[np.int64]
Values = list[str]


def fit_affine(
    kind: BatchConfig,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
) -> BatchResult:
    """``fit`` for a squared objective with gd or momentum and no stop rule, on the CPU.

    Raises:
        ClusterError: no machine code can be made or run here.
    """
    updates = updates if record else ()
    states = kind.size * (1 + MOMENTS[kind.optimizer.name])
    most = max(1, _MAPS // (_BYTES * states * (states + 1) * (len(updates) + 2)))
    if len(lr_B) > most and len(_firsts(problems.of_B, lr_B)) > most:
        return _in_halves(kind, problems, start_BM, lr_B, updates, record)
    with np.errstate(all="ignore"):
        outcome, extreme = _powers(kind, problems, start_BM, lr_B, updates, tuple(record))
        near = ~(extreme <= _NEAR_OVERFLOW * torch.finfo(kind.dtype).max)  # nor is NaN
    iterated = np.flatnonzero(near | ~usable(kind, problems, lr_B))
    if len(iterated):
        part, start_BM = replace(problems, of_B=problems.of_B[iterated]), start_BM[iterated]
        found = fit(kind, part, start_BM, lr_B[iterated], updates, record, _CPU, "eager")
        outcome.coefficients_BM[iterated] = found.coefficients_BM
        outcome.steps_taken_B[iterated] = found.steps_taken_B
        outcome.status_B[iterated] = found.status_B
        for name, values in found.recorded.items():
            outcome.recorded[name][:, iterated] = values
    return outcome


def tolerance(kind: BatchConfig) -> float:
    """How far an iteration may be from the maps: some roundings per update, all one way.

    Momentum remembers each of them for 1 / (1 - beta) updates.
    """
    memory = 1.0 / (1.0 - kind.optimizer.beta)
    return 8.0 * max(kind.steps, 100) * memory * torch.finfo(kind.dtype).eps


def difference(one: BatchResult, other: BatchResult) -> float:
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


def _in_halves(
    kind: BatchConfig,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
) -> BatchResult:
    """The same, half the fits at a time, where the maps of all would fill too much memory."""
    cut, of = len(lr_B) // 2, problems.of_B
    first, second = (
        fit_affine(
            kind, replace(problems, of_B=of[some]), start_BM[some], lr_B[some], updates, record
        )
        for some in (slice(cut), slice(cut, None))
    )
    return BatchResult(
        np.concatenate([first.coefficients_BM, second.coefficients_BM]),
        np.concatenate([first.steps_taken_B, second.steps_taken_B]),
        np.concatenate([first.status_B, second.status_B]),
        {
            name: np.concatenate([values, second.recorded[name]], axis=1)
            for name, values in first.recorded.items()
        },
    )


@dataclass(frozen=True)
class AffinePower(Kernel):
    """The kernel that takes fits from record to record, each time by one map.

    Args:
        degree, objective, moments: of the fits, and of their optimizer.
        one_map, one_R: whether one map, or one R, serves all fits.
        record: what is recorded of "loss", "coefficients", "gradient_norm".
        single: whether that is rounded to float32.

    Arrays of float64: ``start`` (M, B), ``maps`` (J, S + 1, S, G), of each the columns of the
    matrix and then the offset; R (T,) or (T, B) row by row, q (M, B), ``rest`` (B,). Of int64:
    ``jump_of`` (K + 1,), which map leads to each record and to the end; ``map_of`` (B,).

    Results: ``first`` and ``last`` (B,), the losses at both ends; ``extreme`` (B,), the largest of
    the state and the loss in size on the way, NaN if one is; ``final`` (M, B); in the fits' dtype
    ``loss`` and ``gradient_norm`` (K, B), ``coefficients`` (K, M, B).
    """

    degree: int
    objective: str
    moments: int
    one_map: bool
    one_R: bool
    record: tuple[str, ...]
    single: bool

    real = "double"
    arrays: ClassVar = (
        "start", "maps", "R", "q", "rest", "jump_of", "map_of", "first", "last", "extreme",
        "final", "loss", "gradient_norm", "coefficients",
    )  # fmt: skip
    integers: ClassVar = ("points", "records", "maps_count")

    @property
    def words(self) -> str:
        words = (
            "affine", self.degree, self.objective, self.moments, self.one_map, self.one_R,
            self.single, *self.record,
        )  # fmt: skip
        return " ".join(map(str, words))

    @property
    def vectors(self) -> int:
        """S, the numbers of a state."""
        return (self.degree + 1) * (1 + self.moments)

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        size = self.degree + 1
        count = size * (size + 1) // 2 if self.one_R else 0
        return [e.load_all(a["R"], k) for k in range(count)]

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        _Block(self, e, a, shared, b).write()


class _Block:
    """Writes what is done for one block of fits."""

    def __init__(
        self, kernel: AffinePower, e: Emitter, a: dict[str, str], R: Values, b: str
    ) -> None:
        self.kernel, self.e, self.a, self.b = kernel, e, a, b
        self.size = size = kernel.degree + 1
        self.R = R or [e.load_lanes(a["R"], self._row(k)) for k in range(size * (size + 1) // 2)]
        self.q = [e.load_lanes(a["q"], self._row(k)) for k in range(size)]
        self.rest = e.load_lanes(a["rest"], b)
        self.points = e.splat(e.new(f"uitofp i64 {a['points']} to double"))

    def _row(self, k: str | int) -> str:
        return self.e.integer("add", self.e.integer("mul", self.a["batch"], k), self.b)

    def write(self) -> None:
        e, a, size = self.e, self.a, self.size
        start = [e.load_lanes(a["start"], self._row(k)) for k in range(size)]
        start += [e.constant(0.0)] * (self.kernel.vectors - size)
        first = self._loss(start[:size])[1]
        e.store_lanes(first, a["first"], self.b)
        map_of = e.load_lanes(a["map_of"], self.b, "i64")
        carried = [(e.vector, value) for value in [*start, e.size(first)]]
        loop = Loop(e, "0", carried)
        state = self._after(loop.index, map_of, loop.values[:-1])
        c = state[:size]
        tape, loss = self._loss(c)
        extreme = loop.values[-1]
        for value in [*state, loss]:
            extreme = e.largest(extreme, value)
        with e.when(e.compare("ult", loop.index, a["records"])):
            self._record(loop.index, c, loss, tape)
        with e.when(e.compare("eq", loop.index, a["records"])):
            e.store_lanes(loss, a["last"], self.b)
            e.store_lanes(extreme, a["extreme"], self.b)
            for k, value in enumerate(c):
                e.store_lanes(value, a["final"], self._row(k))
        loop.end(e.integer("add", a["records"], 1), 1, [*state, extreme])

    def _loss(self, c: Values) -> tuple[Tape, str]:
        tape = Tape(self.e, torch.float64, c)
        points = self.points if self.kernel.objective == "mse" else None
        return tape, squared_loss(tape, self.R, self.q, self.rest, points, c)

    def _after(self, jump: str, map_of: str, state: Values) -> Values:
        """The state after the map of a jump; each sum begins with its offset."""
        e, a, count = self.e, self.a, self.kernel.vectors
        number = e.integer("mul", e.load(a["jump_of"], jump, "i64"), count * (count + 1))

        def entry(k: int) -> str:
            at = e.integer("mul", e.integer("add", number, k), a["maps_count"])
            if self.kernel.one_map:
                return e.load_all(a["maps"], at)
            whole = e.of_lanes("i64")
            return e.gather(a["maps"], e.new(f"add {whole} {map_of}, {e.splat(at, 'i64')}"))

        after = []
        for i in range(count):
            value = entry(count * count + i)
            for j in range(count):
                value = e.add(value, e.mul(entry(j * count + i), state[j]))
            after.append(value)
        return after

    def _record(self, slot: str, c: Values, loss: str, tape: Tape) -> None:
        e, record = self.e, self.kernel.record
        if "loss" in record:
            self._keep(loss, "loss", slot)
        if "gradient_norm" in record:
            total = None
            for d in tape.gradient(loss, c):
                square = e.mul(d, d)
                total = square if total is None else e.add(total, square)
            assert total is not None
            self._keep(e.intrinsic("sqrt", total), "gradient_norm", slot)
        if "coefficients" in record:
            start = e.integer("mul", slot, self.size)
            for k, value in enumerate(c):
                self._keep(value, "coefficients", e.integer("add", start, k))

    def _keep(self, value: str, name: str, row: str) -> None:
        single = self.kernel.single
        value = self.e.narrowed(value) if single else value
        kind = "float" if single else "double"
        self.e.store_lanes(value, self.a[name], self._row(row), kind)


def _powers(
    kind: BatchConfig,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: tuple[str, ...],
) -> tuple[BatchResult, Array]:
    """How fits end by their maps, and the extreme of each, shape (B,)."""
    count, size, of = len(lr_B), kind.size, problems.of_B
    maps = _Maps(kind, problems, lr_B)
    jumps, jump_of = np.unique(np.diff([0, *updates, kind.steps]), return_inverse=True)
    R = problems.R_PMM
    kernel = AffinePower(
        kind.degree, kind.objective, MOMENTS[kind.optimizer.name], maps.of_B[-1] == 0,
        not np.ptp(R, axis=0).any(), record if updates else (), kind.dtype == torch.float32,
    )  # fmt: skip
    lanes = cpu.lanes_of(kernel, 2 * kernel.vectors)
    batch = -(-count // lanes) * lanes

    def rows(values: npt.NDArray[Any]) -> Array:
        """(B, n) as (n, batch); what fills up is as the last fit."""
        filled = np.empty((values.shape[1], batch))
        filled[:, :count] = values.T
        filled[:, count:] = values[-1][:, None]
        return filled

    upper = np.triu_indices(size)
    R = R[:, upper[0], upper[1]]
    dtype = np.float32 if kernel.single else np.float64
    map_of = np.zeros(batch, dtype=np.int64)
    map_of[:count] = maps.of_B
    arrays: dict[str, Any] = {
        "start": rows(start_BM),
        "maps": np.ascontiguousarray([maps.power(int(jump)) for jump in jumps]),
        "R": np.ascontiguousarray(R[0]) if kernel.one_R else rows(R[of]),
        "q": rows(problems.q_PM[of]),
        "rest": rows(problems.rest_P[of, None]),
        "jump_of": jump_of.astype(np.int64),
        "map_of": map_of,
        **{name: np.empty(batch) for name in ("first", "last", "extreme")},
        "final": np.empty((size, batch)),
    }
    shapes = {"loss": (), "gradient_norm": (), "coefficients": (size,)}
    for name in kernel.record:
        arrays[name] = np.empty((len(updates), *shapes[name], batch), dtype=dtype)
    call = cpu.load(kernel, lanes).bind(
        {
            **arrays,
            "batch": batch,
            "points": kind.points,
            "records": len(updates) if kernel.record else 0,
            "maps_count": arrays["maps"].shape[-1],
        }
    )
    call(begin=0, end=batch)
    grown = arrays["last"][:count] > LOSS_GROWTH * arrays["first"][:count]
    outcome = BatchResult(
        arrays["final"][:, :count].astype(dtype).T,
        np.full(count, kind.steps),
        np.where(grown, DIVERGED, COMPLETED).astype(np.int8),
        {name: np.moveaxis(arrays[name][..., :count], -1, 1) for name in kernel.record},
    )
    return outcome, arrays["extreme"][:count]


class _Maps:
    """The affine maps of a batch: s -> A s + b, one for each run of fits alike.

    Neighbours mostly share their problem and rate; a map that comes again later is made again.
    """

    def __init__(self, kind: BatchConfig, problems: Problems, lr_B: Array) -> None:
        first = _firsts(problems.of_B, lr_B)
        self.of_B = np.searchsorted(first, np.arange(len(lr_B)), side="right") - 1
        self.squares = [_one_step(kind, problems, lr_B[first], problems.of_B[first])]

    def power(self, updates: int) -> Array:
        """The map of so many updates, shape (S + 1, S, G): A^n by columns, then its offset."""
        offset = np.zeros_like(self.squares[0][1])
        count, maps = offset.shape
        matrix = np.broadcast_to(np.eye(count)[..., None], (count, count, maps))
        for k in range(updates.bit_length()):
            if k == len(self.squares):
                self.squares.append(_after(self.squares[-1], self.squares[-1]))
            if updates >> k & 1:
                matrix, offset = _after(self.squares[k], (matrix, offset))
        return np.concatenate([np.swapaxes(matrix, 0, 1), offset[None]])


def _firsts(of_B: Index, lr_B: Array) -> Index:
    """The first fit of each run of fits alike."""
    new = (of_B[1:] != of_B[:-1]) | (lr_B[1:] != lr_B[:-1])
    return np.append(0, np.flatnonzero(new) + 1)


def _after(second: tuple[Array, Array], first: tuple[Array, Array]) -> tuple[Array, Array]:
    """The map ``first`` followed by ``second``; sums written out, elementwise over the maps."""
    (A, b), (C, d) = second, first
    matrix, offset = np.zeros_like(A), b.copy()
    for k in range(len(b)):
        matrix += A[:, k, None] * C[None, k]
        offset += A[:, k] * d[k]
    return matrix, offset


def _one_step(
    kind: BatchConfig, problems: Problems, lr_G: Array, of_G: Index
) -> tuple[Array, Array]:
    """One update's matrix, shape (S, S, G), and offset, shape (S, G), by autograd."""
    size, count = kind.size, kind.size * (1 + MOMENTS[kind.optimizer.name])
    upper = np.triu_indices(size)
    arrays = problems.R_PMM[of_G][:, upper[0], upper[1]].T, problems.q_PM[of_G].T, lr_G[None]
    R, q, (lr,) = (torch.tensor(array).unbind(0) for array in arrays)
    ones, mean = torch.ones_like(lr), float(kind.points) if kind.objective == "mse" else None
    objective = squared(R, q, torch.zeros_like(lr), mean)
    hyper = Hyperparameters(kind.optimizer.name, kind.optimizer.beta)
    with torch.enable_grad():
        state = [torch.zeros_like(lr, requires_grad=True) for _ in range(count)]
        c, moments = state[:size], [state[size:]] if count > size else []
        g = torch.autograd.grad(objective(c), c, ones, create_graph=True)
        c, moments = updated(hyper, c, moments, lr, list(g))
        new = [*c, *(vector for moment in moments for vector in moment)]
        rows = [
            torch.autograd.grad(value, state, ones, retain_graph=True, materialize_grads=True)
            for value in new
        ]
    matrix = torch.stack([torch.stack(row) for row in rows])
    return matrix.numpy(), torch.stack(new).detach().numpy()
