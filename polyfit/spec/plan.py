"""Spec -> Plan: the frozen answer to "what will run". Made without torch.

The plan hash covers all that decides a row's bits, and nothing else: not the name, the store, the
resources or the limits. (``worker.cpu_kind`` says for which rows the CPU decides too.)
"""

import hashlib
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.errors import LimitExceeded, PlanMismatch, SpecError
from polyfit.spec.document import Path
from polyfit.spec.fields import SQUARED
from polyfit.spec.spec import Record, Spec
from polyfit.spec.sweep import Sweep

__all__ = ["ENGINE", "MAX_SHARDS", "SCHEMA", "Plan", "Shard", "dump_json", "mend"]

ENGINE: Final = 6
"""Raised whenever a golden test of bits changes; rows of two engines are never mixed.

It stands here and not beside the engine because a plan is made without torch.
"""

SCHEMA: Final = 1
"""The row schema's number: raised when a column is added, removed or changes its meaning."""

GENERATORS: Final = 2
"""How a generator of real numbers makes its values: raised when it makes others. A plan states its
generators and not what they make; one without them does not depend on this."""

MAX_FITS: Final = 2**63 - 1
"""The index of a fit is an int64."""

MAX_SHARDS: Final = 1_000_000
"""Shard keys have six digits."""

INLINE_BELOW_S: Final = 10.0
"""Up to so much work it is done in the driver's own process."""

INLINE_START_S: Final = 1.8
"""Of a process that fits: mostly torch's imports."""

RAY_START_S: Final = 6.0
"""Of Ray on this machine, its actors, and its end."""

SHARD_SECONDS: Final = 20.0
SHARD_BYTES: Final = 64 << 20
SHARD_FITS: Final = 1 << 18
SPREAD_FROM: Final = 4_096
SPREAD_SHARDS: Final = 16

_COSTING: Final = ("degree", "points", "objective", "optimizer", "steps")
_MAX_COMBINATIONS: Final = 200_000
_CHUNK: Final = 1 << 16
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Shard:
    """The fits ``start <= i < stop``: the unit of dispatch, retry and storage."""

    number: int
    start: int
    stop: int

    @property
    def fits(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """One sweep with everything decided.

    ``shard_fits`` is the number of fits per shard (the last may have fewer); ``torch`` the minor
    version the rows are made with.
    """

    sweep: Sweep
    record: Record
    engine: str
    shard_fits: int
    torch: str

    @classmethod
    def of(cls, spec: Spec) -> "Plan":
        """The plan of ``spec``.

        Raises:
            SpecError: the spec asks for engine affine where the iteration is no affine map.
            LimitExceeded: more fits, work or bytes than the spec's limits, or than a run can hold.
        """
        sweep = Sweep.of(spec)
        engine = _engine(spec, sweep)
        auto = _auto_shard(sweep, spec.record, engine)
        plan = cls(sweep, spec.record, engine, spec.shard or auto, _minor(version("torch")))
        if plan.fits > MAX_FITS:
            raise LimitExceeded(
                f"{spec.source}: the sweep has {plan.fits:,} fits; allowed: at most {MAX_FITS:,}"
            )
        if plan.shards > MAX_SHARDS:
            raise LimitExceeded(
                f"{spec.source}: {plan.fits:,} fits in shards of {plan.shard_fits:,} are "
                f"{plan.shards:,} shards; allowed: at most {MAX_SHARDS:,}, "
                f"so shard: {-(-plan.fits // MAX_SHARDS):,} or more"
            )
        plan._within(spec)
        return plan

    @property
    def fits(self) -> int:
        """N, the number of fits."""
        return self.sweep.size

    @property
    def shards(self) -> int:
        return -(-self.fits // self.shard_fits)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that decides the rows, 64 hex digits."""
        return hashlib.sha256(dump_json(self._decided())).hexdigest()

    @property
    def run_id(self) -> str:
        """The run id a spec finds by itself: the same spec, the same run."""
        return self.hash[:12]

    @cached_property
    def seconds(self) -> float:
        """Nominal work in seconds of one core; for planning, not a promise."""
        return _seconds(self.sweep, self.engine, self.shards)

    @property
    def inline(self) -> bool:
        """Whether Ray takes longer to start than it could save."""
        return self.seconds < INLINE_BELOW_S

    def wall_seconds(self, cores: int) -> float:
        """Nominal time of a whole run that chooses its executor itself, from its start to its end.

        On machines without an accelerator, one actor a core.
        """
        if self.inline:
            return INLINE_START_S + self.seconds
        return RAY_START_S + self.seconds / min(cores, self.shards)

    @cached_property
    def projected_bytes(self) -> int:
        """Projected size of all rows before compression."""
        return int(_total(self.sweep, lambda *a: _row_bytes(self.sweep, self.record, *a)))

    def shard(self, number: int) -> Shard:
        """Shard ``number``, counted from 0.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= number < self.shards:
            raise IndexError(f"shard {number} of {self.shards}")
        start = number * self.shard_fits
        return Shard(number, start, min(start + self.shard_fits, self.fits))

    def costly_first(self, numbers: Iterable[int]) -> npt.NDArray[np.int64]:
        """Shard numbers in the order of dispatch: by the nominal cost of a shard's first fit."""
        numbers = np.fromiter(numbers, dtype=np.int64)
        costs = np.empty(len(numbers))
        for at in range(0, len(numbers), _CHUNK):  # so that a million shards take little memory
            costs[at : at + _CHUNK] = self._first_costs(numbers[at : at + _CHUNK])
        return numbers[np.argsort(np.negative(costs, out=costs), kind="stable")]

    def _first_costs(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The nominal seconds of the first fit of each of these shards."""
        columns = [self.sweep.column(name, numbers * self.shard_fits) for name in _COSTING]
        compact = [column.compact() for column in columns]
        mixed = np.zeros(len(numbers), dtype=np.int64)
        for column in compact:
            mixed = mixed * len(column.items) + column.codes
        _, first, codes = np.unique(mixed, return_index=True, return_inverse=True)
        costs = np.array(
            [
                nominal_seconds(*(c.items[int(c.codes[k])] for c in compact), engine=self.engine)
                for k in first
            ]
        )
        return costs[codes]

    def to_json(self) -> bytes:
        """As frozen in ``plan.json``."""
        summary = {
            "hash": self.hash,
            "fits": self.fits,
            "shards": self.shards,
            "projected_bytes": self.projected_bytes,
            "projected_core_seconds": self.seconds,
        }
        return dump_json({**self._decided(), **summary})

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Plan":
        """The plan that ``to_json`` wrote; ``where`` names it in messages.

        Raises:
            PlanMismatch: it is no plan, or this version of polyfit makes another plan of it.
        """
        try:
            source = json.loads(data)
            plan = cls(
                Sweep.restore(source),
                Record.restore(source["record"]),
                source["engine"],
                source["shard"],
                source["torch"],
            )
            stated = str(source["hash"])
            made = plan.hash
        except _UNREADABLE as error:
            raise PlanMismatch(
                f"{where} is no plan that this version reads ({type(error).__name__}: {error}); "
                f"{mend(data)}"
            ) from None
        if made != stated:
            here, there = _versions(plan._decided()), _versions(source)
            raise PlanMismatch(
                f"{where} states plan {stated[:12]}, this version of polyfit makes "
                f"{made[:12]} of it ({here}; there: {there}); use one version, or, "
                "where it was changed by hand, remove it and run the same spec again"
            )
        return plan

    def check_torch(self, found: str) -> None:
        """Refuse to compute with another torch than the plan's.

        Raises:
            PlanMismatch: the minor versions differ.
        """
        if _minor(found) != self.torch:
            raise PlanMismatch(
                f"the plan was made for torch {self.torch}, this worker has {found}; "
                "use one image everywhere"
            )

    def _decided(self) -> dict[str, Any]:
        return {
            **self.sweep.canonical(),
            "record": self.record.canonical(),
            "engine": self.engine,
            "shard": self.shard_fits,
            "ENGINE": ENGINE,
            "SCHEMA": SCHEMA,
            "torch": self.torch,
            **({"GENERATORS": GENERATORS} if self.sweep.generates_reals else {}),
        }

    def _within(self, spec: Spec) -> None:
        limits = spec.limits
        found = {
            "fits": (self.fits, limits.fits, ""),
            "core_hours": (_rounded(self.seconds / 3600), limits.core_hours, " nominal"),
            "bytes": (self.projected_bytes, limits.bytes, " projected"),
        }
        over = [
            f"{spec.where(('limits', name))}: the plan has {value:,}{kind}; allowed: {limit:,}"
            for name, (value, limit, kind) in found.items()
            if limit is not None and value > limit
        ]
        if over:
            raise LimitExceeded("\n".join(over))


def _versions(decided: dict[str, Any]) -> str:
    """The versions that a plan was made with; the first generators of reals had no number."""
    told = f"ENGINE {decided.get('ENGINE')}, row schema {decided.get('SCHEMA')}"
    return told + (f", generators {decided['GENERATORS']}" if "GENERATORS" in decided else "")


def mend(data: bytes) -> str:
    """What to do about an unreadable object under a plan's key: it may be nothing of polyfit's."""
    if not data.strip() or data.lstrip().startswith(b"{"):
        return "if it was damaged, remove it and run the same spec again"
    return f"it begins with {data[:40]!r}: leave it there, and choose another store or --run-id"


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def nominal_seconds(
    degree: int, points: int, objective: str, optimizer: Any, steps: int, *, engine: str
) -> float:
    """One fit's nominal time on one core, seconds; constants measured on one kind of machine."""
    size = degree + 1
    end = 2e-9 * points * size + 5e-6 if engine == "eager" else 6e-11 * points * size + 2e-6
    if optimizer.name == "newton":
        return end + min(steps, _NEWTON_STEPS) * _newton_step(size, points, objective)
    if engine == "affine":
        return end
    return end + steps * _STEP[engine](size, points, objective, optimizer.name)


_NEWTON_STEPS: Final = 30
"""Updates after which nearly every fit of a convex objective has converged."""


def _newton_step(size: int, points: int, objective: str) -> float:
    if objective in SQUARED:
        return 1e-9 * size**3 + 2e-8 * size**2
    return 2.5e-9 * points * size * (size + 3)


def _eager_step(size: int, points: int, objective: str, optimizer: str) -> float:
    moments = 3 * size if optimizer == "adam" else size
    if objective in SQUARED:
        return 4e-9 * (size * (size + 1) / 2 + moments)
    return 2.5e-9 * points * (size + 1)


def _compiled_step(size: int, points: int, objective: str, optimizer: str) -> float:
    update = {"momentum": 4 * size, "adam": 50 * size}.get(optimizer, 2 * size)
    if objective in SQUARED:
        return 2e-11 * (2 * size * (size + 1) + update)
    point = 6e-12 * (4 * size + 10) + (3e-10 if objective == "log_cosh" else 0.0)
    return point * points + 2e-11 * update


_STEP: Final = {"eager": _eager_step, "compiled": _compiled_step}


def _seconds(sweep: Sweep, engine: str, shards: int) -> float:
    """The nominal time of all fits, of their batches, and of compiling, on one core."""
    seconds = _total(sweep, lambda *values: nominal_seconds(*values, engine=engine))
    if engine == "eager":
        return seconds + shards * _total(sweep, _batch_seconds) / sweep.size
    return seconds + shards * _OF_A_SHARD + _compiling_seconds(sweep)


_OF_A_SHARD: Final = 0.05
"""However few fits it holds: its batches, its file, the store."""


_FIRST_KERNEL: Final = 0.6
"""What torch imports to trace autograd, and LLVM."""


def _compiling_seconds(sweep: Sweep) -> float:
    """To make machine code of every kind of fit, each once, where none is kept from before."""
    sizes = {degree + 1 for degree in sweep.values("degree")}
    others = prod(len(set(_kind_of(sweep, name))) for name in _COMPILED_APART)
    return _FIRST_KERNEL + others * float(sum(0.08 + 6e-4 * size * size for size in sizes))


_COMPILED_APART: Final = ("objective", "optimizer", "dtype")
"""What kinds differ by, besides their degree."""


def _kind_of(sweep: Sweep, name: str) -> Sequence[Any]:
    values = sweep.values(name)
    return [value.name for value in values] if name == "optimizer" else values


def _batch_seconds(degree: int, points: int, objective: str, optimizer: Any, steps: int) -> float:
    """What a shard's eager batches cost however few fits they hold: calls into torch."""
    size = degree + 1
    terms = size * (size + 1) / 2 if objective in SQUARED else size
    if optimizer.name == "newton":
        steps, terms = min(steps, _NEWTON_STEPS), terms * size
    return steps * (1e-4 + 2e-5 * terms)


def dump_json(value: Any) -> bytes:
    """Strict JSON (a non-finite number is an error), in one canonical form."""
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def _row_bytes(
    sweep: Sweep, record: Record, degree: int, points: int, objective: str, opt: Any, steps: int
) -> float:
    """One row before compression: scalars, two coefficient lists, what is recorded."""
    width = 8 if "float64" in sweep.values("dtype") else 4
    every = record.every
    recorded = steps // every if every is not None else bisect_left(record.at, steps)  # they rise
    per_update = sum(degree + 1 if name == "coefficients" else 1 for name in record.of)
    return 150 + width * (2 * (degree + 1) + recorded * per_update)


def _auto_shard(sweep: Sweep, record: Record, engine: str) -> int:
    """The largest power of two within time, bytes and spread; from the spec alone."""
    costliest = max(nominal_seconds(*values, engine=engine) for values, _ in _combined(sweep))
    widest = max(_row_bytes(sweep, record, *values) for values, _ in _combined(sweep))
    most = min(SHARD_SECONDS / costliest, SHARD_BYTES / widest, SHARD_FITS)
    if sweep.size >= SPREAD_FROM:
        most = min(most, (sweep.size - 1) // (SPREAD_SHARDS - 1))  # the last may have fewer
    least = min(-(-sweep.size // MAX_SHARDS), SHARD_FITS)
    size = 1
    while size * 2 <= most or size < least:
        size *= 2
    return size


def _combined(sweep: Sweep) -> Iterable[tuple[tuple[Any, ...], int]]:
    """Every combination of the fields that cost time, with the number of fits that have it."""
    choices: list[Counter[tuple[tuple[str, Any], ...]]] = []
    rest = 1
    for axis in sweep.axes:
        columns = [values for values in axis.values if values.field in _COSTING]
        if not columns:
            rest *= len(axis)
            continue
        names = [values.field for values in columns]
        if prod(len(choice) for choice in choices) * len(axis) > _MAX_COMBINATIONS:
            # Too many to list: judge all by the dearest.
            dearest = tuple(max(_ends(v.items), key=_weight) for v in columns)
            counts = Counter({tuple(zip(names, dearest, strict=True)): len(axis)})
        else:
            listed = zip(*(values.items for values in columns), strict=True)
            counts = Counter(tuple(zip(names, row, strict=True)) for row in listed)
        choices.append(counts)
    fixed = {name: getattr(sweep.base, name) for name in _COSTING}
    for parts in product(*(choice.items() for choice in choices)):
        merged = dict(fixed)
        for row, _ in parts:
            merged.update(row)
        yield tuple(merged.values()), rest * prod(count for _, count in parts)


def _ends(items: Sequence[Any]) -> Sequence[Any]:
    return (items[0], items[-1]) if isinstance(items, range) else items


def _weight(value: Any) -> Any:
    """Orders the values of one costing field from cheap to dear."""
    if isinstance(value, str):
        return value not in SQUARED
    return value if isinstance(value, int) else value.name == "adam"


def _total(sweep: Sweep, cost: Any) -> float:
    return float(sum(cost(*values) * count for values, count in _combined(sweep)))


def _minor(torch_version: str) -> str:
    return ".".join(torch_version.split(".")[:2])


def _engine(spec: Spec, sweep: Sweep) -> str:
    """The engine asked for; compiled where none is.

    Raises:
        SpecError: engine affine for what is no affine map.
    """
    if spec.engine == "affine":
        _check_affine(spec, sweep)
    if spec.engine != "auto":
        return spec.engine
    return "compiled"


def _check_affine(spec: Spec, sweep: Sweep) -> None:
    allowed: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "objective": ("sse | mse", lambda value: value in SQUARED),
        "optimizer": ("gd | {momentum: ...}", lambda value: value.name in ("gd", "momentum")),
        "stop": ("none", lambda value: value is None),
    }
    problems = []
    for name, (words, good) in allowed.items():
        bad = [value for value in sweep.values(name) if not good(value)]
        if bad:
            places: tuple[Path, ...] = (("sweep", name), ("fit", name), ("sweep",), ("engine",))
            problems.append(
                f"{spec.where(*places)}: {str(bad[0])!r} with engine affine; allowed: {words}, "
                "where every update is one affine map; or another engine"
            )
    if problems:
        raise SpecError(problems)
