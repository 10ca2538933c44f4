"""What a run on Ray says of itself to Prometheus, by ``ray.util.metrics``.

Ray puts ``ray_`` before each name and ``_total`` after a counter's, and exports a metric from its
first value on. The page of the code lists them: dashboards and alerts depend on the names.
"""

import time
from typing import Final

from ray.util.metrics import Counter, Gauge, Histogram

from polyfit.store.s3_calls import CALLS
from polyfit.work.progress import Progress

__all__ = ["RunMetrics", "StoreMetrics"]

BOUNDARIES_S: Final = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]


class StoreMetrics:
    """Calls of S3 by this process, the driver's or an actor's.

    Args:
        run: the label.
    """

    def __init__(self, run: str) -> None:
        keys, tags = ("run",), {"run": run}
        self._seconds = Histogram(
            "polyfit_store_seconds",
            "Time of a call of S3, with its retries.",
            boundaries=BOUNDARIES_S,
            tag_keys=keys,
        )
        self._retries = Counter(
            "polyfit_store_retries", "Requests that were sent to S3 once more.", tag_keys=keys
        )
        for metric in (self._seconds, self._retries):
            metric.set_default_tags(tags)

    def update(self) -> None:
        """Report the calls since the last time."""
        seconds, retries = CALLS.take()
        for one in seconds:
            self._seconds.observe(one)
        _add(self._retries, retries)


class RunMetrics:
    """How far a run is, as its driver sees it. What was stored before is not counted.

    Args:
        run: the label.
    """

    def __init__(self, run: str) -> None:
        def counter(name: str, description: str) -> Counter:
            made = Counter(name, description, tag_keys=("run",))
            made.set_default_tags({"run": run})
            return made

        def gauge(name: str, description: str) -> Gauge:
            made = Gauge(name, description, tag_keys=("run",))
            made.set_default_tags({"run": run})
            return made

        self._fits = counter("polyfit_fits", "Fits of the shards that this driver had stored.")
        self._stored = counter("polyfit_shards_stored", "Shards that this driver had stored.")
        self._retried = counter("polyfit_shards_retried", "Tries of shards that failed.")
        self._failed = counter("polyfit_shards_failed", "Shards that are not tried again.")
        self._left = gauge("polyfit_shards_left", "Shards that are neither stored nor failed.")
        self._ready = gauge("polyfit_actors_ready", "Actors that take tasks.")
        self._wanted = gauge("polyfit_actors_wanted", "Actors that were asked of the cluster.")
        self._last_shard = gauge(
            "polyfit_last_shard_timestamp_seconds",
            "When a shard was last stored; before the first one, when the driver could begin.",
        )
        self._store = StoreMetrics(run)
        self._before: Progress | None = None
        self._last_shard_at = time.time()

    def update(self, progress: Progress) -> None:
        """Report how far the run is: every second, as Ray forgets a gauge that is not set again."""
        before = self._before or progress
        shards = progress.shards_done - before.shards_done
        if shards:
            self._last_shard_at = time.time()
        self._last_shard.set(self._last_shard_at)
        _add(self._fits, progress.fits_done - before.fits_done)
        _add(self._stored, shards)
        _add(self._retried, progress.retried - before.retried)
        _add(self._failed, progress.failed - before.failed)
        self._left.set(progress.shards - progress.shards_done - progress.failed)
        ready, wanted = progress.actors or (0, 0)
        self._ready.set(ready)
        self._wanted.set(wanted)
        self._store.update()
        self._before = progress

    def close(self) -> None:
        """The actors are released: a cluster that goes on keeps the last values for a while."""
        self._ready.set(0)
        self._wanted.set(0)
        self._store.update()


def _add(counter: Counter, value: int) -> None:
    if value > 0:  # Ray refuses 0
        counter.inc(value)
