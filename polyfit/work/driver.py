"""todo = plan - done; dispatch; retry; seal.

The driver holds shard numbers and receipts, never rows: its memory does not grow with the number
of fits. Nothing is needed from a driver that died; the store tells what is left.
"""

import os
import random
import secrets
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from polyfit.errors import (
    Exit,
    FailedShards,
    PolyfitError,
    StoreError,
    UsageError,
    check_working_folder,
)
from polyfit.run.clock import now
from polyfit.run.holder import Holder
from polyfit.run.keys import attempt_key
from polyfit.run.lease import TIME_TO_LIVE_S, Lease
from polyfit.run.ledger import Ledger
from polyfit.run.manifest import Receipts
from polyfit.run.reader import Run
from polyfit.run.renewal import LeaseRenewer
from polyfit.run.reuse import NothingAlike, Reuse
from polyfit.spec.plan import Plan, dump_json
from polyfit.spec.precheck import Precheck
from polyfit.spec.schema import NAME
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work.dispatch import (
    PLACEMENT_TIMEOUT_S,
    Executor,
    InlineExecutor,
    Job,
    RayExecutor,
    Task,
    TaskResult,
    connect,
    inside_ray_job,
    named_cluster,
)
from polyfit.work.heartbeat import Heartbeat
from polyfit.work.progress import Listener, OnMessage, Progress

__all__ = ["EXECUTORS", "Drained", "execute"]

EXECUTORS: Final = ("auto", "ray", "inline")
MAX_TRIES: Final = 3
"""Times a shard is tried before it is set aside."""

MAX_WORKER_DEATHS: Final = 10
"""Times a shard's worker may go away before the shard itself is suspected."""

STORE_BUDGET_S: Final = 60.0
"""Seconds without a shard coming to rest, after which a store that fails ends the run."""

STORE_PAUSE_S: Final = 0.5
STORE_LONGEST_PAUSE_S: Final = 8.0
DRAIN_S: Final = 25.0
"""Seconds that shards in flight have to come to rest, once a signal asks to end: less than the
30 that Kubernetes gives by default."""

RAY_KILLS_AFTER_S: Final = 3.0
"""Seconds from SIGTERM to SIGKILL in ``ray job stop``, unless RAY_JOB_STOP_WAIT_TIME_S is set where
the job's head or the job itself starts."""

DEFAULT_STORE: Final = "./runs"


class Drained(PolyfitError):
    """Ended by SIGTERM; the same command goes on from here."""

    exit_code = Exit.DRAINED


def execute(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    endpoint_url: str | None = None,
    run_id: str | None = None,
    executor: str = "auto",
    address: str | None = None,
    placement_timeout_s: float = PLACEMENT_TIMEOUT_S,
    wait_s: float = TIME_TO_LIVE_S,
    retry_failed: bool = False,
    reuse: str | os.PathLike[str] | None = None,
    on_progress: Listener = lambda progress: None,
    on_message: OnMessage = lambda line: None,
    closing: ExitStack | None = None,
) -> Run:
    """Run ``spec`` to its end, from wherever an earlier attempt left it.

    Args:
        spec: what to run; a path is read as ``Spec.load`` does, a mapping as ``Spec.parse``.
        store: a folder or ``s3://bucket/prefix``; the spec's own if None, else ``./runs``.
        endpoint_url: an S3 endpoint; the spec's own, or the environment's, if None.
        run_id: the run's name in the store; the plan's hash, shortened, if None.
        executor: "ray", "inline" (this process), or "auto".
        address: a Ray cluster; RAY_ADDRESS or the surrounding job's if None.
        placement_timeout_s: seconds to wait while no actor can be placed.
        wait_s: seconds to wait for another driver's lease on the run to end.
        retry_failed: whether to try again the shards that an earlier attempt set aside.
        reuse: the folder of another run, ``<store>/<name>/<run id>``: rows at rest there are taken
            where a fit here would have the same bits. The shards are the same with and without.
        on_progress: called with how far the run is and what it is at, whenever a shard comes to
            rest and every second; by one thread at a time, but not always this one.
        on_message: called with single lines worth knowing.
        closing: with it Ray, if it was started here or joined, ends beside what the caller does
            next, and has ended at this stack's end; else before this returns.

    Returns:
        The sealed run.

    Raises:
        SpecError, LimitExceeded, UsageError: what is asked for cannot be run.
        PlanMismatch: the run id belongs to another plan, or ``reuse`` holds no plan.
        RunNotFound: there is no run at ``reuse``.
        RunHeld: another driver is at work on this run.
        StoreError, ClusterError: the world around does not play along.
        FailedShards: some shards could not be computed; the others are at rest.
        Drained: SIGTERM came; the same call goes on from there.
    """
    check_working_folder()
    spec = Spec.of(spec)
    plan = Plan.of(spec)
    home = place(spec, plan, store, endpoint_url, run_id)
    how = _choose(executor, address, plan)
    attempt, signals = _attempt(), _Signals(on_message)
    on_message(f"{home.uri}: attempt {attempt}, {_wanted(executor, how, spec, plan)}")
    heartbeat = Heartbeat(plan, attempt, on_progress, lambda: signals.came)
    with ExitStack() as ending:
        ending.callback(heartbeat.close)
        heartbeat.set_stage("checking which fits can start")
        for line in Precheck.of(plan.sweep).lines(spec):
            on_message(f"warning: {line}")
        heartbeat.set_stage("opening the store")
        ledger = Ledger(home.open(), plan)
        ledger.open(spec.text)
        done = f"{home.uri} is complete already: nothing is left to fit"
        if ledger.complete():
            on_message(done)
            return Run.open(home.uri, home.endpoint_url)
        source = _source(reuse, endpoint_url, home, plan, on_message) if reuse is not None else None
        conditions = ledger.honours_conditional_writes()
        lease = Lease(ledger.store, Holder.here(attempt))
        heartbeat.set_stage("waiting for the run's lease")
        lease.acquire(wait_s)
        keeper = LeaseRenewer(lease, on_message)
        ending.callback(keeper.close)
        ending.callback(signals.release)
        if ledger.complete():  # by the driver that held it until now
            on_message(done)
        else:
            if ledger.manifest() is not None:
                on_message(f"shards of the complete run {home.uri} are missing: fitting them again")
            if lease.lost_holder is not None:
                _note_lost(ledger, lease.lost_holder, attempt, on_message)
            able = _tried(ledger, attempt, conditions, on_message)
            job = Job(home, attempt, source, read_again=not all(able.values()))
            drive = _Drive(plan, ledger, job, heartbeat, on_message, keeper.check, signals, closing)
            drive.run(spec, how, address, placement_timeout_s, retry_failed, able)
    return Run.open(home.uri, home.endpoint_url)


def _wanted(executor: str, how: str, spec: Spec, plan: Plan) -> str:
    """How many actors are wanted, in words."""
    if how == "inline":
        why = ": the work is smaller than starting Ray (--executor ray)"
        return f"no actors wanted{why if executor == 'auto' else ''}"
    actors = spec.resources.actors
    least = min(actors.min, plan.shards)
    most = plan.shards if actors.max == "auto" else min(actors.max, plan.shards)
    count = str(most) if most <= least else f"{least} to {most:,}"
    return f"actors wanted: {count}"


def _note_lost(ledger: Ledger, holder: Holder, attempt: str, on_message: OnMessage) -> None:
    """Note with an attempt that its driver is gone, which it could not note itself."""
    with suppress(StoreError):
        if ledger.note_lost_driver(holder.attempt, attempt):
            who = f"attempt {holder.attempt}, process {holder.pid} on {holder.host}"
            on_message(f"the last driver was lost, and did not note its end: {who}")


_LACKS: Final = {
    "conditions": "ignores If-None-Match (two drivers at once would write shards twice, the same "
    "bytes)",
    "content_md5": "does not compare Content-MD5 (what comes wrong is kept)",
    "metadata": "drops metadata (no digest tells who reads that an answer is wrong)",
}
"""What a store may lack, and what follows."""


def _tried(
    ledger: Ledger, attempt: str, conditions: bool, on_message: OnMessage
) -> dict[str, bool]:
    """What the store can do of what we lean on, found out by trying; what it lacks is told."""
    checks = ledger.store.probe_integrity(attempt_key(attempt), dump_json({"attempt": attempt}))
    able = {"conditions": conditions, **asdict(checks)}
    lacks = [_LACKS[name] for name, there in able.items() if not there]
    if lacks:
        on_message(
            f"this store {' and '.join(lacks)}: every shard is read again, and inspected, before "
            "the seal"
        )
    return able


def place(
    spec: Spec,
    plan: Plan,
    store: str | os.PathLike[str] | None,
    endpoint_url: str | None,
    run_id: str | None,
) -> StoreAddress:
    """Where the run of ``plan`` lies.

    Raises:
        UsageError: no store is named inside a Ray job, or the run id is no name.
    """
    uri = store if store is not None else spec.store.uri if spec.store else None
    if uri is None:
        if inside_ray_job():
            raise UsageError(
                "a Ray job needs a store that outlives it: name one in the spec, or with "
                "--store s3://bucket/prefix"
            )
        uri = DEFAULT_STORE
    if run_id is not None and not NAME.fullmatch(run_id):
        raise UsageError(
            f"run id {run_id!r}; allowed: 1 to 63 of a-z, 0-9 and -, not beginning with -"
        )
    if endpoint_url is None and spec.store is not None and store is None:
        endpoint_url = spec.store.endpoint_url
    address = StoreAddress.of(uri, endpoint_url)
    if spec.store is not None and address.uri.startswith("s3://"):  # another bucket's too
        at = spec.store
        address = replace(
            address, sse=at.sse, kms_key_id=at.kms_key_id, storage_class=at.storage_class
        )
    return address.under(f"{spec.name}/{run_id or plan.run_id}")


def _source(
    reuse: str | os.PathLike[str],
    endpoint_url: str | None,
    home: StoreAddress,
    plan: Plan,
    on_message: OnMessage,
) -> StoreAddress | None:
    """The run to take rows from, as far as the plans tell; None where nothing can be taken.

    Raises:
        RunNotFound, PlanMismatch, UsageError, StoreError: it is no run, or cannot be read.
    """
    address = home.beside(reuse, endpoint_url)
    if address.uri == home.uri:
        on_message(f"{address.uri} is this run: it goes on from what is at rest")
        return None
    try:
        Reuse(plan, address)
    except NothingAlike as error:
        on_message(f"reusing nothing of {address.uri}: {error}")
        return None
    on_message(f"reusing rows of {address.uri}, where it has fits of this plan")
    return address


def _choose(executor: str, address: str | None, plan: Plan) -> str:
    if executor not in EXECUTORS:
        raise UsageError(f"executor {executor!r}; allowed: {' | '.join(EXECUTORS)}")
    if executor == "inline":
        return executor
    named = named_cluster(address)
    if executor == "auto" and named is None and plan.inline:
        return "inline"
    return "ray"


def _attempt() -> str:
    return f"{now().replace(':', '').replace('-', '').lower()}-{secrets.token_hex(4)}"


_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
_DRAINED: Final = "ended by SIGTERM; the same command goes on from here"


def _drain_s() -> float:
    """``DRAIN_S``, or less where Ray would kill this process before we have let the run go."""
    if not inside_ray_job():
        return DRAIN_S
    allowed = os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", "")
    killed_after_s = float(allowed) if allowed.isdigit() else RAY_KILLS_AFTER_S
    return max(min(DRAIN_S, killed_after_s - 2.0), 0.1)


class _Signals:
    """SIGTERM or Ctrl-C asks once: what is in flight comes to rest first. A second ends at once.

    An exception raised wherever the signal happens to arrive could be lost in a callback.
    """

    def __init__(self, on_message: OnMessage) -> None:
        self.came: int | None = None
        self.until = 0.0
        self._on_message, self._alone = on_message, False
        self._main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.getsignal(number) for number in _HANDLED}

    def watch(self, alone: bool) -> None:
        """Take the signals over; after ``ray.init``, which sets a handler of its own.

        ``alone``: this process fits, and hears of the time only where it is interrupted.
        """
        self._alone = alone
        if self._main:
            for number in _HANDLED:
                signal.signal(number, self._note)

    def release(self) -> None:
        """Give the signals back."""
        if self._main:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def error(self) -> BaseException:
        """What the signal that came asks for."""
        if self.came == signal.SIGINT:
            return KeyboardInterrupt()
        return Drained(_DRAINED)

    def _note(self, signum: int, frame: Any) -> None:
        again = self.came is not None
        if signum != signal.SIGALRM:
            self.came = signum
        if again:
            raise self.error()
        seconds = _drain_s()
        self.until = time.monotonic() + seconds
        if self._alone:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        with suppress(Exception):  # the line that it interrupts may be half written
            self._on_message(
                f"stopping: shards in flight have {seconds:.0f} s to come to rest; "
                "the same signal again ends at once"
            )


@dataclass(slots=True)
class _Drive:
    """One attempt at a run; ``held`` raises where the run is no longer ours."""

    plan: Plan
    ledger: Ledger
    job: Job
    heartbeat: Heartbeat
    on_message: OnMessage
    held: Callable[[], None]
    signals: _Signals
    closing: ExitStack | None = None
    receipts: Receipts = field(init=False)
    tries: Counter[int] = field(default_factory=Counter)
    worker_deaths: Counter[int] = field(default_factory=Counter)
    causes: dict[int, list[str]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    at_rest: bytearray = field(init=False)  # 1 for each shard that is
    shards_done: int = 0
    fits_done: int = 0
    fits_computed: int = 0
    fits_reused: int = 0
    refused: set[str] = field(default_factory=set)
    stopping: bool = False
    store_failed_at: float | None = None
    store_failures: int = 0

    def __post_init__(self) -> None:
        self.receipts = Receipts(self.plan.shards)
        self.at_rest = bytearray(self.plan.shards)

    def run(
        self,
        spec: Spec,
        how: str,
        address: str | None,
        placement_timeout_s: float,
        retry_failed: bool,
        able: dict[str, bool],
    ) -> None:
        """Do what is left, and seal; ``able`` is what was found out about the store."""
        facts: dict[str, Any] = {
            "attempt": self.job.attempt,
            "started_at": now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "executor": how,
            "plan": self.plan.hash,
            **able,
        }
        if self.job.reuse:
            facts["reuse"] = {"run": self.job.reuse.uri}
        self.ledger.note_attempt(self.job.attempt, facts)
        self.heartbeat.write_status(self.ledger, self.held)
        exit_code = Exit.INTERNAL
        try:
            self.heartbeat.set_stage("listing what is at rest")
            todo = self._todo(retry_failed)
            if any(task.kind == "compute" for task in todo) or not self.failed:
                self.heartbeat.set_stage(_starting(how, address))
                with _executor(
                    how, self.job, spec, address, placement_timeout_s, self.closing, self.on_message
                ) as executor:
                    self.signals.watch(alone=how == "inline")
                    self.on_message(f"running {executor.describe()}")
                    self.heartbeat.set_stage(partial(self._stage, executor))
                    self._dispatch(executor, todo, spec.on_failure)
                    self._tell_reused()
                    self.heartbeat.set_stage("ending the actors")
            if self.failed:
                raise FailedShards(self._failures())
            self.heartbeat.set_stage("sealing")
            self.ledger.seal(self.receipts)
            self.heartbeat.set_stage("sealed")
            exit_code = Exit.COMPLETE
        except PolyfitError as error:
            exit_code = error.exit_code
            raise
        except SystemExit:  # while Ray starts, SIGTERM is Ray's
            exit_code = Exit.DRAINED
            raise Drained(_DRAINED) from None
        except KeyboardInterrupt:
            exit_code = Exit.INTERRUPTED
            raise
        finally:
            self._note_end(facts, exit_code)

    def _note_end(self, facts: dict[str, Any], exit_code: Exit) -> None:
        """Say how the attempt ended; where the store is what failed, it stays unsaid."""
        try:
            ended = {**facts, "ended_at": now(), "exit_code": int(exit_code)}
            if self.job.reuse:
                ended["reuse"] = {**facts["reuse"], "fits": self.fits_reused}
            self.ledger.note_attempt(self.job.attempt, ended)
            if exit_code != Exit.HELD:  # the status is the new driver's
                self.heartbeat.finish("complete" if exit_code == Exit.COMPLETE else "ended")
        except PolyfitError:
            if exit_code == Exit.COMPLETE:
                raise

    def _todo(self, retry_failed: bool) -> deque[Task]:
        """What is missing, to be computed, and what is at rest, to be inspected."""
        done = self.ledger.done()
        for number in done:
            self._came_to_rest(number)
        self.heartbeat.update(self._progress())
        if done:
            self.on_message(f"{len(done):,} of {self.plan.shards:,} shards are at rest already")
        if not retry_failed:
            self.failed = {n for n in self.ledger.failed_shards() if n < self.plan.shards} - done
        if self.failed:
            self.on_message(f"{len(self.failed):,} shards were set aside before: not tried again")
        missing = (n for n in range(self.plan.shards) if n not in done and n not in self.failed)
        compute = [Task("compute", int(n)) for n in self.plan.costly_first(missing)]
        return deque([*compute, *(Task("inspect", n) for n in sorted(done))])

    def _dispatch(self, executor: Executor, todo: deque[Task], on_failure: str) -> None:
        """Run the tasks to their ends, or as far as a signal or a failure lets them."""
        for outcome in executor.run(todo):
            if outcome is not None:
                self._settle(outcome, todo)
                self.heartbeat.update(self._progress())
            self.heartbeat.check()
            self.held()
            if self.signals.came is not None or (self.failed and on_failure == "stop"):
                self.stopping = True
                todo.clear()
            if self.signals.came is not None and time.monotonic() > self.signals.until:
                break
        settled = len(self.receipts) + sum(n not in self.receipts for n in self.failed)
        if self.signals.came is not None and settled < self.plan.shards:
            raise self.signals.error()

    def _settle(self, outcome: TaskResult, todo: deque[Task]) -> None:
        number = outcome.task.shard
        if outcome.fatal is not None:
            self._bear(outcome.fatal)
            todo.append(outcome.task)
            return
        if outcome.receipt is not None:
            self.store_failed_at, self.store_failures = None, 0
            if number not in self.receipts:
                self.receipts.add(outcome.receipt)
                self._note_reused(outcome)
                self._came_to_rest(number)
            return
        self.causes.setdefault(number, []).append(outcome.cause or "no cause was told")
        if not outcome.preempted:
            (self.worker_deaths if outcome.lost else self.tries)[number] += 1
        if self.tries[number] >= MAX_TRIES or self.worker_deaths[number] >= MAX_WORKER_DEATHS:
            self.failed.add(number)
            self.ledger.note_failure(number, outcome.task.kind, self.causes[number])
        else:
            todo.append(outcome.task)

    def _note_reused(self, outcome: TaskResult) -> None:
        """Count what was taken from another run, and tell once of each cause why more was not."""
        if outcome.task.kind == "compute":
            self.fits_computed += self.plan.shard(outcome.task.shard).fits
            self.fits_reused += outcome.reused
        for cause, line in outcome.refused.items():
            if cause not in self.refused:
                self.refused.add(cause)
                self.on_message(f"{line}: fitting what it has, and others like it")

    def _tell_reused(self) -> None:
        if self.job.reuse and self.fits_computed:
            self.on_message(
                f"reused {self.fits_reused:,} fits of {self.job.reuse.uri}, "
                f"fitted {self.fits_computed - self.fits_reused:,}"
            )

    def _bear(self, error: PolyfitError) -> None:
        """Wait a little where the store fails for a moment; raise what lasts."""
        if not isinstance(error, StoreError) or not error.transient or self.stopping:
            raise error
        present = time.monotonic()
        if self.store_failed_at is None:
            self.store_failed_at = present
            self.on_message(f"{error}; trying again for {STORE_BUDGET_S:g} s")
        if present - self.store_failed_at >= STORE_BUDGET_S:
            raise error
        pause = min(STORE_PAUSE_S * 2**self.store_failures, STORE_LONGEST_PAUSE_S)
        self.store_failures += 1
        time.sleep(random.uniform(pause / 2, pause))

    def _came_to_rest(self, number: int) -> None:
        if not self.at_rest[number]:
            self.at_rest[number] = 1
            self.shards_done += 1
            self.fits_done += self.plan.shard(number).fits

    def _failures(self) -> str:
        number = min(self.failed)
        causes = self.causes.get(number) or self.ledger.causes(number)
        last = causes[-1].strip().splitlines()[-1] if causes else "the cause is not known"
        rest = "the others are not all at rest" if self.stopping else "the others are at rest"
        return (
            f"{len(self.failed):,} of {self.plan.shards:,} shards failed, {rest}; "
            f"shard {number}: {last} (causes in {self.job.run.uri}/failed/); "
            "--retry-failed tries them again"
        )

    def _progress(self) -> Progress:
        return Progress(
            self.plan.shards,
            self.shards_done,
            self.plan.fits,
            self.fits_done,
            len(self.failed),
            self.fits_reused,
        )

    def _stage(self, executor: Executor) -> str:
        """What a run with workers is at; asked by the heartbeat's thread."""
        if self.signals.came is not None:
            return "stopping"
        all_there = self.shards_done == self.plan.shards
        return executor.at() or ("inspecting shards" if all_there else "fitting")


def _starting(how: str, address: str | None) -> str:
    if how == "inline":
        return "loading torch"
    named = named_cluster(address)
    return "starting Ray" if named is None else f"joining the Ray cluster at {named}"


@contextmanager
def _executor(
    how: str,
    job: Job,
    spec: Spec,
    address: str | None,
    placement_timeout_s: float,
    closing: ExitStack | None,
    on_message: OnMessage,
) -> Iterator[Executor]:
    if how == "inline":
        yield InlineExecutor(job, spec.resources.gpus_per_actor)
        return
    connection = connect(address)
    try:
        executor = RayExecutor(job, spec.resources, connection, placement_timeout_s, on_message)
        try:
            yield executor
        finally:
            executor.close()
    finally:
        connection.close(closing)
