"""An executor on Ray actors: starts them, sends them tasks, collects the results.

``label_selector`` keeps actors off nodes on which none starts. Ray's public retries are switched
off: a dead actor is replaced here, on a node where that may work.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from polyfit.errors import ClusterError, PolyfitError, StoreError
from polyfit.spec.schema import Resources
from polyfit.work.actor import Ready, ShardActor
from polyfit.work.capacity import MAX_IN_FLIGHT, actors_on_node, pause_s, wanted_actors
from polyfit.work.cluster import Connection, full_disk
from polyfit.work.metrics import RunMetrics
from polyfit.work.nodes import StartFailures, address_of, is_here, live_nodes, node_name
from polyfit.work.progress import Message, OnMessage, Progress
from polyfit.work.ray_errors import (
    death_cause,
    is_lasting,
    is_preempted,
    is_short_of_memory,
    last_line,
    node_address,
)
from polyfit.work.task import Job, Task, TaskResult
from polyfit.work.usage import Held

__all__ = ["RayExecutor"]

OPENING_S: Final = 60.0
"""Seconds for which an actor tries to open a store that fails for a moment."""

POLL_S: Final = 1.0
SCALE_EVERY_S: Final = 5.0
ASK_EVERY_S: Final = 5.0


@dataclass(slots=True, eq=False)
class ActorHandle:
    """One actor: starting, ready with its calls in flight, or dropped."""

    actor: Any
    ready: Any  # the future of its first report
    calls: dict[Any, Task] = field(default_factory=dict)
    placed: bool = False
    compiling_ref: Any = None  # the future of whether it compiles
    compiling: bool = False
    dropped: bool = False
    tries: int = 0
    started_at: float = field(default_factory=time.monotonic)
    starting_s: float = 0.0
    ready_at: float = 0.0

    def held_s(self) -> float:
        """Seconds for which a ready actor has held its cores."""
        return self.starting_s + time.monotonic() - self.ready_at if self.placed else 0.0

    def drop(self) -> None:
        """Release the actor; its calls in flight fail, and are still to be collected."""
        self.dropped = True
        with suppress(Exception):
            ray.kill(self.actor)


class RayExecutor:
    """Runs tasks on Ray actors that are ready, one or two calls to each.

    Args:
        job: what all tasks need.
        resources: what one actor asks for.
        connection: the cluster.
        placement_timeout_s: how long to wait, in seconds, while no actor can be placed.
        on_message: called with lines for the user.

    ``run`` raises:
        ClusterError: no actor can be placed, or none ever starts, or a Ray of our own has ended.
        StoreError: no actor can open the store.
    """

    def __init__(
        self,
        job: Job,
        resources: Resources,
        connection: Connection,
        placement_timeout_s: float,
        on_message: OnMessage = lambda line: None,
    ) -> None:
        self._job, self._resources, self._connection = job, resources, connection
        self._timeout_s, self._on_message = placement_timeout_s, on_message
        self._gpus = connection.ask(partial(_gpus_per_actor, resources))
        self._handles: list[ActorHandle] = []
        self._scale_at = 0.0
        self._failures = StartFailures(on_message)
        self._reported: set[str] = set()
        self._metrics = RunMetrics(job.label)
        self._num_started = 0
        self._released_s = self._starting_s = 0.0  # of actors that were dropped; of all

    def describe(self) -> str:
        where = "a Ray of its own" if self._connection.own_cluster else "the Ray cluster"
        return f"on {where}: {self._asked()} per actor"

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        busy_at = time.monotonic()
        ask_at = 0.0
        while True:
            self._connection.check()
            if time.monotonic() >= self._scale_at or not todo:
                self._connection.ask(partial(self._scale, todo))
                self._scale_at = self._next_scale()
            if time.monotonic() >= ask_at:
                self._ask_who_compiles()
                ask_at = time.monotonic() + ASK_EVERY_S
            self._collect_ready()
            for handle in self._handles:
                self._send(handle, todo)
            in_flight = {ref: handle for handle in self._handles for ref in handle.calls}
            if not in_flight and not todo:
                return
            if in_flight:
                busy_at = time.monotonic()
            elif time.monotonic() - busy_at > self._timeout_s:
                raise ClusterError(f"{self._no_room()}; gave up after {self._timeout_s:g} s")
            starting = [one.ready for one in self._handles if not one.placed and not one.dropped]
            for ref in _first([*in_flight, *starting]):
                if ref in in_flight:
                    yield self._collect(in_flight[ref], ref)
            yield None

    def stage(self) -> str | None:
        ready, started = self.actors()
        if not ready:
            return f"waiting for room: 0 of {started:,} actors ready"
        compiling = sum(handle.compiling for handle in self._present() if handle.placed)
        if compiling:
            return f"compiling on {compiling:,} of {ready:,} actors"
        return None

    def actors(self) -> tuple[int, int]:
        present = self._present()
        return sum(handle.placed for handle in present), len(present)

    def held(self) -> Held:
        present_s = sum(handle.held_s() for handle in self._present())
        cores, gpus = self._resources.cpus_per_actor, self._gpus
        return Held(cores, gpus, self._released_s + present_s, self._starting_s)

    def export(self, progress: Progress) -> None:
        self._metrics.update(progress)

    def _present(self) -> list[ActorHandle]:
        return [handle for handle in self._handles if not handle.dropped]

    def close(self) -> None:
        for handle in self._handles:
            self._drop(handle)
        self._handles = []
        self._metrics.close()

    def _drop(self, handle: ActorHandle) -> None:
        if not handle.dropped:
            self._released_s += handle.held_s()
        handle.drop()

    # --- tasks -------------------------------------------------------------------------------

    def _send(self, handle: ActorHandle, todo: deque[Task]) -> None:
        while handle.placed and not handle.dropped and todo and len(handle.calls) < MAX_IN_FLIGHT:
            task = todo.popleft()
            handle.calls[handle.actor.work.remote(task)] = task

    def _collect(self, handle: ActorHandle, ref: Any) -> TaskResult:
        task = handle.calls.pop(ref)
        handle.compiling = False
        try:
            result = ray.get(ref)
            assert isinstance(result, TaskResult)
            return result
        except RayTaskError as error:
            return TaskResult(task, cause=last_line(error))
        except RayError as error:
            self._drop(handle)
            self._scale_at = 0.0
            cause = f"the actor has died: {death_cause(error)}"
            return TaskResult(task, cause=cause, lost=True, preempted=is_preempted(error))

    def _ask_who_compiles(self) -> None:
        """See which actors compile, without waiting for an answer."""
        for handle in self._handles:
            asked = handle.compiling_ref
            if asked is not None and ray.wait([asked], timeout=0)[0]:
                with suppress(RayError):  # the actor's calls report its death
                    handle.compiling = ray.get(asked)
                handle.compiling_ref = None
            if handle.calls and handle.compiling_ref is None and not handle.dropped:
                handle.compiling_ref = handle.actor.compiling.remote()

    # --- actors ------------------------------------------------------------------------------

    def _scale(self, todo: deque[Task]) -> None:
        """Follow a cluster that grows and shrinks, and release actors with nothing to do."""
        present = self._present()
        left = len(todo) + sum(len(handle.calls) for handle in self._handles)
        wanted = self._wanted(left, present) if todo else 0
        if wanted > len(present):
            self._start(wanted - len(present))
        # Of those that are too many, first the ones that have no place (their node may be gone).
        idle = sorted((one for one in present if not one.calls), key=lambda one: one.placed)
        for handle in idle[: max(len(present) - wanted, 0)]:
            if not todo or not handle.placed:
                self._drop(handle)
        self._handles = [one for one in self._handles if one.calls or not one.dropped]

    def _next_scale(self) -> float:
        """When to look again: soon, or when a node's pause ends."""
        return min(time.monotonic() + SCALE_EVERY_S, *self._failures.ends_s(), math.inf)

    def _wanted(self, tasks: int, present: list[ActorHandle]) -> int:
        """How many actors to have.

        Raises:
            ClusterError, StoreError: no node can hold an actor.
        """
        actors, room = self._resources.actors, self._room()
        if room < 1:
            avoided = [
                node
                for node in live_nodes()
                if self._failures.avoided(node) and self._actors_on(node)
            ]
            if avoided:
                if not any(handle.placed for handle in present):
                    self._failures.raise_if_lasting(avoided)
                return len(present)
            if self._connection.own_cluster:
                raise ClusterError(self._no_room())
        return wanted_actors(tasks, room, actors.min, actors.max)

    def _room(self) -> int:
        """How many actors can be started, one node at a time."""
        nodes = (node for node in live_nodes() if not self._failures.avoided(node))
        return sum(self._actors_on(node) for node in nodes)

    def _actors_on(self, node: dict[str, Any]) -> int:
        return actors_on_node(node["Resources"], self._resources.cpus_per_actor, self._gpus)

    def _start(self, count: int) -> None:
        threads = max(1, math.floor(self._resources.cpus_per_actor))
        options: dict[str, Any] = {
            "num_cpus": self._resources.cpus_per_actor,
            "num_gpus": self._gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            # One shard is written while another is computed, and a question gets an answer.
            "max_concurrency": MAX_IN_FLIGHT + 1,
        }
        avoided = [node["NodeID"] for node in live_nodes() if self._failures.avoided(node)]
        if avoided:  # else no label is asked of nodes that are still to come
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(avoided)})"}
        remote = ray.remote(**options)(ShardActor)
        for _ in range(count):
            self._num_started += 1
            name = f"polyfit {self._job.label} {self._job.attempt[-8:]}-{self._num_started}"
            actor: Any = remote.options(name=name).remote(self._job, self._gpus > 0, threads)
            self._handles.append(ActorHandle(actor, actor.ready.remote()))

    def _collect_ready(self) -> None:
        """See which actors have become ready, and which never will."""
        for handle in self._handles:
            if handle.placed or handle.dropped or not ray.wait([handle.ready], timeout=0)[0]:
                continue
            try:
                ready = ray.get(handle.ready)
            except RayError as error:
                self._drop(handle)
                self._note_death(handle, error)
                continue
            assert isinstance(ready, Ready)
            self._note_ready(handle, ready)

    def _note_ready(self, handle: ActorHandle, ready: Ready) -> None:
        error = ready.error
        if error is None:
            handle.placed, handle.ready_at = True, time.monotonic()
            handle.starting_s = ready.age_s
            self._starting_s += ready.age_s
            self._note_start(address_of(ready.node_id), ready.device)
        elif self._may_open_later(handle, error):
            handle.tries += 1
            handle.ready = handle.actor.ready.remote(pause_s(handle.tries))
        elif isinstance(error, StoreError | ClusterError):
            self._drop(handle)
            self._note_failure(address_of(ready.node_id), error, True, handle.started_at)
        else:  # the run's, not the node's
            raise error

    def _note_start(self, address: str, device: str | None) -> None:
        self._failures.note_start(address)
        if self._gpus and device == "cpu":
            line = "has a GPU for Ray and none for torch: fitting on its CPU"
            self._report(f"cpu {address}", f"{node_name(address)} {line}")

    def _may_open_later(self, handle: ActorHandle, error: PolyfitError) -> bool:
        """Whether an actor that cannot open the store is to try again."""
        transient = isinstance(error, StoreError) and error.transient
        if not transient or time.monotonic() - handle.started_at > OPENING_S:
            return False
        line = f"an actor cannot start: {error}; trying again for up to {OPENING_S:g} s"
        self._report("store", Message(line, level="warning"))
        return True

    def _note_death(self, handle: ActorHandle, error: Exception) -> None:
        """An actor died before it was ready."""
        lasting, address, cause = is_lasting(error), node_address(error), death_cause(error)
        if not lasting and not is_short_of_memory(error):
            session = self._connection.session
            full = full_disk(Path(session)) if session and is_here(address) else ""
            hint = "; see Ray's logs there, and whether its disk or its memory is full"
            cause = f"{full}: {cause}" if full else cause + hint
        self._note_failure(address, ClusterError(cause), lasting, handle.started_at)

    def _note_failure(
        self, address: str, error: PolyfitError, lasting: bool, started_at: float
    ) -> None:
        if self._failures.note(address, error, lasting, started_at):
            self._scale_at = 0.0
            self._failures.report(address, elsewhere=self._room() > 0)

    # --- words -------------------------------------------------------------------------------

    def _report(self, topic: str, line: str) -> None:
        if topic not in self._reported:
            self._reported.add(topic)
            self._on_message(line)

    def _asked(self) -> str:
        gpus = f"{self._gpus:g} GPU and " if self._gpus else ""
        return f"{gpus}{self._resources.cpus_per_actor:g} CPU"

    def _no_room(self) -> str:
        """Why nothing runs: what an actor asks for, what there is, and what else is known."""
        total, free = ray.cluster_resources(), ray.available_resources()
        there = ", ".join(
            f"{free.get(name, 0):g} of {total.get(name, 0):g} {name} free"
            for name in ("GPU", "CPU")
        )
        failures = self._failures.reason()
        known = f"{failures}\n" if failures else ""
        hint = (
            "; what is not free is used by other programs, or by actors of this run whose process "
            "does not start (see Ray's logs on its node)"
            if self._handles and self._room()
            else ""
        )
        return (
            f"{known}no actor could be placed: each asks for {self._asked()}; the cluster has "
            f"{there}{hint}"
        )


def _gpus_per_actor(resources: Resources) -> float:
    asked = resources.gpus_per_actor
    if asked != "auto":
        return float(asked)
    return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0


def _first(refs: list[Any]) -> list[Any]:
    """The first of ``refs`` to be there, after at most ``POLL_S`` seconds."""
    if not refs:
        time.sleep(POLL_S)
        return []
    done, _ = ray.wait(refs, num_returns=1, timeout=POLL_S)
    return list(done)
