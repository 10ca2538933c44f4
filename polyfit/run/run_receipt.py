"""What a run has taken, over all of its attempts: time, cores, GPUs, retries, bytes, hosts.

It proves nothing, and nobody reads it to decide anything: the manifest and its receipts of shards
are for that.
"""

import builtins
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from polyfit.errors import DamagedRun
from polyfit.run.keys import RECEIPT
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import dump_json
from polyfit.store.base import NoSuchKey, Store

__all__ = ["RunReceipt", "stored_receipt"]

MAX_ATTEMPTS: Final = 50
"""Attempts that are read, at the end of each: a job that is stopped has seconds for its end."""

MAX_HOSTS: Final = 100

_Amount = Annotated[float, Field(ge=0, le=1e18)]
_Count = Annotated[int, Field(ge=0, le=10**18)]
"""Bounded, so that sums are too: what is stored may have been altered."""

_AS_STORED: Final = with_config(ConfigDict(strict=True, allow_inf_nan=False, extra="ignore"))


@_AS_STORED
@dataclass(frozen=True, slots=True)
class _Usage:
    """What an attempt took, as it is noted with it."""

    seconds: _Amount
    fits: _Count
    fits_reused: _Count
    core_seconds: dict[str, _Amount]
    gpu_seconds: dict[str, _Amount]
    retries: dict[str, _Count]
    bytes: _Count
    hosts: list[str]


@_AS_STORED
@dataclass(frozen=True, slots=True)
class _Note:
    """What an attempt has noted at its end, as far as the receipt asks for it."""

    usage: _Usage
    stages: list[tuple[_Amount, str]] = field(default_factory=list)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "_Note | None":
        """The note; None where there is none, or a damaged one."""
        asked = {name: facts[name] for name in ("usage", "stages") if name in facts}
        try:
            return _NOTE.validate_json(json.dumps(asked))
        except (ValueError, RecursionError):
            return None

    def spent(self) -> dict[str, float]:
        """Seconds by stage; those of the same name are added."""
        ends = [*(at for at, _ in self.stages[1:]), self.usage.seconds]
        spent: dict[str, float] = {}
        for (at, stage), end in zip(self.stages, ends, strict=False):  # without stages one end
            spent[stage] = spent.get(stage, 0.0) + max(0.0, end - at)
        return spent


@_AS_STORED
@dataclass(frozen=True, slots=True)
class RunReceipt:
    """What a run has taken so far.

    Attributes:
        complete: whether it is complete.
        attempts: how many were counted, the latest ``MAX_ATTEMPTS``.
        attempts_unknown: how many of them left no note of what they took that can be read.
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
    attempts: _Count
    attempts_unknown: _Count
    seconds: _Amount
    stages: dict[str, _Amount]
    fits: _Count
    fits_reused: _Count
    fits_per_s: _Amount | None
    fits_per_core_s: _Amount | None
    core_seconds: dict[str, _Amount]
    gpu_seconds: dict[str, _Amount]
    overhead: float | None
    retries: dict[str, _Count]
    bytes: _Count
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
        notes = [note for facts in attempts if (note := _Note.of(facts)) is not None]
        usages = [note.usage for note in notes]
        seconds = round(sum(usage.seconds for usage in usages), 3)
        fits = sum(usage.fits for usage in usages)
        cores = _sums(usage.core_seconds for usage in usages)
        total = sum(cores.values())
        return cls(
            complete=complete,
            attempts=len(attempts),
            attempts_unknown=len(attempts) - len(notes),
            seconds=seconds,
            stages=_sums(note.spent() for note in notes),
            fits=fits,
            fits_reused=sum(usage.fits_reused for usage in usages),
            fits_per_s=fits / seconds if fits and seconds else None,
            fits_per_core_s=fits / total if fits and total else None,
            core_seconds=cores,
            gpu_seconds=_sums(usage.gpu_seconds for usage in usages),
            overhead=1 - cores.get("fitting", 0.0) / total if total else None,
            retries=_sums(usage.retries for usage in usages),
            bytes=sum(usage.bytes for usage in usages),
            hosts=sorted({host for usage in usages for host in usage.hosts})[:MAX_HOSTS],
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


_NOTE: Final = TypeAdapter(_Note)
_RECEIPT: Final = TypeAdapter(RunReceipt)


def stored_receipt(store: Store) -> RunReceipt | None:
    """The receipt of the run whose folder is ``store``; None where there is none.

    Raises:
        DamagedRun: it cannot be read.
        StoreError: the store cannot be used.
    """
    try:
        return _RECEIPT.validate_json(store.get(RECEIPT))
    except NoSuchKey:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedRun(
            f"{RECEIPT} cannot be read: {where}{': ' if where else ''}{first['msg']}; "
            "it may be removed, nothing is lost"
        ) from None


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
