"""Where a run's tasks are done: in this process, or on Ray."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from polyfit.errors import UsageError
from polyfit.spec.plan import Plan
from polyfit.spec.schema import Resources
from polyfit.work.cluster_address import named_cluster
from polyfit.work.inline import InlineExecutor
from polyfit.work.progress import OnMessage
from polyfit.work.task import Executor, Job

__all__ = ["EXECUTORS", "PLACEMENT_TIMEOUT_S", "Workplace"]

EXECUTORS: Final = ("auto", "ray", "inline")
PLACEMENT_TIMEOUT_S: Final = 600.0
"""Seconds to wait while no actor can be placed."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where the tasks of a run are done; chosen early, opened late.

    Attributes:
        kind: of executor.
        chosen: whether ``kind`` was chosen for the caller.
        resources: what the run may use.
        address: a Ray cluster; RAY_ADDRESS or the surrounding job's if None.
        placement_timeout_s: seconds to wait while no actor can be placed.
        on_message: called with lines for the user.
        metrics_port: where Prometheus finds the metrics of a Ray of our own.
    """

    kind: Literal["ray", "inline"]
    chosen: bool
    resources: Resources
    address: str | None
    placement_timeout_s: float
    on_message: OnMessage
    metrics_port: int | None = None

    @classmethod
    def choose(
        cls,
        executor: str,
        plan: Plan,
        resources: Resources,
        address: str | None,
        placement_timeout_s: float,
        on_message: OnMessage,
        metrics_port: int | None = None,
    ) -> "Workplace":
        """The workplace for ``executor``, one of ``EXECUTORS``.

        Raises:
            UsageError: there is no such executor, or the address does not have the form of one.
        """
        if executor not in EXECUTORS:
            raise UsageError(f"executor {executor!r}; allowed: {' | '.join(EXECUTORS)}")
        small = executor == "auto" and plan.inline
        inline = executor == "inline" or (named_cluster(address) is None and small)
        return cls(
            "inline" if inline else "ray",
            executor == "auto",
            resources,
            address,
            placement_timeout_s,
            on_message,
            metrics_port,
        )

    def wanted(self, plan: Plan) -> str:
        """Where the work is done, or how many actors are wanted, in words."""
        if self.kind == "inline":
            why = "the work is smaller than starting Ray (--executor ray starts it)"
            return f"in this process: {why}" if self.chosen else "in this process"
        actors = self.resources.actors
        least = min(actors.min, plan.shards)
        most = plan.shards if actors.max == "auto" else min(actors.max, plan.shards)
        count = str(most) if most <= least else f"{least} to {most:,}"
        return f"actors wanted: {count}"

    def opening_stage(self) -> str:
        """What a run does while its executor is opened, in words."""
        if self.kind == "inline":
            return "loading torch"
        named = named_cluster(self.address)
        return "starting Ray" if named is None else f"joining the Ray cluster at {named}"

    @contextmanager
    def open(self, job: Job) -> Iterator[Executor]:
        """An executor for ``job``.

        Raises:
            ClusterError: the cluster cannot be used, or this machine lacks accelerators.
            PlanMismatch, StoreError: this process cannot work on the run.
        """
        if self.kind == "inline":
            yield InlineExecutor(job, self.resources.gpus_per_actor)
            return
        from polyfit.work.cluster import connect

        with closing(connect(self.address, job.label, self.metrics_port)) as connection:
            from polyfit.work.ray_executor import RayExecutor  # imports Ray: connected first

            ray_executor = RayExecutor(
                job, self.resources, connection, self.placement_timeout_s, self.on_message
            )
            with closing(ray_executor):
                yield ray_executor
