"""The accelerator of this machine beside one core of its CPU."""

import time
from dataclasses import replace
from typing import Final

from bench.ours import our_contender, tutorial_spec
from bench.race import Contender, in_child, race
from bench.report import Report
from bench.settings import CORES, Options

ACCELERATOR_S: Final = 400.0
"""In which rows on the accelerator may begin."""


def accelerator(options: Options, report: Report) -> None:
    """The accelerator of this machine, if it has one: ours, JAX and torch.compile on it, and one
    core of its CPU. It ends within ten minutes: a row that has no time left says so."""
    name = "the CPU" if options.rehearse else in_child("bench.accelerator:accelerator_name", CORES)
    if name is None:
        report.fact("accelerator", "none", {})
        report.line("\nAccelerator: this machine has none")
        return
    until = time.monotonic() + ACCELERATOR_S
    shorter = replace(options, most_rounds=3, answer_s=ACCELERATOR_S / 4, until=until)
    for objective in ("sse", "huber") if options.quick else ("sse", "huber", "log_cosh", "l1"):
        with report.row("accelerator", objective):
            _accelerated(shorter, report, name, objective)


def _accelerated(options: Options, report: Report, name: str, objective: str) -> None:
    squared, here = objective == "sse", not options.rehearse
    many, few = 1 << (20 if squared else 17), 1 << (17 if squared else 9)
    peers, platform, device = (1 << 17, 1 << 20) if squared else (1 << 12, 1 << 15), "gpu", "cuda"
    if options.rehearse:
        many, few, platform, device = 1 << 6, 1 << 6, "cpu", "cpu"
        peers = (1 << 5, 1 << 6)
    core = our_contender("one core", tutorial_spec("compiled", few, objective=objective))
    spec = tutorial_spec("compiled", many, objective=objective)
    losses = tutorial_spec("compiled", many, True, objective=objective)
    lean = our_contender("ours, iteration only", spec, iteration_only=True, accelerated=here)
    told = our_contender("ours, 20 losses", losses, accelerated=here)
    eight = replace(told, cores="each", most=8)
    contenders = [core, lean, eight]
    there = {"platform": platform, "batches": peers}
    jax = Contender("JAX, best form", "bench.peers:jax_reduced", {**there, "unrolled": (1, 10)})
    if not squared:
        jax = replace(
            jax, maker="bench.peers:jax_points", arguments={**there, "objective": objective}
        )
    compiled = Contender(
        "torch.compile", "bench.peers:torch_compiled",
        {"objective": objective, "device": device, "batch": peers[-1]},
    )  # fmt: skip
    ratios = [(told, core)]
    if objective in ("sse", "huber"):
        contenders += [jax, compiled]
        ratios += [(lean, jax), (lean, compiled)]
    rows = race(contenders, options)
    title = f"{name}: the tutorial's job with {objective}; fed by one core, or by a process on each"
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
