"""Spec -> Plan: the frozen answer to "what will run". Made without torch.

The plan hash covers all that decides a row's bits, and nothing else: not the name, the store, the
resources or the limits. (``work.storing.cpu_kind`` says for which rows the CPU decides too.)
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, Final

from polyfit.errors import LimitExceeded, PlanMismatch
from polyfit.numerics.arrays import Index
from polyfit.spec.cost import sweep_bytes, sweep_seconds
from polyfit.spec.engine_choice import chosen_engine
from polyfit.spec.record import Record
from polyfit.spec.shards import MAX_SHARDS, automatic_size, costly_first
from polyfit.spec.spec import Spec
from polyfit.spec.sweep import Sweep

__all__ = ["ENGINE", "SCHEMA", "Plan", "Shard", "dump_json", "unreadable_advice"]

ENGINE: Final = 7
"""Raised whenever a golden test of bits changes; rows of two engines are never mixed.

It stands here and not beside the engine because a plan is made without torch.
"""

SCHEMA: Final = 2
"""The row schema's number: raised when a column is added, removed or changes its meaning."""

GENERATORS: Final = 2
"""Raised when a generator of real numbers makes other values.

A plan states its generators and not their values; one without them does not depend on this.
"""

MAX_FITS: Final = 2**63 - 1
"""The index of a fit is an int64."""

INLINE_BELOW_S: Final = 10.0
"""Less work than this is done in the driver's own process."""

INLINE_START_S: Final = 1.8
"""Of a process that fits: mostly torch's imports."""

RAY_START_S: Final = 6.0
"""Of starting and stopping Ray on this machine, and its actors."""

_VERSIONS: Final = ("ENGINE", "SCHEMA", "GENERATORS", "torch")
"""Of a plan's hashed fields, those that come with a version of polyfit and not with the spec."""

_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


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
    version that the rows are made with.
    """

    sweep: Sweep
    record: Record
    engine: str
    shard_fits: int
    torch: str

    @classmethod
    def of(cls, spec: Spec | Mapping[str, Any] | str | os.PathLike[str]) -> "Plan":
        """The plan of ``spec``, which is read as ``Spec.of`` does.

        >>> Plan.of(Spec.of(name="a", sweep={"degree": [1, 3], "seed": range(100)})).fits
        200

        Raises:
            SpecError: the spec is wrong, or asks for engine affine where the iteration is no affine
                map.
            LimitExceeded: more fits, work or bytes than the spec's limits, or than a run can hold.
        """
        spec = Spec.of(spec)
        sweep = Sweep.of(spec)
        engine = chosen_engine(spec, sweep)
        size = spec.shard or automatic_size(sweep, spec.record, engine)
        plan = cls(sweep, spec.record, engine, size, _minor(version("torch")))
        plan._check_size(spec)
        plan._check_limits(spec)
        return plan

    @property
    def fits(self) -> int:
        """N, the number of fits."""
        return self.sweep.size

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.fits // self.shard_fits)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that decides the rows, 64 hex digits."""
        return hashlib.sha256(dump_json(self._hashed_fields())).hexdigest()

    @property
    def run_id(self) -> str:
        """The default run id: the same spec finds its own run."""
        return self.hash[:12]

    @cached_property
    def seconds(self) -> float:
        """Nominal work in seconds of one core; for planning, not a promise."""
        return sweep_seconds(self.sweep, self.engine, self.shards)

    @property
    def inline(self) -> bool:
        """Whether starting Ray takes longer than it could save."""
        return self.seconds < INLINE_BELOW_S

    def actors(self, cores: int) -> int:
        """How many actors share the work on this many cores; 0 where one process does it."""
        return 0 if self.inline else min(cores, self.shards)

    def wall_seconds(self, cores: int) -> float:
        """Nominal time of a whole run that chooses its executor itself, from its start to its end.

        On machines without an accelerator, one actor a core.
        """
        if self.inline:
            return INLINE_START_S + self.seconds
        return RAY_START_S + self.seconds / self.actors(cores)

    @cached_property
    def projected_bytes(self) -> int:
        """Projected size of all rows before compression."""
        return sweep_bytes(self.sweep, self.record)

    def shard(self, number: int) -> Shard:
        """Shard ``number``, counted from 0.

        Raises:
            IndexError: there is no such shard.
        """
        if not 0 <= number < self.shards:
            raise IndexError(f"shard {number} of {self.shards}")
        start = number * self.shard_fits
        return Shard(number, start, min(start + self.shard_fits, self.fits))

    def costly_first(self, numbers: Iterable[int]) -> Index:
        """Shard numbers in the order of dispatch: by the nominal cost of a shard's first fit."""
        return costly_first(self.sweep, self.engine, numbers, self.shard_fits)

    def to_json(self) -> bytes:
        """As frozen in ``plan.json``."""
        summary = {
            "hash": self.hash,
            "fits": self.fits,
            "shards": self.shards,
            "projected_bytes": self.projected_bytes,
            "projected_core_seconds": self.seconds,
        }
        return dump_json({**self._hashed_fields(), **summary})

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
            found = plan.hash
        except _UNREADABLE as error:
            raise PlanMismatch(
                f"{where} is no plan that this version reads ({type(error).__name__}: {error}); "
                f"{unreadable_advice(data)}"
            ) from None
        if found != stated:
            here, there = _versions(plan._hashed_fields()), _versions(source)
            raise PlanMismatch(
                f"{where} states plan {stated[:12]}, this version of polyfit makes "
                f"{found[:12]} of it ({here}; there: {there}); use one version, or, "
                "where it was changed by hand, remove it and run the same spec again"
            )
        return plan

    def other_versions(self, stored: Mapping[str, Any]) -> str:
        """The versions that made the plan ``stored`` and those here, in words; empty where they
        are the same."""
        here = self._hashed_fields()
        if all(here[name] == stored[name] for name in _VERSIONS if name in here and name in stored):
            return ""
        there, ours = (f"{_versions(one)}, torch {one.get('torch')}" for one in (stored, here))
        return f"{there}; here: {ours}"

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

    def _hashed_fields(self) -> dict[str, Any]:
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

    def _check_size(self, spec: Spec) -> None:
        if self.fits > MAX_FITS:
            raise LimitExceeded(
                f"{spec.source}: the sweep has {self.fits:,} fits; allowed: at most {MAX_FITS:,}"
            )
        if self.shards > MAX_SHARDS:
            raise LimitExceeded(
                f"{spec.source}: {self.fits:,} fits in shards of {self.shard_fits:,} are "
                f"{self.shards:,} shards; allowed: at most {MAX_SHARDS:,}, "
                f"so shard: {-(-self.fits // MAX_SHARDS):,} or more"
            )

    def _check_limits(self, spec: Spec) -> None:
        limits = spec.limits
        planned = {
            "fits": (self.fits, limits.fits, ""),
            "core_hours": (_six_digits(self.seconds / 3600), limits.core_hours, " nominal"),
            "bytes": (self.projected_bytes, limits.bytes, " projected"),
        }
        over = [
            f"{spec.where(('limits', name))}: the plan has {value:,}{kind}; allowed: {limit:,}"
            for name, (value, limit, kind) in planned.items()
            if limit is not None and value > limit
        ]
        if over:
            raise LimitExceeded("\n".join(over))


def _versions(fields: Mapping[str, Any]) -> str:
    """The versions that a plan was made with; the first generators of reals had no number."""
    text = f"ENGINE {fields.get('ENGINE')}, row schema {fields.get('SCHEMA')}"
    return text + (f", generators {fields['GENERATORS']}" if "GENERATORS" in fields else "")


def unreadable_advice(data: bytes) -> str:
    """What to do about an unreadable object under a plan's key: polyfit may not have written it."""
    if not data.strip() or data.lstrip().startswith(b"{"):
        return "if it was damaged, remove it and run the same spec again"
    return f"it begins with {data[:40]!r}: leave it there, and choose another store or --run-id"


def dump_json(value: Any) -> bytes:
    """Strict JSON (a non-finite number is an error), in one canonical form."""
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def _minor(torch_version: str) -> str:
    return ".".join(torch_version.split(".")[:2])
