"""How far a run is and who drives it, from a few small objects of its folder."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from polyfit.errors import Exit
from polyfit.run.keys import MANIFEST, STATUS
from polyfit.run.last_attempt import describe_driver
from polyfit.run.lease import last_driver
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import Plan
from polyfit.store.base import NoSuchKey, Store

__all__ = ["RunState", "State", "last_change", "read_state", "sealed_bytes"]


class State(StrEnum):
    """What became of a run; ``exit_code`` is that of ``polyfit status``."""

    exit_code: Exit

    def __new__(cls, text: str, exit_code: Exit) -> "State":
        member = str.__new__(cls, text)
        member._value_ = text
        member.exit_code = exit_code
        return member

    COMPLETE = "complete", Exit.COMPLETE
    RUNNING = "running", Exit.HELD
    FAILED = "failed", Exit.FAILED_SHARDS  # shards have failed; no driver is at work
    STOPPED = "stopped", Exit.UNFINISHED  # its driver noted its end
    STALE = "stale", Exit.UNFINISHED  # its driver has died without a word
    NEW = "not started", Exit.UNFINISHED


_Count = Annotated[int, Field(ge=0, le=10**18)]


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run is. None stands for what is not known.

    Attributes:
        state: what became of it.
        stage: what its driver does, or did last.
        shards, shards_done, shards_failed: of the plan; stored; skipped because they failed.
        fits, fits_done: of the plan; stored.
        fits_per_s: stored per second in the last attempt.
        seconds_left: at that rate; only of a run that is running.
        bytes: of all shards; only of a complete run.
        updated_at: when its driver last wrote its status.
        last_event_at: when a shard was stored, or the stage changed.
        driver: who drives it, or how the last attempt ended, in words.
    """

    state: State
    stage: str | None
    shards: int
    shards_done: int | None
    shards_failed: int | None
    fits: int
    fits_done: int | None
    fits_per_s: float | None
    seconds_left: float | None
    bytes: int | None
    updated_at: str | None
    last_event_at: str | None
    driver: str


def read_state(store: Store, plan: Plan) -> RunState:
    """How far the run of ``plan`` is whose folder is ``store``: a handful of requests, no listing
    of its shards.

    Raises:
        StoreError: the store cannot be used.
    """
    status, num_bytes = _status(store), sealed_bytes(store)
    sealed = num_bytes is not None
    found = last_driver(store)
    at_work = not sealed and found is not None and found[1]
    done = plan.fits if sealed else status.fits_done
    rate = status.fits_per_s
    left = (plan.fits - done) / rate if at_work and rate and done is not None else None
    return RunState(
        state=_state_of(sealed, found is not None, at_work, status),
        stage=status.stage,
        shards=plan.shards,
        shards_done=plan.shards if sealed else status.done,
        shards_failed=0 if sealed else status.failed,
        fits=plan.fits,
        fits_done=done,
        fits_per_s=rate,
        seconds_left=left,
        bytes=num_bytes,
        updated_at=status.updated_at,
        last_event_at=status.last_event_at,
        driver=describe_driver(Ledger(store, plan), found),
    )


def _state_of(sealed: bool, started: bool, at_work: bool, status: "_Status") -> State:
    if sealed:
        return State.COMPLETE
    if at_work:
        return State.RUNNING
    if status.failed:
        return State.FAILED
    if not started:
        return State.NEW
    return State.STALE if status.state == "running" else State.STOPPED


def last_change(store: Store) -> str:
    """When a run's driver last wrote its status, as text that sorts by time; empty if never."""
    return _status(store).updated_at or ""


_SEALED_BYTES: Final = re.compile(rb'\{"bytes":(\d+),')


def sealed_bytes(store: Store) -> int | None:
    """The size of a complete run's shards in bytes; None while it is not complete.

    It stands at the beginning of the manifest, whose keys are sorted: of a run with a million
    shards, the whole has 200 MB.
    """
    try:
        head = store.get(MANIFEST, 0, 64)
    except NoSuchKey:
        return None
    found = _SEALED_BYTES.match(head)
    return int(found[1]) if found else 0


@with_config(ConfigDict(strict=True, allow_inf_nan=False, extra="ignore"))
@dataclass(frozen=True, slots=True)
class _Status:
    """What a driver last wrote, as far as it is asked for."""

    state: str | None = None
    stage: str | None = None
    done: _Count | None = None
    failed: _Count | None = None
    fits_done: _Count | None = None
    fits_per_s: Annotated[float, Field(ge=0)] | None = None
    updated_at: str | None = None
    last_event_at: str | None = None


_STATUS: Final = TypeAdapter(_Status)


def _status(store: Store) -> _Status:
    """What the run's driver last wrote; empty if nothing that can be read."""
    try:
        return _STATUS.validate_json(store.get(STATUS))
    except (NoSuchKey, ValidationError):
        return _Status()
