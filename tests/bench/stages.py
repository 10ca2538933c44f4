"""Where the speed comes from, and where the time of a shard goes."""

import os
import time
from typing import Any, Final

from bench.kernels import Clock
from bench.ours import plan_of, step_flops, tutorial_spec
from bench.processes import empty_cache, isolated_environment
from bench.race import Contender, in_child, race
from bench.rates import AFFINE, COMPILED, EAGER, LOOP, VMAP
from bench.report import Report, format_mib
from bench.settings import CORES, Options, Spec, changed_environment

POINT_STEPS: Final = 2000 * 2000
"""Updates times points of one fit of the tutorial."""

RUNGS: Final = (
    (LOOP, "one fit at a time, every operation through the interpreter"),
    (VMAP, "many fits per call: the interpreter's share goes"),
    (EAGER, "algebra: 2000 points become 4 rows"),
    (COMPILED, "all updates in one loop of machine code: the calls and the memory traffic go"),
    (AFFINE, "one step's map raised to the power of the steps"),
)


def ladder(options: Options, report: Report) -> None:
    """Where the speed comes from, rung by rung; where the time of a shard goes."""
    peak = Contender("matmul", "bench.peers:matmul")
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
            f"{row.rate * POINT_STEPS:.2e} point-steps/s, peak memory {format_mib(row.peak_bytes)}"
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
    with isolated_environment() as (folder, _), seaweedfs(folder / "s3") as server:
        for engine in ("eager", "compiled", "affine"):
            spec = tutorial_spec(engine, 8192 if engine == "eager" else 1 << 17, losses=True)
            changed = {**server.env, **empty_cache(folder), "RAY_TMPDIR": str(folder)}
            for state in ("cold", "warm"):
                name = f"{engine}, {state} cache"
                with report.row("stages", name), changed_environment(changed):
                    uri = server.fresh_uri()
                    found = in_child(
                        "bench.stages:stage_times", CORES[-1:], spec=spec, uri=uri, places=CORES
                    )
                    report.fact("stages", name, found)
                    told = ", ".join(f"{stage} {spent:.3f}" for stage, spent in found.items())
                    report.line(f"{name}: {told}")


STAGES: Final = {
    "initial values": ("fitting._initial_values",),
    "problems": (
        "fitting.BatchData.of",
        "fitting.BatchData.problems",
        "fitting.ShardFitting._rates",
    ),
    "iteration": ("fitting.fit_batch", "fitting.fit_affine"),
    "evaluation": ("fitting.ShardFitting._evaluate",),
    "rows": ("fitting.ShardFitting._keep", "fitting.to_table"),
    "Parquet": ("storing.to_parquet",),
}
"""The functions of ``polyfit.work`` that do each stage; what is not named is in the rest."""


def stage_times(spec: Spec, uri: str, places: list[int]) -> dict[str, float]:
    """Seconds of each stage of one shard; run twice, so that the first shows what is made once.

    Ray starts on the cores ``places``; everything else stays where this process is.
    """
    clock = time.perf_counter
    begun = clock()
    from polyfit import work
    from polyfit.store.address import StoreAddress
    from polyfit.work import storing
    from polyfit.work.cluster import connect

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
            stages.replace(stage, work, place)
    totals = []
    for attempt in ("first", "second"):
        import torch

        store: Any = StoreAddress.of(f"{uri}/{attempt}").open()
        plan = plan_of({**spec, "shard": spec["sweep"]["seed"]["count"]})
        store.create = stages.timed("upload", store.create)
        stages.reset()
        begun = clock()
        storing.run_shard(plan, 0, store, torch.device("cpu"))
        totals.append(clock() - begun)
    first, second = totals
    found["kernels, made or loaded"] = max(0.0, first - second)
    rest = second - sum(stages.spent.values())
    return {**found, **stages.spent, "rest": rest, "shard": second}
