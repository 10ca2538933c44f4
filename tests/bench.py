"""Speed, side by side in one run: the tutorial's loop, its peers, and the same fits by polyfit.

Run by ``make bench``; ``--quick`` for a look, ``--only`` for some sections, ``--long`` for the run
of 10^8 fits too. Prints tables, and writes every number to ``.local/bench.json``.

How it is measured. Every contender is a process of its own, pinned to one core before it imports
anything. All of a table warm up one after the other, and then take turns, round by round, so that
what else the machine does meets all of them; a rate is the median of the rounds, `spread` the
distance between the fastest and the slowest. `all cores` is one process per core, each pinned, all
at once. `off by` is the largest difference of the first fit's coefficients to those of the
tutorial's loop: the proof that the same work was done. Ratios are of numbers of one run. What is
made once, such as machine code, is made before the rounds; the section `kernels` times it.

Peers are timed from start values in memory to coefficients in memory. Ours is timed as users run
it, start values, problems, iteration, judgement of the ends and Arrow rows included; rows that end
in "iteration only" leave all but the iteration out, as the peers do.
"""

import argparse
import importlib
import json
import math
import multiprocessing
import os
import platform
import resource
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from peers import Work
    from servers import S3Server

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / ".local" / "bench.json"
CORES: Final = sorted(os.sched_getaffinity(0))
ANSWER_S: Final = 3600.0
"""Longest wait for a warm-up or a round; beyond it the row says so and the bench goes on."""

NARROW: Final = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
"""Has torch and XLA use no more than AVX2; ``ours`` has our emitter do so as torch does."""

POINT_STEPS: Final = 2000 * 2000
"""Updates times points of one fit of the tutorial."""

Spec = dict[str, Any]
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure. ``rehearse`` runs the accelerator's section on the CPU, in small.

    A row that has not begun at ``until`` (of the monotonic clock) is left out.
    """

    quick: bool
    long: bool
    rehearse: bool = False
    most_rounds: int = 7
    answer_s: float = ANSWER_S
    until: float = math.inf

    @property
    def rounds(self) -> int:
        return 2 if self.quick else self.most_rounds

    @property
    def repeats(self) -> int:
        """Of what takes minutes."""
        return 1 if self.quick else 3

    @property
    def round_s(self) -> float:
        return 0.3 if self.quick else 1.0


# --- contenders: one process each ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of a table: ``maker`` ("module:function") returns its ``Work`` in its own process.

    ``cores`` is "one", "each" (one core, then a process on each), or "all" (one process that
    uses all of them by itself). ``narrow``: with AVX2 at most.
    """

    name: str
    maker: str
    arguments: dict[str, Any] = field(default_factory=dict)
    cores: str = "one"
    narrow: bool = False


@dataclass(slots=True)
class Row:
    """What was measured of a contender; rates are units (fits) per second."""

    name: str
    rates: list[float] = field(default_factory=list)
    all_cores: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    coefficients: list[float] | None = None
    note: str = ""
    failed: str = ""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates) if self.rates else math.nan

    @property
    def rate_all(self) -> float:
        return statistics.median(self.all_cores) if self.all_cores else math.nan

    @property
    def spread(self) -> float:
        return (max(self.rates) - min(self.rates)) / self.rate if self.rates else math.nan

    def told(self) -> Table:
        """As JSON."""
        return {
            "rate": _known(self.rate),
            "rates": self.rates,
            "rate_all_cores": _known(self.rate_all),
            "rates_all_cores": self.all_cores,
            "peak_bytes": self.peak_bytes,
            "coefficients": self.coefficients and [_known(one) for one in self.coefficients],
            "note": self.note,
            "failed": self.failed,
        }


class Failed(Exception):
    """A child could not do its work; the text says why, for the table."""


def _serve(pipe: Connection, contender: Contender, cores: Sequence[int]) -> None:
    """In the child: prepare, warm up, then one round per request until None comes."""
    os.sched_setaffinity(0, cores)  # before anything starts threads: they stay here too
    if contender.narrow:
        os.environ.update(NARROW)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # the table is told there; Ray Tune would write into it
    try:
        module, _, name = contender.maker.partition(":")
        work: Work = getattr(importlib.import_module(module), name)(**contender.arguments)
        try:
            found = work.run()
            first = None if found is None else [float(value) for value in found[0]]
            pipe.send({"coefficients": first, "note": work.note})
            while (round_s := pipe.recv()) is not None:
                pipe.send({"rate": _one_round(work, round_s), "peak_bytes": _peak(os.getpid())})
        finally:
            work.close()
    except Exception as error:
        pipe.send({"failed": _why(error)})


def _one_round(work: "Work", round_s: float) -> float:
    runs, start = 0, time.perf_counter()
    while True:
        work.run()
        runs += 1
        spent = time.perf_counter() - start
        if spent >= round_s:
            return runs * work.units / spent


def _why(error: Exception) -> str:
    """One line for the table: an engine that this version refuses is no failure."""
    text = " ".join(str(error).split())[:300]
    return f"not available: {text}" if type(error).__name__ == "SpecError" else (
        f"failed: {type(error).__name__}: {text}"
    )  # fmt: skip


class Runner:
    """A contender's process, seen from here. It ends by its own handle."""

    def __init__(
        self, contender: Contender, cores: Sequence[int], answer_s: float = ANSWER_S
    ) -> None:
        self.answer_s = answer_s
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, contender, cores))
        self.process.start()
        theirs.close()

    def answer(self) -> Table:
        """The next message.

        Raises:
            Failed: the child failed, died, or takes too long.
        """
        try:
            if not self.pipe.poll(self.answer_s):
                raise Failed(f"failed: no answer within {self.answer_s:.0f} s")
            told: Table = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(10)
            raise Failed(f"failed: its process died ({self.process.exitcode})") from None
        if "failed" in told:
            raise Failed(told["failed"])
        return told

    def ask(self, round_s: float) -> None:
        """Have it do a round; that it died is told by ``answer``."""
        with suppress(OSError):
            self.pipe.send(round_s)

    def end(self) -> None:
        """Let it finish, then make it."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(30)
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(10)
        self.pipe.close()


def race(contenders: Sequence[Contender], options: Options) -> dict[str, Row]:
    """Measure contenders side by side; those that use all cores come after, one by one."""
    rows = {one.name: Row(one.name) for one in contenders}
    alone = [one for one in contenders if one.cores != "all"]
    runners: dict[str, Runner] = {}
    try:
        for one in alone:
            if _left_out(rows[one.name], options):
                continue
            _progress(f"warming up: {one.name}")
            runners[one.name] = Runner(one, CORES[-1:], options.answer_s)
            _attempt(rows[one.name], partial(_warm, rows[one.name], runners[one.name]))
        for number in range(options.rounds):
            for one in alone:
                row = rows[one.name]
                if not row.failed:
                    _progress(f"round {number + 1} of {options.rounds}: {one.name}")
                    _attempt(row, partial(_round, row, runners[one.name], options))
    finally:
        for runner in runners.values():
            runner.end()
    for one in contenders:
        row = rows[one.name]
        if one.cores != "one" and not row.failed and not _left_out(row, options):
            _progress(f"on all cores: {one.name}")
            _attempt(row, partial(_everywhere, row, one, options))
    _progress("")
    return rows


def _left_out(row: Row, options: Options) -> bool:
    if time.monotonic() < options.until:
        return False
    row.failed = row.failed or "left out: the section has had its time"
    return True


def _attempt(row: Row, measure: Callable[[], None]) -> None:
    try:
        measure()
    except Failed as error:
        row.failed = str(error)


def _warm(row: Row, runner: Runner) -> None:
    told = runner.answer()
    row.coefficients, row.note = told["coefficients"], told["note"]


def _round(row: Row, runner: Runner, options: Options) -> None:
    runner.ask(options.round_s)
    told = runner.answer()
    row.rates.append(told["rate"])
    row.peak_bytes = told["peak_bytes"]


def _everywhere(row: Row, contender: Contender, options: Options) -> None:
    """A process on each core, or one on all: all go at once, and their rates add up."""
    places = [CORES] if contender.cores == "all" else [[core] for core in CORES]
    runners: list[Runner] = []
    try:
        for place in places:
            runners.append(Runner(contender, place, options.answer_s))
            told = runners[-1].answer()
            row.note, row.coefficients = row.note or told["note"], told["coefficients"]
        for _ in range(max(2, options.rounds // 2)):
            for runner in runners:
                runner.ask(options.round_s)
            row.all_cores.append(sum(runner.answer()["rate"] for runner in runners))
    finally:
        for runner in runners:
            runner.end()


def in_child(maker: str, cores: Sequence[int], **arguments: Any) -> Any:
    """What ``maker`` ("module:function") returns in a process of its own.

    Raises:
        Failed: it raised, or died.
    """
    runner = Runner(Contender("", "bench:told", {"maker": maker, "arguments": arguments}), cores)
    try:
        return json.loads(runner.answer()["note"])
    finally:
        runner.end()


def told(maker: str, arguments: dict[str, Any]) -> "Work":
    """A work without rounds whose note is a function's result."""
    from peers import Work

    module, _, name = maker.partition(":")
    found = getattr(importlib.import_module(module), name)(**arguments)
    return Work(0, lambda: None, json.dumps(found))


# --- ours ------------------------------------------------------------------------------------


def tutorial_spec(engine: str, fits: int, losses: bool = False, **fit: Any) -> Spec:
    """The tutorial's job for many seeds; ``losses`` records twenty of them."""
    return {
        "name": "bench",
        "fit": {"basis": "power", "lr": 1e-6, **fit},
        "sweep": {"seed": {"count": fits}},
        "record": {"every": 100, "of": ["loss"]} if losses else "none",
        "engine": engine,
    }


def ours(
    spec: Spec,
    iteration_only: bool = False,
    in_flops: bool = False,
    accelerated: bool = False,
    threads: int = 1,
) -> "Work":
    """All fits of ``spec`` as one shard through ``compute``, the general code as users run it.

    ``iteration_only`` runs the calls that the shard makes to the engine, and nothing else.
    ``in_flops`` counts the operations of the updates taken instead of fits. ``accelerated`` takes
    the accelerator of the machine instead of the CPU.
    """
    _narrow()
    import torch
    from peers import Work

    from polyfit.engine.fit import pick_device
    from polyfit.spec.plan import Shard
    from polyfit.work import worker

    plan = _plan(spec)
    shard = Shard(0, 0, plan.fits)
    compute = partial(worker.compute, plan, shard, pick_device(accelerated), threads)
    if not iteration_only:
        work = Work(plan.fits, lambda: None)

        def run() -> Any:
            rows = compute()
            if in_flops and not work.note:
                work.units, work.note = _flops(rows), _statuses(rows)
            # Another optimizer's coefficients are not to be compared with the tutorial's.
            same = "optimizer" not in spec.get("fit", {})
            return rows["coefficients"].slice(0, 1).to_pylist() if same else None

        work.run = run
        return work
    torch.set_num_threads(1)
    calls: list[Callable[[], Any]] = []
    name = "fit_affine" if plan.engine == "affine" else "fit"
    engine: Any = getattr(worker, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        calls.append(partial(engine, *arguments, **named))
        return engine(*arguments, **named)

    setattr(worker, name, noted)
    compute()
    setattr(worker, name, engine)
    if not calls:
        raise RuntimeError(f"worker.compute does not call worker.{name}")

    def iterate() -> Any:
        outcomes = [call() for call in calls]
        return outcomes[0].coefficients_BM

    return Work(plan.fits, iterate)


def _narrow() -> None:
    """Have our emitter take this CPU as one without AVX-512, where torch is told so.

    The name of machine code in the cache holds a CPU's features, so that each finds its own.
    """
    if os.environ.get("ATEN_CPU_CAPABILITY") != NARROW["ATEN_CPU_CAPABILITY"]:
        return
    from polyfit.engine import cpu

    name, features = cpu._host()
    left_out = ("+avx512", "+avx10", "+evex512")
    told = ",".join(
        f"-{one[1:]}" if one.startswith(left_out) else one for one in features.split(",")
    )
    setattr(cpu, "_host", lambda: (name, told))  # noqa: B010 (no attribute that mypy knows as exported)


def _wide() -> bool:
    """Whether this CPU has AVX-512."""
    with suppress(OSError):
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    return False


def twister(seeds: int) -> "Work":
    """Initial values of seeds 0 to ``seeds`` - 1, four of each, by the kernel."""
    _narrow()
    return _initial(seeds, compiled=True)


def asked(seeds: int) -> "Work":
    """The same by torch, one seed after the other."""
    return _initial(seeds, compiled=False)


def _initial(seeds: int, compiled: bool) -> "Work":
    import numpy as np
    from peers import Work

    from polyfit.engine.initial import initial_values

    numbers = np.arange(seeds, dtype=np.int64)
    return Work(seeds, partial(initial_values, numbers, 4, compiled))


def _plan(spec: Spec) -> Any:
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec as Read

    return Plan.of(Read.parse(json.dumps(spec)))  # JSON is YAML


def step_flops(degree: int) -> int:
    """Operations of one update of a reduced cubic's kind: residual, gradient and c -= lr g.

    With M = degree + 1: residual R c - q, a triangle of M (M + 1) / 2 products, as many sums;
    gradient 2 R'r, the same number again; and 2 M for the update.
    """
    size = degree + 1
    return 2 * size * (size + 1) + 2 * size


def _flops(rows: Any) -> int:
    import numpy as np

    degrees, steps = (rows[name].to_numpy().astype(np.int64) for name in ("degree", "steps_taken"))
    size = degrees + 1
    return int(((2 * size * (size + 1) + 2 * size) * steps).sum())


def _statuses(rows: Any) -> str:
    counts = rows["status"].combine_chunks().value_counts().to_pylist()
    return ", ".join(f"{one['counts']:,} {one['values']}" for one in counts)


# --- whole processes -------------------------------------------------------------------------


@dataclass(slots=True)
class Ran:
    """A process from its start to its end, and the most memory that it and its actors had.

    ``core_s`` is the time of cores that it took, with those of its children that it waited for.
    """

    wall_s: float
    core_s: float = math.nan
    driver_bytes: int = 0
    actor_bytes: dict[int, int] = field(default_factory=dict)
    driver_bytes_at_seal: int = 0
    sealed_s: float = math.nan

    def told(self) -> Table:
        """As JSON."""
        return {
            "wall_s": self.wall_s,
            "process_core_s": _known(self.core_s),
            "sealed_s": _known(self.sealed_s),
            "driver_bytes": self.driver_bytes,
            "driver_bytes_at_seal": self.driver_bytes_at_seal,
            "actor_bytes": sorted(self.actor_bytes.values()),
        }


def whole(
    command: Sequence[str],
    env: Mapping[str, str],
    cores: Sequence[int],
    sealed: Callable[[], bool] = lambda: False,
    look_s: float = 0.2,
    enough: Callable[[], bool] = lambda: False,
    code: int = 0,
) -> Ran:
    """Run ``command`` on ``cores``; ``sealed`` is asked whether the run is complete, ``enough``
    whether to end it with SIGTERM.

    Raises:
        Failed: it did not exit with ``code``.
    """
    with tempfile.TemporaryFile() as log:
        start, before = time.perf_counter(), _children_s()
        process = subprocess.Popen(
            [sys.executable, *command],
            env=dict(env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=partial(os.sched_setaffinity, 0, list(cores)),
        )
        ran = Ran(math.nan)
        try:
            _look_on(process, ran, start, sealed, look_s, enough)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(60)
            if process.poll() is None:
                process.kill()
                process.wait()
        ran.core_s = _children_s() - before
        if process.returncode != code:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise Failed(f"failed: exit {process.returncode}: {' '.join(lines[-3:])[-400:]}")
    return ran


def _children_s() -> float:
    """Time of cores of all processes that this one has waited for so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _look_on(
    process: subprocess.Popen[bytes],
    ran: Ran,
    start: float,
    sealed: Callable[[], bool],
    look_s: float,
    enough: Callable[[], bool],
) -> None:
    """Wait for the end, and note memory and the moment of the seal on the way."""
    told = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(look_s)
        ran.wall_s = time.perf_counter() - start
        if process.returncode is not None:
            return
        if ran.wall_s > ANSWER_S:
            raise Failed(f"failed: not at its end after {ANSWER_S:g} s")
        ran.driver_bytes = max(ran.driver_bytes, _peak(process.pid))
        for pid in _actors(process.pid):
            ran.actor_bytes[pid] = max(ran.actor_bytes.get(pid, 0), _peak(pid))
        if math.isnan(ran.sealed_s) and sealed():
            ran.sealed_s, ran.driver_bytes_at_seal = ran.wall_s, ran.driver_bytes
        if not told and enough():
            process.send_signal(signal.SIGTERM)
            told = True


def _peak(pid: int) -> int:
    """The most resident memory that a process has had, in bytes; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _actors(driver: int) -> list[int]:
    """The live Ray actors among the descendants of ``driver``."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text(errors="replace")
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        if above == driver:
            with suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if title.startswith(b"ray::_Actor"):
                    found.append(pid)
    return found


def _run(
    spec: Spec,
    folder: Path,
    store: str,
    env: Mapping[str, str],
    executor: str,
    cores: Sequence[int],
    sealed: Callable[[], bool] = lambda: False,
) -> Ran:
    """``polyfit run`` as a user types it, into a store that has nothing of it yet."""
    actors = {"actors": {"max": len(cores)}}
    path = folder / f"{secrets.token_hex(4)}.yaml"
    path.write_text(json.dumps({**spec, "resources": {"gpus_per_actor": 0, **actors}}))
    command = ["-m", "polyfit", "run", str(path), "--executor", executor, "--store", store]
    return whole(command, env, cores, sealed)


@contextmanager
def surroundings() -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder, and an environment without the developer's settings and with caches in it."""
    from servers import isolate

    # Short, because a Unix socket's path has at most 107 bytes and Ray's own part is long.
    folder = Path(tempfile.mkdtemp(prefix="pf", dir="/tmp"))
    env = dict(os.environ)
    isolate(env)
    env["RAY_TMPDIR"] = str(folder)
    # The peer of torch.compile leaves its kernels here.
    env |= {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    # Ray would leave a token of its own in the home folder, where it turns authentication on.
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        yield folder, {**env, **_caches(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _caches(folder: Path) -> dict[str, str]:
    """An empty cache of machine code."""
    return {"POLYFIT_CACHE": str(folder / f"cache-{secrets.token_hex(4)}")}


# --- the report ------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """Tables on the terminal as they come, and everything as JSON."""

    machine: Table
    sections: dict[str, Table] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def head(self, section: str, title: str) -> None:
        """Begin a table."""
        self.sections.setdefault(section, {})
        print(f"\n{title}\n{'─' * min(len(title), 100)}", flush=True)

    def line(self, text: str) -> None:
        """A line of a table."""
        print(text, flush=True)

    def fact(self, section: str, name: str, found: Table) -> None:
        """Keep numbers for the JSON."""
        self.sections.setdefault(section, {})[name] = found

    def keep(self, section: str, rows: Mapping[str, Row]) -> None:
        """Keep all that a race measured."""
        for row in rows.values():
            self.fact(section, row.name, row.told())

    def number(self, name: str, value: float) -> None:
        """A ratio, told plainly."""
        if math.isfinite(value):
            self.ratios[name] = value
            print(f"  {name}: {value:,.{0 if value >= 1000 else 1 if value >= 10 else 3}f}x")

    def ratio(self, name: str, rows: Mapping[str, Row], of: Contender, to: Contender) -> None:
        """The ratio of two rates of one race, where both are there."""
        self.number(name, rows[of.name].rate / rows[to.name].rate)

    def rates(
        self, section: str, title: str, rows: Mapping[str, Row], base: str, same: bool = True
    ) -> None:
        """A race as a table; ``base`` is the row that the others are multiples of.

        ``same`` tells that the rows do the same fits, so that their coefficients can be compared.
        """
        self.head(section, title)
        self.keep(section, rows)
        width = max(len(name) for name in rows) + 2
        line = f"{{:<{width}}}" + "{:>14}{:>12}{:>8}{:>14}{:>10}{:>10}  {}"
        print(line.format("one core", "per second", "multiple", "spread", "all cores",
                          "memory", "off by", ""))  # fmt: skip
        reference = rows[base]
        for row in rows.values():
            if row.failed:
                print(f"{row.name:<{width}}{row.failed}")
                continue
            rate = row.rate if row.rates else row.rate_all
            cells = [
                _number(row.rate),
                _number(rate / reference.rate),
                f"{row.spread:.0%}" if row.rates else "-",
                _number(row.rate_all),
                f"{row.peak_bytes >> 20} MiB" if row.rates else "-",
                _off_by(row, reference) if same else "-",
            ]
            print(line.format(row.name, *cells, row.note).rstrip())

    @contextmanager
    def row(self, section: str, name: str) -> Iterator[None]:
        """What fails within is told in the row's place, and the bench goes on."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, Failed) else _why(error)
            self.fact(section, name, {"failed": text})
            print(f"{name}: {text}", flush=True)

    def write(self) -> None:
        """Write what there is so far."""
        OUT.parent.mkdir(exist_ok=True)
        found = {"machine": self.machine, "sections": self.sections, "ratios": self.ratios}
        OUT.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _off_by(row: Row, reference: Row) -> str:
    """Largest difference of the first fit's coefficients to those of the reference row."""
    mine, theirs = row.coefficients, reference.coefficients
    if mine is None or theirs is None or len(mine) != len(theirs):
        return "-"
    return f"{max(abs(a - b) for a, b in zip(mine, theirs, strict=True)):.0e}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:100]}", end="", file=sys.stderr, flush=True)


def machine() -> Table:
    """What the numbers were measured on, and how busy it was."""
    with suppress(OSError):
        known = Path("/proc/cpuinfo").read_text()
    models = [line for line in known.splitlines() if line.startswith("model name")]
    packages = {}
    for name in ("torch", "jax", "jaxlib", "ray", "numpy", "pyarrow"):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": len(CORES),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **packages,
    }


# --- sections --------------------------------------------------------------------------------


def _ours(name: str, spec: Spec, cores: str = "one", **how: Any) -> Contender:
    return Contender(name, "bench:ours", {"spec": spec, **how}, cores)


LOOP: Final = Contender("the tutorial's loop", "peers:loop", cores="each")
VMAP: Final = Contender("torch.func.vmap, all points", "peers:torch_vmap", cores="each")
EAGER: Final = _ours("ours, eager", tutorial_spec("eager", 8192), "each")
COMPILED: Final = _ours("ours, compiled", tutorial_spec("compiled", 1 << 17), "each")
AFFINE: Final = _ours("ours, affine, 20 losses", tutorial_spec("affine", 1 << 17, True), "each")
RUNGS: Final = (
    (LOOP, "one fit at a time, every operation through the interpreter"),
    (VMAP, "many fits per call: the interpreter's share goes"),
    (EAGER, "algebra: 2000 points become 4 rows"),
    (COMPILED, "all updates in one loop of machine code: the calls and the memory traffic go"),
    (AFFINE, "one step's map raised to the power of the steps"),
)


def peers(options: Options, report: Report) -> None:
    """The tutorial's job, float32, 2000 steps: peers and ours."""
    _peers(options, report)


def _peers(options: Options, report: Report, narrow: bool = False) -> None:
    """``narrow``: those that are compiled, and what they are compared with, at AVX2."""
    all_cores = {"cores": len(CORES)}
    jax_points = Contender("JAX, all points, best form", "peers:jax_points", cores="each")
    jax_reduced = Contender("JAX, reduced, best form", "peers:jax_reduced", cores="each")
    lean = _ours("ours, compiled, iteration only", COMPILED.arguments["spec"], iteration_only=True)
    leaps = _ours(
        "ours, affine, 20 losses, iteration only", AFFINE.arguments["spec"], iteration_only=True
    )
    many = 1 << (13 if options.quick else 17)
    losses = _ours("ours, compiled, 20 losses", tutorial_spec("compiled", many, True))
    contenders = [
        LOOP,
        Contender("the loop as Ray tasks", "peers:ray_tasks", all_cores, "all"),
        Contender("the loop in Ray Tune", "peers:ray_tune", all_cores, "all"),
        VMAP,
        Contender("JAX, all points, plain", "peers:jax_points", {"best": False}),
        jax_points,
        jax_reduced,
        Contender("numpy.polyfit (closed form)", "peers:polyfits"),
        Contender("numpy.linalg.lstsq (closed form)", "peers:least_squares"),
        EAGER,
        COMPILED,
        lean,
        losses,
        AFFINE,
        leaps,
    ]
    for engine, fits in (("eager", 8192), ("compiled", many), ("affine", many)):
        for name, change in () if options.quick else VARIANTS.items():
            if engine != "affine" or name != "adam":
                spec = tutorial_spec(engine, fits, engine == "affine", **change)
                contenders.append(_ours(f"ours, {engine}, {name}", spec))
    section, title, at = "peers", "Tutorial job: 2000 points, cubic, 2000 steps, float32", ""
    if narrow:
        section, title, at = "avx2", f"{title}, AVX2", ", AVX2"
        contenders = _narrowed(
            LOOP, VMAP, jax_points, jax_reduced, EAGER, COMPILED, lean, losses, AFFINE, leaps
        )
    rows = race(contenders, options)
    report.rates(section, title, rows, LOOP.name)
    for name, of, to in (
        ("compiled / tutorial's loop", COMPILED, LOOP),
        ("affine with 20 losses / tutorial's loop", AFFINE, LOOP),
        ("compiled / JAX best", COMPILED, jax_reduced),
        ("compiled with 20 losses / JAX best", losses, jax_reduced),
        ("compiled, iteration only / JAX best", lean, jax_reduced),
        ("affine with 20 losses / JAX best", AFFINE, jax_reduced),
        ("affine with 20 losses / compiled, iteration only", leaps, lean),
    ):
        report.ratio(f"{name}{at}", rows, of, to)


def _narrowed(*contenders: Contender) -> list[Contender]:
    return [replace(one, narrow=True, cores="one") for one in contenders]


VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "float64": {"dtype": "float64"},
    "adam": {"optimizer": "adam"},
    "momentum": {"optimizer": "momentum"},
}


def objectives(options: Options, report: Report) -> None:
    """Objectives that need every point: 2000 points, 2000 steps, one core."""
    _objectives(options, report)


def _objectives(options: Options, report: Report, narrow: bool = False) -> None:
    """``narrow``: at AVX2."""
    section, at = ("avx2", ", AVX2") if narrow else ("objectives", "")
    for objective in ("huber", "log_cosh", "l1"):
        here: Spec = {"objective": objective}
        torch_loop = Contender(f"a loop in torch, {objective}", "peers:loop", here)
        jax = Contender(f"JAX, best form, {objective}", "peers:jax_points", here)
        eager = _ours(f"ours, eager, {objective}", tutorial_spec("eager", 32, **here))
        spec = tutorial_spec("compiled", 512, **here)
        compiled = _ours(f"ours, compiled, {objective}", spec)
        lean = _ours(f"ours, compiled, iteration only, {objective}", spec, iteration_only=True)
        contenders = [torch_loop, jax, eager, compiled, lean]
        rows = race(_narrowed(*contenders) if narrow else contenders, options)
        report.rates(section, f"{objective} on all points{at}", rows, torch_loop.name)
        for ours in (compiled, lean):
            name = ours.name.removeprefix("ours, ")
            report.ratio(f"{name} / loop{at}", rows, ours, torch_loop)
            report.ratio(f"{name} / JAX best{at}", rows, ours, jax)


def avx2(options: Options, report: Report) -> None:
    """What is compiled, and its peers, with AVX2 at most, where the CPU has AVX-512."""
    if not _wide():
        report.line("\nAVX2: this CPU has no AVX-512; all other sections are at what it has")
        return
    _peers(options, report, narrow=True)
    _objectives(options, report, narrow=True)


def initial(options: Options, report: Report) -> None:
    """Initial values: four of each seed, by the twister's kernel and by torch."""
    torch_asked = Contender("torch, one by one", "bench:asked", {"seeds": 1 << 12})
    kernel = Contender("the twister's kernel", "bench:twister", {"seeds": 1 << 18})
    contenders = [torch_asked, kernel]
    if _wide():
        at = "the twister's kernel, AVX2"
        contenders.append(replace(kernel, name=at, narrow=True))
    rows = race(contenders, options)
    report.rates("initial", "Initial values: seeds per second, four each", rows, torch_asked.name)
    for one in contenders[1:]:
        report.ratio(f"{one.name} / torch, one by one", rows, one, torch_asked)


# The kernels of a kind, from nothing.


class Clock:
    """Time by stage, without that of the stages inside, which are told for themselves."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside = [0.0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` as a part of ``stage``."""
        self.spent.setdefault(stage, 0.0)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            self._inside.append(0.0)
            try:
                return function(*arguments, **named)
            finally:
                took = time.perf_counter() - begun
                self.spent[stage] += took - self._inside.pop()
                self._inside[-1] += took

        return wrapper

    def replace(self, stage: str, owner: Any, path: str) -> None:
        """Time what stands at ``path`` of ``owner``."""
        *above, name = path.split(".")
        owner = reduce(getattr, above, owner)
        setattr(owner, name, self.timed(stage, getattr(owner, name)))

    def blank(self) -> None:
        """From here on."""
        self.spent.update(dict.fromkeys(self.spent, 0.0))


def kernels(options: Options, report: Report) -> None:
    """From nothing to the first result of a kind: a new process, an empty cache, one core."""
    title = "First result of a kind, empty cache: 64 fits of ten updates, one core; seconds"
    report.head("kernels", title)
    degrees = (3, 30) if options.quick else (3, 9, 30)
    choices = [
        (objective, optimizer)
        for objective in ("sse", "mse", "huber", "log_cosh", "l1")
        for optimizer in ("gd", "momentum", "adam")
        if not options.quick or objective == "sse" or optimizer == "gd"
    ]
    width = 34
    report.line(" " * width + "".join(f"{name:>13}" for name in (*IMPORTS, *MADE)))
    with surroundings() as (folder, _):
        for degree in degrees:
            for objective, optimizer in choices:
                fit = {"degree": degree, "objective": objective, "optimizer": optimizer}
                name = f"degree {degree}, {objective}, {optimizer}"
                _first(options, report, folder, name, {"fit": fit})
        degrees_and_bases = {
            "degree": list(range(1, 10)),
            "basis": ["chebyshev", "legendre", "power"],
        }
        _first(options, report, folder, "nine degrees in three bases", {"sweep": degrees_and_bases})


IMPORTS: Final = ("torch", "polyfit", "LLVM", "autograd")
MADE: Final = ("trace", "emit", "optimise", "machine code", "load", "rest", "first result", "warm")
"""Stages of a first result, and that of a new process that finds the kernels in the cache."""


def _first(options: Options, report: Report, folder: Path, name: str, change: Spec) -> None:
    spec: Spec = {
        "name": "bench-kernels",
        "fit": {"steps": 10, "lr": 1e-6, **change.get("fit", {})},
        "sweep": {**change.get("sweep", {}), "seed": {"count": 64}},
        "record": {"every": 5, "of": ["loss"]},
        "engine": "compiled",
    }
    with report.row("kernels", name):
        found: list[dict[str, float]] = []
        for _ in range(options.repeats):
            with _changed_environment(_caches(folder)):
                run = partial(in_child, "bench:first_result", CORES[-1:], spec=spec)
                cold, warm = run(cold=True), run(cold=False)
                found.append({**cold, "warm": warm["first result"]})
        middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
        report.fact("kernels", name, {**middle, "all": found})
        cells = "".join(f"{middle[key]:>13.3f}" for key in (*IMPORTS, *MADE))
        report.line(
            f"{name:<34}{cells}  {middle['kernels']:.0f} kernels, {middle['late']:.0f} late imports"
        )


def first_result(spec: Spec, cold: bool) -> dict[str, float]:
    """Seconds of imports, of the stages of the first shard of this process, and what that shard
    imports yet: modules, a number. ``cold``: what autograd's first trace imports is apart."""
    clock = Clock()
    begin = partial(clock.timed, function=importlib.import_module)
    for name, module in (
        ("torch", "torch"),
        ("polyfit", "polyfit.work.worker"),
        ("LLVM", "llvmlite.binding"),
    ):
        begin(name)(module)
    import torch

    from polyfit.engine import cpu, trace
    from polyfit.spec.plan import Shard
    from polyfit.work import worker

    if cold:
        clock.timed("autograd", trace.pullback)(lambda x: x * x, 1, (0,), torch.float32)
    for stage, owner, path in (
        ("trace", trace, "trace"),
        ("emit", cpu, "cpu_text"),
        ("optimise", cpu, "optimised"),
        ("machine code", cpu, "machine_code"),
        ("load", cpu, "Function.__init__"),
    ):
        clock.replace(stage, owner, path)
    plan = _plan(spec)
    compute = clock.timed("rest", worker.compute)
    begun, before = time.perf_counter(), len(sys.modules)
    compute(plan, Shard(0, 0, plan.fits), torch.device("cpu"))
    total, folder = time.perf_counter() - begun, cpu.cache_folder()
    made = len(list(folder.glob("*.o"))) if folder else 0
    return {
        **clock.spent,
        "first result": total,
        "kernels": made,
        "late": len(sys.modules) - before,
    }


def accelerator(options: Options, report: Report) -> None:
    """The accelerator of this machine, if it has one: ours, JAX and torch.compile on it, and one
    core of its CPU. It ends within ten minutes: a row that has no time left says so."""
    name = "the CPU" if options.rehearse else in_child("bench:accelerator_name", CORES)
    if name is None:
        report.fact("accelerator", "none", {})
        report.line("\nAccelerator: this machine has none")
        return
    until = time.monotonic() + ACCELERATOR_S
    shorter = replace(options, most_rounds=3, answer_s=ACCELERATOR_S / 4, until=until)
    for objective in ("sse", "huber") if options.quick else ("sse", "huber", "log_cosh", "l1"):
        with report.row("accelerator", objective):
            _accelerated(shorter, report, name, objective)


ACCELERATOR_S: Final = 400.0
"""In which rows on the accelerator may begin."""


def _accelerated(options: Options, report: Report, name: str, objective: str) -> None:
    squared, here = objective == "sse", not options.rehearse
    many, few = 1 << (20 if squared else 17), 1 << (17 if squared else 9)
    peers, platform, device = (1 << 17, 1 << 20) if squared else (1 << 12, 1 << 15), "gpu", "cuda"
    if options.rehearse:
        many, few, platform, device = 1 << 6, 1 << 6, "cpu", "cpu"
        peers = (1 << 5, 1 << 6)
    core = _ours("one core", tutorial_spec("compiled", few, objective=objective))
    spec = tutorial_spec("compiled", many, objective=objective)
    losses = tutorial_spec("compiled", many, True, objective=objective)
    whole = _ours("ours", spec, accelerated=here)
    lean = _ours("ours, iteration only", spec, iteration_only=True, accelerated=here)
    told = _ours("ours, 20 losses", losses, accelerated=here)
    cores = min(8, len(CORES))
    fed = _ours(f"ours, 20 losses, {cores} threads", losses, "all", accelerated=here, threads=cores)
    contenders = [core, whole, lean, told, fed]
    there = {"platform": platform, "batches": peers}
    jax = Contender("JAX, best form", "peers:jax_reduced", {**there, "unrolled": (1, 10)})
    if not squared:
        jax = replace(jax, maker="peers:jax_points", arguments={**there, "objective": objective})
    compiled = Contender(
        "torch.compile", "peers:torch_compiled",
        {"objective": objective, "device": device, "batch": peers[-1]},
    )  # fmt: skip
    ratios = [(whole, core)]
    if objective in ("sse", "huber"):
        contenders += [jax, compiled]
        ratios += [(lean, jax), (told, jax), (lean, compiled)]
    rows = race(contenders, options)
    title = f"{name}: the tutorial's job with {objective}; fed by one core where not told otherwise"
    report.rates(f"accelerator, {objective}", title, rows, core.name)
    for of, to in ratios:
        report.ratio(f"accelerator, {objective}: {of.name} / {to.name}", rows, of, to)


def accelerator_name() -> str | None:
    """What the accelerator calls itself; None where there is none."""
    import torch

    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return None
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type


def mixed(options: Options, report: Report) -> None:
    """Sweeps whose fits differ: operations per second, and one problem per fit."""
    for engine, steps, seeds in (("eager", 100, 4), ("compiled", 2000, 8 if options.quick else 64)):
        most = 9
        whole_sweep = _mixed_spec(engine, steps, seeds, list(range(1, most + 1)))
        alone = _mixed_spec(engine, steps, most * seeds, [3])
        mix = _ours(f"{engine}: degrees 1 to {most}", whole_sweep, in_flops=True)
        one = _ours(f"{engine}: degree 3 alone", alone, in_flops=True)
        rows = race([mix, one], options)
        title = f"Mixed sweep, {engine}: 50 ranges, 3 bases, {steps} steps; flop/s"
        report.rates("mixed", title, rows, one.name, same=False)
        report.ratio(f"mixed / degree 3 alone, {engine}, in flop/s", rows, mix, one)
    fits = 256 if options.quick else 4096
    for engine in ("eager", "compiled"):
        specs = _distinct_specs(engine, fits)
        contenders = [_ours(f"{engine}: {name}", spec) for name, spec in specs.items()]
        rows = race(contenders, options)
        title = f"One problem per fit, {engine}, {fits:,} fits"
        report.rates("mixed", title, rows, contenders[0].name, same=False)


def _mixed_spec(engine: str, steps: int, seeds: int, degrees: list[int]) -> Spec:
    ranges = [[-1 - i / 20, 1 + i / 25] for i in range(50)]
    return {
        "name": "bench-mixed",
        "fit": {"steps": steps},
        "sweep": {
            "degree": degrees,
            "basis": ["chebyshev", "legendre", "power"],
            "range": ranges,
            "seed": {"count": seeds},
        },
        "record": "none",
        "engine": engine,
    }


def _distinct_specs(engine: str, fits: int) -> dict[str, Spec]:
    """The same number of fits with one problem in all, and with one each."""
    ranges = [[-1 - i / fits, 1 + 2 * i / fits] for i in range(fits)]
    seeds = {"count": fits}
    base: Spec = {"name": "bench-distinct", "record": "none", "engine": engine}
    noisy = {"fit": {"noise": 0.1}}
    return {
        "one problem, many seeds": {**base, "sweep": {"seed": seeds}},
        "ranges, chebyshev": {**base, "sweep": {"range": ranges}},
        "ranges, power": {**base, "fit": {"basis": "power"}, "sweep": {"range": ranges}},
        "noise of its own": {
            **base, **noisy, "sweep": {"zip": [{"noise_seed": seeds, "seed": seeds}]}
        },
        "ranges and noise": {
            **base, **noisy, "sweep": {"zip": [{"range": ranges, "noise_seed": seeds}]}
        },
    }  # fmt: skip


def end(options: Options, report: Report) -> None:
    """Whole processes: ``polyfit run`` on a local Ray into a real S3 server, cold and warm."""
    from servers import seaweedfs

    loop_s = 1 / race([LOOP], options)[LOOP.name].rate
    two = CORES[:2]
    with surroundings() as (folder, env), seaweedfs(folder / "s3") as server:
        env |= server.env
        report.head("end", f"End to end: Ray, {len(two)} one-core actors, SeaweedFS, 20 losses")
        small, large = (20_000, 50_000) if options.quick else (1_000_000, 10_000_000)
        for engine, fits, state in (
            ("auto", small, "cold"),
            ("auto", small, "warm"),
            ("auto", large, "warm"),
            ("affine", large, "warm"),
        ):
            name = f"{fits:,} fits, engine {engine}, {state}"
            spec = tutorial_spec(engine, fits, losses=True)
            with report.row("end", name):
                runs: list[Ran] = []
                for _ in range(options.repeats):
                    env |= _caches(folder) if state == "cold" else {}
                    runs.append(_stored(spec, folder, env, server, "ray", two))
                ran = sorted(runs, key=lambda one: one.wall_s)[len(runs) // 2]
                core_s = ran.wall_s * len(two)
                walls = [one.wall_s for one in runs]
                report.fact("end", name, {**ran.told(), "core_s": core_s, "walls_s": walls})
                report.line(
                    f"{name}: {ran.wall_s:.1f} s ({ran.sealed_s:.1f} s to the seal), "
                    f"driver {_mib(ran.driver_bytes)}, actors "
                    f"{', '.join(map(_mib, ran.actor_bytes.values())) or 'not seen'}"
                )
                times = loop_s * fits / core_s
                report.number(f"{name}: tutorial's loop / ours, in core-seconds", times)
        _cold_and_warm(options, report, folder, env, server)
        _cost(options, report, folder, env, server)


def _cold_and_warm(
    options: Options, report: Report, folder: Path, env: dict[str, str], server: "S3Server"
) -> None:
    """The same run with an empty cache and with one that has all kernels, in turns."""
    fits = 20_000 if options.quick else 1_000_000
    report.head("cold", f"{fits:,} tutorial fits, 20 losses, into SeaweedFS: cold beside warm")
    spec = tutorial_spec("auto", fits, losses=True)
    for executor, cores in (("inline", CORES[-1:]), ("ray", CORES[:2])):
        name = f"{executor}, cores: {len(cores)}"
        with report.row("cold", name):
            walls: dict[str, list[float]] = {"cold": [], "warm": []}
            for _ in range(options.repeats):
                empty = {**env, **_caches(folder)}
                for times in walls.values():
                    times.append(_stored(spec, folder, empty, server, executor, cores).wall_s)
            cold, warm = (statistics.median(times) for times in walls.values())
            report.fact("cold", name, {"cold_s": walls["cold"], "warm_s": walls["warm"]})
            report.line(f"{name}: cold {cold:.2f} s, warm {warm:.2f} s")
            report.number(f"{fits:,} fits, {name}: cold / warm", cold / warm)


def plan(options: Options, report: Report) -> None:
    """What ``polyfit plan`` says of a job, beside what this machine takes for it.

    Its time is of a whole run that chooses its executor itself, with no kernel in the cache; its
    work is of one core, without the start of a process.
    """
    report.head("plan", "What plan says, and what runs take with an empty cache; seconds")
    widths = "{:<34}{:>12}{:>12}{:>12}{:>12}{:>12}{:>14}"
    report.line(widths.format("", "plan: time", "as typed", "plan / it", "plan: work", "one core",
                              "of its cores"))  # fmt: skip
    specs = {path.name: str(path) for path in sorted((ROOT / "jobs").glob("*.yaml"))}
    with surroundings() as (folder, env):
        env["CUDA_VISIBLE_DEVICES"] = ""  # a plan tells cores' time
        for name, spec in _planned(options).items():
            path = folder / f"{secrets.token_hex(4)}.yaml"
            path.write_text(json.dumps(spec))
            specs[name] = str(path)
        for name, place in specs.items():
            with report.row("plan", name):
                _beside_plan(report, folder, env, name, place)


def _planned(options: Options) -> dict[str, Spec]:
    few = 1_000_000 if options.quick else 10_000_000
    bell = {"target": "exp(-x**2)", "range": [-3, 3]}
    degrees = {"degree": {"start": 0, "stop": 20}}
    objectives = {"objective": ["sse", "mse", "huber", "log_cosh", "l1"]}
    return {
        "twenty fits of exp(-x**2)": {"name": "bench-bell", "fit": bell, "sweep": degrees},
        "100 kinds, one fit each": {
            "name": "bench-kinds",
            "fit": {"lr": 1e-6},  # l1 has no rate of its own
            "sweep": {**degrees, **objectives},
        },
        f"{few:,} tutorial fits": tutorial_spec("auto", few, losses=True),
    }


def _beside_plan(
    report: Report, folder: Path, env: Mapping[str, str], name: str, path: str
) -> None:
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec as Read

    made = Plan.of(Read.load(path))
    time_s, work_s = made.wall_seconds(len(CORES)), made.seconds
    alone = _whole_job(path, folder, {**env, **_caches(folder)}, "inline", CORES[-1:])
    typed = _whole_job(path, folder, {**env, **_caches(folder)}, "auto", CORES)
    ratio = time_s / typed.wall_s
    found = {"time_s": time_s, "work_s": work_s, "one_core": alone.told(), "ratio": ratio}
    report.fact("plan", name, {**found, "as_typed": typed.told()})
    report.line(
        f"{name:<34}{time_s:>12.2f}{typed.wall_s:>12.2f}{ratio:>12.2f}{work_s:>12.2f}"
        f"{alone.wall_s:>12.2f}{alone.core_s:>14.2f}"
    )


def _whole_job(
    path: str, folder: Path, env: Mapping[str, str], executor: str, cores: Sequence[int]
) -> Ran:
    """``polyfit run`` of a file into a new folder."""
    store = folder / secrets.token_hex(4)
    command = ["-m", "polyfit", "run", path, "--executor", executor, "--store", str(store)]
    try:
        return whole(command, env, cores)
    finally:
        shutil.rmtree(store, ignore_errors=True)


def _stored(
    spec: Spec,
    folder: Path,
    env: Mapping[str, str],
    server: "S3Server",
    executor: str,
    cores: Sequence[int],
) -> Ran:
    """A run into a fresh prefix of the server, seen until its seal."""
    uri, client = server.fresh_uri(), server.client()
    prefix = uri.removeprefix(f"s3://{server.bucket}/")
    key = f"{prefix}/{spec['name']}/{_checked(spec).run_id}/manifest.json"

    def sealed() -> bool:
        found = client.list_objects_v2(Bucket=server.bucket, Prefix=key, MaxKeys=1)
        return bool(found.get("KeyCount"))

    return _run(spec, folder, uri, env, executor, cores, sealed)


def _checked(spec: Spec) -> Any:
    """The plan of ``spec``.

    Raises:
        Failed: this version refuses it.
    """
    try:
        return _plan(spec)
    except Exception as error:
        raise Failed(_why(error)) from None


def _cost(
    options: Options, report: Report, folder: Path, env: Mapping[str, str], server: "S3Server"
) -> None:
    """COST (McSherry, Isard and Murray, 2015): how many cores beat one process on one core."""
    sizes = [2_000, 20_000] if options.quick else [10_000, 100_000, 1_000_000, 4_000_000]
    robust = 200 if options.quick else 100_000
    report.head("cost", "COST: one process on one core against Ray on so many cores, warm, seconds")
    for job, counts, change in (
        ("tutorial job", sizes, {}),
        ("huber", [robust], {"objective": "huber"}),
    ):
        enough = None
        for fits in counts:
            name = f"{job}, {fits:,} fits"
            with report.row("cost", name):
                spec = tutorial_spec("auto", fits, True, **change)
                few = tutorial_spec(_checked(spec).engine, 64, True, **change)
                _stored(few, folder, env, server, "inline", CORES)  # its kernels are made here
                inline = _stored(spec, folder, env, server, "inline", CORES[:1]).wall_s
                walls = {
                    count: _stored(spec, folder, env, server, "ray", CORES[:count]).wall_s
                    for count in _counts(len(CORES))
                }
                beats = next((count for count, wall in walls.items() if wall < inline), None)
                report.fact("cost", name, {"inline_s": inline, "ray_s": walls, "cores": beats})
                listed = ", ".join(f"{count}: {wall:.1f}" for count, wall in walls.items())
                verdict = f"from {beats} on" if beats else "at none of these"
                report.line(f"{name}: inline {inline:.1f}; Ray on {listed}; COST: {verdict}")
                enough = enough or (fits if walls[len(CORES)] < inline else None)
        found = f"from {enough:,} fits on" if enough else "at none of these sizes"
        report.line(f"{job}: Ray on all {len(CORES)} cores beats one process on one {found}")


def _counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return sorted({*(1 << k for k in range(cores.bit_length()) if 1 << k <= cores), cores})


def start(options: Options, report: Report) -> None:
    """One tutorial fit, as whole processes that take turns."""
    report.head("start", "One tutorial fit, whole processes, seconds")
    walls: dict[str, list[float]] = {"the tutorial's script": [], "polyfit run jobs/sine.yaml": []}
    with surroundings() as (folder, env), report.row("start", "one fit"):
        for _ in range(options.rounds):
            script, ours = walls.values()
            script.append(whole(["tests/peers.py"], env, CORES, look_s=30).wall_s)
            store = str(folder / secrets.token_hex(4))
            command = ["-m", "polyfit", "run", "jobs/sine.yaml", "--store", store]
            ours.append(whole(command, env, CORES, look_s=30).wall_s)
        for name, times in walls.items():
            report.fact("start", name, {"wall_s": statistics.median(times), "walls_s": times})
            report.line(f"{name}: {statistics.median(times):.2f} s")
        theirs, mine = (statistics.median(times) for times in walls.values())
        report.number("one fit: polyfit run / tutorial's script", mine / theirs)


def _short(fits: int) -> Spec:
    """Fits that cost next to nothing."""
    return {
        "name": "bench-memory",
        "fit": {"steps": 1, "points": 4, "degree": 1},
        "sweep": {"seed": {"count": fits}},
        "record": "none",
    }


def memory(options: Options, report: Report) -> None:
    """The driver's memory as the number of fits grows: one step on four points."""
    report.head("memory", "Peak memory against the number of fits: steps: 1, a folder as store")
    sizes = [1_000, 10_000] if options.quick else [100_000, 10_000_000]
    peaks = []
    for fits in [*sizes, *([100_000_000] if options.long else [])]:
        spec = _short(fits)
        name = f"{fits:,} fits"
        with surroundings() as (folder, env), report.row("memory", name):
            manifest = folder / "runs" / "bench-memory" / _checked(spec).run_id / "manifest.json"
            store = str(folder / "runs")
            ran = _run(spec, folder, store, env, "ray", CORES[:2], manifest.exists)
            peaks.append(ran.driver_bytes_at_seal or ran.driver_bytes)
            report.fact("memory", name, ran.told())
            report.line(
                f"{name}: {ran.wall_s:.1f} s; driver {_mib(ran.driver_bytes_at_seal)} until the "
                f"seal, {_mib(ran.driver_bytes)} with the summary; actors "
                f"{', '.join(map(_mib, ran.actor_bytes.values())) or 'not seen'}"
            )
    if len(peaks) > 1:
        report.number("driver's memory until the seal, most fits / fewest", peaks[-1] / peaks[0])


def resume(options: Options, report: Report) -> None:
    """Runs that are broken off by SIGTERM and taken up again; what a listing of many keys costs."""
    from servers import seaweedfs

    report.head("resume", "Broken off and resumed: steps: 1, Ray, SeaweedFS; driver's memory")
    sizes, keys = ([10_000, 200_000], 3_000) if options.quick else ([10**5, 10**8], 100_000)
    peaks = []
    with surroundings() as (folder, env), seaweedfs(folder / "s3") as server:
        env |= server.env
        for fits in sizes:
            name = f"{fits:,} fits"
            with report.row("resume", name):
                first, second, listing = _broken_off(_short(fits), folder, env, server)
                peaks += [max(first.driver_bytes, second.driver_bytes_at_seal)]
                told = {"first": first.told(), "second": second.told(), "listing": listing}
                report.fact("resume", name, told)
                report.line(
                    f"{name}: SIGTERM, exit 143 after {first.wall_s:.1f} s with "
                    f"{listing['keys']:,} shards at rest; the listing {listing['s']:.3f} s, "
                    f"{listing['requests']} requests; sealed after {second.sealed_s:.1f} s more; "
                    f"driver {_mib(first.driver_bytes)} and, until the seal, "
                    f"{_mib(second.driver_bytes_at_seal)}"
                )
        if len(peaks) > 1:
            report.number("driver's memory until the seal, most fits / fewest", peaks[1] / peaks[0])
        with report.row("resume", f"{keys:,} keys"), _changed_environment(env):
            _many_keys(keys, report, server.fresh_uri())


def _broken_off(
    spec: Spec, folder: Path, env: Mapping[str, str], server: "S3Server"
) -> tuple[Ran, Ran, Table]:
    """The run up to a SIGTERM with a quarter of its shards at rest, and from there to its end;
    and the listing that the second driver began with."""
    uri, client, plan = server.fresh_uri(), server.client(), _checked(spec)
    prefix = f"{uri.removeprefix(f's3://{server.bucket}/')}/{spec['name']}/{plan.run_id}"

    def at_rest(prefix: str) -> int:
        return client.list_objects_v2(Bucket=server.bucket, Prefix=prefix).get("KeyCount", 0)

    path, noted = folder / f"{secrets.token_hex(4)}.yaml", folder / secrets.token_hex(4)
    actors = {"gpus_per_actor": 0, "actors": {"max": len(CORES[:2])}}
    path.write_text(json.dumps({**spec, "resources": actors}))
    start = "import sys; sys.path.insert(0, 'tests'); import bench; bench.watched()"
    command = ["-c", start, "run", str(path), "--executor", "ray", "--store", uri]
    env = {**env, NOTES: str(noted)}
    some = partial(at_rest, f"{prefix}/shards/")
    first = whole(
        command, env, CORES[:2], enough=lambda: some() >= plan.shards / 4, look_s=0.1, code=143
    )
    second = whole(command, env, CORES[:2], lambda: at_rest(f"{prefix}/manifest.json") > 0)
    listing = json.loads(noted.read_text())["listings"][0]
    if listing["keys"] == plan.shards:
        raise Failed("failed: it was complete before the signal came")
    return first, second, listing


NOTES: Final = "POLYFIT_BENCH_NOTES"


def watched() -> None:
    """The command ``polyfit`` that writes its listings and requests into the file ``NOTES``."""
    import atexit

    from polyfit.cli import app as cli

    notes = _watch()
    atexit.register(lambda: Path(os.environ[NOTES]).write_text(json.dumps(notes)))
    cli.program()


def _watch() -> Table:
    """From now on: how often each operation was called, and what each listing of shards took."""
    from polyfit.run.ledger import Ledger
    from polyfit.store import store

    calls: dict[str, int] = {}
    notes: Table = {"calls": calls, "listings": []}
    make, done = store._client, Ledger.done

    def count(model: Any, **rest: Any) -> None:
        calls[model.name] = calls.get(model.name, 0) + 1

    def client(address: Any) -> Any:
        made = make(address)
        made.meta.events.register("before-call.s3", count)
        return made

    def timed(self: Ledger) -> set[int]:
        before, start = calls.get("ListObjectsV2", 0), time.perf_counter()
        found = done(self)
        spent, asked = time.perf_counter() - start, calls.get("ListObjectsV2", 0) - before
        notes["listings"].append({"keys": len(found), "s": spent, "requests": asked})
        return found

    setattr(store, "_client", client)  # noqa: B010 (no attribute that mypy knows as exported)
    setattr(Ledger, "done", timed)  # noqa: B010
    return notes


def _many_keys(keys: int, report: Report, uri: str) -> None:
    """A run of so many shards, its keys under objects of a few bytes, as a driver meets it."""
    from concurrent.futures import ThreadPoolExecutor

    from polyfit.run.ledger import shard_key
    from polyfit.store.store import StoreAddress

    spec = {**_short(keys * 1000), "shard": 1000}
    plan, store = _checked(spec), StoreAddress.of(uri).open()
    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda n: store.create(shard_key(plan, n), b"rows"), range(keys)):
            pass
    made_s = time.perf_counter() - start
    found = in_child("bench:driven", CORES[-1:], uri=uri, spec=spec)
    report.fact("resume", f"{keys:,} keys", {**found, "made_s": made_s})
    report.line(
        f"{keys:,} keys, made in {made_s:.0f} s: the listing {found['s']:.2f} s, "
        f"{found['requests']} requests; driver {_mib(found['before_bytes'])} before, "
        f"{_mib(found['listed_bytes'])} with its tasks, {_mib(found['held_bytes'])} with a receipt "
        "of each"
    )


def driven(uri: str, spec: Spec) -> Table:
    """What a driver holds of a run whose shards are all at rest, without its Ray."""
    from polyfit.run.ledger import Ledger, Receipt
    from polyfit.store.store import StoreAddress
    from polyfit.work.dispatch import Job
    from polyfit.work.driver import _Drive, _Signals
    from polyfit.work.heartbeat import Heartbeat

    notes, plan, address = _watch(), _plan(spec), StoreAddress.of(uri)
    ledger, quiet = Ledger(address.open(), plan), lambda *rest: None
    ledger.manifest()  # what the first request takes is not the listing's
    heart = Heartbeat(plan, "none", quiet, lambda: None)
    heart.close()
    drive = _Drive(plan, ledger, Job(address, "none"), heart, quiet, quiet, _Signals(quiet))
    found = {"before_bytes": _peak(os.getpid())}
    todo = drive._todo(retry_failed=False)
    found["listed_bytes"] = _peak(os.getpid())
    while todo:
        number = todo.popleft().shard
        statuses = {"completed": 900 + number % 100, "diverged": 100 - number % 100}
        drive.receipts.add(Receipt(number, number, f"{number:064x}", 1000, statuses))
    found["held_bytes"] = _peak(os.getpid())
    return {**notes["listings"][0], **found}


def ladder(options: Options, report: Report) -> None:
    """Where the speed comes from, rung by rung; where the time of a shard goes."""
    peak = Contender("matmul", "peers:matmul")
    rows = race([*(rung for rung, _ in RUNGS), peak], options)
    report.head("ladder", "The ladder: fits/s on one core, and what each rung gains")
    report.keep("ladder", rows)
    before = rows[LOOP.name].rate
    for rung, reason in RUNGS:
        row = rows[rung.name]
        if row.failed:
            report.line(f"{rung.name:<30}{row.failed}")
            continue
        gain = row.rate / before
        report.line(
            f"{rung.name:<30}{row.rate:>14,.1f}{gain:>10,.1f}x  {reason}; "
            f"{row.rate * POINT_STEPS:.2e} point-steps/s, peak memory {_mib(row.peak_bytes)}"
        )
        before = row.rate
    flops = rows["matmul"].rate
    report.line(f"floating-point peak of one core: {flops:.3g} flop/s ({rows['matmul'].note})")
    per_fit = step_flops(3) * 2000
    for rung in (EAGER, COMPILED):
        report.number(
            f"{rung.name}: share of the peak, {per_fit:,} flop a fit",
            rows[rung.name].rate * per_fit / flops,
        )
    _stages(report)


def _stages(report: Report) -> None:
    """Stages of a shard of the tutorial job with 20 losses, in a cold and in a warm process."""
    from servers import seaweedfs

    report.head("stages", "Time per stage of one shard, one core, 20 losses, into S3; seconds")
    with surroundings() as (folder, _), seaweedfs(folder / "s3") as server:
        for engine in ("eager", "compiled", "affine"):
            spec = tutorial_spec(engine, 8192 if engine == "eager" else 1 << 17, losses=True)
            changed = {**server.env, **_caches(folder), "RAY_TMPDIR": str(folder)}
            for state in ("cold", "warm"):
                name = f"{engine}, {state} cache"
                with report.row("stages", name), _changed_environment(changed):
                    uri = server.fresh_uri()
                    found = in_child("bench:staged", CORES[-1:], spec=spec, uri=uri, places=CORES)
                    report.fact("stages", name, found)
                    told = ", ".join(f"{stage} {spent:.3f}" for stage, spent in found.items())
                    report.line(f"{name}: {told}")


STAGES: Final = {
    "initial values": ("_starts",),
    "problems": ("Setup.of", "Setup.problems", "_ShardWork._rates"),
    "iteration": ("fit", "fit_affine"),
    "evaluation": ("_ShardWork._evaluate",),
    "rows": ("_ShardWork._store", "table"),
    "Parquet": ("to_parquet",),
}
"""Stages by what of ``polyfit.work.worker`` does them; what is not named is in the rest."""


def staged(spec: Spec, uri: str, places: list[int]) -> dict[str, float]:
    """Seconds of each stage of one shard; run twice, so that the first shows what is made once.

    Ray starts on the cores ``places``; everything else stays where this process is.
    """
    clock = time.perf_counter
    begun = clock()
    from polyfit.store.store import StoreAddress
    from polyfit.work import worker
    from polyfit.work.dispatch import connect

    found = {"imports": clock() - begun}
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, places)
    begun = clock()
    connection = connect(None)
    found["start of Ray"] = clock() - begun
    begun = clock()
    connection.close()
    found["end of Ray"] = clock() - begun
    os.sched_setaffinity(0, here)
    stages = Clock()
    for stage, parts in STAGES.items():
        for place in parts:
            stages.replace(stage, worker, place)
    totals = []
    for attempt in ("first", "second"):
        import torch

        store: Any = StoreAddress.of(f"{uri}/{attempt}").open()
        plan = _plan({**spec, "shard": spec["sweep"]["seed"]["count"]})
        store.create = stages.timed("upload", store.create)
        stages.blank()
        begun = clock()
        worker.run_shard(plan, 0, store, torch.device("cpu"))
        totals.append(clock() - begun)
    first, second = totals
    found["kernels, made or loaded"] = max(0.0, first - second)
    rest = second - sum(stages.spent.values())
    return {**found, **stages.spent, "rest": rest, "shard": second}


@contextmanager
def _changed_environment(changes: Mapping[str, str]) -> Iterator[None]:
    """What a child inherits; multiprocessing hands our own environment on."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


SECTIONS: Final[dict[str, Callable[[Options, Report], None]]] = {
    "peers": peers,
    "objectives": objectives,
    "avx2": avx2,
    "initial": initial,
    "kernels": kernels,
    "accelerator": accelerator,
    "mixed": mixed,
    "plan": plan,
    "end": end,
    "start": start,
    "memory": memory,
    "resume": resume,
    "ladder": ladder,
}


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller work: a look")
    parser.add_argument("--long", action="store_true", help="also the run of 10^8 fits")
    parser.add_argument(
        "--rehearse", action="store_true", help="the accelerator's section on the CPU, in small"
    )
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    options = Options(arguments.quick, arguments.long, arguments.rehearse)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # children and folders go
    report = Report(machine())
    print(json.dumps(report.machine, indent=1))
    with surroundings() as (_, env), _changed_environment(env):
        for name in chosen:
            with report.row(name, "the section"):
                SECTIONS[name](options, report)
            report.write()
    print(f"\nwritten to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
