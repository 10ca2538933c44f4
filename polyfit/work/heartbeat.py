"""What a run is at, told every few seconds, whatever its own thread does.

A thread beside the run's own looks every second, and only reads: Ray may be starting, or a shard
be computed in this process, for minutes. A run that hangs beats on as well; so with every beat
stands when something last happened.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from polyfit.errors import PolyfitError
from polyfit.run.ledger import Ledger, now
from polyfit.spec.plan import Plan

__all__ = ["SILENT_S", "Heartbeat", "Listener", "Progress", "Ticker"]

LOOK_EVERY_S: Final = 1.0

SILENT_S: Final = 10.0
"""Seconds after which ``status.json`` is written again, and a log gets another line."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    ``shards_done`` and ``fits_done`` are at rest; ``fits_reused`` were taken from another run
    by this attempt instead of fitting them; ``signal`` is the number of the one that asked the run
    to end, if one did. ``stage`` says in a few words what the run is at, ``quiet_s`` for how many
    seconds nothing has happened: no shard came to rest, and the stage stayed the same.
    """

    shards: int
    shards_done: int
    fits: int
    fits_done: int
    failed: int
    fits_reused: int = 0
    signal: int | None = None
    stage: str = ""
    quiet_s: float = 0.0


Listener = Callable[[Progress], None]


class Ticker:
    """Calls ``look`` every second from a thread, until ``close`` or until it raises."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look, self._ended = look, threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ``look`` raised."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop; a call that is under way is waited for."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self._look()
            except Exception as error:
                self._error = error
                return


class Heartbeat:
    """Tells a listener every second what a run is at, and the store every ten while it is ours.

    Args:
        plan: what is run.
        attempt: the driver's name in the store.
        listener: called by one thread at a time, but not always the same.
        asked: the number of the signal that asked the run to end, None where none did.
    """

    def __init__(
        self, plan: Plan, attempt: str, listener: Listener, asked: Callable[[], int | None]
    ) -> None:
        self._attempt, self._listener, self._asked = attempt, listener, asked
        self._progress = Progress(plan.shards, 0, plan.fits, 0, 0)
        self._now: Callable[[], str] = str
        self._stage, self._event_at, self._event_told = "", time.monotonic(), now()
        self._ledger: Ledger | None = None
        self._held: Callable[[], None] = lambda: None
        self._noted_at, self._noted_stage = 0.0, ""
        self._signal_told: int | None = None
        self._turn = threading.RLock()
        self._ticker = Ticker(self._look)

    def at(self, stage: str | Callable[[], str]) -> None:
        """What the run is at from now on, in a few words, or what to ask for them."""
        self._now = stage if callable(stage) else lambda: stage

    def own(self, ledger: Ledger, held: Callable[[], None]) -> None:
        """From now on the status is ours to write, as long as ``held`` does not raise."""
        self._held = held
        self._note_softly(ledger)
        self._ledger = ledger

    def came(self, progress: Progress) -> None:
        """Something happened: the run is now so far."""
        self._progress = progress
        self._happened()
        self._tell()

    def check(self) -> None:
        """Raise what the listener raised while nobody else called it."""
        self._ticker.check()

    def end(self, state: str) -> None:
        """Beat no more, and write that the run is complete, or has ended.

        Raises:
            StoreError: the store cannot be used.
        """
        self.close()
        self._stage = self._now()
        if self._asked() != self._signal_told:
            self._tell()
        if self._ledger is not None:
            self._note(self._ledger, state)

    def close(self) -> None:
        """Beat no more."""
        self._ticker.close()

    def _look(self) -> None:
        self._tell()
        late = time.monotonic() - self._noted_at >= SILENT_S
        if self._ledger is not None and (late or self._stage != self._noted_stage):
            self._note_softly(self._ledger)

    def _tell(self) -> None:
        with self._turn:
            if (stage := self._now()) != self._stage:
                self._stage = stage
                self._happened()
            quiet_s, self._signal_told = time.monotonic() - self._event_at, self._asked()
            self._listener(
                replace(self._progress, stage=stage, quiet_s=quiet_s, signal=self._signal_told)
            )

    def _happened(self) -> None:
        self._event_at, self._event_told = time.monotonic(), now()

    def _note_softly(self, ledger: Ledger) -> None:
        """What is wrong with store or lease the driver finds out by itself."""
        with suppress(PolyfitError):
            self._held()
            self._note(ledger, "running")

    def _note(self, ledger: Ledger, state: str) -> None:
        self._noted_at, self._noted_stage = time.monotonic(), self._stage
        done, failed = self._progress.shards_done, self._progress.failed
        ledger.note_status(self._attempt, done, failed, state, self._stage, self._event_told)
