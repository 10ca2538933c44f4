"""A worker's half of a run: the plan read from the store, and one task at a time."""

import json
import os
import secrets
import socket
import threading
import time
import traceback
from dataclasses import replace

import torch

from polyfit.engine.cpu import compiling
from polyfit.engine.fit import pick_device
from polyfit.errors import ClusterError, PlanMismatch, RunNotFound, StoreError
from polyfit.run.clock import now
from polyfit.run.keys import PLAN, attempt_key
from polyfit.run.manifest import Receipt
from polyfit.run.reuse import Reuse, ReusedRows
from polyfit.spec.plan import Plan, dump_json
from polyfit.store.base import NoSuchKey
from polyfit.work.storing import inspect_shard, provenance, read_again, run_shard
from polyfit.work.task import Job, Task, TaskResult
from polyfit.work.usage import Stopwatch

__all__ = ["ShardWorker", "check_accelerators"]


class ShardWorker:
    """Computes and inspects shards of one run.

    Args:
        job: what all tasks need.
        accelerated: whether to use an accelerator if there is one.
        threads: batches side by side.

    Raises:
        ClusterError: this machine has another torch than the plan's.
        PlanMismatch: another plan is in the store.
        StoreError: the store cannot be used.
    """

    def __init__(self, job: Job, accelerated: bool, threads: int) -> None:
        self._store = job.run.open()
        self._plan = self._read_plan(job)
        try:
            self._plan.check_torch(torch.__version__)
        except PlanMismatch as error:
            raise ClusterError(str(error)) from None
        self._reuse = self._open_reuse(job)
        self._device = pick_device(accelerated)
        self._threads = threads
        self._compute_lock = threading.Lock()
        self._read_again = job.read_again

    def _read_plan(self, job: Job) -> Plan:
        """The driver's plan, and proof that this process reads and writes the driver's store.

        Raises:
            PlanMismatch: another plan is there: two drivers started at once, and the store
                ignores conditions.
            StoreError: the store cannot be used, or is another one.
        """
        try:
            driver = json.loads(self._store.get(attempt_key(job.attempt)))
            facts = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": now()}
            name = f"{job.attempt}/{secrets.token_hex(4)}"
            self._store.create(attempt_key(name), dump_json(facts))
            plan = Plan.from_json(self._store.get(PLAN), f"{job.run.uri}/{PLAN}")
        except NoSuchKey:
            raise StoreError(
                f"{job.run.uri} on {socket.gethostname()} is not the driver's folder: what the "
                "driver wrote is missing; a folder must be shared by all machines, or use s3://"
            ) from None
        if plan.hash != driver["plan"]:
            raise PlanMismatch(
                f"{job.run.uri}/{PLAN} is no longer plan {driver['plan'][:12]} but "
                f"{plan.run_id}: another driver runs that plan there; choose another --run-id"
            )
        return plan

    def _open_reuse(self, job: Job) -> Reuse | None:
        """The run to take rows from, if any, and proof that this process can read it."""
        try:
            return Reuse(self._plan, job.reuse) if job.reuse else None
        except RunNotFound as error:
            raise StoreError(
                f"{error}; as seen from {socket.gethostname()}: a folder must be shared by all "
                "machines, or use s3://"
            ) from None

    def run(self, task: Task) -> TaskResult:
        """Do one task; an exception becomes part of the result."""
        begin = time.monotonic()
        result = self._run(task)
        worker = f"{socket.gethostname()} {os.getpid()}"
        return replace(result, worker=worker, seconds=time.monotonic() - begin)

    def _run(self, task: Task) -> TaskResult:
        try:
            return self._inspect(task) if task.kind == "inspect" else self._compute(task)
        except (StoreError, ClusterError) as error:
            return TaskResult(task, cause=str(error), fatal=error)
        except Exception:
            return TaskResult(task, cause=traceback.format_exc())

    def _inspect(self, task: Task) -> TaskResult:
        return TaskResult(task, self._checked(inspect_shard(self._plan, task.shard, self._store)))

    def _compute(self, task: Task) -> TaskResult:
        reused, watch = ReusedRows(), Stopwatch()
        if self._reuse:  # without the lock: rows are read while another shard is computed
            shard, here = self._plan.shard(task.shard), provenance(self._plan, self._device)
            reused = self._reuse.rows_for(shard, here)
        receipt = run_shard(
            self._plan,
            task.shard,
            self._store,
            self._device,
            self._threads,
            self._compute_lock,
            reused,
            watch,
        )
        return TaskResult(
            task,
            self._checked(receipt),
            reused=reused.num_fits,
            refused=reused.refused,
            times=watch.seconds,
        )

    def _checked(self, receipt: Receipt) -> Receipt:
        return read_again(self._plan, receipt, self._store) if self._read_again else receipt

    @property
    def device(self) -> str:
        """The type of the device that iterates."""
        return self._device.type

    @staticmethod
    def compiling() -> bool:
        """Whether a kernel is being compiled in this process."""
        return compiling()


def check_accelerators(wanted: float) -> None:
    """Check that this machine has so many accelerators.

    Raises:
        ClusterError: it has fewer.
    """
    found = torch.accelerator.device_count()
    if wanted > found:
        raise ClusterError(
            f"gpus_per_actor: {wanted:g}, and torch {torch.__version__} finds {found} GPUs on "
            f"{socket.gethostname()}; gpus_per_actor: auto takes one where there is one, 0 takes "
            "none"
        )
