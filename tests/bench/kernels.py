"""How long machine code takes from nothing to the first result."""

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final

from bench.ours import plan_of
from bench.processes import empty_cache, isolated_environment
from bench.race import in_child
from bench.report import Report
from bench.settings import CORES, Options, Spec, changed_environment


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

    def reset(self) -> None:
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
    report.line(" " * width + "".join(f"{name:>13}" for name in (*IMPORT_STAGES, *KERNEL_STAGES)))
    with isolated_environment() as (folder, _):
        for degree in degrees:
            for objective, optimizer in choices:
                fit = {"degree": degree, "objective": objective, "optimizer": optimizer}
                name = f"degree {degree}, {objective}, {optimizer}"
                _time_first_result(options, report, folder, name, {"fit": fit})
        degrees_and_bases = {
            "degree": list(range(1, 10)),
            "basis": ["chebyshev", "legendre", "power"],
        }
        _time_first_result(
            options, report, folder, "nine degrees in three bases", {"sweep": degrees_and_bases}
        )


IMPORT_STAGES: Final = ("torch", "polyfit", "LLVM", "autograd")

KERNEL_STAGES: Final = (
    "trace",
    "emit",
    "optimise",
    "machine code",
    "load",
    "rest",
    "first result",
    "warm",
)
"""Stages of a first result, and that of a new process that finds the kernels in the cache."""


def _time_first_result(
    options: Options, report: Report, folder: Path, name: str, change: Spec
) -> None:
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
            with changed_environment(empty_cache(folder)):
                run = partial(in_child, "bench.kernels:first_result", CORES[-1:], spec=spec)
                cold, warm = run(cold=True), run(cold=False)
                found.append({**cold, "warm": warm["first result"]})
        middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
        report.fact("kernels", name, {**middle, "all": found})
        cells = "".join(f"{middle[key]:>13.3f}" for key in (*IMPORT_STAGES, *KERNEL_STAGES))
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
        ("polyfit", "polyfit.work.fitting"),
        ("LLVM", "llvmlite.binding"),
    ):
        begin(name)(module)
    import torch

    from polyfit.engine import cpu, trace
    from polyfit.spec.plan import Shard
    from polyfit.work import fitting

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
    plan = plan_of(spec)
    compute = clock.timed("rest", fitting.compute)
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
