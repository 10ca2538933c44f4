"""Whole processes: their wall time, processor time and memory."""

import json
import math
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

from bench.settings import ANSWER_S, ROOT, Failed, Spec, Table, finite_or_none


@dataclass(slots=True)
class ProcessRun:
    """A process from its start to its end, and the most memory that it and its actors had.

    ``core_s`` is the time of cores that it took, with those of its children that it waited for.
    """

    wall_s: float
    core_s: float = math.nan
    driver_bytes: int = 0
    actor_bytes: dict[int, int] = field(default_factory=dict)
    driver_bytes_at_seal: int = 0
    sealed_s: float = math.nan

    def as_json(self) -> Table:
        """As JSON."""
        return {
            "wall_s": self.wall_s,
            "process_core_s": finite_or_none(self.core_s),
            "sealed_s": finite_or_none(self.sealed_s),
            "driver_bytes": self.driver_bytes,
            "driver_bytes_at_seal": self.driver_bytes_at_seal,
            "actor_bytes": sorted(self.actor_bytes.values()),
        }


def run_process(
    command: Sequence[str],
    env: Mapping[str, str],
    cores: Sequence[int],
    sealed: Callable[[], bool] = lambda: False,
    look_s: float = 0.2,
    enough: Callable[[], bool] = lambda: False,
    code: int = 0,
) -> ProcessRun:
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
        ran = ProcessRun(math.nan)
        try:
            _watch_process(process, ran, start, sealed, look_s, enough)
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


def _watch_process(
    process: subprocess.Popen[bytes],
    ran: ProcessRun,
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
        ran.driver_bytes = max(ran.driver_bytes, peak_bytes_of(process.pid))
        for pid in _live_actors(process.pid):
            ran.actor_bytes[pid] = max(ran.actor_bytes.get(pid, 0), peak_bytes_of(pid))
        if math.isnan(ran.sealed_s) and sealed():
            ran.sealed_s, ran.driver_bytes_at_seal = ran.wall_s, ran.driver_bytes
        if not told and enough():
            process.send_signal(signal.SIGTERM)
            told = True


def peak_bytes_of(pid: int) -> int:
    """The most resident memory that a process has had, in bytes; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _live_actors(driver: int) -> list[int]:
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
                if title.startswith(b"ray::ShardActor"):
                    found.append(pid)
    return found


def run_command(
    spec: Spec,
    folder: Path,
    store: str,
    env: Mapping[str, str],
    executor: str,
    cores: Sequence[int],
    sealed: Callable[[], bool] = lambda: False,
) -> ProcessRun:
    """``polyfit run`` as a user types it, into a store that has nothing of it yet."""
    actors = {"actors": {"max": len(cores)}}
    path = folder / f"{secrets.token_hex(4)}.yaml"
    path.write_text(json.dumps({**spec, "resources": {"gpus_per_actor": 0, **actors}}))
    command = ["-m", "polyfit", "run", str(path), "--executor", executor, "--store", store]
    return run_process(command, env, cores, sealed)


@contextmanager
def isolated_environment() -> Iterator[tuple[Path, dict[str, str]]]:
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
        yield folder, {**env, **empty_cache(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty_cache(folder: Path) -> dict[str, str]:
    """An empty cache of machine code."""
    return {"POLYFIT_CACHE": str(folder / f"cache-{secrets.token_hex(4)}")}
