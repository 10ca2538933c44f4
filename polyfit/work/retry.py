"""When a failed task is tried again: a policy that neither waits nor reads a clock."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from polyfit.errors import PolyfitError, StoreError
from polyfit.work.task import TaskResult

__all__ = ["RetryPolicy"]

MAX_TRIES: Final = 3
"""Times that a shard is tried before it has failed."""

MAX_WORKER_DEATHS: Final = 10
"""Times that a shard's worker may die before the shard itself is suspected."""

STORE_BUDGET_S: Final = 60.0
"""Seconds without a stored shard, after which a store that fails ends the run."""

STORE_PAUSE_S: Final = 0.5
MAX_STORE_PAUSE_S: Final = 8.0


@dataclass(slots=True)
class RetryPolicy:
    """Counts failures: of each shard, of its workers, and of the store.

    Attributes:
        causes: why each shard failed, the first cause first.
        store_failed_at: when the store began to fail, None while it works.
    """

    causes: dict[int, list[str]] = field(default_factory=dict)
    store_failed_at: float | None = None
    _tries: Counter[int] = field(default_factory=Counter)
    _worker_deaths: Counter[int] = field(default_factory=Counter)
    _store_failures: int = 0

    def retries_after(self, result: TaskResult) -> bool:
        """Count a failed task, and tell whether it is tried again.

        The death of a preempted worker is not counted.
        """
        shard = result.task.shard
        self.causes.setdefault(shard, []).append(result.cause or "no error reported")
        if not result.preempted:
            (self._worker_deaths if result.lost else self._tries)[shard] += 1
        return self._tries[shard] < MAX_TRIES and self._worker_deaths[shard] < MAX_WORKER_DEATHS

    def store_pause_s(self, error: PolyfitError, now_s: float) -> float:
        """Seconds until a store that failed for a moment is used again; doubled each time.

        Raises:
            PolyfitError: ``error``, if it is not transient or the budget is used up.
        """
        if not isinstance(error, StoreError) or not error.transient:
            raise error
        if self.store_failed_at is None:
            self.store_failed_at = now_s
        if now_s - self.store_failed_at >= STORE_BUDGET_S:
            raise error
        pause_s = min(STORE_PAUSE_S * 2.0**self._store_failures, MAX_STORE_PAUSE_S)
        self._store_failures += 1
        return pause_s

    def note_stored(self) -> None:
        """A shard was stored: the store works."""
        self.store_failed_at, self._store_failures = None, 0
