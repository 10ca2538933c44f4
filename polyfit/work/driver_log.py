"""The log of one attempt's driver, as it is kept in the run: a pod's own log goes with the pod."""

import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from typing import Final

from polyfit.errors import Exit, PolyfitError
from polyfit.run.clock import now
from polyfit.run.ledger import Ledger
from polyfit.work.progress import Message, OnMessage, Progress

__all__ = ["DriverLog"]

FIRST_BYTES: Final = 60_000
LAST_BYTES: Final = 180_000
"""Of a longer log the beginning and the end are kept."""

ENTRY_BYTES: Final = 8_000
PROGRESS_EVERY_S: Final = 60.0


class DriverLog:
    """Passes messages on to ``on_message``, with the run and the attempt, and keeps them.

    Args:
        run: the run for people.
        attempt: the attempt's name in the store.
        on_message: called with each message; any thread may have one.
    """

    def __init__(self, run: str, attempt: str, on_message: OnMessage) -> None:
        self._facts = {"run": run, "attempt": attempt}
        self._attempt, self._on_message = attempt, on_message
        self._lock = threading.RLock()  # a signal may come while the main thread has it
        self._first: list[bytes] = []
        self._last: deque[bytes] = deque()
        self._num_first = self._num_last = self._num_left_out = 0
        self._changed = False
        self._progress_at = time.monotonic()

    def message(self, line: str) -> None:
        """Keep a line for the user, and pass it on."""
        message = Message.of(line)
        self._keep(message.level, message.text)
        self._on_message(message.about(self._facts))

    def progress(self, progress: Progress) -> None:
        """Keep how far the run is, once a minute."""
        if time.monotonic() - self._progress_at < PROGRESS_EVERY_S:
            return
        self._progress_at = time.monotonic()
        ready, wanted = progress.actors or (0, 0)
        self._keep(
            "info",
            f"{progress.fits_done:,} of {progress.fits:,} fits and {progress.shards_done:,} of "
            f"{progress.shards:,} shards stored, {progress.failed:,} failed, {progress.retried:,} "
            f"tried again; {ready:,} of {wanted:,} actors ready; {progress.stage}",
        )

    def end(self, exit_code: Exit, error: BaseException | None) -> None:
        """Keep how the attempt ended; of what is no error of its user the traceback."""
        if isinstance(error, PolyfitError):
            self._keep("error", str(error))
        elif isinstance(error, Exception):
            self._keep("error", "".join(traceback.format_exception(error)).rstrip())
        self._keep("info", f"ended with exit code {int(exit_code)}: {exit_code.meaning}")

    def store(self, ledger: Ledger) -> None:
        """Store it in the run if there is anything new; a store that fails loses it."""
        with self._lock:
            changed, self._changed = self._changed, False
            text = self._text()
        if changed:
            with suppress(PolyfitError):
                ledger.note_log(self._attempt, text)

    def _keep(self, level: str, text: str) -> None:
        kept = text[:ENTRY_BYTES].encode("utf-8", "replace")[:ENTRY_BYTES]
        whole = kept.decode("utf-8", "ignore")  # no half of a character
        entry = f"{now()} {level:<7} {whole}\n".encode()
        with self._lock:
            self._changed = True
            if self._num_first + len(entry) <= FIRST_BYTES and not self._last:
                self._first.append(entry)
                self._num_first += len(entry)
                return
            self._last.append(entry)
            self._num_last += len(entry)
            while self._num_last > LAST_BYTES:
                self._num_last -= len(self._last.popleft())
                self._num_left_out += 1

    def _text(self) -> bytes:
        left_out = f"... {self._num_left_out:,} entries left out ...\n"
        middle = left_out.encode() if self._num_left_out else b""
        return b"".join((*self._first, middle, *self._last))
