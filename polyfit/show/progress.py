"""Progress of a run: a live display of two lines on a terminal or in a notebook, plain lines in a
log.

The lines are ours because rich draws nothing useful without a terminal. A log needs few lines,
each with the time, and never a long silence in which a run that hangs looks like one that works.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from polyfit.run.clock import now
from polyfit.show.notebook import NotebookLine, in_notebook
from polyfit.show.text import format_count, format_duration
from polyfit.work.heartbeat import Ticker
from polyfit.work.progress import QUIET_AFTER_S, Message, Progress

__all__ = ["ProgressDisplay", "is_shown"]

LINE_EVERY_S: Final = 10.0
DRAWN_EVERY_S: Final = 0.1


def is_shown() -> bool:
    """Whether somebody watches: stderr is a terminal, or this is a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


class ProgressDisplay:
    """Shows progress and messages of one run.

    Args:
        name: of the spec; every line begins with it.
        write_line: writes one line to stderr.
        clock: seconds, from any moment on.
        is_log: whether it is a log even where somebody watches.
    """

    def __init__(
        self,
        name: str,
        write_line: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        is_log: bool = False,
    ) -> None:
        self._name, self._write_line, self._clock = name, write_line, clock
        self._notebook = NotebookLine() if in_notebook() and not is_log else None
        self._on_terminal = self._notebook is None and is_shown() and not is_log
        self._live: Live | None = None
        self._drawn_at = -math.inf
        self._not_drawn: Progress | None = None
        self._begun_at = clock()
        self._line_at, self._counts = -math.inf, ""
        self.fits_reused = 0
        self.signal: int | None = None

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._not_drawn is not None:
            self._draw(self._not_drawn)
        if self._live is not None:
            self._live.stop()

    def show_message(self, message: str) -> None:
        """Write one line; above the live display, if there is one."""
        self._line_at = self._clock()
        head = f"{'' if self._on_terminal else f'{now()} '}{self._name}: "
        self._write_line(Message.of(message).with_head(head))

    def update(self, progress: Progress) -> None:
        """Show how far the run is."""
        self.fits_reused, self.signal = progress.fits_reused, progress.signal
        if not (self._on_terminal or self._notebook):
            self._write_if_due(progress)
        elif self._clock() - self._drawn_at >= DRAWN_EVERY_S:
            self._draw(progress)
        else:
            self._not_drawn = progress

    @contextmanager
    def reading_results(self) -> Iterator[None]:
        """While the body reads results, which takes minutes if there are many, say so."""

        def look() -> None:
            if self._clock() - self._line_at >= QUIET_AFTER_S:
                self.show_message("reading the results")

        with closing(Ticker(look)):
            yield

    def _draw(self, progress: Progress) -> None:
        """A bar with how far it is; below it what it does, and what has happened."""
        self._drawn_at, self._not_drawn = self._clock(), None
        share = f"{progress.fits_done / progress.fits:.0%}"
        done = f"{progress.fits_done:,} of {format_count(progress.fits, 'fit')}"
        elapsed = format_duration(round(self._clock() - self._begun_at))
        facts = ", ".join((_stage(progress), *_counts(progress), f"{elapsed} so far"))
        if self._notebook is not None:
            head = ", ".join((f"{self._name}: {share}", done, *_speed(progress)))
            self._notebook.show(progress.fits_done, progress.fits, head, facts)
            return
        bar = Table.grid(padding=(0, 1))
        drawn = ProgressBar(progress.fits, progress.fits_done, width=30)
        bar.add_row(Text(self._name, style="bold"), drawn, share, done, *_speed(progress))
        if self._live is None:
            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        self._live.update(Group(bar, Text(f"  {facts}", style="dim")), refresh=True)

    def _write_if_due(self, progress: Progress) -> None:
        done = f"{progress.fits_done:,} of {format_count(progress.fits, 'fit')}"
        counts = ", ".join((done, *_counts(progress)))
        elapsed_s = self._clock() - self._line_at
        changed = counts != self._counts
        finished = changed and progress.fits_done == progress.fits
        if finished or elapsed_s >= LINE_EVERY_S:
            self._counts = counts
            speed = ", ".join((*_speed(progress), _stage(progress)))
            self.show_message(counts if finished else f"{counts}; {speed}")


def _speed(progress: Progress) -> list[str]:
    """Fits a second and time left, as far as they are known."""
    rate, left_s = progress.fits_per_s, progress.left_s
    known = [f"{_round(rate):,} fits/s"] if rate else []
    return [*known, *([f"{format_duration(_round(left_s))} left"] if left_s else [])]


def _counts(progress: Progress) -> list[str]:
    """Shards and actors, and what went wrong."""
    shards = f"{progress.shards_done:,} of {format_count(progress.shards, 'shard')} stored"
    counts = [shards]
    if progress.failed:
        counts.append(f"{format_count(progress.failed, 'shard')} failed")
    if progress.diverged:
        counts.append(f"{format_count(progress.diverged, 'fit')} diverged")
    ready, started = progress.actors or (0, 0)
    if started and "actors" not in progress.stage:  # such as "waiting for room: 0 of 2 actors ..."
        counts.append(f"{ready:,} of {format_count(started, 'actor')} ready")
    return counts


def _stage(progress: Progress) -> str:
    """What the run is doing; if nothing has happened for long, for how long."""
    quiet = progress.quiet_s >= QUIET_AFTER_S
    return progress.stage + (f", nothing new for {progress.quiet_s:.0f} s" if quiet else "")


def _round(value: float) -> int:
    """To two digits: more are noise."""
    return max(1, int(float(f"{value:.2g}")))
