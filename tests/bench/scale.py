"""Memory and listings as the numbers of fits and shards grow."""

import json
import os
import secrets
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from servers import S3Server

from bench.ours import checked_plan, plan_of
from bench.processes import (
    ProcessRun,
    isolated_environment,
    peak_bytes_of,
    run_command,
    run_process,
)
from bench.race import in_child
from bench.report import Report, format_mib
from bench.settings import CORES, Failed, Options, Spec, Table, changed_environment


def short_fits(fits: int) -> Spec:
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
        spec = short_fits(fits)
        name = f"{fits:,} fits"
        with isolated_environment() as (folder, env), report.row("memory", name):
            manifest = (
                folder / "runs" / "bench-memory" / checked_plan(spec).run_id / "manifest.json"
            )
            store = str(folder / "runs")
            ran = run_command(spec, folder, store, env, "ray", CORES[:2], manifest.exists)
            peaks.append(ran.driver_bytes_at_seal or ran.driver_bytes)
            report.fact("memory", name, ran.as_json())
            report.line(
                f"{name}: {ran.wall_s:.1f} s; driver {format_mib(ran.driver_bytes_at_seal)} until "
                f"the seal, {format_mib(ran.driver_bytes)} with the summary; actors "
                f"{', '.join(map(format_mib, ran.actor_bytes.values())) or 'not seen'}"
            )
    if len(peaks) > 1:
        report.number("driver's memory until the seal, most fits / fewest", peaks[-1] / peaks[0])


def resume(options: Options, report: Report) -> None:
    """Runs that are broken off by SIGTERM and taken up again; what a listing of many keys costs."""
    from servers import seaweedfs

    report.head("resume", "Broken off and resumed: steps: 1, Ray, SeaweedFS; driver's memory")
    sizes, keys = ([10_000, 200_000], 3_000) if options.quick else ([10**5, 10**8], 100_000)
    peaks = []
    with isolated_environment() as (folder, env), seaweedfs(folder / "s3") as server:
        env |= server.env
        for fits in sizes:
            name = f"{fits:,} fits"
            with report.row("resume", name):
                first, second, listing = _interrupt_and_resume(
                    short_fits(fits), folder, env, server
                )
                peaks += [max(first.driver_bytes, second.driver_bytes_at_seal)]
                told = {"first": first.as_json(), "second": second.as_json(), "listing": listing}
                report.fact("resume", name, told)
                report.line(
                    f"{name}: SIGTERM, exit 143 after {first.wall_s:.1f} s with "
                    f"{listing['keys']:,} shards at rest; the listing {listing['s']:.3f} s, "
                    f"{listing['requests']} requests; sealed after {second.sealed_s:.1f} s more; "
                    f"driver {format_mib(first.driver_bytes)} and, until the seal, "
                    f"{format_mib(second.driver_bytes_at_seal)}"
                )
        if len(peaks) > 1:
            report.number("driver's memory until the seal, most fits / fewest", peaks[1] / peaks[0])
        with report.row("resume", f"{keys:,} keys"), changed_environment(env):
            _list_many_keys(keys, report, server.fresh_uri())


def _interrupt_and_resume(
    spec: Spec, folder: Path, env: Mapping[str, str], server: "S3Server"
) -> tuple[ProcessRun, ProcessRun, Table]:
    """The run up to a SIGTERM with a quarter of its shards at rest, and from there to its end;
    and the listing that the second driver began with."""
    uri, client, plan = server.fresh_uri(), server.client(), checked_plan(spec)
    prefix = f"{uri.removeprefix(f's3://{server.bucket}/')}/{spec['name']}/{plan.run_id}"

    def at_rest(prefix: str) -> int:
        return client.list_objects_v2(Bucket=server.bucket, Prefix=prefix).get("KeyCount", 0)

    path, noted = folder / f"{secrets.token_hex(4)}.yaml", folder / secrets.token_hex(4)
    actors = {"gpus_per_actor": 0, "actors": {"max": len(CORES[:2])}}
    path.write_text(json.dumps({**spec, "resources": actors}))
    command = ["-c", WATCHED, "run", str(path), "--executor", "ray", "--store", uri]
    env = {**env, NOTES: str(noted)}
    some = partial(at_rest, f"{prefix}/shards/")
    first = run_process(
        command, env, CORES[:2], enough=lambda: some() >= plan.shards / 4, look_s=0.1, code=143
    )
    second = run_process(command, env, CORES[:2], lambda: at_rest(f"{prefix}/manifest.json") > 0)
    listing = json.loads(noted.read_text())["listings"][0]
    if listing["keys"] == plan.shards:
        raise Failed("failed: it was complete before the signal came")
    return first, second, listing


NOTES: Final = "POLYFIT_BENCH_NOTES"
WATCHED: Final = (
    "import sys; sys.path.insert(0, 'tests'); from bench.scale import run_watched; run_watched()"
)


def run_watched() -> None:
    """The command ``polyfit`` that writes its listings and requests into the file ``NOTES``."""
    import atexit

    from polyfit.__main__ import program

    notes = _count_requests()
    atexit.register(lambda: Path(os.environ[NOTES]).write_text(json.dumps(notes)))
    program()


def _count_requests() -> Table:
    """From now on: how often each operation was called, and what each listing of shards took."""
    from polyfit.run.ledger import Ledger
    from polyfit.store import s3
    from polyfit.store.s3_client import make_client

    calls: dict[str, int] = {}
    notes: Table = {"calls": calls, "listings": []}
    done = Ledger.done

    def count(model: Any, **rest: Any) -> None:
        calls[model.name] = calls.get(model.name, 0) + 1

    def counting_client(*address: Any) -> Any:
        client = make_client(*address)
        client.meta.events.register("before-call.s3", count)
        return client

    def timed(self: Ledger) -> set[int]:
        before, start = calls.get("ListObjectsV2", 0), time.perf_counter()
        found = done(self)
        spent, asked = time.perf_counter() - start, calls.get("ListObjectsV2", 0) - before
        notes["listings"].append({"keys": len(found), "s": spent, "requests": asked})
        return found

    setattr(s3, "make_client", counting_client)  # noqa: B010 (no attribute that mypy knows as exported)
    setattr(Ledger, "done", timed)  # noqa: B010
    return notes


def _list_many_keys(keys: int, report: Report, uri: str) -> None:
    """A run of so many shards, its keys under objects of a few bytes, as a driver meets it."""
    from concurrent.futures import ThreadPoolExecutor

    from polyfit.run.keys import shard_key
    from polyfit.store.address import StoreAddress

    spec = {**short_fits(keys * 1000), "shard": 1000}
    plan, store = checked_plan(spec), StoreAddress.of(uri).open()
    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda n: store.create(shard_key(plan, n), b"rows"), range(keys)):
            pass
    made_s = time.perf_counter() - start
    found = in_child("bench.scale:driver_memory", CORES[-1:], uri=uri, spec=spec)
    report.fact("resume", f"{keys:,} keys", {**found, "made_s": made_s})
    report.line(
        f"{keys:,} keys, made in {made_s:.0f} s: the listing {found['s']:.2f} s, "
        f"{found['requests']} requests; driver {format_mib(found['before_bytes'])} before, "
        f"{format_mib(found['listed_bytes'])} with its tasks, "
        f"{format_mib(found['held_bytes'])} with a receipt of each"
    )


def driver_memory(uri: str, spec: Spec) -> Table:
    """What a driver holds of a run whose shards are all at rest, without its Ray."""
    from polyfit.run.ledger import Ledger
    from polyfit.run.manifest import Receipt
    from polyfit.store.address import StoreAddress
    from polyfit.work.attempt import Attempt
    from polyfit.work.driver_log import DriverLog
    from polyfit.work.heartbeat import Heartbeat
    from polyfit.work.signals import Signals
    from polyfit.work.task import Job

    notes, plan, address = _count_requests(), plan_of(spec), StoreAddress.of(uri)
    ledger, quiet = Ledger(address.open(), plan), lambda *rest: None
    ledger.manifest()  # what the first request takes is not the listing's
    heartbeat = Heartbeat(plan, "none", quiet, lambda: None)
    heartbeat.close()
    lease: Any = None  # what is measured does not ask it
    job, signals = Job(address, "none"), Signals(quiet)
    attempt = Attempt(
        plan,
        ledger,
        job,
        heartbeat,
        lease,
        signals,
        DriverLog("", "", quiet),
        stop_on_failure=False,
    )
    found = {"before_bytes": peak_bytes_of(os.getpid())}
    todo = attempt.list_tasks(retry_failed=False)
    found["listed_bytes"] = peak_bytes_of(os.getpid())
    while todo:
        number = todo.popleft().shard
        statuses = {"completed": 900 + number % 100, "diverged": 100 - number % 100}
        attempt.tally.receipts.add(Receipt(number, number, f"{number:064x}", 1000, statuses))
    found["held_bytes"] = peak_bytes_of(os.getpid())
    return {**notes["listings"][0], **found}
