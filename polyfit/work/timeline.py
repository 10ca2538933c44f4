"""When an attempt did what: its stages, and which worker was busy with a shard.

All times are seconds since the attempt began, by the driver's clock: a worker says only how long a
task took, so that clocks of other machines do not matter.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from polyfit.work.task import TaskResult

__all__ = ["Timeline"]

MAX_SPANS: Final = 2_000


@dataclass(slots=True)
class _Span:
    """``tasks`` tasks of a worker, one after the other."""

    worker: str
    start: float
    end: float
    tasks: int = 1


@dataclass(slots=True)
class Timeline:
    """Its size does not grow with the number of shards: beyond MAX_SPANS, neighbours are joined."""

    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _stages: list[tuple[float, str]] = field(default_factory=list)
    _spans: list[_Span] = field(default_factory=list)
    _group: int = 1  # tasks that are joined to one span
    _open: dict[str, _Span] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def note_stage(self, stage: str) -> None:
        """A stage begins."""
        self._stages.append((self._now(), stage))

    def note_result(self, result: TaskResult) -> None:
        """A task has ended just now; one of a worker that was lost has no span."""
        if not result.worker:
            return
        end = self._now()
        span = self._open.get(result.worker)
        if span is not None and span.tasks < self._group:
            span.end, span.tasks = end, span.tasks + 1
            return
        span = _Span(result.worker, max(0.0, end - result.seconds), end)
        self._open[result.worker] = span
        self._spans.append(span)
        if len(self._spans) > MAX_SPANS:
            self._join()

    def facts(self) -> dict[str, Any]:
        """As it is noted with the attempt: ``stages`` as [start, name], ``shards`` as
        [worker, start, end, number]."""
        return {
            "stages": [[round(at, 3), stage] for at, stage in self._stages],
            "shards": [
                [one.worker, round(one.start, 3), round(one.end, 3), one.tasks]
                for one in self._spans
            ],
        }

    def seconds(self) -> float:
        """Since the attempt began."""
        return self._now()

    def _now(self) -> float:
        return self.clock() - self._began

    def _join(self) -> None:
        """Join every two spans of a worker that follow one another."""
        self._group *= 2
        joined: list[_Span] = []
        last: dict[str, _Span] = {}
        for span in self._spans:
            before = last.get(span.worker)
            if before is not None and before.tasks + span.tasks <= self._group:
                before.end, before.tasks = span.end, before.tasks + span.tasks
            else:
                joined.append(span)
                last[span.worker] = span
        self._spans, self._open = joined, last
