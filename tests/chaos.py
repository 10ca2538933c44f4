"""Whole runs by the command line under real faults: one seed, one run.

A run goes through a proxy that breaks requests to a real S3 server, and has its actors, its nodes
and its driver killed; the same command is given again until it says complete. Then the store is
read past the proxy: every fit once, every shard the bytes of a run without faults, the manifest
true. How an attempt ends otherwise has to be documented, and told in one line.

``make chaos`` does 50 runs; ``python tests/chaos.py --seed 7`` tells one of them. A seed decides
what breaks and at which point; what happens between two points is up to the machine.

Runs wait for a good part of their time, and none uses two cores for long: there are as many at a
time as there are cores, two at most. Each has a store and a cluster of its own, and the clients'
patience is short beside the faults: more at a time would be a test of the machine.
"""

import argparse
import atexit
import ctypes
import hashlib
import io
import json
import multiprocessing
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NoReturn

import pyarrow.parquet as pq
from limits import HANG_S
from proxy import FAULTS, Chance, Proxy, proxied
from servers import ROOT, Birth, S3Server, descendants, isolate, seaweedfs

from polyfit.errors import Exit
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

TEXT: Final = """\
name: chaos
shard: 20
engine: eager
fit: {steps: 1000, points: 60}
sweep: {degree: [1, 3], seed: {count: 320}}
resources: {actors: {max: 2}}
"""
PLAN: Final = Plan.of(Spec.parse(TEXT))
FITS: Final = 640

READ_TIMEOUT_S: Final = 2
"""Of every client, in place of 30: what stalls is given up after so long."""

ATTEMPTS: Final = 15
ATTEMPT_S: Final = HANG_S
PAUSE_S: Final = 2.0
"""After an attempt that the store ended: an outage is longer than an attempt that meets it."""

TOO_LONG: Final = "ended by us"
BLOWS: Final = ("kill -9 of the driver", "SIGTERM", "Ctrl-C", "an actor killed", "a node killed")
ENDING: Final = {
    "kill -9 of the driver": (signal.SIGKILL, -signal.SIGKILL),
    "SIGTERM": (signal.SIGTERM, int(Exit.DRAINED)),
    "Ctrl-C": (signal.SIGINT, int(Exit.INTERRUPTED)),
}
TOLD: Final = tuple(
    int(code)
    for code in (
        *(Exit.FAILED_SHARDS, Exit.HELD, Exit.STORAGE, Exit.CLUSTER),
        *(Exit.INTERRUPTED, Exit.DRAINED),
    )
)
"""Exit codes that come with one line."""


IMPATIENT: Final = f"""\
import sys
from importlib.machinery import PathFinder

class Impatient:
    def find_spec(name, path=None, target=None):
        if name != "polyfit.store.s3_client":
            return None
        found = PathFinder.find_spec(name, path)
        load = found.loader.exec_module

        def exec_module(module):
            load(module)
            module.READ_TIMEOUT_S = {READ_TIMEOUT_S}

        found.loader.exec_module = exec_module
        return found

sys.meta_path.insert(0, Impatient)
"""


class Violation(AssertionError):
    """A promise that was broken."""


@dataclass(frozen=True, slots=True)
class Blow:
    """What is done to a process once so many shards have been written, or so many seconds after
    an attempt began."""

    kind: str
    shards: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class History:
    """What one run went through."""

    seed: int
    where: str
    faults: Counter[str] = field(default_factory=Counter)
    exits: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0
    broken: str = ""

    def __str__(self) -> str:
        what = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        ends = " ".join(map(str, self.exits))
        return f"seed {self.seed:>3}, {self.where:<8} {self.seconds:4.0f} s, exits {ends}: {what}"


class Nodes:
    """A Ray cluster of three nodes on this machine, whose processes have the store's keys."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._killed: list[Any] = []
        self.mend()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def mend(self) -> None:
        """Put new nodes in the place of those that were killed."""
        for node in self._killed:
            self._cluster.remove_node(node, allow_graceful=False)
        self._killed = []
        while len(self._cluster.worker_nodes) < 2:
            self._cluster.add_node(num_cpus=1)

    def raylets(self) -> list[int]:
        """The raylets' process ids."""
        return [_raylet(node) for node in self._alive()]

    def kill_one(self, rng: random.Random) -> bool:
        """``kill -9`` the raylet of a node with actors, but not the head's; False if none has."""
        nodes = [node for node in self._alive() if node is not self._cluster.head_node]
        nodes = [node for node in nodes if actors([_raylet(node)])]
        if nodes:
            self._killed.append(rng.choice(nodes))
            os.kill(_raylet(self._killed[-1]), signal.SIGKILL)
        return bool(nodes)

    def _alive(self) -> list[Any]:
        return [node for node in self._cluster.list_all_nodes() if node not in self._killed]

    def close(self) -> None:
        self._cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


@dataclass(slots=True)
class Ordeal:
    """One run, from its first attempt until the store has been read."""

    history: History
    rng: random.Random
    server: S3Server
    nodes: Nodes
    spec: Path
    proxy: Proxy
    blows: list[Blow]
    uri: str
    strays: list[Birth] = field(default_factory=list)

    def run(self) -> None:
        """Give the command until it says complete."""
        while 0 not in self.history.exits:
            if len(self.history.exits) == ATTEMPTS:
                raise Violation(f"not complete after {ATTEMPTS} attempts")
            self._attempt()
            if self.history.exits[-1] == Exit.STORAGE:
                time.sleep(PAUSE_S)

    def _command(self) -> list[str]:
        where = {"cluster": ("ray", "--address", self.nodes.address), "own Ray": ("ray",)}
        again = self.history.exits[-1:] == [int(Exit.FAILED_SHARDS)]
        return [
            *(sys.executable, "-m", "polyfit", "run", str(self.spec)),
            *("--store", self.uri, "--endpoint-url", self.proxy.url),
            *("--executor", *where.get(self.history.where, ("inline",))),
            *(("--retry-failed",) if again else ()),
        ]

    def _attempt(self) -> None:
        with tempfile.TemporaryFile("w+") as told:
            process = subprocess.Popen(
                self._command(), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=told, stderr=told
            )
            try:
                struck = self._watch(process)
            finally:
                process.kill()  # where we are interrupted
            told.seek(0)
            text = told.read()
        self.history.faults.update(struck)
        self.history.exits.append(process.returncode)
        self.history.told.append(f"--- {struck}, exit {process.returncode}\n{text}")
        self._judge(process.returncode, struck, text)

    def _watch(self, process: subprocess.Popen[bytes]) -> list[str]:
        """Strike as planned until the process ends; what was done to it."""
        begun, struck = time.monotonic(), list[str]()
        while process.poll() is None:
            lasted = time.monotonic() - begun
            if lasted > ATTEMPT_S:
                struck.append(TOO_LONG)
                self._strike(process, "kill -9 of the driver")
                process.wait()
            elif not set(struck) & set(ENDING) and self._strikes_next(process, lasted):
                struck.append(self.blows.pop(0).kind)
            time.sleep(0.05)
        return struck

    def _strikes_next(self, process: subprocess.Popen[bytes], lasted: float) -> bool:
        """Whether the next blow was due, and struck."""
        if not self.blows:
            return False
        blow = self.blows[0]
        due = len(self.proxy.created) >= blow.shards and lasted >= blow.seconds
        return due and self._strike(process, blow.kind)

    def _strike(self, process: subprocess.Popen[bytes], kind: str) -> bool:
        """Whether there was something to strike."""
        if kind == "a node killed":
            return self.nodes.kill_one(self.rng)
        if kind == "an actor killed":
            roots = self.nodes.raylets() if self.history.where == "cluster" else [process.pid]
            found = actors(roots)
            if found:
                self.rng.choice(found).signal(signal.SIGKILL)
            return bool(found)
        number = ENDING[kind][0]
        if number != signal.SIGKILL and not answers(process.pid):
            return False
        self.strays += descendants(process.pid)
        process.send_signal(number)
        return True

    def _judge(self, code: int, struck: list[str], text: str) -> None:
        """The law of an attempt's end."""
        expected = [ENDING[kind][1] for kind in struck if kind in ENDING]
        told = [line for line in text.splitlines() if line.startswith("polyfit: ")]
        if TOO_LONG in struck:
            raise Violation(f"an attempt went on for more than {ATTEMPT_S:.0f} s")
        if code not in (0, *TOLD[:4], *expected):
            raise Violation(f"an attempt ended with {code} after {struck}")
        if code in TOLD and len(told) != 1:
            raise Violation(f"exit code {code} was told in {len(told)} lines")
        if "Traceback" in text:
            raise Violation("a traceback was shown")

    def close(self) -> None:
        """End what a killed driver left behind."""
        for stray in self.strays:
            stray.signal(signal.SIGKILL)


def answers(pid: int) -> bool:
    """Whether the process is past our first lines: SIGTERM has a handler, as Ctrl-C has before."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> signal.SIGTERM - 1 & 1)
    return False


def actors(roots: list[int]) -> list[Birth]:
    """The actors among the descendants of these processes."""
    return [one for root in roots for one in descendants(root) if _is_actor(one.pid)]


def _is_actor(pid: int) -> bool:
    try:
        return b"ShardActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def shards(server: S3Server, uri: str) -> dict[str, bytes]:
    """The shards of a run, past the proxy, by what follows ``shards/``."""
    bucket, _, prefix = f"{uri}/shards/".removeprefix("s3://").partition("/")
    client = server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    listed = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {
        key.removeprefix(prefix): client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in listed
    }


def check(server: S3Server, uri: str, reference: dict[str, bytes]) -> None:
    """The laws of a complete run, from the store alone."""
    verified = polyfit("verify", uri, "--endpoint-url", server.endpoint_url)
    if verified.returncode or not verified.stdout.startswith(f"intact: {FITS} fits, each once"):
        raise Violation(f"verify: {verified.stdout}{verified.stderr}")
    found = shards(server, uri)
    fits: Counter[int] = Counter()
    for data in found.values():
        fits.update(pq.read_table(io.BytesIO(data), columns=["fit"])["fit"].to_pylist())
    if fits != Counter(range(FITS)):
        lost, doubled = set(range(FITS)) - fits.keys(), [fit for fit, n in fits.items() if n > 1]
        raise Violation(f"lost {sorted(lost)[:5]}, doubled {doubled[:5]}")
    if found != reference:
        raise Violation("shards with other bytes than those of a run without faults")
    bucket, _, key = f"{uri}/manifest.json".removeprefix("s3://").partition("/")
    manifest = json.loads(server.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    sealed = [receipt["sha256"] for receipt in manifest["shards"]]
    if sealed != [hashlib.sha256(found[name]).hexdigest() for name in sorted(found)]:
        raise Violation("the manifest seals other bytes")


def polyfit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, without faults."""
    return subprocess.run(
        [sys.executable, "-m", "polyfit", *arguments],
        cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip


def blows(rng: random.Random, where: str) -> list[Blow]:
    """What is to be done to a run's processes, in this order."""
    kinds = BLOWS if where == "cluster" else BLOWS[:4] if where == "own Ray" else BLOWS[:3]
    late = sorted(rng.randrange(1, PLAN.shards - 4) for _ in range(rng.randint(1, 2)))
    planned = [Blow(rng.choice(kinds), shards=count) for count in late]
    if rng.random() < 0.3:
        planned.insert(0, Blow(rng.choice(BLOWS[:3]), seconds=rng.uniform(0.3, 6.0)))
    return planned


def history(seed: int, setting: "Setting") -> History:
    """Take one run to its end, or to where a promise was broken."""
    rng = random.Random(seed)
    where = rng.choice(("cluster", "cluster", "inline", "inline", "own Ray"))
    chance = Chance(seed, rng.choice((0.05, 0.1, 0.2)), rng.randint(4, 12))
    setting.nodes.mend()
    uri, begun = setting.server.fresh_uri(), time.monotonic()
    with proxied(setting.server.endpoint_url, chance) as proxy:
        ordeal = Ordeal(
            *(History(seed, where), rng, setting.server, setting.nodes, setting.spec, proxy),
            *(blows(rng, where), uri),
        )
        try:
            ordeal.run()
            check(setting.server, f"{uri}/chaos/{PLAN.run_id}", setting.reference)
        except Violation as error:
            ordeal.history.broken = f"seed {seed}: {error}"
        finally:
            ordeal.close()
            ordeal.history.faults.update(proxy.counts)
            ordeal.history.seconds = time.monotonic() - begun
    return ordeal.history


@dataclass(frozen=True, slots=True)
class Setting:
    """What runs share that come one after the other."""

    server: S3Server
    nodes: Nodes
    spec: Path
    reference: dict[str, bytes]


@contextmanager
def setting() -> Iterator[Setting]:
    """A store, a cluster, and a run without faults."""
    # Short, because a Unix socket's path has at most 107 bytes and Ray's own part is long.
    folder = Path(tempfile.mkdtemp(prefix="pf", dir="/tmp"))
    # Registered before Ray's own: the last registered runs first.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _move_in(folder)
    (folder / "chaos.yaml").write_text(TEXT)
    with ExitStack() as stack:
        server = stack.enter_context(seaweedfs(folder / "s3"))
        keys = {name: value for name, value in server.env.items() if "ENDPOINT" not in name}
        os.environ.update(keys)
        uri, spec = server.fresh_uri(), folder / "chaos.yaml"
        where = ("--store", uri, "--endpoint-url", server.endpoint_url, "--executor", "inline")
        done = polyfit("run", str(spec), *where)
        if done.returncode:
            raise RuntimeError(done.stderr)
        nodes = Nodes()
        stack.callback(nodes.close)
        yield Setting(server, nodes, spec, shards(server, f"{uri}/chaos/{PLAN.run_id}"))


def _move_in(folder: Path) -> None:
    """An environment of our own, for this process and all that it starts.

    Every Python reads ``sitecustomize`` first: there the clients' patience is shortened, once
    they are loaded, so that a command's start takes as long as without.
    """
    isolate(os.environ)
    (folder / "sitecustomize.py").write_text(IMPATIENT)
    os.environ |= {
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_health_check_period_ms": "1000",  # a dead node is found sooner
        "RAY_worker_niceness": "0",  # on a busy machine actors would wait for everything else
        "PYTHONPATH": f"{folder}:{ROOT}",
    }


class Lane:
    """What a process of the pool has of its own."""

    world: Setting
    stack: ExitStack

    @classmethod
    def open(cls) -> None:
        """Called once in each process."""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
        signal.signal(signal.SIGHUP, cls.leave)  # what SIGTERM does is up to each new node of Ray
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
        cls.stack = ExitStack()
        cls.world = cls.stack.enter_context(setting())
        atexit.register(cls.stack.close)

    @classmethod
    def leave(cls, number: int, frame: Any) -> NoReturn:
        """End what was started here; nobody waits for it, nor would end it."""
        signal.signal(number, signal.SIG_IGN)
        if not hasattr(cls, "world"):
            sys.exit(1)  # the setting is left half made
        strays = descendants(os.getpid())
        cls.stack.close()
        for stray in strays:
            stray.signal(signal.SIGKILL)
        os._exit(1)

    @classmethod
    def history(cls, seed: int) -> History:
        """One run."""
        return history(seed, cls.world)


PR_SET_PDEATHSIG: Final = 1  # of linux/prctl.h: a process gets a signal once its parent is gone


def histories(seeds: Iterable[int], at_once: int) -> Iterator[History]:
    """The runs of these seeds, as they end."""
    left, running = iter(seeds), set[Future[History]]()
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, fresh, initializer=Lane.open) as pool:
        while True:
            # No more than run at once: where we are interrupted, nothing waits to be begun.
            running |= {
                pool.submit(Lane.history, seed) for seed in islice(left, at_once - len(running))
            }
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def main() -> None:
    """All runs; one that breaks a promise is told, and the others go on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50, help="how many (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--seed", type=int, nargs="+", help="tell the runs of these seeds")
    cores = min(2, len(os.sched_getaffinity(0)))
    parser.add_argument("--at-once", type=int, default=cores, help="runs at a time (%(default)s)")
    arguments = parser.parse_args()
    seeds = arguments.seed or range(arguments.first, arguments.first + arguments.runs)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & would have it ignored
    begun, ended = time.monotonic(), list[History]()
    for one in histories(seeds, arguments.at_once):
        ended.append(one)
        print(one, flush=True)
        if arguments.seed or one.broken:
            print("\n".join(one.told), flush=True)
    broken = [one.broken for one in ended if one.broken]
    print("\n".join(summary(ended)))
    print(f"{arguments.at_once} at a time, {time.monotonic() - begun:.0f} s in all")
    print("\n".join(broken) or f"{len(ended)} runs: every fit once, in all of them")
    sys.exit(1 if broken else 0)


def summary(histories: list[History]) -> list[str]:
    """What befell the runs, and how their attempts ended."""
    total: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    exits: Counter[int] = Counter()
    for one in histories:
        total.update(one.faults)
        runs.update(one.faults.keys())
        exits.update(one.exits)
    wheres = Counter(one.where for one in histories)
    lines = [f"{'fault':<24}{'times':>7}{'runs':>7}"]
    lines += [f"{name:<24}{total[name]:>7}{runs[name]:>7}" for name in (*FAULTS, *BLOWS)]
    lines.append(f"{'in all':<24}{total.total():>7}{len(histories):>7}")
    lines.append(f"runs: {', '.join(f'{count} {where}' for where, count in wheres.items())}")
    ends = ", ".join(f"{count} with {code}" for code, count in sorted(exits.items()))
    lines.append(f"{exits.total()} attempts ended: {ends}")
    return lines


if __name__ == "__main__":
    main()
