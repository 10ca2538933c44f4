"""Progress of a run: rich's bar on a terminal, plain lines in a log.

The lines are ours because rich draws nothing useful without a terminal. A log needs few lines,
each with the time, and never a long silence in which a run that hangs looks like one that works.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from polyfit.run.clock import now
from polyfit.show.text import format_count
from polyfit.work.heartbeat import Ticker
from polyfit.work.progress import QUIET_AFTER_S, Progress

__all__ = ["ProgressDisplay"]

LINE_EVERY_S: Final = 5.0


class ProgressDisplay:
    """Shows progress and messages of one run.

    Args:
        name: of the spec; every line begins with it.
        write_line: writes one line to stderr.
        clock: seconds, from any moment on.
    """

    def __init__(
        self,
        name: str,
        write_line: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._write_line, self._clock = name, write_line, clock
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Bar | None = None
        self._line_at, self._counts = -math.inf, ""
        self.fits_reused = 0
        self.signal: int | None = None

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show_message(self, message: str) -> None:
        """Write one line; above the bar, if there is one."""
        self._line_at = self._clock()
        self._write_line(f"{'' if self._on_terminal else f'{now()} '}{self._name}: {message}")

    def update(self, progress: Progress) -> None:
        """Show how far the run is."""
        self.fits_reused, self.signal = progress.fits_reused, progress.signal
        if self._on_terminal:
            self._update_bar(progress)
        else:
            self._write_if_due(progress)

    @contextmanager
    def reading_results(self) -> Iterator[None]:
        """While the body reads results, which takes minutes if there are many, say so."""

        def look() -> None:
            if self._clock() - self._line_at >= QUIET_AFTER_S:
                self.show_message("reading the results")

        with closing(Ticker(look)):
            yield

    def _update_bar(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = _new_bar(self._name)
            self._bar.add_task("", total=progress.fits)
            self._bar.start()
        self._bar.update(TaskID(0), completed=progress.fits_done, description=_stage(progress))

    def _write_if_due(self, progress: Progress) -> None:
        counts, elapsed_s = _counts(progress), self._clock() - self._line_at
        changed = counts != self._counts
        finished = changed and progress.fits_done == progress.fits
        if finished or (changed and elapsed_s >= LINE_EVERY_S) or elapsed_s >= QUIET_AFTER_S:
            self._counts = counts
            self.show_message(counts if finished else f"{counts}; {_stage(progress)}")


def _new_bar(name: str) -> Bar:
    return Bar(
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("fits"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
    )


def _counts(progress: Progress) -> str:
    failed = f", {format_count(progress.failed, 'shard')} failed" if progress.failed else ""
    return (
        f"{progress.fits_done:,} of {format_count(progress.fits, 'fit')}, "
        f"{progress.shards_done:,} of {format_count(progress.shards, 'shard')} stored{failed}"
    )


def _stage(progress: Progress) -> str:
    """What the run is doing; if nothing has happened for long, for how long."""
    quiet = progress.quiet_s >= QUIET_AFTER_S
    return progress.stage + (f", nothing new for {progress.quiet_s:.0f} s" if quiet else "")
