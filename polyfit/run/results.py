"""Read runs: tables, groups, predictions; and prove that a run is whole.

Nothing here needs torch or Ray, and nothing needs the driver: the store alone tells. Rows are
read a shard at a time, and of a shard only the columns asked for.
"""

import ast
import hashlib
import io
import json
import operator
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import DamagedRun, PlanMismatch, UsageError
from polyfit.numerics.basis import functions_at
from polyfit.numerics.grid import Grid
from polyfit.run.lease import last_driver
from polyfit.run.ledger import (
    MANIFEST,
    PLAN,
    RESEAL_HINT,
    Ledger,
    Manifest,
    Receipt,
    plan_at,
    shard_key,
)
from polyfit.run.rows import (
    REFIT_HINT,
    UNREADABLE,
    check_columns,
    counted,
    examine,
    numbers,
    opened,
    read_footer,
    schema,
)
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.schema import NAME
from polyfit.store.store import NoSuchKey, Remote, Store, StoreAddress

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Group",
    "ListedRun",
    "Run",
    "StoredFit",
    "Verdict",
    "condition",
    "predict",
    "runs_below",
]

ABOVE_OPTIMUM: Final = 0.01
"""A fit counts as far from the optimum if its loss is above it by more than this share."""

MEDIAN_FITS: Final = 1_000_000
"""Losses that a summary keeps; of a larger run it takes every second, third, ... fit."""

MOST_FOLDERS: Final = 10_000
"""Folders among which runs are looked for: a bucket may hold other things than runs."""

_SIDE_BY_SIDE: Final = 4
"""Shards that a summary reads at a time: it waits for the store more than it computes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """The fits of one degree and range. Losses are None where no fit has a finite one.

    ``with_optimum`` counts the fits whose objective has a closed-form optimum, ``above_optimum``
    those of them that ended more than 1% above it (or without a loss); None where there are none.
    """

    degree: int
    low: float
    high: float
    fits: int
    best_loss: float | None
    median_loss: float | None
    statuses: dict[str, int]
    with_optimum: int
    above_optimum: int | None


@dataclass(frozen=True, slots=True)
class StoredFit:
    """One fit as it lies in the store: its row, and the shard object that holds it."""

    fit: int
    row: dict[str, Any]
    shard: Shard
    key: str
    footer: dict[str, Any]


@dataclass(slots=True)
class Verdict:
    """What ``verify`` found. ``problems`` is empty where every fit is there exactly once."""

    shards: int
    fits: int
    bytes: int
    statuses: dict[str, int]
    problems: list[str] = field(default_factory=list)


class Run:
    """One run in a store.

    Open it with ``Run.open``; a run that is still going on, or broke off, opens too, and holds
    the shards that are at rest.
    """

    def __init__(self, address: StoreAddress, store: Store, plan: Plan) -> None:
        self.address = address
        self.plan = plan
        self._store = store
        self._ledger = Ledger(store, plan)

    @classmethod
    def open(cls, uri: str | os.PathLike[str], endpoint_url: str | None = None) -> "Run":
        """The run at ``uri``, its own folder: ``<store>/<name>/<run id>``.

        Raises:
            RunNotFound: there is no plan.
            PlanMismatch: another version of polyfit made the plan.
            StoreError: the store cannot be used.
        """
        address = StoreAddress.of(uri, endpoint_url)
        store = address.open()
        return cls(address, store, plan_at(store))

    def __repr__(self) -> str:
        return f"Run({self.uri!r}: {self.plan.fits:,} fits)"

    @property
    def uri(self) -> str:
        return self.address.uri

    @property
    def endpoint_url(self) -> str | None:
        """The S3 endpoint; with ``uri`` it opens this run again."""
        return self.address.endpoint_url

    @property
    def manifest(self) -> Manifest | None:
        """The seal; None while the run is not complete."""
        return self._ledger.manifest()

    @property
    def complete(self) -> bool:
        return self.manifest is not None

    def driver(self) -> str:
        """Whether a driver is at work on the run, in words: by its lease, since one that was
        killed can note nothing."""
        found = last_driver(self._store)
        if found is None:
            return "no driver has begun it"
        holder, at_work = found
        who = f"attempt {holder.attempt} (process {holder.pid} on {holder.host})"
        if at_work:
            return f"{who} is at work on it"
        code = self._ledger.attempt(holder.attempt).get("exit_code")
        how = "was lost" if code is None else f"ended with exit code {code}"
        return f"no driver is at work on it: {who} {how}"

    def batches(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        side_by_side: int = 1,
    ) -> Iterator[pa.Table]:
        """The rows shard by shard, in the order of their fits.

        Args:
            columns: which columns, in this order; all if None.
            where: a condition on columns, such as ``degree == 3 and loss < 0.1``.
            side_by_side: how many shards are read at a time, and held.

        Raises:
            UsageError: no such column, or a condition that cannot be read.
            DamagedRun: a shard cannot be read.
        """
        known = schema(self.plan).names
        wanted = list(columns) if columns is not None else known
        _known_columns(wanted, known)
        test = condition(where, known) if where else None
        read = wanted if test is None else known
        # Of a sealed run every shard must be there; of another, what is at rest is what there is.
        sizes = self._sizes()
        shards = sorted(self._ledger.done()) if sizes is None else range(self.plan.shards)

        def rows_of(number: int) -> pa.Table:
            return self._read(number, read, (sizes or {}).get(number))

        for rows in _in_order(rows_of, shards, side_by_side):
            if test is not None:
                rows = _filtered(rows, test, where or "")
            yield rows.select(wanted)

    def _sizes(self) -> dict[int, int] | None:
        """The bytes of every shard, as they were sealed; None while the run is not complete."""
        manifest = self.manifest
        return {one.shard: one.bytes for one in manifest.receipts} if manifest else None

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """All rows as one Arrow table; see ``batches``."""
        wanted = schema(self.plan)
        names = list(columns) if columns is not None else wanted.names
        _known_columns(names, wanted.names)
        empty = wanted.empty_table().select(names)
        parts = [part.unify_dictionaries() for part in self.batches(columns, where)]
        return pa.concat_tables([empty, *parts]) if parts else empty

    def to_pandas(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> "pd.DataFrame":
        """All rows as one pandas frame; see ``batches``."""
        frame: pd.DataFrame = self.table(columns, where).to_pandas(use_threads=False)
        return frame

    def top(
        self,
        sort: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> pa.Table:
        """The first ``limit`` rows by column ``sort`` (descending with a leading ``-``, nulls
        last), or by fit; memory holds one shard and ``limit`` rows."""
        name, order = (sort or "fit").removeprefix("-"), "ascending"
        if sort is not None and sort.startswith("-"):
            order = "descending"
        known = schema(self.plan).names
        _known_columns([name], known)
        if pa.types.is_nested(schema(self.plan).field(name).type):
            raise UsageError(f"--sort {name}: a list has no order; name another column")
        wanted = list(columns or known)
        best: pa.Table | None = None
        for part in self.batches([*wanted, *(() if name in wanted else (name,))], where):
            both = part if best is None else pa.concat_tables([best, part])
            both = both.unify_dictionaries()
            indices = _sorted(both.column(name), order)
            best = both.take(indices[:limit] if limit is not None else indices)
            if sort is None and limit is not None and len(best) >= limit:
                break
        if best is None:
            best = schema(self.plan).empty_table()
        return best.select(wanted)

    def row(self, fit: int) -> dict[str, Any]:
        """One fit's row; see ``stored``."""
        return self.stored(fit).row

    def stored(self, fit: int) -> StoredFit:
        """One fit's row, and the object that holds it.

        Raises:
            UsageError: the plan has no such fit.
            DamagedRun: its shard is not at rest or cannot be read.
        """
        if not 0 <= fit < self.plan.fits:
            raise UsageError(f"fit {fit}; this run has fits 0 to {self.plan.fits - 1:,}")
        number, place = divmod(fit, self.plan.shard_fits)
        key = shard_key(self.plan, number)
        rows = self._read(number, None)
        found = rows.slice(place, 1).to_pylist()
        if not found or found[0].get("fit") != fit:
            raise DamagedRun(f"{self.uri}/{key} does not hold fit {fit} in its place; {REFIT_HINT}")
        try:
            footer = read_footer(rows.schema)
        except ValueError as error:
            raise DamagedRun(f"{self.uri}/{key} cannot be read: {error}; {REFIT_HINT}") from None
        return StoredFit(fit, found[0], self.plan.shard(number), key, footer)

    def predict(self, fit: int, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The fitted polynomial at ``x`` (any shape): same shape, float64."""
        return predict(self.row(fit), x)

    def groups(self) -> list[Group]:
        """The run per degree and range, in that order."""
        stride = -(-self.plan.fits // MEDIAN_FITS)
        found: dict[tuple[int, float, float], _Tally] = {}
        names = (
            "fit", "degree", "range_low", "range_high", "loss", "optimum_loss", "status",
        )  # fmt: skip
        for part in self.batches(names, side_by_side=_SIDE_BY_SIDE):
            _tally(part, found, stride)
        return [tally.group(*key) for key, tally in sorted(found.items())]

    def verify(self) -> Verdict:
        """Prove from the store alone that every fit is there exactly once and every shard whole.

        Every object is read in full: its size, SHA-256, page checksums, footer, the fits it
        holds, and the manifest's totals. Memory holds one shard at a time, and the manifest.
        """
        verdict = Verdict(0, 0, 0, {})
        statuses: Counter[str] = Counter()
        sealed = self._sealed(verdict.problems)
        for number in range(self.plan.shards):
            receipts = None if sealed is None else sealed.pop(number, [])
            problem = self._check(number, receipts, verdict, statuses)
            if problem:
                verdict.problems.append(f"{self._named(number)}: {problem}")
        for number in sorted(sealed or ()):
            verdict.problems.append(
                f"{MANIFEST} has a receipt of shard {number}, this plan has {self.plan.shards} "
                f"(fits 0 to {self.plan.fits - 1}); {RESEAL_HINT}"
            )
        verdict.problems.extend(self._extra())
        verdict.statuses = dict(sorted(statuses.items()))
        return verdict

    def _named(self, number: int) -> str:
        """A shard's key and its fits."""
        shard = self.plan.shard(number)
        return f"{shard_key(self.plan, number)} (fits {shard.start} to {shard.stop - 1})"

    def _sealed(self, problems: list[str]) -> dict[int, list[Receipt]] | None:
        """The manifest's receipts by shard; None where there is no manifest to go by."""
        problems.extend(self._altered())
        try:
            manifest = self.manifest
        except (DamagedRun, PlanMismatch) as error:
            problems.append(str(error))
            return None
        if manifest is None:
            problems.append(
                f"no {MANIFEST}: the run (fits 0 to {self.plan.fits - 1}) is not complete; "
                f"{self.driver()}; run the same spec again"
            )
            return None
        found: dict[int, list[Receipt]] = {}
        for receipt in manifest.receipts:
            found.setdefault(receipt.shard, []).append(receipt)
        return found

    def _altered(self) -> Iterator[str]:
        """What the plan says of itself beside what decides it, where that is not so."""
        fits = f"(fits 0 to {self.plan.fits - 1})"
        try:
            stated = json.loads(self._store.get(PLAN))
        except (NoSuchKey, ValueError):
            stated = None
        if not isinstance(stated, dict) or stated.get("hash") != self.plan.hash:
            yield (
                f"{PLAN} is no longer that of plan {self.plan.run_id} {fits}: it is damaged, or "
                "another's; run the same spec again under another --run-id"
            )
            return
        for name, value in (("fits", self.plan.fits), ("shards", self.plan.shards)):
            if stated.get(name) != value:
                said = f"{name} {stated.get(name)} stands there, its sweep has {value}"
                yield f"{PLAN}: {said} {fits}; remove it and run the same spec again"

    def _extra(self) -> Iterator[str]:
        """Objects among the shards that are none of this plan's: a reader of the whole folder
        would take their rows for this run's."""
        known = self._ledger.shard_number
        for entry in self._store.list("shards/"):
            if known(entry.key) is None:
                yield (
                    f"{entry.key} is no shard of this plan ({self.plan.shards} shards, fits 0 to "
                    f"{self.plan.fits - 1}); whoever reads the folder reads it too: "
                    "move it elsewhere"
                )

    def _check(
        self,
        number: int,
        receipts: list[Receipt] | None,
        verdict: Verdict,
        statuses: Counter[str],
    ) -> str | None:
        """Read one shard in full; what is wrong with it and what to do, None if nothing."""
        shard = self.plan.shard(number)
        try:
            data = self._store.get(shard_key(self.plan, number))
        except NoSuchKey:
            return "missing; run the same spec again: it fits what is missing"
        except DamagedRun as error:
            return str(error)
        receipt = receipts[0] if receipts else None
        if receipt is not None:
            if len(data) != receipt.bytes:
                return f"{len(data)} bytes, the manifest says {receipt.bytes}; {REFIT_HINT}"
            if hashlib.sha256(data).hexdigest() != receipt.sha256:
                return f"other bytes than the manifest's SHA-256; {REFIT_HINT}"
        try:
            found = examine(self.plan, shard, data)
        except DamagedRun as error:
            return f"{error}; {REFIT_HINT}{'' if receipt is None else AND_RESEAL}"
        verdict.shards += 1
        verdict.fits += shard.fits
        verdict.bytes += len(data)
        statuses.update(found)
        return None if receipts is None else _misstated(receipts, shard, found)

    def _read(
        self, number: int, columns: Sequence[str] | None, size: int | None = None
    ) -> pa.Table:
        key, known = shard_key(self.plan, number), schema(self.plan).names
        names = known if columns is None else list(columns)
        try:
            rows = self._part(key, names, size) if set(names) != set(known) else None
            return self._columns(io.BytesIO(self._store.get(key)), names) if rows is None else rows
        except NoSuchKey:
            raise DamagedRun(self._absent(number)) from None
        except UNREADABLE as error:
            raise DamagedRun(f"{self.uri}/{key} cannot be read: {error}; {REFIT_HINT}") from None

    def _part(self, key: str, names: list[str], size: int | None) -> pa.Table | None:
        """Columns read without the others; None where bytes are wrong, which may have come so:
        a whole object has a digest."""
        try:
            return self._columns(Remote(self._store, key, size), names)
        except NoSuchKey:
            raise
        except UNREADABLE:
            return None

    def _columns(self, shard: Remote | io.BytesIO, names: list[str]) -> pa.Table:
        rows = opened(shard).read(names, use_threads=False)
        check_columns(rows, names, self.plan)
        return rows

    def _absent(self, number: int) -> str:
        """What to say of a shard that has no object."""
        key, shard = shard_key(self.plan, number), self.plan.shard(number)
        if self.complete:
            return f"{self.uri}/{key} is missing; run the same spec again"
        return (
            f"{self.uri}/{key} (fits {shard.start} to {shard.stop - 1}) is not at rest yet; "
            "run the same spec again: it goes on from what is"
        )


AND_RESEAL: Final = f" (it was sealed so: remove {MANIFEST} too)"


def _misstated(receipts: list[Receipt], shard: Shard, found: dict[str, int]) -> str | None:
    """What the manifest says of a shard that is whole, where that is not so."""
    if len(receipts) != 1:
        return f"intact, but {MANIFEST} has {len(receipts)} receipts of it; {RESEAL_HINT}"
    (receipt,) = receipts
    if receipt.rows != shard.fits:
        return f"intact, but {MANIFEST} says {receipt.rows} rows; {RESEAL_HINT}"
    if receipt.statuses != found:
        return (
            f"intact, with statuses {found}, but {MANIFEST} says {receipt.statuses}; {RESEAL_HINT}"
        )
    return None


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run that was found; ``fits`` is None where another version of polyfit made its plan."""

    address: StoreAddress
    fits: int | None
    complete: bool


def runs_below(address: StoreAddress) -> Iterator[ListedRun]:
    """The runs one or two levels below a folder, ``<store>/<name>`` or ``<store>``.

    Raises:
        UsageError: there are too many folders to look through.
        StoreError: the store cannot be used.
    """
    store = address.open()
    left = iter(range(MOST_FOLDERS))

    def below(path: str) -> Iterator[str]:
        for name in store.folders(path):
            if next(left, None) is None:
                raise UsageError(
                    f"{address.uri}: runs were looked for in {MOST_FOLDERS:,} folders and there "
                    "are more; name <store>/<name>"
                )
            if NAME.fullmatch(name):
                yield path + name

    def runs(path: str, levels: int) -> Iterator[ListedRun]:
        for folder in below(path):
            try:
                data = store.get(f"{folder}/{PLAN}")
            except NoSuchKey:
                if levels > 1:
                    yield from runs(f"{folder}/", levels - 1)
                continue
            try:
                fits: int | None = Plan.from_json(data, f"{address.uri}/{folder}/{PLAN}").fits
            except PlanMismatch:
                fits = None
            yield ListedRun(address.under(folder), fits, _there(store, f"{folder}/{MANIFEST}"))

    return runs("", 2)


def _there(store: Store, key: str) -> bool:
    try:
        store.size(key)
    except NoSuchKey:
        return False
    return True


def _in_order(read: Callable[[int], T], numbers: Iterable[int], most: int) -> Iterator[T]:
    """``read`` of each number, in order; up to ``most`` at a time, in threads that end with us."""
    if most == 1:
        yield from map(read, numbers)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(most) as pool:
        try:
            for number in numbers:
                waiting.append(pool.submit(read, number))
                if len(waiting) == most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def predict(row: dict[str, Any], x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The polynomial of a row at ``x`` (any shape): same shape, float64."""
    points = np.asarray(x, dtype=np.float64)
    grid = Grid(row["range_low"], row["range_high"], row["points"], row["degree"], row["basis"])
    coefficients = np.array(row["coefficients"], dtype=np.float64)
    functions = functions_at(grid, points.ravel())
    total = np.zeros(points.size)
    for value, function in zip(coefficients, functions, strict=True):
        total = total + value * function
    return total.reshape(points.shape)


# --- groups ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    fits: int = 0
    best: float = np.inf
    losses: list[npt.NDArray[np.float64]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    above: int = 0
    judged: int = 0

    def group(self, degree: int, low: float, high: float) -> Group:
        losses = np.concatenate(self.losses) if self.losses else np.empty(0)
        return Group(
            degree,
            low,
            high,
            self.fits,
            self.best if np.isfinite(self.best) else None,
            float(np.median(losses)) if len(losses) else None,
            dict(sorted(self.statuses.items())),
            self.judged,
            self.above if self.judged else None,
        )


def _tally(part: pa.Table, found: dict[tuple[int, float, float], _Tally], stride: int) -> None:
    if not len(part):
        return
    fit, loss, optimum = (numbers(part[name]) for name in ("fit", "loss", "optimum_loss"))
    keys = [numbers(part[name]) for name in ("degree", "range_low", "range_high")]
    changed = np.any([np.diff(key) != 0 for key in keys], axis=0)
    cuts = [0, *(np.flatnonzero(changed) + 1), len(fit)]
    for low, high in pairwise(cuts):
        some = slice(int(low), int(high))
        key = (int(keys[0][low]), float(keys[1][low]), float(keys[2][low]))
        tally = found.setdefault(key, _Tally())
        finite = np.isfinite(loss[some])
        tally.fits += int(high - low)
        tally.best = min(tally.best, float(loss[some][finite].min(initial=np.inf)))
        tally.losses.append(loss[some][finite & (fit[some] % stride == 0)])
        tally.statuses.update(counted(part["status"].slice(int(low), int(high - low))))
        judged = np.isfinite(optimum[some])
        near = loss[some] <= optimum[some] * (1 + ABOVE_OPTIMUM)
        tally.above += int((judged & ~near).sum())
        tally.judged += int(judged.sum())


# --- sorting and conditions ------------------------------------------------------------------


def _known_columns(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"no column {name!r}; the columns are {', '.join(known)}")


def _sorted(column: pa.ChunkedArray, order: str) -> pa.Array:
    """The places of ``column`` in order, nulls last, equal values as they stood."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    keys = pa.table({"key": column, "place": pa.array(np.arange(len(column)))})
    return pc.sort_indices(
        keys, sort_keys=[("key", order, "at_end"), ("place", "ascending", "at_end")]
    )


_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNREADABLE: Final = (
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    pa.ArrowException,
)
_CONDITION_HELP: Final = (
    "allowed: columns, numbers, 'text', None, + - * /, == != < <= > >=, in [...], and, or, not"
)


def condition(text: str, columns: Sequence[str]) -> pc.Expression:
    """A condition on columns, such as ``degree == 3 and loss < 0.1``, for Arrow to test.

    Raises:
        UsageError: what cannot be read, and what is allowed.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        result = _expression(tree, columns)
    except _UNREADABLE:
        raise UsageError(f"--where {text!r} cannot be read; {_CONDITION_HELP}") from None
    if not isinstance(result, pc.Expression):
        raise UsageError(f"--where {text!r} names no column; {_CONDITION_HELP}")
    return result


def _expression(node: ast.expr, columns: Sequence[str]) -> Any:
    def read(inner: ast.expr) -> Any:
        return _expression(inner, columns)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(id=name):
            _known_columns([name], columns)
            return pc.field(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = read(operand)
            return pc.negate(value) if isinstance(value, pc.Expression) else -value
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_scalar(read(operand))
        case ast.BoolOp(op=op, values=values):
            parts = [_scalar(read(value)) for value in values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(op, ast.And) else result | part
            return result
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](read(left), read(right))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _compared([read(left), *(_operand(c, read) for c in comparators)], ops)
    raise ValueError


def _operand(node: ast.expr, read: Callable[[ast.expr], Any]) -> Any:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [read(item) for item in node.elts]
    return read(node)


def _compared(values: list[Any], ops: list[ast.cmpop]) -> Any:
    """A chain such as ``1 < degree <= 3``; ``== None`` asks for null."""
    result: Any = None
    for left, op, right in zip(values, ops, values[1:], strict=False):
        if isinstance(op, ast.In | ast.NotIn) and isinstance(right, list):
            part = _scalar(left).isin(right)
            part = ~part if isinstance(op, ast.NotIn) else part
        elif type(op) in _COMPARISONS and not isinstance(right, list):
            if left is None or right is None:
                if not isinstance(op, ast.Eq | ast.NotEq):
                    raise ValueError
                part = _scalar(left if right is None else right).is_null()
                part = ~part if isinstance(op, ast.NotEq) else part
            else:
                part = _COMPARISONS[type(op)](left, right)
        else:
            raise ValueError
        result = part if result is None else result & part
    return result


def _scalar(value: Any) -> pc.Expression:
    return value if isinstance(value, pc.Expression) else pc.scalar(value)


def _filtered(rows: pa.Table, test: pc.Expression, text: str) -> pa.Table:
    plain = rows.cast(
        pa.schema(
            f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in rows.schema
        )
    )
    try:
        return plain.filter(test).cast(rows.schema)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--where {text!r} cannot be tested: {reason}") from None
