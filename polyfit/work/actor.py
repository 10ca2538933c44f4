"""The actor that runs on a node of a Ray cluster.

Light to import: what a node lacks is reported by ``ready``, or by Ray.
"""

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from polyfit.errors import PolyfitError
from polyfit.work.metrics import StoreMetrics
from polyfit.work.task import Job, Task, TaskResult

if TYPE_CHECKING:
    from polyfit.work.worker import ShardWorker

__all__ = ["Ready", "ShardActor"]


@dataclass(frozen=True, slots=True)
class Ready:
    """An actor's first report: the id of its node, the type of its device or what is wrong, and the
    seconds since the actor began."""

    node_id: str
    device: str | None = None
    error: PolyfitError | None = None
    age_s: float = 0.0


class ShardActor:
    """Runs tasks on a node.

    Args:
        job: what all tasks need.
        accelerated: whether to use an accelerator if there is one.
        threads: batches side by side.
    """

    def __init__(self, job: Job, accelerated: bool, threads: int) -> None:
        if not accelerated:
            # Ray leaves every GPU of the node visible to an actor that asked for none.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._begun = time.monotonic()
        self._arguments = (job, accelerated, threads)
        self._worker: ShardWorker | None = None
        self._opening = threading.Lock()
        self._metrics = StoreMetrics(job.label)

    def ready(self, pause_s: float = 0.0) -> Ready:
        """Open the store and read the plan, after ``pause_s`` seconds; an error is returned."""
        node_id = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        time.sleep(pause_s)
        try:
            device = self._opened().device
            return Ready(node_id, device, age_s=time.monotonic() - self._begun)
        except PolyfitError as error:
            return Ready(node_id, error=error)

    def work(self, task: Task) -> TaskResult:
        """Do one task."""
        try:
            return self._opened().run(task)
        finally:
            self._metrics.update()

    def compiling(self) -> bool:
        """Whether a kernel is being compiled in this process."""
        return self._worker is not None and self._worker.compiling()

    def _opened(self) -> "ShardWorker":
        from polyfit.work.worker import ShardWorker

        with self._opening:
            if self._worker is None:
                self._worker = ShardWorker(*self._arguments)
            return self._worker
