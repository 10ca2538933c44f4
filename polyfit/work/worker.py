"""Run one shard: a plain function, no Ray in it.

Sets up problems on the CPU, fits them in batches, judges the ends, and writes one object. What a
batch holds is decided by memory alone: no fit knows its batch-mates.
"""

import hashlib
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from polyfit import __version__
from polyfit.engine.affine import difference, fit_affine, tolerance
from polyfit.engine.evaluate import evaluate_compiled, evaluate_eager
from polyfit.engine.fit import fit
from polyfit.engine.initial import initial_values
from polyfit.engine.model import BatchConfig, Problems
from polyfit.engine.outcome import BatchResult
from polyfit.engine.setup import FEW, PROBLEM_FIELDS, Setup
from polyfit.engine.status import DIVERGED, STATUSES
from polyfit.errors import DamagedRun, EngineError
from polyfit.run.ledger import Receipt, shard_key
from polyfit.run.reuse import ReusedRows
from polyfit.run.rows import (
    REFIT_HINT,
    SCALARS,
    Ragged,
    Rows,
    counted,
    examine,
    list_dtype,
    table,
    to_parquet,
)
from polyfit.spec.fields import CANONICAL_ORDER, SQUARED, Fit
from polyfit.spec.plan import ENGINE, SCHEMA, Plan, Shard
from polyfit.spec.rate import curvature, learning_rate
from polyfit.spec.sweep import Column
from polyfit.store.store import Store

__all__ = ["commit", "compute", "inspect_shard", "made", "read_again", "run_shard"]

READINGS: Final = 3
"""Times that a shard is read again until two readings agree."""

BATCH_NUMBERS: Final = 1 << 21
"""Float64 numbers that one array of a batch's problems, or of its residuals, may hold."""

POINTWISE_NUMBERS: Final = 1 << 16
"""Residuals that are written out at a time: few enough to stay in the cache."""


@dataclass(frozen=True, slots=True)
class _Limits:
    """Of a batch: its fits, and the residuals of a batch that iterates over all points."""

    fits: int
    residuals: int


_LIMITS: Final = {
    "eager": _Limits(8_192, POINTWISE_NUMBERS),
    "compiled": _Limits(32_768, 1 << 22),
    "affine": _Limits(131_072, 1),
}
_BYTES: Final = 8
_INDEX: Final = 2**31 - 1
"""An accelerator's kernels count the numbers of an array in 32 bits."""

BATCHES: Final = 3
"""Batches of a kind for each thread that has an accelerator to keep busy: while one is copied or
judged, another is iterated."""

LEAST_FITS: Final = 8_192
"""Of such a batch: with fewer, what a batch costs by itself would be more than its fits do."""

CHECKED_FITS: Final = 16
"""Of each kind in a shard that the affine engine made: iterated as well, and compared."""

_ALIKE: Final = ("degree", "points", "basis", "objective", "dtype", "steps", "stop", "optimizer")

DIFFERENCE: Final = b"affine_difference"
"""The key of a table's metadata under which the affine engine's largest difference stands."""

_ALONE: Final = nullcontext()
_CPU: Final = torch.device("cpu")

ANY_CPU: Final = "any"
"""Instead of a kind of CPU: rows have the same bits on all."""

Index = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


def run_shard(
    plan: Plan,
    number: int,
    store: Store,
    device: torch.device,
    threads: int = 1,
    turn: AbstractContextManager[Any] = _ALONE,
    known: ReusedRows | None = None,
) -> Receipt:
    """Compute shard ``number`` and bring it to rest; an object already there is inspected.

    Args:
        plan: the plan; the caller has checked its torch.
        number: which shard.
        store: the run's folder.
        device: where to iterate.
        threads: batches side by side; each kernel runs on one thread.
        turn: held while the shard is computed, and not while it is written: with a lock, another
            call computes the next shard meanwhile.
        known: rows that need no fitting.

    Raises:
        DamagedRun: the object at the shard's key is not this shard.
        StoreError: the store cannot be used.
    """
    shard = plan.shard(number)
    with turn:
        rows = compute(plan, shard, device, threads, known)
        statuses = counted(rows["status"])
        footer = _footer(plan, shard, statuses, device)
        if plan.engine == "affine":
            footer["affine_difference"] = float(rows.schema.metadata[DIFFERENCE])
        data = to_parquet(rows, footer)
        del rows
    return commit(plan, shard, data, statuses, store)


def commit(
    plan: Plan, shard: Shard, data: bytes, statuses: dict[str, int], store: Store
) -> Receipt:
    """Bring a shard's object to rest. One that is there already, by another writer or by a first
    try whose answer was lost, is inspected instead, and stays.

    Raises:
        DamagedRun: the object at the shard's key is not this shard.
        StoreError: the store cannot be used.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if store.create(shard_key(plan, shard.number), data, sha256, rows=True):
        return Receipt(shard.number, len(data), sha256, shard.fits, statuses)
    return inspect_shard(plan, shard.number, store)


def inspect_shard(plan: Plan, number: int, store: Store) -> Receipt:
    """The receipt of a shard at rest, from its object alone.

    Raises:
        DamagedRun: the object is damaged, or another shard's or plan's.
    """
    shard, key = plan.shard(number), shard_key(plan, number)
    data = store.get(key)
    try:
        return Receipt.of(shard, data, examine(plan, shard, data))
    except DamagedRun as error:
        raise DamagedRun(f"{store.uri}/{key}: {error}; {REFIT_HINT}") from None


def read_again(plan: Plan, receipt: Receipt, store: Store) -> Receipt:
    """The receipt of a shard that was the same twice running: as it was written or read before,
    and as it is read now. For stores that do not check on the way what they get and give.

    Raises:
        DamagedRun: the object is damaged, or is read otherwise each time.
    """
    for _ in range(READINGS):
        again = inspect_shard(plan, receipt.shard, store)
        if again == receipt:
            return receipt
        receipt = again
    key = shard_key(plan, receipt.shard)
    raise DamagedRun(f"{store.uri}/{key} is read otherwise each time, {READINGS} times")


def _footer(
    plan: Plan, shard: Shard, statuses: dict[str, int], device: torch.device
) -> dict[str, Any]:
    return {
        "plan": plan.hash,
        "fits": [shard.start, shard.stop],
        "statuses": statuses,
        "polyfit": __version__,
        **made(plan, device),
    }


def made(plan: Plan, device: torch.device) -> dict[str, Any]:
    """What decides the bits of rows made here, besides their fields and what is recorded."""
    return {
        "engine": plan.engine,
        "ENGINE": ENGINE,
        "SCHEMA": SCHEMA,
        "torch": torch.__version__,
        "device": device.type,
        "cpu": cpu_kind(plan),
    }


def cpu_kind(plan: Plan) -> str:
    """The kind of CPU where that decides the bits of rows, else ``ANY_CPU``.

    It does where torch adds over points: in what order depends on the length of its vectors.
    """
    newton = any(optimizer.name == "newton" for optimizer in plan.sweep.values("optimizer"))
    by_torch = plan.engine == "eager" or newton
    if not by_torch or set(plan.sweep.values("objective")) <= set(SQUARED):
        return ANY_CPU
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def compute(
    plan: Plan,
    shard: Shard,
    device: torch.device,
    threads: int = 1,
    known: ReusedRows | None = None,
) -> pa.Table:
    """The rows of ``shard`` as an Arrow table; see ``run_shard``."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = _ShardWork(plan, shard, device, known, threads)
        batches = list(work.batches())
        if threads == 1:
            for batch in batches:
                work.run(batch)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(work.run, batches):
                    pass
        rows = table(plan, shard, work.finished())
        return rows.replace_schema_metadata({DIFFERENCE: repr(max(work.differences))})
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Fits ``at`` (places in the shard), alike in kind; ``problem_of`` numbers their problems.

    ``checked``: whether it is the first of its kind in the shard. That is settled before threads
    run batches in an order of their own.
    """

    at: Index
    problem_of: Index
    checked: bool = False

    def halves(self) -> "tuple[_Batch, _Batch]":
        """The same fits as two batches."""
        cut = len(self.at) // 2
        first, second = self.problem_of[:cut], self.problem_of[cut:]
        return (
            _Batch(self.at[:cut], first, self.checked),
            _Batch(self.at[cut:], second - second[0]),
        )


class _ShardWork:
    """One shard: its parameters as columns, and its results as they come in."""

    def __init__(
        self,
        plan: Plan,
        shard: Shard,
        device: torch.device,
        known: ReusedRows | None = None,
        threads: int = 1,
    ) -> None:
        self.plan, self.threads = plan, threads
        self.device = _CPU if plan.engine == "affine" else device
        self.compiled = plan.engine != "eager"
        self.differences = [0.0]
        fits = np.arange(shard.start, shard.stop, dtype=np.int64)
        self.columns = {
            name: plan.sweep.column(name, fits).compact()
            if name != "seed"
            else plan.sweep.column(name, fits)
            for name in CANONICAL_ORDER
        }
        self.count = shard.fits
        self.starts = _starts(self.columns, self.compiled, self.device)
        self.rows = self._blank()
        self.left = known.put(self.rows) if known else np.arange(self.count)

    def _blank(self) -> Rows:
        """Rows for every fit, as of a fit that could not be started."""
        dtype = list_dtype(self.plan)
        sizes = self.columns["degree"].array(np.int64) + 1
        steps = self.columns["steps"].array(np.int64)
        unknown = np.full(self.count, np.nan)
        return Rows(
            parameters=self.columns,
            lr=unknown.copy(),
            statuses=STATUSES,
            status=np.full(self.count, DIVERGED, dtype=np.int8),
            steps_taken=np.zeros(self.count, dtype=np.int64),
            scalars={name: unknown.copy() for name in SCALARS},
            coefficients=Ragged.empty(sizes, dtype),
            power_coefficients=Ragged.empty(sizes, dtype),
            power_known=np.zeros(self.count, dtype=np.bool_),
            histories={
                name: Ragged.empty(self._recorded(name, steps), dtype)
                for name in self.plan.record.of
            },
        )

    def _recorded(self, name: str, steps: Index) -> Index:
        """How many numbers fits of so many updates record under ``name``."""
        updates = self.plan.record.updates(int(max(self.columns["steps"].items)))
        counts = np.searchsorted(np.array(updates, dtype=np.int64), steps)
        per_update = self.columns["degree"].array(np.int64) + 1 if name == "coefficients" else 1
        return counts * per_update

    def finished(self) -> Rows:
        """The rows of all fits; a record ends with its fit."""
        for name, history in self.rows.histories.items():
            taken = self._recorded(name, self.rows.steps_taken)
            self.rows.histories[name] = history.cut(taken)
        return self.rows

    def batches(self) -> Iterator[_Batch]:
        """Groups of fits alike, sorted by problem, cut to a size that memory bears."""
        kinds = _mixed([self.columns[name] for name in _ALIKE])
        problems = _mixed([self.columns[name] for name in PROBLEM_FIELDS])
        order = self.left
        if kinds.any() or problems.any():
            order = order[np.lexsort((problems[order], kinds[order]))]
        cuts = np.flatnonzero(np.diff(kinds[order])) + 1
        met: set[BatchConfig] = set()
        for group in np.split(order, cuts) if len(order) else ():
            for batch in self._cut(group, problems[group]):
                kind = self.kind(batch)
                yield replace(batch, checked=kind not in met)
                met.add(kind)

    def _cut(self, group: Index, problems: Index) -> Iterator[_Batch]:
        first = self.example(int(group[0]))
        most_problems = max(1, BATCH_NUMBERS // first.points)
        most_fits = max(1, self._limit(first, len(group)))
        new = np.concatenate([[True], np.diff(problems) != 0])
        ranks = np.cumsum(new) - 1
        start = 0
        while start < len(group):
            stop = min(start + most_fits, len(group))
            stop = min(stop, int(np.searchsorted(ranks, ranks[start] + most_problems)))
            yield _Batch(group[start:stop], ranks[start:stop] - ranks[start])
            start = stop

    def _limit(self, first: Fit, count: int) -> int:
        """How many of ``count`` fits like ``first`` a batch may hold.

        On an accelerator the batches of all threads together take half of its free memory at most.
        """
        points = 0 if first.objective in SQUARED else first.points
        if self.device.type == "cpu":
            limits = _LIMITS[self.plan.engine]
            return min(limits.fits, limits.residuals // points) if points else limits.fits
        memory, size = torch.accelerator.memory, first.degree + 1
        kept = memory.memory_reserved(self.device) - memory.memory_allocated(self.device)
        free = memory.get_memory_info(self.device)[0] + kept  # torch keeps what it has freed
        by_kernel = self.compiled and first.optimizer.name != "newton"
        vectors = (size + 1) * (size + 5)  # the state twice, the moments, R and q
        numbers = vectors + points * (1 if by_kernel else 16 + 2 * size)
        updates = len(self.plan.record.updates(first.steps))
        for name in self.plan.record.of:
            numbers += updates * (size if name == "coefficients" else 1)
        most = min(
            free // (2 * self.threads * _BYTES * numbers), _INDEX // max(vectors, points * size)
        )
        if not by_kernel:  # as many operations of torch for few fits as for many
            return most
        return min(most, max(LEAST_FITS, -(-count // (BATCHES * self.threads))))

    def example(self, position: int) -> Fit:
        """The fit at ``position`` of the shard."""
        return Fit(
            **{
                name: column.items[int(column.codes[position])]
                for name, column in self.columns.items()
            }
        )

    def kind(self, batch: _Batch) -> BatchConfig:
        """What the fits of ``batch`` share."""
        example = self.example(int(batch.at[0]))
        return BatchConfig(
            example.degree,
            example.points,
            example.objective,
            example.optimizer,
            example.steps,
            example.stop,
            torch.float64 if example.dtype == "float64" else torch.float32,
        )

    def run(self, batch: _Batch) -> None:
        """Fit one batch and put its results in their places; in halves where memory runs out."""
        try:
            self._run(batch)
            return
        except torch.OutOfMemoryError:
            if len(batch.at) == 1:
                raise
        # Only now is the whole batch let go of: what an exception came through is kept with it.
        if self.device.type != "cpu":
            torch.accelerator.memory.empty_cache()
        for half in batch.halves():
            self.run(half)

    def _run(self, batch: _Batch) -> None:
        firsts = batch.at[np.flatnonzero(np.diff(batch.problem_of, prepend=-1))]
        setup = Setup.of(self.columns, firsts, self.compiled)
        kind, plan = self.kind(batch), self.plan
        problems = setup.problems(batch.problem_of, kind.squared)
        lr = self._rates(batch, setup, self.example(int(batch.at[0])))
        start = self.starts(batch.at, kind.size)
        updates = plan.record.updates(kind.steps)
        record = plan.record.of
        if plan.engine == "affine":
            outcome = fit_affine(kind, problems, start, lr, updates, record)
            if batch.checked:
                self._check(kind, problems, start, lr, outcome)
        else:
            outcome = fit(kind, problems, start, lr, updates, record, self.device, plan.engine)
        self._store(batch, outcome, lr)
        self._evaluate(batch, kind, setup, problems, outcome.coefficients_BM.astype(np.float64))

    def _check(
        self,
        kind: BatchConfig,
        problems: Problems,
        start: npt.NDArray[np.float32],
        lr: Array,
        outcome: BatchResult,
    ) -> None:
        """Iterate a few fits of a batch, and compare."""
        some = np.unique(np.linspace(0, len(lr) - 1, CHECKED_FITS).astype(np.int64))
        part = replace(problems, of_B=problems.of_B[some])
        iterated = fit(kind, part, start[some], lr[some], [], [], _CPU, "compiled")
        leapt = replace(
            outcome, coefficients_BM=outcome.coefficients_BM[some], status_B=outcome.status_B[some]
        )
        found, most = difference(leapt, iterated), tolerance(kind)
        if not found <= most:
            raise EngineError(
                f"engine affine is {found:.3g} off the iteration, relative; allowed: {most:.3g} "
                f"({kind}); use another engine"
            )
        self.differences.append(found)

    def _rates(self, batch: _Batch, setup: Setup, example: Fit) -> Array:
        """The rate of each fit, float64."""
        column = self.columns["lr"]
        asked, of = np.unique(column.codes[batch.at], return_inverse=True)
        bound = curvature(example.objective, setup.sigma_P, example.points)
        rates = [column.items[code] for code in asked.tolist()]
        return learning_rate(rates, of, example.optimizer, bound[batch.problem_of])

    def _store(self, batch: _Batch, outcome: BatchResult, lr: Array) -> None:
        rows, at = self.rows, batch.at
        rows.lr[at] = lr
        rows.status[at] = outcome.status_B
        rows.steps_taken[at] = outcome.steps_taken_B
        rows.coefficients.put(at, outcome.coefficients_BM)
        for name, values in outcome.recorded.items():
            per_fit = np.moveaxis(values, 0, 1)
            rows.histories[name].put(at, per_fit.reshape(len(at), -1))

    def _evaluate(
        self, batch: _Batch, kind: BatchConfig, setup: Setup, problems: Problems, final_BM: Array
    ) -> None:
        """Everything a row says of the final coefficients, in float64 over all points."""
        rows, at = self.rows, batch.at
        stored = rows.power_coefficients.values.dtype
        # Both ways have the same bits, but for sums over all points, which torch adds otherwise.
        few = kind.squared and len(at) < FEW
        by = evaluate_compiled if self.compiled and not few else evaluate_eager
        found = by(kind, setup, problems, final_BM, stored)
        rows.scalars["loss"][at] = found.loss
        rows.scalars["gradient_norm"][at] = found.gradient_norm
        rows.scalars["rmse"][at] = found.rmse
        rows.scalars["max_error"][at] = found.max_error
        if kind.squared:
            share = kind.points if kind.objective == "mse" else 1
            rows.scalars["optimum_loss"][at] = problems.rest_P[problems.of_B] / share
            rows.scalars["excess_loss"][at] = found.excess
        rows.power_coefficients.put(at, found.powers)
        rows.power_known[at] = found.powers_known


def _mixed(columns: list[Column]) -> Index:
    """One number per fit, equal exactly where all columns are."""
    mixed = np.zeros(len(columns[0].codes), dtype=np.int64)
    for column in columns:
        if len(column.items) > 1:
            mixed = mixed * len(column.items) + column.codes
            mixed = np.unique(mixed, return_inverse=True)[1]
    return mixed


def _starts(columns: dict[str, Column], compiled: bool, device: torch.device) -> Any:
    """Initial values of the shard's fits: each seed is drawn once, as many values as any needs."""
    seeds = columns["seed"].array(np.int64)
    if (np.diff(seeds) > 0).all():  # as they are in most shards: nothing to sort
        unique, codes = seeds, np.arange(len(seeds))
    else:
        unique, codes = np.unique(seeds, return_inverse=True)
    drawn = initial_values(unique, max(columns["degree"].items) + 1, compiled, device)
    return lambda at, size: drawn[codes[at], :size]
