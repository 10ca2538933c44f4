"""Two executors with one interface: in this process, or on Ray actors.

An executor takes tasks and yields outcomes in the order they come. It knows nothing of what a
task means beyond calling ``work`` with it; what to do about a failure is the driver's business.
"""

import contextlib
import json
import math
import os
import re
import secrets
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from polyfit.errors import ClusterError, PlanMismatch, PolyfitError, RunNotFound, StoreError
from polyfit.ledger import PLAN, Receipt, attempt_key, now
from polyfit.plan import Plan, dump_json
from polyfit.reuse import Known, Reuse
from polyfit.spec import Resources
from polyfit.store import NoSuchKey, StoreAddress

__all__ = [
    "Executor",
    "InlineExecutor",
    "Job",
    "Outcome",
    "RayExecutor",
    "Task",
    "connect",
    "inside_ray_job",
]

IN_FLIGHT: Final = 2
"""Calls per actor: the next one waits there while one runs."""

PLACEMENT_TIMEOUT_S: Final = 600.0
KNOCK_TIMEOUT_S: Final = 10.0
OPENING_S: Final = 60.0
"""Seconds that an actor has to open the store, where what is in its way may pass."""

_POLL_S: Final = 1.0
_SCALE_EVERY_S: Final = 5.0
_ASK_EVERY_S: Final = 5.0
_CLOSING_POLL_S: Final = 0.01
_RAYLET_POLLS: Final = {  # only together are they ten seconds, as by Ray's own defaults
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
}


@dataclass(frozen=True, slots=True)
class Job:
    """What every task of a run needs; small, and without credentials.

    ``reuse`` is the folder of a run whose rows may be taken. With ``read_again`` each shard is read
    once more before its receipt counts.
    """

    run: StoreAddress
    attempt: str
    reuse: StoreAddress | None = None
    read_again: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to ``compute``, or to ``inspect`` where it is at rest."""

    kind: str
    shard: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task's receipt, or why there is none.

    Of its fits so many were ``reused``; ``refused`` says by cause why others were not.
    ``lost`` tells that the worker went away, which says nothing against the task, and
    ``preempted`` that its node was taken back, as those of spot markets are; ``fatal`` is an
    error that every other task would meet too.
    """

    task: Task
    receipt: Receipt | None = None
    cause: str | None = None
    lost: bool = False
    preempted: bool = False
    fatal: PolyfitError | None = None
    reused: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Runs tasks somewhere."""

    def describe(self) -> str:
        """Where the work runs, in one line."""

    def run(self, todo: deque[Task]) -> Iterator[Outcome | None]:
        """Take tasks from the left of ``todo`` until it is empty; yields one outcome per task.

        What the caller adds before it takes the next outcome is run too. Yields None now and
        then while nothing comes in, so that the caller can look around, and stop.
        """

    def at(self) -> str | None:
        """What it is at in a few words, None where tasks are at work; asked by another thread."""

    def close(self) -> None:
        """Let go of workers; a cluster that was joined stays up."""


class Workbench:
    """A worker's own half: the plan read from the store, and one task at a time."""

    def __init__(self, job: Job, accelerated: bool, threads: int) -> None:
        import torch

        from polyfit.fit import pick_device

        self._store = job.run.open()
        self._plan = self._read(job)
        self._plan.check_torch(torch.__version__)
        self._reuse = self._reused(job)
        self._device = pick_device(accelerated)
        self._threads = threads
        self._turn = threading.Lock()
        self._read_again = job.read_again

    def _read(self, job: Job) -> Plan:
        """The driver's plan, and proof that this process sees and can write the driver's store.

        Raises:
            PlanMismatch: another plan lies there, as two drivers can bring about at once where
                the store ignores conditions.
            StoreError: the store cannot be used, or is another.
        """
        try:
            driver = json.loads(self._store.get(attempt_key(job.attempt)))
            facts = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": now()}
            name = f"{job.attempt}/{secrets.token_hex(4)}"
            self._store.create(attempt_key(name), dump_json(facts))
            plan = Plan.from_json(self._store.get(PLAN), f"{job.run.uri}/{PLAN}")
        except NoSuchKey:
            raise StoreError(
                f"{job.run.uri} is not the driver's on {socket.gethostname()}: what the driver "
                "wrote is not there; a folder must be shared by all machines, or use s3://"
            ) from None
        if plan.hash != driver["plan"]:
            raise PlanMismatch(
                f"{job.run.uri}/{PLAN} is no longer plan {driver['plan'][:12]} but "
                f"{plan.run_id}: another driver runs that there; choose another --run-id"
            )
        return plan

    def _reused(self, job: Job) -> Reuse | None:
        """The run to take rows from, if any, and proof that this process sees it."""
        try:
            return Reuse(self._plan, job.reuse) if job.reuse else None
        except RunNotFound as error:
            raise StoreError(
                f"{error}; as seen from {socket.gethostname()}: a folder must be shared by all "
                "machines, or use s3://"
            ) from None

    def work(self, task: Task) -> Outcome:
        """Do one task."""
        from polyfit.worker import inspect_shard, made, run_shard

        if task.kind == "inspect":
            return Outcome(task, self._sure(inspect_shard(self._plan, task.shard, self._store)))
        known = Known()
        if self._reuse:  # not in turn: the next shard's rows are read while one is computed
            shard, here = self._plan.shard(task.shard), made(self._plan, self._device)
            known = self._reuse.known(shard, here)
        receipt = run_shard(
            self._plan, task.shard, self._store, self._device, self._threads, self._turn, known
        )
        return Outcome(task, self._sure(receipt), reused=known.fits, refused=known.refused)

    def _sure(self, receipt: Receipt) -> Receipt:
        from polyfit.worker import read_again

        return read_again(self._plan, receipt, self._store) if self._read_again else receipt

    def device(self) -> str:
        """The type of the device that iterates."""
        return self._device.type


def _compiling() -> bool:
    from polyfit.kernels import compiling

    return compiling()


def _attempted(bench: Workbench, task: Task) -> Outcome:
    """A task's outcome; what a task raises is told, not raised."""
    try:
        return bench.work(task)
    except (StoreError, ClusterError) as error:
        return Outcome(task, cause=str(error), fatal=error)
    except Exception:
        return Outcome(task, cause=traceback.format_exc())


class InlineExecutor:
    """All work in this process, on its accelerator where it has one."""

    def __init__(self, job: Job) -> None:
        self._bench = Workbench(job, accelerated=True, threads=1)

    def describe(self) -> str:
        return f"in this process ({self._bench.device()})"

    def run(self, todo: deque[Task]) -> Iterator[Outcome]:
        while todo:
            yield _attempted(self._bench, todo.popleft())

    def at(self) -> str | None:
        return "compiling" if _compiling() else None

    def close(self) -> None:
        """Nothing is held."""


def inside_ray_job() -> bool:
    """Whether this process is the entrypoint of a Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # the name is what Ray calls it


def named_cluster(address: str | None) -> str | None:
    """The cluster to join: the given one, RAY_ADDRESS, or that of the surrounding job."""
    named = address or os.environ.get("RAY_ADDRESS")
    return named or ("auto" if inside_ray_job() else None)


@dataclass(frozen=True, slots=True)
class Connection:
    """This process's link to a Ray cluster; ``ours`` if it was started by us."""

    ours: bool
    began: bool

    def close(self, closing: contextlib.ExitStack | None = None) -> None:
        """Leave the cluster; ends it if it is ours, which takes a second or two.

        With ``closing`` it ends beside what the caller does next, and has ended at that stack's
        end.
        """
        import ray

        if not self.began:
            return
        if closing is None:
            ray.shutdown()
            return
        thread = threading.Thread(target=ray.shutdown, name="closing Ray")
        thread.start()
        closing.callback(thread.join)
        while thread.is_alive() and ray.is_initialized():  # until then it may print to stdout
            time.sleep(_CLOSING_POLL_S)


def connect(address: str | None) -> Connection:
    """Join the named cluster, or start one on this machine.

    Raises:
        ClusterError: it cannot be joined.
    """
    named = named_cluster(address)
    if named is None:
        _guard()
    else:
        _knock(named)
    import ray

    if ray.is_initialized():
        return Connection(ours=False, began=False)
    options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": False}
    if named:
        options["address"] = named
    else:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        with contextlib.nullcontext() if named else _quick_raylet():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the Ray cluster at {named}" if named else "a Ray cluster on this machine"
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = "; a cluster with a token wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        raise ClusterError(
            f"{where} cannot be used: {reason[:400]}{hint if named else ''}"
        ) from error
    return Connection(ours=named is None, began=True)


@contextlib.contextmanager
def _quick_raylet() -> Iterator[None]:
    """Have the raylet that starts within see soon that its object store is there.

    By Ray's defaults it asks once a second.
    """
    ours = {} if _RAYLET_POLLS.keys() & os.environ.keys() else _RAYLET_POLLS
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _knock(address: str) -> None:
    """Find out soon whether anything listens there: Ray itself would ask for minutes."""
    match = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+)\]?:(\d{1,5})", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), KNOCK_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"the Ray cluster at {address} cannot be reached: {error}") from None


def _guard() -> None:
    """A token of its own for a Ray of our own.

    Ray would make one too, but leave it in the home folder, where it silently turns
    authentication on for every ``ray start`` that follows. Ray reads the mode when it is
    imported; in a program that has imported it before, its own default holds.
    """
    if "ray" not in sys.modules and not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@dataclass(slots=True)
class _Worker:
    """One actor: waiting to be placed, or ready with its calls in flight."""

    actor: Any
    ready: Any
    calls: dict[Any, Task] = field(default_factory=dict)
    placed: bool = False
    asked: Any = None
    compiling: bool = False
    begun: float = field(default_factory=time.monotonic)


class RayExecutor:
    """Work on Ray actors: sent to those that are ready, one or two calls to each.

    Args:
        job: what all tasks need.
        resources: what one actor asks for.
        connection: the cluster.
        placement_timeout_s: how long to wait, in seconds, while no actor can be placed.

    Raises:
        ClusterError: the cluster can never hold one actor.
    """

    def __init__(
        self,
        job: Job,
        resources: Resources,
        connection: Connection,
        placement_timeout_s: float = PLACEMENT_TIMEOUT_S,
    ) -> None:
        self._job, self._resources, self._connection = job, resources, connection
        self._timeout_s = placement_timeout_s
        self._gpus = self._gpus_per_actor()
        self._workers: list[_Worker] = []

    def describe(self) -> str:
        where = "a Ray of its own" if self._connection.ours else "the Ray cluster"
        return f"on {where}: {self._asked()} per actor"

    def run(self, todo: deque[Task]) -> Iterator[Outcome | None]:
        import ray

        busy_at = time.monotonic()
        scale_at = ask_at = 0.0
        while True:
            if time.monotonic() >= scale_at or not todo:
                self._scale(todo)
                scale_at = time.monotonic() + _SCALE_EVERY_S
            if time.monotonic() >= ask_at:
                self._ask()
                ask_at = time.monotonic() + _ASK_EVERY_S
            self._place()
            for worker in self._workers:
                self._fill(worker, todo)
            flying = {ref: worker for worker in self._workers for ref in worker.calls}
            if not flying and not todo:
                return
            if flying:
                busy_at = time.monotonic()
            elif time.monotonic() - busy_at > self._timeout_s:
                raise ClusterError(f"{self._no_room()}; gave up after {self._timeout_s:g} s")
            placing = [worker.ready for worker in self._workers if not worker.placed]
            done, _ = ray.wait([*flying, *placing], num_returns=1, timeout=_POLL_S)
            for ref in done:
                if ref in flying:
                    yield self._collect(flying[ref], ref)
            yield None

    def at(self) -> str | None:
        workers = list(self._workers)
        ready = [worker for worker in workers if worker.placed]
        if not ready:
            return f"waiting for room: 0 of {len(workers):,} actors ready"
        compiling = sum(worker.compiling for worker in ready)
        if compiling:
            return f"compiling on {compiling:,} of {len(ready):,} actors"
        return None

    def close(self) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def _ask(self) -> None:
        """See which actors compile; who does not answer in time is not waited for."""
        import ray
        from ray.exceptions import RayError

        for worker in self._workers:
            if worker.asked is not None and ray.wait([worker.asked], timeout=0)[0]:
                with contextlib.suppress(RayError):  # what befell the actor its calls tell
                    worker.compiling = ray.get(worker.asked)
                worker.asked = None
            if worker.calls and worker.asked is None:
                worker.asked = worker.actor.compiling.remote()

    def _scale(self, todo: deque[Task]) -> None:
        """Follow a cluster that grows and shrinks, and let go of actors with nothing to do."""
        left = len(todo) + sum(len(worker.calls) for worker in self._workers)
        wanted = self._wanted(left) if left else 0
        if todo:
            self._start(wanted - len(self._workers))
        # Of those that are too many, first the ones that have no place (their node may be gone).
        idle = sorted((w for w in self._workers if not w.calls), key=lambda worker: worker.placed)
        too_many = len(self._workers) - wanted
        for worker in idle[: max(too_many, 0)]:
            if not todo or not worker.placed:
                self._workers.remove(worker)
                _end(worker)

    def _fill(self, worker: _Worker, todo: deque[Task]) -> None:
        while worker.placed and todo and len(worker.calls) < IN_FLIGHT:
            task = todo.popleft()
            worker.calls[worker.actor.work.remote(task)] = task

    def _place(self) -> None:
        """See which actors have become ready."""
        import ray
        from ray.exceptions import RayActorError, RayError

        for worker in self._workers:
            if worker.placed or not ray.wait([worker.ready], timeout=0)[0]:
                continue
            try:
                told = ray.get(worker.ready)
            except RayActorError:
                _await_restart(worker)
                continue
            except RayError as error:
                raise ClusterError(f"an actor cannot start: {_short(error)}") from error
            if isinstance(told, PolyfitError):
                late = time.monotonic() - worker.begun > OPENING_S
                if late or not isinstance(told, StoreError) or not told.passing:
                    raise told
                worker.ready = worker.actor.ready.remote()
                continue
            worker.placed = True

    def _collect(self, worker: _Worker, ref: Any) -> Outcome:
        import ray
        from ray.exceptions import RayActorError, RayError

        task = worker.calls.pop(ref)
        worker.compiling = False
        try:
            outcome = ray.get(ref)
            assert isinstance(outcome, Outcome)
            return outcome
        except RayActorError as error:
            _await_restart(worker)
            cause = f"the actor went away: {_short(error)}"
            return Outcome(task, cause=cause, lost=True, preempted=error.preempted)
        except RayError as error:
            return Outcome(task, cause=_short(error))

    def _start(self, count: int) -> None:
        import ray

        threads = max(1, math.floor(self._resources.cpus_per_actor))
        actor_class: Any = ray.remote(_Actor)
        remote = actor_class.options(
            num_cpus=self._resources.cpus_per_actor,
            num_gpus=self._gpus,
            max_restarts=-1,
            max_task_retries=0,
            # One shard is written while the next is computed, and who asks gets an answer.
            max_concurrency=IN_FLIGHT + 1,
        )
        for _ in range(count):
            actor: Any = remote.remote(self._job, self._gpus > 0, threads)
            self._workers.append(_Worker(actor, actor.ready.remote()))

    def _gpus_per_actor(self) -> float:
        import ray

        asked = self._resources.gpus_per_actor
        if asked != "auto":
            return float(asked)
        return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0

    def _wanted(self, tasks: int) -> int:
        """How many actors: no more than tasks, no more than there is room for, at least min."""
        actors = self._resources.actors
        room = self._room()
        if room < 1 and self._connection.ours:
            raise ClusterError(self._no_room())
        most = room if actors.max == "auto" else actors.max
        return max(1, min(tasks, max(most, actors.min)))

    def _room(self) -> int:
        """How many actors the nodes can hold, one node at a time."""
        import ray

        total = 0
        for node in ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = has.get("CPU", 0) / self._resources.cpus_per_actor
                if self._gpus:
                    fits = min(fits, _gpu_places(has.get("GPU", 0), self._gpus))
                total += math.floor(fits + 1e-9)
        return total

    def _asked(self) -> str:
        gpus = f"{self._gpus:g} GPU and " if self._gpus else ""
        return f"{gpus}{self._resources.cpus_per_actor:g} CPU"

    def _no_room(self) -> str:
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        there = ", ".join(
            f"{free.get(name, 0):g} of {total.get(name, 0):g} {name} free"
            for name in ("GPU", "CPU")
        )
        return f"no actor could be placed: each asks for {self._asked()}; the cluster has {there}"


class _Actor:
    """What runs on a node of the cluster."""

    def __init__(self, job: Job, accelerated: bool, threads: int) -> None:
        if not accelerated:
            # Ray leaves every GPU of the node visible to an actor that asked for none.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._asked = (job, accelerated, threads)
        self._bench: Workbench | None = None
        self._opening = threading.Lock()

    def ready(self) -> PolyfitError | None:
        """Open the store and read the plan; what is wrong with them is told, not raised."""
        try:
            self._opened()
        except PolyfitError as error:
            return error
        return None

    def work(self, task: Task) -> Outcome:
        """One task's outcome."""
        return _attempted(self._opened(), task)

    def compiling(self) -> bool:
        """Whether a kernel is being compiled in this process."""
        return _compiling()

    def _opened(self) -> Workbench:
        with self._opening:
            if self._bench is None:
                self._bench = Workbench(*self._asked)
            return self._bench


def _end(worker: _Worker) -> None:
    import ray

    with contextlib.suppress(Exception):
        ray.kill(worker.actor)


def _await_restart(worker: _Worker) -> None:
    """Ray starts the actor again; until it answers, nothing is sent to it."""
    worker.placed, worker.begun = False, time.monotonic()
    worker.ready = worker.actor.ready.remote()


def _gpu_places(gpus: float, each: float) -> float:
    """Actors that ``gpus`` hold: a share never spans two GPUs."""
    return gpus * math.floor(1 / each + 1e-9) if each <= 1 else gpus / each


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
