"""Two executors with one interface: in this process, or on Ray actors.

An executor takes tasks and yields outcomes in the order they come. It knows nothing of what a
task means beyond calling ``work`` with it; what to do about a failure is the driver's business.
"""

import contextlib
import json
import math
import os
import re
import resource
import secrets
import shutil
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from polyfit.errors import (
    ClusterError,
    PlanMismatch,
    PolyfitError,
    RunNotFound,
    StoreError,
    UsageError,
)
from polyfit.run.clock import now
from polyfit.run.keys import PLAN, attempt_key
from polyfit.run.manifest import Receipt
from polyfit.run.reuse import Reuse, ReusedRows
from polyfit.spec.plan import Plan, dump_json
from polyfit.spec.schema import Resources
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey

__all__ = [
    "Executor",
    "InlineExecutor",
    "Job",
    "RayExecutor",
    "Task",
    "TaskResult",
    "connect",
    "inside_ray_job",
]

IN_FLIGHT: Final = 2
"""Calls per actor: the next one waits there while one runs."""

PLACEMENT_TIMEOUT_S: Final = 600.0
KNOCK_TIMEOUT_S: Final = 10.0
OPENING_S: Final = 60.0
"""Seconds that an actor has to open the store, where what is in its way may pass."""

START_TRIES: Final = 4
"""Failed starts in a row after which a node that has never held an actor is given up."""

START_PAUSE_S: Final = 1.0
"""Seconds until an actor is started again where one failed; doubled with each failure."""

START_LONGEST_PAUSE_S: Final = 30.0
FULL_BYTES: Final = 2**24
"""Free bytes below which a disk is called full."""

_JOINING: Final = (
    "; its logs lie on its machines, in /tmp/ray/session_latest/logs if not set otherwise"
)
_POLL_S: Final = 1.0
_NAMED: Final = 3
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
class TaskResult:
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

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        """Take tasks from the left of ``todo`` until it is empty; yields one outcome per task.

        What the caller adds before it takes the next outcome is run too. Yields None now and
        then while nothing comes in, so that the caller can look around, and stop.
        """

    def at(self) -> str | None:
        """What it is at in a few words, None where tasks are at work; asked by another thread."""

    def close(self) -> None:
        """Let go of workers; a cluster that was joined stays up."""


class ShardWorker:
    """A worker's own half: the plan read from the store, and one task at a time.

    Raises:
        ClusterError: this machine has another torch than the plan's.
        PlanMismatch: another plan lies in the store.
        StoreError: the store cannot be used.
    """

    def __init__(self, job: Job, accelerated: bool, threads: int) -> None:
        import torch

        from polyfit.engine.fit import pick_device

        self._store = job.run.open()
        self._plan = self._read(job)
        try:
            self._plan.check_torch(torch.__version__)
        except PlanMismatch as error:
            raise ClusterError(str(error)) from None
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

    def work(self, task: Task) -> TaskResult:
        """Do one task."""
        from polyfit.work.storing import inspect_shard, provenance, run_shard

        if task.kind == "inspect":
            return TaskResult(task, self._sure(inspect_shard(self._plan, task.shard, self._store)))
        reused = ReusedRows()
        if self._reuse:  # without the lock: the next shard's rows are read while one is computed
            shard, here = self._plan.shard(task.shard), provenance(self._plan, self._device)
            reused = self._reuse.rows_for(shard, here)
        receipt = run_shard(
            self._plan, task.shard, self._store, self._device, self._threads, self._turn, reused
        )
        return TaskResult(task, self._sure(receipt), reused=reused.num_fits, refused=reused.refused)

    def _sure(self, receipt: Receipt) -> Receipt:
        from polyfit.work.storing import read_again

        return read_again(self._plan, receipt, self._store) if self._read_again else receipt

    def device(self) -> str:
        """The type of the device that iterates."""
        return self._device.type


def _compiling() -> bool:
    from polyfit.engine.cpu import compiling

    return compiling()


def _attempted(bench: ShardWorker, task: Task) -> TaskResult:
    """A task's outcome; what a task raises is told, not raised."""
    try:
        return bench.work(task)
    except (StoreError, ClusterError) as error:
        return TaskResult(task, cause=str(error), fatal=error)
    except Exception:
        return TaskResult(task, cause=traceback.format_exc())


class InlineExecutor:
    """All work in this process.

    Args:
        job: what all tasks need.
        gpus: "auto" for an accelerator where there is one; a number is wanted, 0 is the CPU.

    Raises:
        ClusterError: there are fewer accelerators than asked for.
    """

    def __init__(self, job: Job, gpus: float | Literal["auto"] = "auto") -> None:
        if gpus != "auto":
            _check_accelerators(gpus)
        self._bench = ShardWorker(job, accelerated=gpus != 0, threads=1)

    def describe(self) -> str:
        return f"in this process ({self._bench.device()})"

    def run(self, todo: deque[Task]) -> Iterator[TaskResult]:
        while todo:
            yield _attempted(self._bench, todo.popleft())

    def at(self) -> str | None:
        return "compiling" if _compiling() else None

    def close(self) -> None:
        """Nothing is held."""


def _check_accelerators(wanted: float) -> None:
    import torch

    there = torch.accelerator.device_count()
    if wanted > there:
        raise ClusterError(
            f"gpus_per_actor: {wanted:g}, and torch {torch.__version__} finds {there} GPUs on "
            f"{socket.gethostname()}; gpus_per_actor: auto takes one where there is one, 0 takes "
            "none"
        )


def inside_ray_job() -> bool:
    """Whether this process is the entrypoint of a Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # the name is what Ray calls it


def named_cluster(address: str | None) -> str | None:
    """The cluster to join: the given one, RAY_ADDRESS, or that of the surrounding job.

    Raises:
        UsageError: it is no address of a cluster, by its form.
    """
    for name, given in (("address", address), ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS"))):
        if named := (given or "").strip():
            if not _is_address(named):
                raise UsageError(
                    f"{name} {named!r}; allowed: HOST:PORT ([HOST]:PORT for IPv6), where the port "
                    "of a cluster is 6379 if not set otherwise, ray://HOST:PORT, auto or local; an "
                    "http:// address is a dashboard's, for `ray job submit`"
                )
            return named
    return "auto" if inside_ray_job() else None


_HOST_PORT: Final = re.compile(r"(ray://)?(?:\[([^\[\]/,\s]+)\]|([^\[\]:/,\s]+)):([0-9]{1,5})")


def _is_address(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return text in ("auto", "local") or (match is not None and 0 < int(match[4]) < 65536)


@dataclass(frozen=True, slots=True)
class Connection:
    """This process's link to a Ray cluster; ``ours`` if it was started by us.

    ``session`` is the folder of this node's logs and sockets, where that is known.
    """

    ours: bool
    began: bool
    session: str | None = None

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
        ClusterError: it cannot be joined, or does not start.
        UsageError: its address is none, by its form.
    """
    named = named_cluster(address)
    if named is None:
        _guard()
        _check_folder()
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
            context = ray.init(**options)
    except Exception as error:  # Ray raises many classes here, Exception itself among them
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        hint = _JOINING if named else _starting()
        where = f"the Ray cluster at {named}" if named else "a Ray cluster on this machine"
        raise ClusterError(f"{where} cannot be used: {reason}{hint}") from error
    session = getattr(context, "address_info", {}).get("session_dir")
    return Connection(named is None, began=True, session=session)


def _starting() -> str:
    """What to look at where no Ray starts on this machine."""
    folder = _ray_folder()
    sessions = folder.glob("session_2*")  # Ray's link to the latest one may be left from before
    latest = max(sessions, key=lambda session: session.name, default=folder)
    hint = f"; Ray's logs lie in {latest / 'logs'}"
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        hint += f"; this process may use {limit / 1e9:.1f} GB of address space (ulimit -v)"
    full = _fullness(folder)
    return f"{hint}; {full}" if full else hint


def _ray_folder() -> Path:
    """Ray's temporary folder on this machine, for a Ray that is started here."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")


def _check_folder() -> None:
    """Ray's processes take a relative folder for different ones, and wait for each other."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if not (folder := os.environ.get(name)):
            continue
        if not Path(folder).is_absolute():
            raise ClusterError(
                f"no Ray starts with {name}={folder}: its logs and sockets would lie in "
                f"{_ray_folder()}, a relative path; an absolute one is needed"
            )
        return


def _fullness(folder: Path) -> str:
    """Says that the disk of Ray's folder on this machine is full; empty if it is not."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(folder).free < FULL_BYTES:
            return f"the disk of Ray's temporary folder {folder} is full"
    return ""


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
    """Find out soon whether a Ray head answers there: Ray itself would ask for minutes.

    Raises:
        ClusterError: nothing answers there, something else does, or it asks for another token.
    """
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        return
    client, host, port = match[1] is not None, match[2] or match[3], int(match[4])
    until = time.monotonic() + KNOCK_TIMEOUT_S
    try:
        socket.create_connection((host, port), KNOCK_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        raise ClusterError(f"the Ray cluster at {address} cannot be reached: {error}") from None
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
        return  # it answers only to who shows a certificate
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    token = _token() if mode in ("", "token") else None
    status = _asked_alive(target, token, max(until - time.monotonic(), 0.1))
    if status == "UNAUTHENTICATED" and mode in ("", "disabled", "token"):
        wrong = ", and not for this one" if token else ""
        raise ClusterError(
            f"the Ray cluster at {address} asks for a token{wrong}: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN to the cluster's"
        )
    # Ray's client server has a port of its own, and does not know the question.
    known = {"OK", "UNAUTHENTICATED", "UNIMPLEMENTED" if client else "OK"}
    if status not in known:
        found = "another service" if status == "UNIMPLEMENTED" else "no Ray"
        raise ClusterError(
            f"{address} is not the address of a Ray cluster: {found} answers there ({status}); "
            "a cluster's own port is 6379 if not set otherwise, 8265 is that of its dashboard"
        )


def _token() -> str | None:
    """The token that Ray will show: the environment's, or that of a file."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    with contextlib.suppress(OSError):
        return Path(os.path.expanduser(path)).read_text().strip() or None
    return None


def _asked_alive(target: str, token: str | None, timeout_s: float) -> str:
    """The gRPC status with which ``target`` answers a question that every Ray head knows."""
    import grpc

    options = [("grpc.enable_http_proxy", 0)]  # as Ray does
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(target, options) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


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
    """One actor: waiting to be placed, ready with its calls in flight, or gone."""

    actor: Any
    ready: Any
    calls: dict[Any, Task] = field(default_factory=dict)
    placed: bool = False
    asked: Any = None
    compiling: bool = False
    gone: bool = False
    tries: int = 0
    begun: float = field(default_factory=time.monotonic)

    def drop(self) -> None:
        """Let go of the actor; its calls in flight fail, and are still to be collected."""
        import ray

        self.gone = True
        with contextlib.suppress(Exception):
            ray.kill(self.actor)


@dataclass(slots=True)
class _Trouble:
    """Why no actor starts on a node, and until when none is started there.

    ``lasting``: it does not pass. ``failures`` counts starts; those of several actors at once
    are one.
    """

    error: PolyfitError
    lasting: bool
    failures: int
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class _Ready:
    """What an actor says once it has looked around: the id of its node, the type of its device,
    and what is wrong."""

    node: str
    device: str | None = None
    error: PolyfitError | None = None


class RayExecutor:
    """Work on Ray actors: sent to those that are ready, one or two calls to each.

    Args:
        job: what all tasks need.
        resources: what one actor asks for.
        connection: the cluster.
        placement_timeout_s: how long to wait, in seconds, while no actor can be placed.
        on_message: called with single lines worth knowing.

    Raises:
        ClusterError: the cluster can never hold one actor.

    An actor that dies is dead for Ray: another one is started, on a node where that may work.
    """

    def __init__(
        self,
        job: Job,
        resources: Resources,
        connection: Connection,
        placement_timeout_s: float = PLACEMENT_TIMEOUT_S,
        on_message: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._job, self._resources, self._connection = job, resources, connection
        self._timeout_s, self._on_message = placement_timeout_s, on_message
        self._gpus = self._gpus_per_actor()
        self._workers: list[_Worker] = []
        self._scale_at = 0.0
        self._troubles: dict[str, _Trouble] = {}  # by the address of the node
        self._proven: set[str] = set()  # addresses of nodes that have held an actor
        self._said: set[str] = set()

    def describe(self) -> str:
        where = "a Ray of its own" if self._connection.ours else "the Ray cluster"
        return f"on {where}: {self._asked()} per actor"

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        busy_at = time.monotonic()
        ask_at = 0.0
        while True:
            if time.monotonic() >= self._scale_at or not todo:
                self._scale(todo)
                self._scale_at = self._next_scale()
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
            placing = [w.ready for w in self._workers if not w.placed and not w.gone]
            for ref in _first([*flying, *placing]):
                if ref in flying:
                    yield self._collect(flying[ref], ref)
            yield None

    def at(self) -> str | None:
        workers = [worker for worker in self._workers if not worker.gone]
        ready = [worker for worker in workers if worker.placed]
        if not ready:
            return f"waiting for room: 0 of {len(workers):,} actors ready"
        compiling = sum(worker.compiling for worker in ready)
        if compiling:
            return f"compiling on {compiling:,} of {len(ready):,} actors"
        return None

    def close(self) -> None:
        for worker in self._workers:
            worker.drop()
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
            if worker.calls and worker.asked is None and not worker.gone:
                worker.asked = worker.actor.compiling.remote()

    def _scale(self, todo: deque[Task]) -> None:
        """Follow a cluster that grows and shrinks, and let go of actors with nothing to do."""
        present = [worker for worker in self._workers if not worker.gone]
        left = len(todo) + sum(len(worker.calls) for worker in self._workers)
        wanted = self._wanted(left, present) if left else 0
        if todo and wanted > len(present):
            self._start(wanted - len(present))
        # Of those that are too many, first the ones that have no place (their node may be gone).
        idle = sorted((w for w in present if not w.calls), key=lambda worker: worker.placed)
        too_many = len(present) - wanted
        for worker in idle[: max(too_many, 0)]:
            if not todo or not worker.placed:
                worker.drop()
        self._workers = [worker for worker in self._workers if worker.calls or not worker.gone]

    def _next_scale(self) -> float:
        """When to look again: soon, or when a node's pause ends."""
        present = time.monotonic()
        pauses = (t.until for t in self._troubles.values() if t.until > present)
        return min(present + _SCALE_EVERY_S, *pauses, math.inf)

    def _fill(self, worker: _Worker, todo: deque[Task]) -> None:
        while worker.placed and not worker.gone and todo and len(worker.calls) < IN_FLIGHT:
            task = todo.popleft()
            worker.calls[worker.actor.work.remote(task)] = task

    def _place(self) -> None:
        """See which actors have become ready, and which never will."""
        import ray
        from ray.exceptions import RayError

        for worker in self._workers:
            if worker.placed or worker.gone or not ray.wait([worker.ready], timeout=0)[0]:
                continue
            try:
                told = ray.get(worker.ready)
            except RayError as error:
                worker.drop()
                self._note_death(worker, error)
                continue
            assert isinstance(told, _Ready)
            if told.error is None:
                worker.placed = True
                self._note_ready(told)
            elif self._may_open(worker, told.error):
                worker.tries += 1
                worker.ready = worker.actor.ready.remote(_pause(worker.tries))
            elif isinstance(told.error, (StoreError, ClusterError)):
                worker.drop()
                self._note_trouble(_address_of(told.node), told.error, True, worker.begun)
            else:  # it is the run's, not the node's
                raise told.error

    def _may_open(self, worker: _Worker, error: PolyfitError) -> bool:
        """Whether an actor that cannot open the store is to try again."""
        transient = isinstance(error, StoreError) and error.transient
        if not transient or time.monotonic() - worker.begun > OPENING_S:
            return False
        self._say("store", f"an actor cannot start: {error}; trying again for {OPENING_S:g} s")
        return True

    def _note_ready(self, told: _Ready) -> None:
        address = _address_of(told.node)
        self._proven.add(address)
        for key in (address, ""):
            self._troubles.pop(key, None)
            self._said.discard(f"again {key}")
        if self._gpus and told.device == "cpu":
            line = "has a GPU for Ray and none for torch: fitting on its CPU"
            self._say(f"cpu {address}", f"{_name(address)} {line}")

    def _note_death(self, worker: _Worker, error: Exception) -> None:
        """An actor died before it was ready: what it raised lasts, what befell it may pass."""
        from ray.exceptions import (
            OutOfMemoryError,
            RayActorError,
            RayTaskError,
            RuntimeEnvSetupError,
        )

        lasting = isinstance(error, (RayTaskError, RuntimeEnvSetupError)) or (
            isinstance(error, RayActorError) and error.actor_init_failed
        )
        address, cause = _address(error), _cause(error)
        if not lasting and not isinstance(error, OutOfMemoryError):
            session = self._connection.session
            full = _fullness(Path(session)) if session and _is_here(address) else ""
            hint = "; Ray's logs there, and the room on its disk and in its memory, may tell more"
            cause = f"{full}: {cause}" if full else cause + hint
        self._note_trouble(address, ClusterError(cause), lasting, worker.begun)

    def _note_trouble(self, address: str, error: PolyfitError, lasting: bool, begun: float) -> None:
        """No actor starts at ``address``, as one shows that was started at ``begun``."""
        known = self._troubles.get(address)
        if known is not None and (known.lasting or begun <= known.at) and not lasting:
            return
        failures = known.failures + 1 if known is not None else 1
        given_up = failures >= START_TRIES and address not in self._proven
        present = time.monotonic()
        trouble = _Trouble(error, lasting or given_up, failures, present, 0.0)
        trouble.until = math.inf if trouble.lasting else present + _pause(failures)
        self._troubles[address] = trouble
        self._scale_at = present
        if not trouble.lasting:
            self._say(f"again {address}", f"{self._reason([address])}; trying again")
        elif self._room():
            self._say(f"without {address}", f"{self._reason([address])}; going on without it")

    def _say(self, about: str, line: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._on_message(line)

    def _collect(self, worker: _Worker, ref: Any) -> TaskResult:
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        task = worker.calls.pop(ref)
        worker.compiling = False
        try:
            outcome = ray.get(ref)
            assert isinstance(outcome, TaskResult)
            return outcome
        except RayTaskError as error:
            return TaskResult(task, cause=_short(error))
        except RayError as error:
            worker.drop()
            self._scale_at = 0.0
            cause = f"the actor went away: {_cause(error)}"
            preempted = isinstance(error, RayActorError) and error.preempted
            return TaskResult(task, cause=cause, lost=True, preempted=preempted)

    def _start(self, count: int) -> None:
        import ray

        threads = max(1, math.floor(self._resources.cpus_per_actor))
        options: dict[str, Any] = {
            "num_cpus": self._resources.cpus_per_actor,
            "num_gpus": self._gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            # One shard is written while the next is computed, and who asks gets an answer.
            "max_concurrency": IN_FLIGHT + 1,
        }
        avoided = [node["NodeID"] for node in _nodes() if self._avoids(node)]
        if avoided:  # else no label is asked of nodes that are still to come
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(avoided)})"}
        remote = ray.remote(_Actor).options(**options)
        for _ in range(count):
            actor: Any = remote.remote(self._job, self._gpus > 0, threads)
            self._workers.append(_Worker(actor, actor.ready.remote()))

    def _gpus_per_actor(self) -> float:
        import ray

        asked = self._resources.gpus_per_actor
        if asked != "auto":
            return float(asked)
        return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0

    def _wanted(self, tasks: int, present: list[_Worker]) -> int:
        """How many actors: no more than tasks, no more than there is room for, at least min.

        Raises:
            ClusterError, StoreError: no node can hold an actor.
        """
        actors = self._resources.actors
        room = self._room()
        if room < 1:
            avoided = [node for node in _nodes() if self._avoids(node) and self._places(node)]
            if avoided:
                self._check_hope(avoided, present)
                return len(present)
            if self._connection.ours:
                raise ClusterError(self._no_room())
        most = room if actors.max == "auto" else actors.max
        return max(1, min(tasks, max(most, actors.min)))

    def _check_hope(self, avoided: list[dict[str, Any]], present: list[_Worker]) -> None:
        """Raise where the nodes that have room start no actor, and none of that passes."""
        if any(worker.placed for worker in present):
            return
        addresses = {"", *(node["NodeManagerAddress"] for node in avoided)}
        found = {
            key: trouble
            for key, trouble in self._troubles.items()
            if key in addresses and trouble.until > time.monotonic()
        }
        if all(trouble.lasting for trouble in found.values()):
            of_store = all(isinstance(trouble.error, StoreError) for trouble in found.values())
            raise (StoreError if of_store else ClusterError)(self._reason(sorted(found)))

    def _room(self) -> int:
        """How many actors can be started, one node at a time."""
        return sum(self._places(node) for node in _nodes() if not self._avoids(node))

    def _places(self, node: dict[str, Any]) -> int:
        """How many actors a node can hold."""
        has = node["Resources"]
        fits = has.get("CPU", 0) / self._resources.cpus_per_actor
        if self._gpus:
            fits = min(fits, _gpu_places(has.get("GPU", 0), self._gpus))
        return int(fits + 1e-9)

    def _avoids(self, node: dict[str, Any]) -> bool:
        """Whether no actor is to be started on a node now."""
        found = (self._troubles.get(key) for key in (node["NodeManagerAddress"], ""))
        return any(trouble and trouble.until > time.monotonic() for trouble in found)

    def _reason(self, addresses: list[str]) -> str:
        """Why no actor starts there: one line for each cause."""
        nodes: dict[str, list[str]] = {}
        for address in addresses:
            cause = str(self._troubles[address].error)
            nodes.setdefault(cause, []).append(_name(address))
        return "\n".join(
            f"no actor starts on {', '.join(names[:_NAMED])}"
            f"{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}: {cause}"
            for cause, names in nodes.items()
        )

    def _asked(self) -> str:
        gpus = f"{self._gpus:g} GPU and " if self._gpus else ""
        return f"{gpus}{self._resources.cpus_per_actor:g} CPU"

    def _no_room(self) -> str:
        """Why nothing runs: what was asked and what there is, and what else is known."""
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        there = ", ".join(
            f"{free.get(name, 0):g} of {total.get(name, 0):g} {name} free"
            for name in ("GPU", "CPU")
        )
        known = f"{self._reason(sorted(self._troubles))}\n" if self._troubles else ""
        slow = (
            "; what is not free is held by others' work, or by actors of this run whose process "
            "does not come up (Ray's logs on its node tell why)"
            if self._workers and self._room()
            else ""
        )
        return (
            f"{known}no actor could be placed: each asks for {self._asked()}; the cluster has "
            f"{there}{slow}"
        )


class _Actor:
    """What runs on a node of the cluster."""

    def __init__(self, job: Job, accelerated: bool, threads: int) -> None:
        if not accelerated:
            # Ray leaves every GPU of the node visible to an actor that asked for none.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._asked = (job, accelerated, threads)
        self._bench: ShardWorker | None = None
        self._opening = threading.Lock()

    def ready(self, pause_s: float = 0.0) -> _Ready:
        """Open the store and read the plan, after ``pause_s`` seconds; what is wrong with them is
        told, not raised."""
        import ray

        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        time.sleep(pause_s)
        try:
            return _Ready(node, self._opened().device())
        except PolyfitError as error:
            return _Ready(node, error=error)

    def work(self, task: Task) -> TaskResult:
        """One task's outcome."""
        return _attempted(self._opened(), task)

    def compiling(self) -> bool:
        """Whether a kernel is being compiled in this process."""
        return _compiling()

    def _opened(self) -> ShardWorker:
        with self._opening:
            if self._bench is None:
                self._bench = ShardWorker(*self._asked)
            return self._bench


def _nodes() -> list[dict[str, Any]]:
    """The cluster's live nodes, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _address_of(node_id: str) -> str:
    """A node's address; empty where it is gone."""
    found = (node["NodeManagerAddress"] for node in _nodes() if node["NodeID"] == node_id)
    return next(found, "")


def _is_here(address: str) -> bool:
    """Whether it is the address of the node that this process is on."""
    import ray

    return _address_of(ray.get_runtime_context().get_node_id()) == address


def _name(address: str) -> str:
    """A node's name for people."""
    hosts = {n["NodeManagerHostname"] for n in _nodes() if n["NodeManagerAddress"] == address}
    host = f" ({', '.join(hosts)})" if hosts else ""
    return f"node {address}{host}" if address else "a node"


def _first(refs: list[Any]) -> list[Any]:
    """The first of ``refs`` to be there, after at most ``_POLL_S`` seconds."""
    import ray

    if not refs:
        time.sleep(_POLL_S)
        return []
    done, _ = ray.wait(refs, num_returns=1, timeout=_POLL_S)
    return list(done)


def _pause(failures: int) -> float:
    """Seconds until the next try."""
    return float(min(START_PAUSE_S * 2 ** (failures - 1), START_LONGEST_PAUSE_S))


def _gpu_places(gpus: float, each: float) -> float:
    """Actors that ``gpus`` hold: a share never spans two GPUs."""
    return gpus * math.floor(1 / each + 1e-9) if each <= 1 else gpus / each


def _address(error: Exception) -> str:
    """The address of the node that an error of Ray is about; empty where it names none."""
    match = re.search(r"\bip[=:]\s*([0-9A-Fa-f.:]*[0-9A-Fa-f])", str(error), re.IGNORECASE)
    return match[1] if match else ""


def _cause(error: Exception) -> str:
    """Why an actor died, in Ray's words, without its advice."""
    from ray.exceptions import OutOfMemoryError

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OutOfMemoryError) and lines:
        return f"killed for memory: {lines[0].partition('. ')[2] or lines[0]}"
    return _short(error).partition(" Some common causes include")[0]


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
