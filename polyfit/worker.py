"""Run one shard: a plain function, no Ray in it.

Sets up problems on the CPU, fits them in batches, judges the ends, and writes one object. What a
batch holds is decided by memory alone: no fit knows its batch-mates.
"""

import hashlib
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from polyfit import __version__, kernels, trigonometry
from polyfit.affine import difference, leap, leaps, tolerance
from polyfit.blocks import Ends, Targets
from polyfit.errors import DamagedRun, EngineError
from polyfit.expression import FUNCTIONS, Formula, Functions
from polyfit.fields import CANONICAL_ORDER, SQUARED, Fit
from polyfit.fit import DIVERGED, STATUSES, Outcome, blocks, evaluate, fit
from polyfit.ledger import Receipt, shard_key
from polyfit.model import Kind, Problems
from polyfit.plan import ENGINE, SCHEMA, Plan, Shard
from polyfit.problem import (
    Grid,
    basis_functions,
    curvature,
    design,
    in_powers,
    learning_rate,
    noisy,
    reduce,
    target_values,
)
from polyfit.reuse import Known
from polyfit.rows import (
    MEND,
    SCALARS,
    Ragged,
    Rows,
    counted,
    examine,
    list_dtype,
    table,
    to_parquet,
)
from polyfit.starts import start_values
from polyfit.store import Store
from polyfit.sweep import Column

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
    "compiled": _Limits(32_768, 1 << 19),
    "affine": _Limits(131_072, 1),
}
_BYTES: Final = 8
_INDEX: Final = 2**31 - 1
"""An accelerator's kernels count the numbers of an array in 32 bits."""

CHECKED_FITS: Final = 16
"""Of each kind in a shard that the affine engine made: iterated as well, and compared."""

POWER_TOLERANCE: Final = 1e-6
"""Of max |y|: a larger change of a prediction makes the power coefficients null."""

_FUSED_TARGETS: Final = 1 << 19
"""Points from which on a compiled loop makes the data of a batch's ranges."""

_ALIKE: Final = ("degree", "points", "objective", "dtype", "steps", "stop", "optimizer")
_PROBLEM: Final = ("range", "points", "degree", "basis", "target", "noise", "noise_seed")

DIFFERENCE: Final = b"affine_difference"
"""The key of a table's metadata under which the affine engine's largest difference stands."""

_ALONE: Final = nullcontext()
_CPU: Final = torch.device("cpu")

Index = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


def run_shard(
    plan: Plan,
    number: int,
    store: Store,
    device: torch.device,
    threads: int = 1,
    turn: AbstractContextManager[Any] = _ALONE,
    known: Known | None = None,
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
        raise DamagedRun(f"{store.uri}/{key}: {error}; {MEND}") from None


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
        "cpu": cpu_kind(),
    }


@lru_cache(maxsize=1)
def cpu_kind() -> str:
    """The kind of CPU, as far as it decides which kernels run."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def compute(
    plan: Plan,
    shard: Shard,
    device: torch.device,
    threads: int = 1,
    known: Known | None = None,
) -> pa.Table:
    """The rows of ``shard`` as an Arrow table; see ``run_shard``."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = _ShardWork(plan, shard, device, known)
        batches = list(work.batches())
        work.prepare(batches)
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
        self, plan: Plan, shard: Shard, device: torch.device, known: Known | None = None
    ) -> None:
        self.plan, self.device = plan, device
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
        self.starts = _starts(self.columns)
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
        alike = (*_ALIKE, "basis") if self.compiled else _ALIKE
        kinds = _mixed([self.columns[name] for name in alike])
        problems = _mixed([self.columns[name] for name in _PROBLEM])
        order = self.left
        if kinds.any() or problems.any():
            order = order[np.lexsort((problems[order], kinds[order]))]
        cuts = np.flatnonzero(np.diff(kinds[order])) + 1
        met: set[Kind] = set()
        for group in np.split(order, cuts) if len(order) else ():
            for batch in self._cut(group, problems[group]):
                kind = self.kind(batch)
                yield replace(batch, checked=kind not in met)
                met.add(kind)

    def _cut(self, group: Index, problems: Index) -> Iterator[_Batch]:
        first = self.example(int(group[0]))
        squared = first.objective in SQUARED
        most_problems = max(1, BATCH_NUMBERS // first.points)
        limits = self._limits(first.degree)
        most_fits = limits.fits
        if not squared:
            most_fits = max(1, min(most_fits, limits.residuals // first.points))
        new = np.concatenate([[True], np.diff(problems) != 0])
        ranks = np.cumsum(new) - 1
        start = 0
        while start < len(group):
            stop = min(start + most_fits, len(group))
            stop = min(stop, int(np.searchsorted(ranks, ranks[start] + most_problems)))
            yield _Batch(group[start:stop], ranks[start:stop] - ranks[start])
            start = stop

    def _limits(self, degree: int) -> _Limits:
        """What a batch may hold: on an accelerator, what half of its free memory does."""
        limits = _LIMITS[self.plan.engine]
        if self.device.type == "cpu":
            return limits
        numbers = torch.accelerator.memory.get_memory_info(self.device)[0] // 2 // _BYTES
        vectors = (degree + 2) * (degree + 6)  # the state twice, the moments, R and q
        functions = degree + 1  # of each range its own
        fits = min(numbers, _INDEX) // vectors
        residuals = min(numbers // (16 + 2 * functions), _INDEX // functions)
        return _Limits(max(limits.fits, fits), max(limits.residuals, residuals))

    def example(self, position: int) -> Fit:
        """The fit at ``position`` of the shard."""
        return Fit(
            **{
                name: column.items[int(column.codes[position])]
                for name, column in self.columns.items()
            }
        )

    def kind(self, batch: _Batch) -> Kind:
        """What the fits of ``batch`` share."""
        example = self.example(int(batch.at[0]))
        return Kind(
            example.degree,
            example.points,
            example.objective,
            example.optimizer,
            example.steps,
            example.stop,
            torch.float64 if example.dtype == "float64" else torch.float32,
        )

    def prepare(self, batches: list[_Batch]) -> None:
        """Have the kernels that these batches need, compiled side by side with other workers."""
        if not self.compiled:
            return
        recipes: dict[tuple[torch.device, str], kernels.Recipe] = {}
        for batch in batches:
            kind, example = self.kind(batch), self.example(int(batch.at[0]))
            one = int(batch.problem_of[-1]) == 0
            ranges = np.unique(self.columns["range"].codes[batch.at])
            one_design = len(ranges) == 1 or not _ranged(example.basis, kind.degree)
            shared = (one_design, one and not kind.squared)
            updates = self.plan.record.updates(kind.steps)
            found = [(self.device, block.recipe()) for block in blocks(kind, updates, shared)]
            if self.plan.engine == "affine":
                one_map = one and len(np.unique(self.columns["lr"].codes[batch.at])) == 1
                affine = leaps(kind, (one_map, one_design, one), self.plan.record.of)
                found = [(_CPU, leap.recipe()) for leap in affine]
                found += [(_CPU, block.recipe()) for block in blocks(kind, [], shared)]
            in_x, data = example.basis == "power", not kind.squared
            parts = [batch.problem_of[some] for some in self._pieces(batch, kind)]
            for one in sorted({bool(part[0] == part[-1]) for part in parts}):
                ends = Ends(kind.degree, in_x, one, data)
                found.append((self.device if one else _CPU, ends.recipe()))
            if len(ranges) * kind.points >= _FUSED_TARGETS:
                target = self.columns["target"]
                texts = [target.items[code] for code in np.unique(target.codes[batch.at])]
                found += [(_CPU, Targets(text).recipe()) for text in texts if Formula(text).plain]
            recipes |= {(device, recipe.name): recipe for device, recipe in found}
        for device in dict.fromkeys(device for device, _ in recipes):
            kernels.prepare([recipes[key] for key in recipes if key[0] == device], device)

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
        setup = _Setup(self.columns, firsts, self.compiled)
        kind, plan = self.kind(batch), self.plan
        problems = setup.problems(batch.problem_of, kind)
        lr = self._rates(batch, setup, self.example(int(batch.at[0])))
        start = self.starts(batch.at, kind.size)
        updates = plan.record.updates(kind.steps)
        record = plan.record.of
        if plan.engine == "affine":
            outcome = leap(kind, problems, start, lr, updates, record)
            if batch.checked:
                self._check(kind, problems, start, lr, outcome)
        else:
            outcome = fit(kind, problems, start, lr, updates, record, self.device, plan.engine)
        self._store(batch, outcome, lr)
        self._judge(batch, kind, setup, problems, outcome.coefficients_BM.astype(np.float64))

    def _check(
        self,
        kind: Kind,
        problems: Problems,
        start: npt.NDArray[np.float32],
        lr: Array,
        outcome: Outcome,
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

    def _rates(self, batch: _Batch, setup: "_Setup", example: Fit) -> Array:
        """The rate of each fit, float64."""
        column = self.columns["lr"]
        asked, of = np.unique(column.codes[batch.at], return_inverse=True)
        bound = curvature(example.objective, setup.sigma_P, example.points)
        rates = [column.items[code] for code in asked.tolist()]
        return learning_rate(rates, of, example.optimizer, bound[batch.problem_of])

    def _store(self, batch: _Batch, outcome: Outcome, lr: Array) -> None:
        rows, at = self.rows, batch.at
        rows.lr[at] = lr
        rows.status[at] = outcome.status_B
        rows.steps_taken[at] = outcome.steps_taken_B
        rows.coefficients.put(at, outcome.coefficients_BM)
        for name, values in outcome.recorded.items():
            per_fit = np.moveaxis(values, 0, 1)
            rows.histories[name].put(at, per_fit.reshape(len(at), -1))

    def _judge(
        self, batch: _Batch, kind: Kind, setup: "_Setup", problems: Problems, final_BM: Array
    ) -> None:
        """Everything a row says of the final coefficients, in float64 over all points."""
        rows, at = self.rows, batch.at
        verdict = evaluate(kind, problems, final_BM, self.device)
        share = kind.points if kind.objective == "mse" else 1
        optimum = problems.rest_P[problems.of_B] / share
        rows.scalars["loss"][at] = verdict.loss
        rows.scalars["gradient_norm"][at] = verdict.gradient_norm
        if kind.squared:
            rows.scalars["optimum_loss"][at] = optimum
            rows.scalars["excess_loss"][at] = verdict.excess
            rows.scalars["rmse"][at] = np.sqrt(verdict.loss * (share / kind.points))
        stored = rows.power_coefficients.values.dtype
        ends_of = partial(setup.fused_ends, self.device) if self.compiled else setup.ends
        for some in self._pieces(batch, kind):
            ends = ends_of(problems.of_B[some], final_BM[some], stored, kind.squared)
            rows.scalars["max_error"][at[some]] = ends.max_error
            if not kind.squared:
                rows.scalars["rmse"][at[some]] = ends.rmse
            rows.power_coefficients.put(at[some], ends.powers)
            rows.power_known[at[some]] = ends.powers_known

    def _pieces(self, batch: _Batch, kind: Kind) -> Iterator[slice]:
        """Parts of a batch that are judged at a time; all of it where one problem serves."""
        piece, count = max(1, POINTWISE_NUMBERS // kind.points), len(batch.at)
        if self.compiled:
            one = int(batch.problem_of[-1]) == int(batch.problem_of[0])
            piece = count if one else max(1, BATCH_NUMBERS // kind.points)
        return (slice(low, min(low + piece, count)) for low in range(0, count, piece))


def _ranged(basis: str, degree: int) -> bool:
    """Whether a design depends on the range; the power 0 does not."""
    return basis == "power" and degree > 0


@dataclass(frozen=True, slots=True)
class _Ends:
    """Fits judged on their points; arrays of shape (fits,), ``powers`` (fits, M)."""

    max_error: Array
    rmse: Array
    powers: npt.NDArray[np.floating]
    powers_known: npt.NDArray[np.bool_]


class _Setup:
    """The distinct problems of a batch; what several of them share is worked out once.

    Shapes: P problems; C clean targets on their ranges; D data, each a clean target with its
    noise; G designs.
    """

    def __init__(self, columns: dict[str, Column], first: Index, compiled: bool) -> None:
        """The problems of the fits at ``first`` in the columns, which share points and degree.

        ``compiled``: whether kernels may be used; no bit depends on it.
        """
        self.compiled = compiled
        items = {name: columns[name].items for name in _PROBLEM}
        codes = {name: columns[name].codes[first] for name in _PROBLEM}
        self.points: int = items["points"][codes["points"][0]]
        self.degree: int = items["degree"][codes["degree"][0]]
        self.bases, self.basis_P = items["basis"], codes["basis"]
        self.low_P, self.high_P = _values(items["range"], codes["range"], np.float64).T
        self.in_x_P = np.array([basis == "power" for basis in self.bases])[self.basis_P]
        ranged_P = np.array([_ranged(basis, self.degree) for basis in self.bases])[self.basis_P]
        one, self.design_of_P = _distinct(self.basis_P, np.where(ranged_P, codes["range"], 0))
        self.designs = [(at, design(grid)) for at, grid in self._by_basis(one)]
        self.sigma_P = self._spread([found.sigma for _, found in self.designs])
        one, self.clean_of_P = _distinct(codes["target"], codes["range"])
        self.clean_CN, self.scale_D = self._clean(items["target"], codes["target"][one], one)
        self.y_DN, self.data_of_P = self.clean_CN, self.clean_of_P
        scale = _values(items["noise"], codes["noise"], np.float64)
        if scale.any():
            seed = np.where(scale > 0.0, codes["noise_seed"], codes["noise_seed"][0])
            one, self.data_of_P = _distinct(self.clean_of_P, codes["noise"], seed)
            seeds = _values(items["noise_seed"], seed[one], np.uint64)
            self.y_DN = noisy(self.clean_CN, self.clean_of_P[one], scale[one], seeds)
            self.scale_D = _largest(self.y_DN)

    def _by_basis(self, of: Index) -> Iterator[tuple[Index, Grid]]:
        """The grids of the problems ``of``, those of one basis together, and their places.

        One grid serves where all are one problem.
        """
        for basis in np.unique(self.basis_P[of]):
            at = np.flatnonzero(self.basis_P[of] == basis)
            yield at, self._grid(of[at], self.bases[basis])

    def _grid(self, of: Index, basis: str) -> Grid:
        of = of[:1] if (of == of[0]).all() else of
        return Grid(self.low_P[of], self.high_P[of], self.points, self.degree, basis)

    def _spread(self, parts: list[Array]) -> Array:
        """What the designs have, per problem."""
        spread = np.empty((self.design_of_P.max() + 1, *parts[0].shape[1:]))
        for (at, _), part in zip(self.designs, parts, strict=True):
            spread[at] = part
        return spread[self.design_of_P]

    def _clean(self, targets: Sequence[str], target_C: Index, of: Index) -> tuple[Array, Array]:
        """The noise-free data of the problems ``of``, sorted by target, and max |y| of each."""
        parts = []
        for target in np.unique(target_C):
            grid = self._grid(of[target_C == target], "power")
            parts.append(self._data(targets[target], grid))
        if len(parts) == 1:
            return parts[0]
        clean, scale = zip(*parts, strict=True)
        return np.concatenate(clean), np.concatenate(scale)

    def _data(self, target: str, grid: Grid) -> tuple[Array, Array]:
        """The target on the ranges of ``grid``, shape (C, N), and max |y| of each."""
        fused = np.size(grid.low) * grid.points >= _FUSED_TARGETS and Formula(target).plain
        if not (self.compiled and fused):
            y = target_values(target, grid, _vectorised())
            return y, _largest(y)
        count = np.size(grid.low)
        y, scale, reach = np.empty((count, grid.points)), np.empty(count), np.empty(count)
        inputs, outputs = (
            [torch.from_numpy(np.require(array, requirements=("C", "W"))) for array in arrays]
            for arrays in ((grid.middle, grid.half, grid.t()), (y, scale, reach))
        )
        kernels.load(Targets(target).recipe(), _CPU).bind(inputs, outputs)()
        far = np.flatnonzero(~(reach <= trigonometry.LIMIT))
        if len(far):
            low, high = (np.ravel(ends)[far] for ends in (grid.low, grid.high))
            y[far] = target_values(target, replace(grid, low=low, high=high))
            scale[far] = _largest(y[far])
        return y, scale

    def problems(self, of_B: Index, kind: Kind) -> Problems:
        """The problems in the form the engine takes; one design for all stays one."""
        q_DM, rest_D = reduce(kind.degree, self.y_DN)
        functions, y = np.empty((1, kind.degree + 1, 0)), np.empty((1, 0))
        if not kind.squared:
            y = self.y_DN[self.data_of_P]
            functions = self.designs[0][1].functions_MN
            if self.design_of_P.any():
                functions = self._spread([found.functions_MN for _, found in self.designs])
        return Problems(
            of_B,
            self._spread([found.R_MM for _, found in self.designs]),
            q_DM[self.data_of_P],
            rest_D[self.data_of_P],
            functions,
            y,
        )

    def fused_ends(
        self, device: torch.device, of: Index, final: Array, stored: npt.DTypeLike, squared: bool
    ) -> _Ends:
        """``ends`` by one kernel, of fits in one basis."""
        one, in_x = int(of.max()) == int(of.min()), bool(self.in_x_P[of[0]])
        grid = self._grid(of, self.bases[self.basis_P[of[0]]])
        device = device if one else _CPU  # the data of many are as quickly judged as moved
        kernel = kernels.load(Ends(self.degree, in_x, one, not squared).recipe(), device)
        some = of[:1] if one else of
        with np.errstate(all="ignore"):
            powers = final.astype(stored) if in_x else self._converted(of, final).astype(stored)
        arrays = [*final.T]
        if not in_x:
            arrays += [*powers.astype(np.float64).T]
            arrays.append(np.stack(list(basis_functions(grid.basis, self.degree, grid.t()))))
        if one:
            arrays.append(np.reshape(grid.x(), (1, -1)))
        else:
            arrays += [np.broadcast_to(v, len(of)) for v in (grid.middle, grid.half)]
            arrays.append(grid.t())
        arrays.append(_rows_of(self.clean_CN, self.clean_of_P[some]))
        if not squared:
            arrays.append(_rows_of(self.y_DN, self.data_of_P[some]))
        inputs = [
            torch.from_numpy(np.require(array, requirements=("C", "W"))).to(device)
            for array in arrays
        ]
        outputs = [
            torch.empty(len(of), dtype=torch.float64, device=device)
            for _ in range(1 + (not in_x) + (not squared))
        ]
        kernel.bind(inputs, outputs)()
        told = [output.cpu().numpy() for output in outputs]
        rmse = np.sqrt(told[-1] / self.points)
        known = np.isfinite(powers).all(axis=1)
        if not in_x:
            known &= told[1] <= POWER_TOLERANCE * self.scale_D[self.data_of_P[of]]
        return _Ends(told[0], rmse, powers, known)

    def ends(self, of: Index, final: Array, stored: npt.DTypeLike, squared: bool) -> _Ends:
        """Largest error against the clean target, RMS error against the data, powers of x."""
        with np.errstate(all="ignore"):
            predicted = self._predicted(of, final)
            max_error = np.abs(predicted - self.clean_CN[self.clean_of_P[of]]).max(axis=1)
            rmse = np.full(len(of), np.nan)
            if not squared:
                residual = predicted - self.y_DN[self.data_of_P[of]]
                rmse = np.sqrt((residual * residual).sum(axis=1) / residual.shape[1])
            powers, known = self._in_powers(of, final, predicted, stored)
        return _Ends(max_error, rmse, powers, known)

    def _in_powers(
        self, of: Index, final: Array, predicted: Array, stored: npt.DTypeLike
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
        """Coefficients of the powers of x, and which of the fits have them.

        Those of the power basis have them already; the others are converted, and keep the
        result where it predicts what the fit does.
        """
        powers = final.astype(stored)
        known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(final).all(axis=1))
        rest = np.flatnonzero(~self.in_x_P[of])
        if len(rest):
            of, final = of[rest], final[rest]
            exact = final.astype(stored).astype(np.float64)
            told = predicted[rest] if stored == final.dtype else self._predicted(of, exact)
            powers[rest] = converted = self._converted(of, final).astype(stored)
            change = np.abs(self._in_x(of, converted.astype(np.float64)) - told).max(axis=1)
            scale = self.scale_D[self.data_of_P[of]]
            known[rest] = np.isfinite(converted).all(axis=1) & (change <= POWER_TOLERANCE * scale)
        return powers, known

    def _predicted(self, of: Index, final: Array) -> Array:
        predicted = np.empty((len(of), self.points))
        for at, grid in self._by_basis(of):
            if grid.basis == "power":
                predicted[at] = _horner(final[at], grid.x())
                continue
            functions = basis_functions(grid.basis, grid.degree, grid.t())
            predicted[at] = sum(
                final[at, k, None] * function for k, function in enumerate(functions)
            )
        return predicted

    def _converted(self, of: Index, final: Array) -> Array:
        powers = np.empty_like(final)
        for at, grid in self._by_basis(of):
            K = in_powers(grid)
            powers[at] = sum(final[at, k, None] * K[:, k] for k in range(final.shape[1]))
        return powers

    def _in_x(self, of: Index, powers: Array) -> Array:
        """The power form at the points."""
        return _horner(powers, self._grid(of, "power").x())


def _horner(powers_BM: Array, x: Array) -> Array:
    """The polynomials at ``x``, by the steps of the compiled kernel of ends."""
    value = np.broadcast_to(powers_BM[:, -1, None], (len(powers_BM), x.shape[-1]))
    for k in range(powers_BM.shape[1] - 2, -1, -1):
        value = value * x + powers_BM[:, k, None]
    return value


@lru_cache(maxsize=1)
def _vectorised() -> Functions:
    """The functions of formulas, those by torch that numpy computes one number at a time."""

    def by(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Array], Array]:
        return lambda values: function(torch.from_numpy(np.asarray(values))).numpy()

    names = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log")
    return {**FUNCTIONS, **{name: by(getattr(torch, name)) for name in names}}


def _largest(y_DN: Array) -> Array:
    """max |y| of each row."""
    largest: Array = np.maximum(y_DN.max(axis=1), -y_DN.min(axis=1))
    return largest


def _rows_of(values: Array, at: Index) -> Array:
    """The rows ``at``; where they are neighbours, without a copy."""
    if len(at) and (np.diff(at) == 1).all():
        return values[at[0] : at[-1] + 1]
    return values[at]


def _distinct(*codes: Index) -> tuple[Index, Index]:
    """The first place of each distinct row of ``codes``, in their order, and each one's number."""
    mixed = codes[0]
    for more in codes[1:]:
        mixed = np.unique(mixed * (more.max() + 1) + more, return_inverse=True)[1]
    _, first, of = np.unique(mixed, return_index=True, return_inverse=True)
    return first, of


def _values(items: Sequence[Any], codes: Index, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The items that ``codes`` name, as an array; each is read once."""
    used, of = np.unique(codes, return_inverse=True)
    return np.array([items[code] for code in used.tolist()], dtype=dtype)[of]


def _mixed(columns: list[Column]) -> Index:
    """One number per fit, equal exactly where all columns are."""
    mixed = np.zeros(len(columns[0].codes), dtype=np.int64)
    for column in columns:
        if len(column.items) > 1:
            mixed = mixed * len(column.items) + column.codes
            mixed = np.unique(mixed, return_inverse=True)[1]
    return mixed


def _starts(columns: dict[str, Column]) -> Any:
    """Start values of the shard's fits: each seed is drawn once, as many values as any needs."""
    seeds = columns["seed"].array(np.int64)
    if (np.diff(seeds) > 0).all():  # as they are in most shards: nothing to sort
        unique, codes = seeds, np.arange(len(seeds))
    else:
        unique, codes = np.unique(seeds, return_inverse=True)
    drawn = start_values(unique, max(columns["degree"].items) + 1)
    return lambda at, size: drawn[codes[at], :size]
