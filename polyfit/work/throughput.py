"""How many fits a second a run stores, and how long the rest will take."""

from collections import deque
from typing import Final

from polyfit.work.progress import Progress

__all__ = ["Throughput"]

WINDOW_S: Final = 30.0
"""Only what was stored in the last so many seconds counts: actors come and go."""

STEADY_S: Final = 8.0
"""Before that, a rate is that of a few shards."""


class Throughput:
    """Estimates from the counts of one run, as they come."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._fits_left = 0

    def add(self, time_s: float, progress: Progress) -> None:
        """Note the counts at ``time_s``; until an actor is ready, time does not count."""
        ready, _ = progress.actors or (1, 1)
        if not ready and len(self._samples) < 2:
            self._samples.clear()
        self._samples.append((time_s, progress.fits_done))
        while len(self._samples) > 2 and self._samples[1][0] <= time_s - WINDOW_S:
            self._samples.popleft()
        self._fits_left = progress.fits - progress.fits_done

    @property
    def fits_per_s(self) -> float | None:
        """None before the first fit."""
        if not self._samples:
            return None
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None

    @property
    def is_steady(self) -> bool:
        """Whether enough time has passed for the rate to tell what is left."""
        return bool(self._samples) and self._samples[-1][0] - self._samples[0][0] >= STEADY_S

    @property
    def left_s(self) -> float | None:
        """Seconds until all fits are stored; None in the first ``STEADY_S`` seconds, when one
        shard more makes it half as long, before the first fit, and where none is left."""
        rate = self.fits_per_s if self.is_steady else None
        return self._fits_left / rate if rate and self._fits_left else None
