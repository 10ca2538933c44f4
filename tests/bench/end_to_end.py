"""Whole runs: cold and warm, beside the plan, beside one core, beside the tutorial's script."""

import json
import secrets
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servers import S3Server

from bench.ours import checked_plan, tutorial_spec
from bench.processes import (
    ProcessRun,
    empty_cache,
    isolated_environment,
    run_command,
    run_process,
)
from bench.race import race
from bench.rates import LOOP
from bench.report import Report, format_mib
from bench.settings import CORES, ROOT, Options, Spec


def end(options: Options, report: Report) -> None:
    """Whole processes: ``polyfit run`` on a local Ray into a real S3 server, cold and warm."""
    from servers import seaweedfs

    loop_s = 1 / race([LOOP], options)[LOOP.name].rate
    two = CORES[:2]
    with isolated_environment() as (folder, env), seaweedfs(folder / "s3") as server:
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
                runs: list[ProcessRun] = []
                for _ in range(options.repeats):
                    env |= empty_cache(folder) if state == "cold" else {}
                    runs.append(run_into_server(spec, folder, env, server, "ray", two))
                ran = sorted(runs, key=lambda one: one.wall_s)[len(runs) // 2]
                core_s = ran.wall_s * len(two)
                walls = [one.wall_s for one in runs]
                report.fact("end", name, {**ran.as_json(), "core_s": core_s, "walls_s": walls})
                report.line(
                    f"{name}: {ran.wall_s:.1f} s ({ran.sealed_s:.1f} s to the seal), "
                    f"driver {format_mib(ran.driver_bytes)}, actors "
                    f"{', '.join(map(format_mib, ran.actor_bytes.values())) or 'not seen'}"
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
                empty = {**env, **empty_cache(folder)}
                for times in walls.values():
                    times.append(
                        run_into_server(spec, folder, empty, server, executor, cores).wall_s
                    )
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
    with isolated_environment() as (folder, env):
        env["CUDA_VISIBLE_DEVICES"] = ""  # a plan tells cores' time
        for name, spec in _specs_to_plan(options).items():
            path = folder / f"{secrets.token_hex(4)}.yaml"
            path.write_text(json.dumps(spec))
            specs[name] = str(path)
        for name, place in specs.items():
            with report.row("plan", name):
                _compare_with_plan(report, folder, env, name, place)


def _specs_to_plan(options: Options) -> dict[str, Spec]:
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


def _compare_with_plan(
    report: Report, folder: Path, env: Mapping[str, str], name: str, path: str
) -> None:
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec as SpecFile

    made = Plan.of(SpecFile.load(path))
    time_s, work_s = made.wall_seconds(len(CORES)), made.seconds
    alone = run_job(path, folder, {**env, **empty_cache(folder)}, "inline", CORES[-1:])
    typed = run_job(path, folder, {**env, **empty_cache(folder)}, "auto", CORES)
    ratio = time_s / typed.wall_s
    found = {"time_s": time_s, "work_s": work_s, "one_core": alone.as_json(), "ratio": ratio}
    report.fact("plan", name, {**found, "as_typed": typed.as_json()})
    report.line(
        f"{name:<34}{time_s:>12.2f}{typed.wall_s:>12.2f}{ratio:>12.2f}{work_s:>12.2f}"
        f"{alone.wall_s:>12.2f}{alone.core_s:>14.2f}"
    )


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
                few = tutorial_spec(checked_plan(spec).engine, 64, True, **change)
                run_into_server(
                    few, folder, env, server, "inline", CORES
                )  # its kernels are made here
                inline = run_into_server(spec, folder, env, server, "inline", CORES[:1]).wall_s
                walls = {
                    count: run_into_server(spec, folder, env, server, "ray", CORES[:count]).wall_s
                    for count in _core_counts(len(CORES))
                }
                beats = next((count for count, wall in walls.items() if wall < inline), None)
                report.fact("cost", name, {"inline_s": inline, "ray_s": walls, "cores": beats})
                listed = ", ".join(f"{count}: {wall:.1f}" for count, wall in walls.items())
                verdict = f"from {beats} on" if beats else "at none of these"
                report.line(f"{name}: inline {inline:.1f}; Ray on {listed}; COST: {verdict}")
                enough = enough or (fits if walls[len(CORES)] < inline else None)
        found = f"from {enough:,} fits on" if enough else "at none of these sizes"
        report.line(f"{job}: Ray on all {len(CORES)} cores beats one process on one {found}")


def _core_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return sorted({*(1 << k for k in range(cores.bit_length()) if 1 << k <= cores), cores})


def start(options: Options, report: Report) -> None:
    """One tutorial fit, as whole processes that take turns."""
    report.head("start", "One tutorial fit, whole processes, seconds")
    walls: dict[str, list[float]] = {"the tutorial's script": [], "polyfit run jobs/sine.yaml": []}
    with isolated_environment() as (folder, env), report.row("start", "one fit"):
        for _ in range(options.rounds):
            script, ours = walls.values()
            script.append(run_process(["tests/bench/peers.py"], env, CORES, look_s=30).wall_s)
            store = str(folder / secrets.token_hex(4))
            command = ["-m", "polyfit", "run", "jobs/sine.yaml", "--store", store]
            ours.append(run_process(command, env, CORES, look_s=30).wall_s)
        for name, times in walls.items():
            report.fact("start", name, {"wall_s": statistics.median(times), "walls_s": times})
            report.line(f"{name}: {statistics.median(times):.2f} s")
        theirs, mine = (statistics.median(times) for times in walls.values())
        report.number("one fit: polyfit run / tutorial's script", mine / theirs)


def run_into_server(
    spec: Spec,
    folder: Path,
    env: Mapping[str, str],
    server: "S3Server",
    executor: str,
    cores: Sequence[int],
) -> ProcessRun:
    """A run into a fresh prefix of the server, seen until its seal."""
    uri, client = server.fresh_uri(), server.client()
    prefix = uri.removeprefix(f"s3://{server.bucket}/")
    key = f"{prefix}/{spec['name']}/{checked_plan(spec).run_id}/manifest.json"

    def sealed() -> bool:
        found = client.list_objects_v2(Bucket=server.bucket, Prefix=key, MaxKeys=1)
        return bool(found.get("KeyCount"))

    return run_command(spec, folder, uri, env, executor, cores, sealed)


def run_job(
    path: str, folder: Path, env: Mapping[str, str], executor: str, cores: Sequence[int]
) -> ProcessRun:
    """``polyfit run`` of a file into a new folder."""
    store = folder / secrets.token_hex(4)
    command = ["-m", "polyfit", "run", path, "--executor", executor, "--store", str(store)]
    try:
        return run_process(command, env, cores)
    finally:
        shutil.rmtree(store, ignore_errors=True)
