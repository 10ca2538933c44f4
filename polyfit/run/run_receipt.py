"""What a run has taken, over all of its attempts: time, cores, GPUs, retries, bytes, hosts.

It proves nothing, and nobody reads it to decide anything: the manifest and its receipts of shards
are for that.
"""

import builtins
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from polyfit.run.keys import RECEIPT
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import dump_json
from polyfit.store.base import NoSuchKey, Store

__all__ = ["RunReceipt", "stored_receipt"]

MAX_ATTEMPTS: Final = 50
"""Attempts that are read, at the end of each: a job that is stopped has seconds for its end."""

MAX_HOSTS: Final = 100


@dataclass(frozen=True, slots=True)
class RunReceipt:
    """What a run has taken so far.

    Attributes:
        complete: whether it is complete.
        attempts: how many were counted, the latest ``MAX_ATTEMPTS``.
        attempts_unknown: how many of them left no note of what they took.
        seconds: wall clock of all others, and of each of their stages.
        fits: that they stored; ``fits_reused`` were taken from another run.
        fits_per_s, fits_per_core_s: fits by ``seconds``, and by all core-seconds; None where
            nothing was stored.
        core_seconds, gpu_seconds: what workers held, by what it was spent on: ``starting``,
            ``compiling``, ``fitting``, and ``other`` (rows that are stored or read, waiting, and
            work that was lost).
        overhead: the share of the core-seconds that is not ``fitting``.
        retries: tasks that were put back to be tried again, by cause.
        bytes: of the shards that they stored.
        hosts: where the workers were; at most ``MAX_HOSTS``.
    """

    complete: bool
    attempts: int
    attempts_unknown: int
    seconds: float
    stages: dict[str, float]
    fits: int
    fits_reused: int
    fits_per_s: float | None
    fits_per_core_s: float | None
    core_seconds: dict[str, float]
    gpu_seconds: dict[str, float]
    overhead: float | None
    retries: dict[str, int]
    bytes: int
    hosts: list[str]

    @classmethod
    def read(cls, ledger: Ledger, complete: bool) -> "RunReceipt":
        """The receipt of a run, from what its attempts have noted.

        Raises:
            StoreError: the store cannot be used.
        """
        return cls.of(ledger.attempts(MAX_ATTEMPTS), complete)

    @classmethod
    def of(cls, attempts: list[dict[str, Any]], complete: bool) -> "RunReceipt":
        """The receipt of ``attempts``, as they are noted."""
        known = [taken for facts in attempts if (taken := _Taken.of(facts)) is not None]
        seconds = round(sum(taken.seconds for taken in known), 3)
        fits = sum(taken.fits for taken in known)
        cores = _sums(taken.core_seconds for taken in known)
        total = sum(cores.values())
        return cls(
            complete=complete,
            attempts=len(attempts),
            attempts_unknown=len(attempts) - len(known),
            seconds=seconds,
            stages=_sums(taken.stages for taken in known),
            fits=fits,
            fits_reused=sum(taken.fits_reused for taken in known),
            fits_per_s=fits / seconds if fits and seconds else None,
            fits_per_core_s=fits / total if fits and total else None,
            core_seconds=cores,
            gpu_seconds=_sums(taken.gpu_seconds for taken in known),
            overhead=1 - cores.get("fitting", 0.0) / total if total else None,
            retries=_sums(taken.retries for taken in known),
            bytes=sum(taken.bytes for taken in known),
            hosts=sorted({host for taken in known for host in taken.hosts})[:MAX_HOSTS],
        )

    def to_json(self) -> builtins.bytes:
        """As it is stored."""
        return dump_json(asdict(self))

    def __str__(self) -> str:
        """In one line."""
        rate = f", {_digits(self.fits_per_s)} fits/s" if self.fits_per_s else ""
        parts = [f"took {_digits(self.seconds)} s{rate}"]
        if self.overhead is not None:
            parts.append(_spent("core", self.core_seconds))
        if any(self.gpu_seconds.values()):
            parts.append(_spent("GPU", self.gpu_seconds))
        if self.retries:
            causes = ", ".join(f"{number:,} {cause}" for cause, number in self.retries.items())
            parts.append(f"tried again: {causes}")
        parts.append(f"{self.bytes:,} bytes")
        if self.attempts > 1:
            unknown = f", {self.attempts_unknown:,} without a note" if self.attempts_unknown else ""
            parts.append(f"{self.attempts:,} attempts{unknown}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one attempt has taken, as it has noted it."""

    seconds: float
    fits: int
    fits_reused: int
    bytes: int
    core_seconds: dict[str, float]
    gpu_seconds: dict[str, float]
    retries: dict[str, int]
    hosts: list[str]
    stages: dict[str, float]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "_Taken | None":
        """None where it has noted nothing, or something else, as another version may."""
        try:
            usage, stages = facts["usage"], facts["stages"]
            ends = [float(at) for at, _ in stages[1:]] + [float(usage["seconds"])] * bool(stages)
            spent: dict[str, float] = {}
            for (at, stage), end in zip(stages, ends, strict=True):
                spent[str(stage)] = spent.get(str(stage), 0.0) + max(0.0, end - float(at))
            return cls(
                seconds=float(usage["seconds"]),
                fits=int(usage["fits"]),
                fits_reused=int(usage["fits_reused"]),
                bytes=int(usage["bytes"]),
                core_seconds={str(name): float(s) for name, s in usage["core_seconds"].items()},
                gpu_seconds={str(name): float(s) for name, s in usage["gpu_seconds"].items()},
                retries={str(cause): int(n) for cause, n in usage["retries"].items()},
                hosts=[str(host) for host in usage["hosts"]],
                stages=spent,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def stored_receipt(store: Store) -> RunReceipt | None:
    """The receipt of the run whose folder is ``store``; None where none can be read."""
    try:
        return RunReceipt(**json.loads(store.get(RECEIPT)))
    except (NoSuchKey, ValueError, TypeError):
        return None


def _spent(what: str, seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    share = seconds.get("fitting", 0.0) / total if total else 0.0
    return f"{_digits(total)} {what}-seconds, {share:.0%} of them fitting"


def _sums(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {name: round(value, 3) for name, value in total.items()}


def _digits(value: float | None) -> str:
    """Three digits: more are noise."""
    return f"{float(f'{value or 0:.3g}'):,.10g}"
