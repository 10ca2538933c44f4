"""Reports progress every second, even while the run's own thread is busy.

A thread beside the run's own looks every second, and only reads: Ray may be starting, or a shard
may be computed in this process, for minutes. A run that hangs has a heartbeat too, so each report
says when the last event was.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from polyfit.errors import PolyfitError
from polyfit.run.clock import now
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import Plan
from polyfit.work.progress import QUIET_AFTER_S, Listener, Progress
from polyfit.work.throughput import Throughput

__all__ = ["Heartbeat", "Ticker"]

TICK_S: Final = 1.0


class Ticker:
    """Calls ``on_tick`` every second from a thread, until ``close`` or until it raises."""

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self._on_tick, self._closed = on_tick, threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ``on_tick`` raised."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop, after a call that is under way."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(TICK_S):
            try:
                self._on_tick()
            except Exception as error:
                self._error = error
                return


class Heartbeat:
    """Reports to a listener every second, and to ``status.json`` every ten while we hold the run.

    Args:
        plan: what is run.
        attempt: the attempt's name in the store.
        listener: called by one thread at a time, but not always the same.
        signal: returns the number of the signal that asked the run to end, None if none did.
    """

    def __init__(
        self, plan: Plan, attempt: str, listener: Listener, signal: Callable[[], int | None]
    ) -> None:
        self._attempt, self._listener, self._signal = attempt, listener, signal
        self._progress = Progress(plan.shards, 0, plan.fits, 0, 0)
        self._throughput = Throughput()
        self._current_stage: Callable[[], str] = str
        self._current_actors: Callable[[], tuple[int, int] | None] = lambda: None
        self._export: Listener = lambda progress: None
        self._stage, self._event_at, self._event_time = "", time.monotonic(), now()
        self._ledger: Ledger | None = None
        self._check_held: Callable[[], None] = lambda: None
        self._also: Callable[[Ledger], None] = lambda ledger: None
        self._written_at, self._written_stage = 0.0, ""
        self._reported_signal: int | None = None
        self._reporting = threading.RLock()
        self._ticker = Ticker(self._tick)

    def set_stage(
        self,
        stage: str | Callable[[], str],
        actors: Callable[[], tuple[int, int] | None] = lambda: None,
        export: Listener = lambda progress: None,
    ) -> None:
        """What the run does from now on, in a few words, or a function that returns them.

        ``actors`` returns how many are ready, and how many were started. ``export`` is called as
        the listener is; the former one is no longer called when this returns.
        """
        with self._reporting:
            self._current_stage = stage if callable(stage) else lambda: stage
            self._current_actors, self._export = actors, export

    def write_status(
        self,
        ledger: Ledger,
        check_held: Callable[[], None],
        also: Callable[[Ledger], None] = lambda ledger: None,
    ) -> None:
        """Write ``status.json`` from now on, as long as ``check_held`` does not raise.

        ``also`` is called each time while the run goes on.
        """
        self._check_held, self._also = check_held, also
        self._try_write_running(ledger)
        self._ledger = ledger

    def update(self, progress: Progress) -> None:
        """Something happened: report the new progress at once."""
        self._progress = progress
        self._note_event()
        self._report()

    def check(self) -> None:
        """Raise what the listener raised in the heartbeat's own thread."""
        self._ticker.check()

    def finish(self, state: str) -> None:
        """Stop, and write that the run is "complete" or has "ended".

        Raises:
            StoreError: the store cannot be used.
        """
        self.close()
        self._stage = self._current_stage()
        if self._signal() != self._reported_signal:
            self._report()
        if self._ledger is not None:
            self._write(self._ledger, state)

    def close(self) -> None:
        """Stop."""
        self._ticker.close()

    def _tick(self) -> None:
        self._report()
        due = time.monotonic() - self._written_at >= QUIET_AFTER_S
        if self._ledger is not None and (due or self._stage != self._written_stage):
            self._try_write_running(self._ledger)

    def _report(self) -> None:
        with self._reporting:
            if (stage := self._current_stage()) != self._stage:
                self._stage = stage
                self._note_event()
            quiet_s, self._reported_signal = time.monotonic() - self._event_at, self._signal()
            progress = replace(
                self._progress,
                stage=stage,
                quiet_s=quiet_s,
                signal=self._reported_signal,
                actors=self._current_actors(),
            )
            measured = self._throughput
            measured.add(time.monotonic(), progress)
            self._export(progress)
            self._listener(
                replace(progress, fits_per_s=measured.fits_per_s, left_s=measured.left_s)
            )

    def _note_event(self) -> None:
        self._event_at, self._event_time = time.monotonic(), now()

    def _try_write_running(self, ledger: Ledger) -> None:
        """The driver's own calls report what is wrong with store or lease."""
        with suppress(PolyfitError):
            self._check_held()
            self._write(ledger, "running")
            self._also(ledger)

    def _write(self, ledger: Ledger, state: str) -> None:
        self._written_at, self._written_stage = time.monotonic(), self._stage
        done, failed = self._progress.shards_done, self._progress.failed
        ledger.note_status(
            self._attempt,
            done,
            failed,
            state,
            self._stage,
            self._event_time,
            self._progress.fits_done,
            self._throughput.fits_per_s if self._throughput.is_steady else None,
        )
