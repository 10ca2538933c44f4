"""An executor that does all work in this process.

Needs torch only once it is made. Each task runs in a thread, so that the main thread stays free to
answer signals.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from polyfit.work.progress import Progress
from polyfit.work.signals import in_thread
from polyfit.work.task import Job, Task, TaskResult
from polyfit.work.usage import Held

if TYPE_CHECKING:
    from polyfit.work.worker import ShardWorker

__all__ = ["InlineExecutor"]

POLL_S: Final = 0.2


class InlineExecutor:
    """All work in this process, one task at a time.

    Args:
        job: what all tasks need.
        gpus: "auto" for an accelerator where there is one; a number is required, 0 is the CPU.

    Raises:
        ClusterError: there are fewer accelerators than required.
    """

    def __init__(self, job: Job, gpus: float | Literal["auto"] = "auto") -> None:
        self._begun = time.monotonic()
        self._worker = in_thread(partial(_open_worker, job, gpus)).result()
        self._starting_s = time.monotonic() - self._begun

    def describe(self) -> str:
        return f"in this process ({self._worker.device})"

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        while todo:
            result = in_thread(partial(self._worker.run, todo.popleft()))
            while not wait([result], POLL_S).done:
                yield None
            yield result.result()

    def stage(self) -> str | None:
        return "compiling" if self._worker.compiling() else None

    def actors(self) -> None:
        """This process has none."""

    def export(self, progress: Progress) -> None:
        """Nobody watches this process."""

    def held(self) -> Held:
        gpus = 0.0 if self._worker.device == "cpu" else 1.0
        return Held(1.0, gpus, time.monotonic() - self._begun, self._starting_s)

    def close(self) -> None:
        """Nothing is held."""


def _open_worker(job: Job, gpus: float | Literal["auto"]) -> "ShardWorker":
    from polyfit.work.worker import ShardWorker, check_accelerators

    if gpus != "auto":
        check_accelerators(gpus)
    return ShardWorker(job, accelerated=gpus != 0, threads=1)
