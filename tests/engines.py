"""What the tests compile: a fixed list of kinds of fit, because each kernel costs seconds of CPU.

What a kernel takes as numbers may vary freely: points, ranges, noise, seeds, rates, the size of a
batch, and what is recorded.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa
import torch

from polyfit.plan import Plan, Shard
from polyfit.spec import Spec
from polyfit.worker import compute

__all__ = ["CPU", "IN_POWERS", "KINDS", "KindOfFit", "compile_ahead", "plan_of", "rows_of"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class KindOfFit:
    """What decides which blocks of updates are compiled, as words of a spec."""

    degree: int
    objective: str
    optimizer: str = "gd"
    dtype: str = "float32"
    stop: str = "none"

    def __str__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in asdict(self).items())


KINDS = (
    KindOfFit(10, "sse"),  # blocks of one update; of a lower degree, two
    KindOfFit(3, "sse"),
    KindOfFit(1, "sse"),
    KindOfFit(3, "sse", dtype="float64"),
    KindOfFit(3, "sse", "momentum"),
    KindOfFit(3, "sse", "momentum", dtype="float64"),
    KindOfFit(3, "sse", "adam"),
    KindOfFit(3, "sse", stop="{gradient: 0.5}"),
    KindOfFit(3, "sse", stop="{loss_change: 0.01}"),
    KindOfFit(3, "mse"),
    KindOfFit(3, "huber"),
    KindOfFit(1, "huber"),
    KindOfFit(3, "huber", "momentum"),
    KindOfFit(3, "huber", "adam"),
    KindOfFit(3, "huber", stop="{gradient: 0.5}"),
    KindOfFit(3, "log_cosh"),
    KindOfFit(3, "l1"),
)
IN_POWERS = (KindOfFit(3, "sse"), KindOfFit(3, "huber"))
"""Those that are fitted in powers of x too, where each range has a design of its own."""


def plan_of(text: str, engine: str) -> Plan:
    return Plan.of(Spec.parse(f"name: test\nengine: {engine}\n{text}"))


def rows_of(text: str, engine: str = "eager") -> pa.Table:
    """All rows of a spec's plan, computed here as one shard."""
    plan = plan_of(text, engine)
    return compute(plan, Shard(0, 0, plan.fits), CPU)


def compile_ahead() -> None:
    """Have the kernels of all these kinds, compiled on all cores."""
    cases = [(str(kind), "noise: [1, 2]") for kind in KINDS]
    cases += [(f"{kind}, basis: power", "range: [[0, 1], [0, 2]]") for kind in IN_POWERS]
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(_compile, cases):
            pass


def _compile(case: tuple[str, str]) -> None:
    """Fit several problems, and one; 11 updates are blocks of both lengths."""
    plan = plan_of(
        f"fit: {{{case[0]}, steps: 11, points: 30, lr: 0.001}}\nsweep: {{{case[1]}}}", "compiled"
    )
    for shard in (Shard(0, 0, plan.fits), Shard(0, 0, 1)):
        compute(plan, shard, CPU)
