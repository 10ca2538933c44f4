"""Ledger, driver and lease over a simulated store, clock and set of workers: one seed, one history.

Everything that waits (a request, a pause, an outcome) gives way to a scheduler, and what goes on
next, how long it takes and what breaks is drawn from the seed: nothing sleeps, and there are no
threads. Drivers, their keepers and their workers are greenlets. The code under test is the real
one down to the calls of the S3 client: see ``S3`` for what that client suffers.

``make simulate`` runs 100,000 histories; ``python tests/simulate.py --seed 7`` tells one of them.
The method: Zhou et al., "FoundationDB: A Distributed Unbundled Transactional Key Value Store",
SIGMOD 2021, section 4.
"""

import argparse
import hashlib
import heapq
import json
import random
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from greenlet import getcurrent, greenlet

from polyfit.errors import (
    DamagedRun,
    Drained,
    FailedShards,
    PlanMismatch,
    PolyfitError,
    RunHeld,
    StoreError,
)
from polyfit.run import lease, ledger
from polyfit.run.holder import Holder
from polyfit.run.keys import LEASE_PREFIX, MANIFEST, shard_key
from polyfit.run.lease import TIME_TO_LIVE_S
from polyfit.run.manifest import Manifest, Receipt
from polyfit.run.renewal import FIRST_RENEWAL_S, RENEW_EVERY_S
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store import s3
from polyfit.store.address import StoreAddress
from polyfit.store.s3 import S3Store
from polyfit.store.s3_answers import DIGEST
from polyfit.work import attempt, driver, heartbeat, signals, storing
from polyfit.work.capacity import MAX_IN_FLIGHT
from polyfit.work.progress import QUIET_AFTER_S, Progress
from polyfit.work.task import Job, Task, TaskResult
from polyfit.work.usage import Held
from polyfit.work.workplace import Workplace

TEXT: Final = "name: simulated\nshard: 10\nfit: {steps: 12}\nsweep: {seed: {count: 45}}\n"
SPEC: Final = Spec.parse(TEXT)
OTHER: Final = Spec.parse(TEXT.replace("steps: 12", "steps: 13"))
PLANS: Final = {spec.text: Plan.of(spec) for spec in (SPEC, OTHER)}
PLAN: Final = PLANS[SPEC.text]

QUIET_AT_S: Final = 400.0
"""From then on nothing breaks any more, and the run has to come to its end."""

END_AT_S: Final = 2000.0
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Violation(AssertionError):
    """A promise that was broken."""


class Killed(BaseException):
    """``kill -9``: nothing that a process does after it has any effect."""


@dataclass(eq=False)
class Process:
    """A driver, or a worker of one; ``asleep_until`` is the end of a stall, in seconds."""

    name: str
    other: bool = False
    dead: bool = False
    asleep_until: float = 0.0
    written_at: float = 0.0  # when its lease was written last
    renewed_at: float = 0.0  # the same, once it knows that the lease is still its own
    holding: bool = False
    ended: str | None = None
    signals: Any = None


@dataclass(eq=False)
class World:
    """A history: the store's objects, the time, and who waits for what."""

    seed: int
    rng: random.Random = field(init=False)
    time: float = 0.0
    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    waiting: list[tuple[float, int, Any]] = field(default_factory=list)
    turns: int = 0
    processes: list[Process] = field(default_factory=list)
    owner: dict[Any, Process] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.honours = self.rng.random() < 0.9
        self.trouble = self.rng.choice((0.05, 0.2, 0.4, 0.6))
        self.hub = getcurrent()

    # --- time and turns ----------------------------------------------------------------------

    def at(self, when: float, what: Any) -> None:
        """Let ``what``, a greenlet or a function, go on at that time."""
        self.turns += 1
        heapq.heappush(self.waiting, (when, self.turns, what))

    def sleep(self, seconds: float) -> None:
        """Let others go on for so long."""
        process = self.process
        if process.dead:
            raise Killed
        self.at(self.time + seconds, getcurrent())
        self.hub.switch()
        while self.time < process.asleep_until and not process.dead:
            self.at(process.asleep_until, getcurrent())
            self.hub.switch()
        if process.dead:
            raise Killed

    def spawn(self, process: Process, work: Callable[[], None], delay: float = 0.0) -> None:
        """Begin ``work`` as a part of ``process``."""

        def whole() -> None:
            try:
                work()
            except Killed:
                return

        part = greenlet(whole, parent=self.hub)
        self.owner[part] = process
        self.at(self.time + delay, part)

    @property
    def process(self) -> Process:
        return self.owner[getcurrent()]

    @property
    def quiet(self) -> bool:
        return self.time >= QUIET_AT_S

    def chance(self, share: float = 1.0) -> bool:
        """Whether something breaks now."""
        return not self.quiet and self.rng.random() < self.trouble * share

    def run(self) -> None:
        """Turn by turn, until nobody waits."""
        while self.waiting:
            when, _, what = heapq.heappop(self.waiting)
            if when > END_AT_S:
                raise Violation("the run does not come to its end")
            self.time = max(self.time, when)
            what.switch() if isinstance(what, greenlet) else what()

    def note(self, line: str) -> None:
        self.told.append(f"{self.time:8.2f} {line}")

    def fault(self, name: str) -> None:
        self.faults[name] += 1
        self.note(f"{self.process.name}: {name}")

    # --- the store's side --------------------------------------------------------------------

    def write(self, key: str, data: bytes, condition: dict[str, str]) -> str | None:
        """Write an object at once; the code of a refusal, or None."""
        there = self.objects.get(key)
        if self.honours and "IfNoneMatch" in condition and there is not None:
            return "PreconditionFailed"
        self.watch(key, data, there)
        self.objects[key] = (data, self.time)
        return None

    def watch(self, key: str, data: bytes, there: tuple[bytes, float] | None) -> None:
        """The laws of every write."""
        path = key.partition("/simulated/run/")[2]
        self.note(f"written: {path}")
        if path.startswith("shards/"):
            number = int(path[len("shards/") :][:6])
            if path != shard_key(PLAN, number):
                raise Violation(f"{path} is another plan's")
            if there is not None and (self.honours or there[0] != data):
                raise Violation(f"{path} was written twice")
        elif path == "plan.json":
            if json.loads(data)["hash"] != PLAN.hash:
                raise Violation("plan.json is another plan's")
        elif path == MANIFEST:
            manifest = Manifest.from_json(data)
            if there is not None and there[0] != data:
                raise Violation("the seal was changed")
            if sorted(one.shard for one in manifest.receipts) != list(range(PLAN.shards)):
                raise Violation("the seal does not count every shard once")
            for receipt in manifest.receipts:
                self.at_rest(receipt)

    def at_rest(self, receipt: Receipt) -> None:
        """What a receipt says is there."""
        found = self.objects.get(f"store/simulated/run/{shard_key(PLAN, receipt.shard)}")
        if found is None or hashlib.sha256(found[0]).hexdigest() != receipt.sha256:
            raise Violation(f"shard {receipt.shard} was acknowledged, and is not at rest")

    def seized(self, process: Process) -> None:
        """The law of the lease: nobody else who renews it in time has it too."""
        process.holding, process.renewed_at = True, process.written_at
        for other in self.processes:
            late = self.time - other.renewed_at >= TIME_TO_LIVE_S - 1.0
            held = other is not process and other.holding and not other.dead
            if held and not late and self.honours:
                raise Violation(f"{process.name} took the lease from {other.name}")


WORLD: World
"""The history that is being run."""


class S3:
    """The S3 client of one process: what it asks arrives late, twice, or never.

    A request may stall; be refused (503, 409); have its effect while its answer is lost, and be
    sent again, as botocore does; or be given up, and have its effect much later all the same.
    """

    def put_object(
        self,
        Bucket: str,
        Key: str,
        Body: bytes,
        ContentMD5: str,
        Metadata: dict[str, str] | None = None,
        **condition: str,
    ) -> dict[str, Any]:
        world = self._arrive("PutObject")
        if ContentMD5 != s3.md5(Body):
            raise _refused("BadDigest", "PutObject")
        if world.chance(0.4) and condition:
            world.fault("409")
            raise _refused("ConditionalRequestConflict", "PutObject")
        if world.chance(0.4):
            world.fault("given up, and written later")
            late = world.time + world.rng.choice((0.5, 5.0, 30.0, 120.0))
            world.at(late, lambda: world.write(Key, Body, condition) and None)
            raise ReadTimeoutError(endpoint_url="http://simulated")
        code = world.write(Key, Body, condition)
        if code is None and f"/{LEASE_PREFIX}" in Key:
            world.process.written_at = world.time
        if world.chance(0.8):
            world.fault("answer lost, and asked again")
            self._arrive("PutObject")
            code = world.write(Key, Body, condition)
        self._answer()
        if code is not None:
            raise _refused(code, "PutObject")
        return {}

    def get_object(self, Bucket: str, Key: str, **asked: str) -> dict[str, Any]:
        world = self._arrive("GetObject")
        found = world.objects.get(Key)
        present = world.time
        self._answer()
        if found is None:
            raise _refused("NoSuchKey", "GetObject")
        data, written = found
        stated = format_datetime(_EPOCH + timedelta(seconds=int(present)), usegmt=True)
        return {
            "Body": SimpleNamespace(read=lambda: data),
            "Metadata": {DIGEST: hashlib.sha256(data).hexdigest()},
            "LastModified": _EPOCH + timedelta(seconds=int(written)),
            "ResponseMetadata": {"HTTPHeaders": {"date": stated}},
        }

    def get_paginator(self, name: str) -> "S3":
        return self

    def paginate(
        self, Bucket: str, Prefix: str, PaginationConfig: dict[str, int]
    ) -> Iterator[dict[str, Any]]:
        world = self._arrive("ListObjectsV2")
        found = sorted(key for key in world.objects if key.startswith(Prefix))
        for first in range(0, len(found) or 1, 2):
            self._answer()
            yield {
                "Contents": [
                    {"Key": key, "Size": len(world.objects[key][0])}
                    for key in found[first : first + 2]
                ]
            }

    def _arrive(self, name: str) -> World:
        """The way there; a process may die on it, stall, or be refused."""
        world = WORLD
        world.sleep(world.rng.uniform(0.001, 0.1))
        if world.chance(0.2):
            world.fault("stalled")
            world.process.asleep_until = world.time + world.rng.choice((3.0, 15.0, 25.0, 90.0))
            world.sleep(0.0)
        if world.chance(0.1):
            world.fault("killed")
            kill(world.process)
            raise Killed
        if world.chance(0.4):
            world.fault("503")
            raise _refused("SlowDown", name)
        if world.chance(0.1):
            world.fault("not reached")
            raise ConnectTimeoutError(endpoint_url="http://simulated")
        return world

    def _answer(self) -> None:
        WORLD.sleep(WORLD.rng.uniform(0.001, 0.1))


def _refused(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


def kill(process: Process) -> None:
    """End a process where it stands; what it has asked for is on its way all the same."""
    process.dead, process.holding = True, False


# --- what the driver has of the world --------------------------------------------------------


class SimulatedKeeper:
    """The keeper of a lease as a greenlet of its driver."""

    def __init__(self, held: lease.Lease, tell: Callable[[str], None]) -> None:
        self._lease, self._ended = held, False
        self._lost: RunHeld | None = None
        process = WORLD.process
        WORLD.seized(process)
        WORLD.spawn(process, self._keep)

    def check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        self._ended, WORLD.process.holding = True, False
        if self._lost is None:
            with suppress(PolyfitError):
                self._lease.release()

    def _keep(self) -> None:
        process, pause_s = WORLD.process, FIRST_RENEWAL_S
        while True:
            WORLD.sleep(pause_s)
            pause_s = RENEW_EVERY_S
            if self._ended:
                return
            try:
                self._lease.renew()
                process.renewed_at = process.written_at
            except RunHeld as error:
                self._lost = error
                process.holding = False
                return
            except PolyfitError:
                continue


class SimulatedTicker:
    """The thread of a heartbeat as a greenlet of its driver."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look, self._ended, self._looking = look, False, False
        WORLD.spawn(WORLD.process, self._run)

    def check(self) -> None:
        """A simulated listener raises nothing."""

    def close(self) -> None:
        self._ended = True
        while self._looking:
            WORLD.sleep(0.1)

    def _run(self) -> None:
        while True:
            WORLD.sleep(QUIET_AFTER_S)
            if self._ended:
                return
            self._looking = True
            try:
                self._look()
            finally:
                self._looking = False


class SimulatedExecutor:
    """A few workers, each a process with calls in flight; one that dies is followed by another."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._driver = WORLD.process
        self._count = WORLD.rng.randint(1, 3)
        self._done: deque[TaskResult] = deque()
        self._flying = 0

    def describe(self) -> str:
        return "in a simulation"

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        while True:
            while todo and self._flying < self._count * MAX_IN_FLIGHT:
                self._send(todo.popleft())
            while self._done:
                self._flying -= 1
                outcome = self._done.popleft()
                if outcome.receipt is not None:
                    WORLD.at_rest(outcome.receipt)
                yield outcome
            if not self._flying and not todo:
                return
            WORLD.sleep(WORLD.rng.uniform(0.05, 1.0))
            yield None

    def stage(self) -> str | None:
        return None

    def actors(self) -> tuple[int, int] | None:
        return None

    def export(self, progress: Progress) -> None:
        pass

    def held(self) -> Held:
        return Held()

    def close(self) -> None:
        """The workers of a driver that ended may go on for a while."""

    def _send(self, task: Task) -> None:
        self._flying += 1
        process = Process(f"{self._driver.name}'s worker at {task.kind} {task.shard}")
        place = S3Store("s3://bucket/store/simulated/run")

        def work() -> None:
            try:
                WORLD.sleep(WORLD.rng.uniform(0.1, 20.0))
                if task.kind == "inspect":
                    receipt = storing.inspect_shard(self._plan, task.shard, place)
                else:
                    shard, data = self._plan.shard(task.shard), content(self._plan, task.shard)
                    receipt = storing.commit(self._plan, shard, data, {"completed": 1}, place)
                outcome = TaskResult(task, receipt)
            except StoreError as error:
                outcome = TaskResult(task, cause=str(error), fatal=error)
            except Killed:
                outcome = TaskResult(task, cause="the worker went away", lost=True)
            self._done.append(outcome)

        WORLD.spawn(process, work)


def content(plan: Plan, number: int) -> bytes:
    """What stands for the rows of a shard."""
    return f"{plan.hash} {number}".encode()


def examined(plan: Plan, shard: Any, data: bytes) -> dict[str, int]:
    if data != content(plan, shard.number):
        raise DamagedRun("is not this shard")
    return {"completed": 1}


class _Time:
    """The simulated clock, where a module has ``time``."""

    @staticmethod
    def monotonic() -> float:
        return WORLD.time

    @staticmethod
    def sleep(seconds: float) -> None:
        WORLD.sleep(seconds)


class _Random:
    """The history's own chance, where a module has ``random``."""

    @staticmethod
    def uniform(low: float, high: float) -> float:
        return WORLD.rng.uniform(low, high)


class _Signals(signals.Signals):
    """Signals come from the history alone."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(tell)
        WORLD.process.signals = self

    def watch(self) -> None:
        """No handler of this process is replaced."""

    def __exit__(self, *exc: object) -> None:
        WORLD.process.signals = None


class _Sought:
    """The holder of a lease: gone where the history says so, on one of two machines."""

    @staticmethod
    def here(attempt: str) -> Holder:
        machine = str(WORLD.rng.randint(0, 1))
        return Holder(attempt, f"host-{machine}", 1, machine, WORLD.process.name, "then")


def _gone(holder: Holder) -> bool:
    asking = int(WORLD.rng.random() < 0.5)
    named = [process for process in WORLD.processes if process.name == holder.began]
    return str(asking) == holder.machine and all(process.dead for process in named)


@contextmanager
def simulated() -> Iterator[None]:
    """Put the simulated world in place of the real one."""

    @contextmanager
    def opened(workplace: Workplace, job: Job) -> Iterator[SimulatedExecutor]:
        yield SimulatedExecutor(PLANS[(OTHER if WORLD.process.other else SPEC).text])

    changes: list[Any] = [
        patch.object(s3, "make_client", lambda *address: S3()),
        patch.object(s3, "time", _Time),
        patch.object(s3, "random", _Random),
        patch.object(lease, "time", _Time),
        patch.object(lease.Lease.__init__, "__defaults__", (_Time,)),
        patch.object(Holder, "died", property(_gone)),
        patch.object(driver, "Holder", _Sought),
        patch.object(driver, "LeaseRenewer", SimulatedKeeper),
        patch.object(attempt, "time", _Time),
        patch.object(attempt, "random", _Random),
        patch.object(attempt, "now", lambda: "then"),
        patch.object(signals, "time", _Time),
        patch.object(driver, "now", lambda: "then"),
        patch.object(heartbeat, "Ticker", SimulatedTicker),
        patch.object(heartbeat, "time", _Time),
        patch.object(heartbeat, "now", lambda: "then"),
        patch.object(Workplace, "open", opened),
        patch.object(driver, "_attempt_name", lambda: f"attempt-{WORLD.turns}"),
        patch.object(driver, "Signals", _Signals),
        patch.object(driver, "Run", SimpleNamespace(open=lambda uri, endpoint: None)),
        patch.object(driver, "Plan", SimpleNamespace(of=lambda spec: PLANS[spec.text])),
        patch.object(
            driver, "run_address", lambda *rest: StoreAddress("s3://bucket/store/simulated/run")
        ),
        patch.object(ledger, "now", lambda: "then"),
        patch.object(storing, "check_shard", examined),
    ]
    for change in changes:
        change.start()
    try:
        yield
    finally:
        for change in reversed(changes):
            change.stop()


# --- histories -------------------------------------------------------------------------------


def begin(world: World, name: str, spec: Spec, delay: float) -> Process:
    """Start a driver after so long."""
    process = Process(name, other=spec is OTHER)
    world.processes.append(process)

    def drive() -> None:
        try:
            driver.execute(spec, executor="inline", wait_s=world.rng.choice((0.0, 20.0, 60.0)))
            process.ended = "complete"
            if spec is not SPEC:
                raise Violation("a driver of another plan came to an end")
        except (RunHeld, StoreError, FailedShards, PlanMismatch, Drained) as error:
            process.ended = f"{type(error).__name__}: {error}"
            if isinstance(error, PlanMismatch) and spec is SPEC:
                raise Violation(process.ended) from error
            if isinstance(error, FailedShards) and world.trouble < 0.1:
                raise Violation(process.ended) from error
        except KeyboardInterrupt:
            process.ended = "interrupted"
        except PolyfitError as error:
            raise Violation(f"{type(error).__name__}: {error}") from error
        finally:
            process.holding = False
            world.note(f"{name}: {process.ended or 'killed'}")

    world.spawn(process, drive, delay)
    return process


def ask_to_end(world: World, process: Process, number: int) -> Callable[[], None]:
    """SIGTERM or Ctrl-C, where the driver listens."""

    def ask() -> None:
        if process.signals is not None and not process.dead and process.signals.number is None:
            world.note(f"{process.name}: signal {number}")
            world.faults["signal"] += 1
            process.signals.note(number)

    return ask


def history(seed: int) -> World:
    """Run one history to its end.

    Raises:
        Violation: a promise was broken.
    """
    global WORLD
    world = WORLD = World(seed)
    rng = world.rng
    for number in range(rng.randint(1, 4)):
        spec = OTHER if number and rng.random() < 0.1 else SPEC
        delay = rng.choice((0.0, 1.0, 10.0, 30.0))
        process = begin(world, f"driver {number}", spec, delay)
        if rng.random() < 0.2:
            asked = ask_to_end(world, process, rng.choice((signal.SIGTERM, signal.SIGINT)))
            world.at(delay + rng.uniform(0.0, 60.0), asked)
        if rng.random() < 0.3:
            world.at(delay + rng.uniform(0.0, 60.0), partial(kill, process))
    if any(process.other for process in world.processes):  # which finds this plan's run
        world.write("store/simulated/run/plan.json", PLAN.to_json(), {})
    last = [begin(world, "the last driver", SPEC, QUIET_AT_S + 200.0)]
    last.append(begin(world, "one more", SPEC, QUIET_AT_S + 700.0))
    seen: dict[str, Any] = {}
    world.at(QUIET_AT_S + 690.0, lambda: seen.update(world.objects))
    try:
        world.run()
    except Violation as error:
        raise Violation(f"seed {seed}: {error}") from error
    for process in last:
        expected = "complete" if not _set_aside(world) else "FailedShards"
        if not (process.ended or "").startswith(expected):
            raise Violation(f"seed {seed}: {process.name} ended with {process.ended!r}")
    lasting = ("shards/", MANIFEST, "plan.json")
    for key, (data, _) in world.objects.items():
        path = key.partition("/simulated/run/")[2]
        if path.startswith(lasting) and seen.get(key, (None,))[0] != data:
            raise Violation(f"seed {seed}: {path} changed though nothing was to do")
    return world


def _set_aside(world: World) -> bool:
    """Whether a shard lost its workers again and again: it waits for --retry-failed."""
    done = {key.rpartition("/")[2][:6] for key in world.objects if "/shards/" in key}
    failed = {key.rpartition("/")[2][:6] for key in world.objects if "/failed/" in key}
    return bool(failed - done)


def histories(seeds: Sequence[int]) -> tuple[Counter[str], list[str]]:
    """Run many; what broke in them, and how each that broke a promise did."""
    faults: Counter[str] = Counter()
    broken = []
    with simulated():
        for seed in seeds:
            try:
                world = history(seed)
            except Violation as error:
                broken.append(str(error))
                continue
            faults.update(world.faults)
            faults["histories"] += 1
            faults["of stores without conditions"] += not world.honours
    return faults, broken


def main() -> None:
    """Run histories side by side; a seed that breaks a promise is printed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="histories (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--seed", type=int, help="tell the history of one seed")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        with simulated():
            try:
                history(arguments.seed)
            finally:
                print("\n".join(WORLD.told))
        return
    stop, size = arguments.first + arguments.count, 500
    parts = [range(at, min(at + size, stop)) for at in range(arguments.first, stop, size)]
    faults: Counter[str] = Counter()
    broken: list[str] = []
    with ProcessPoolExecutor() as pool:
        for found, failures in pool.map(histories, parts):
            faults.update(found)
            broken += failures
    for name, count in sorted(faults.items(), key=lambda item: -item[1]):
        print(f"{count:>12,} {name}")
    print("\n".join(broken[:20]) or "no promise was broken")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
