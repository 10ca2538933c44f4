"""SIGTERM and Ctrl-C while a run is under way.

While shards run, the first signal is only noted, and the driver waits for the shards. At any other
time, and the second time, a signal raises in the main thread. Python loses an exception that a
handler raises during an import, so heavy imports are made by another thread.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from polyfit.errors import Drained
from polyfit.work.cluster_address import inside_ray_job
from polyfit.work.progress import OnMessage

__all__ = ["Signals", "in_thread", "signal_error"]

DRAIN_S: Final = 25.0
"""Seconds that a driver waits for running shards after a signal: less than the 30 after which
Kubernetes kills a pod by default."""

RAY_JOB_STOP_S: Final = 3.0
"""Seconds from SIGTERM to SIGKILL in ``ray job stop``, unless RAY_JOB_STOP_WAIT_TIME_S is set where
the job's head or the job itself starts."""

CLOSING_S: Final = 2.0
"""Seconds of RAY_JOB_STOP_S that are kept for releasing the run."""

_HANDLED: Final = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")


def signal_error(number: int) -> BaseException:
    """The exception that stands for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Drained()


def drain_s() -> float:
    """``DRAIN_S``, or less where ``ray job stop`` would kill this process earlier."""
    if not inside_ray_job():
        return DRAIN_S
    allowed = os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "")
    killed_after_s = float(allowed) if allowed.isdigit() else RAY_JOB_STOP_S
    return max(min(DRAIN_S, killed_after_s - CLOSING_S), 0.1)


class Signals:
    """Handles SIGTERM and SIGINT as a context, if it is entered by the main thread.

    Attributes:
        number: the signal that asked the run to end, None if none did.
        deadline: until when the driver waits for running shards, by ``time.monotonic``.
    """

    def __init__(self, on_message: OnMessage) -> None:
        self.number: int | None = None
        self.deadline = 0.0
        self._on_message, self._deferring = on_message, False
        self._main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.getsignal(number) for number in _HANDLED}

    def __enter__(self) -> "Signals":
        self.watch()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._main:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def watch(self) -> None:
        """Take the signals over; again after ``ray.init``, which sets a handler of its own."""
        if self._main:
            for number in _HANDLED:
                signal.signal(number, self._handle)

    def defer(self) -> None:
        """From now on the first signal is noted instead of raised."""
        self.check()
        self._deferring = True

    def raise_at_once(self) -> None:
        """From now on a signal raises."""
        self._deferring = False

    def check(self) -> None:
        """Raise for a signal that came: what the handler raised may have been lost."""
        if self.number is not None:
            raise signal_error(self.number)

    def note(self, number: int) -> None:
        """Let running shards finish; the driver stops when they have, or at the deadline."""
        seconds = drain_s()
        self.number, self.deadline = number, time.monotonic() + seconds
        with suppress(Exception):  # it may interrupt the writing of another line
            self._on_message(
                f"stopping: waiting up to {seconds:.0f} s for running shards; send the signal "
                "again to stop now"
            )

    def _handle(self, number: int, frame: Any) -> None:
        if self._deferring and self.number is None:
            self.note(number)
            return
        self.number = number
        raise signal_error(number)


def in_thread(function: Callable[[], T]) -> "Future[T]":
    """What ``function`` will return, called by a thread that does not outlive the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="polyfit", daemon=True).start()
    return future
