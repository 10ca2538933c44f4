"""Brings a run to its end, from wherever an earlier attempt left it.

Nothing is needed from a driver that has died: the store shows what is missing.
"""

import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import date as Date
from typing import Any, Final

from polyfit.errors import PolyfitError, StoreError, check_working_folder
from polyfit.run.address import run_address
from polyfit.run.clock import now
from polyfit.run.holder import Holder
from polyfit.run.keys import attempt_key
from polyfit.run.lease import TIME_TO_LIVE_S, Lease
from polyfit.run.ledger import Ledger
from polyfit.run.reader import Run
from polyfit.run.renewal import LeaseRenewer
from polyfit.spec.advice import advice
from polyfit.spec.dates import fill_date, read_date
from polyfit.spec.plan import Plan, dump_json
from polyfit.spec.precheck import Precheck
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work.attempt import Attempt
from polyfit.work.cluster_address import job_facts
from polyfit.work.driver_log import DriverLog
from polyfit.work.heartbeat import Heartbeat
from polyfit.work.progress import Listener, OnMessage, Progress
from polyfit.work.run_address import check_store_is_named, reuse_source
from polyfit.work.signals import Signals
from polyfit.work.task import Job
from polyfit.work.workplace import PLACEMENT_TIMEOUT_S, Workplace

__all__ = ["execute"]


def execute(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    endpoint_url: str | None = None,
    run_id: str | None = None,
    date: str | Date | None = None,
    executor: str = "auto",
    address: str | None = None,
    placement_timeout_s: float = PLACEMENT_TIMEOUT_S,
    metrics_port: int | None = None,
    wait_s: float = TIME_TO_LIVE_S,
    retry_failed: bool = False,
    reuse: str | os.PathLike[str] | None = None,
    on_progress: Listener = lambda progress: None,
    on_message: OnMessage = lambda line: None,
) -> Run:
    """Run ``spec`` to its end, from wherever an earlier attempt left it.

    >>> run = execute({"name": "a", "fit": {"points": 20}}, store="runs")
    >>> run.complete
    True

    Args:
        spec: what to run; a path is read as ``Spec.load`` does, a mapping as ``Spec.parse``.
        store: a folder or ``s3://bucket/prefix``; if None the spec's own, else ``POLYFIT_STORE``,
            else ``./runs``.
        endpoint_url: an S3 endpoint; the spec's own, or the environment's, if None.
        run_id: the run's name in the store; the spec's own, else the plan's hash, shortened, if
            None.
        date: takes the place of ``{date}`` in store and run id; today in UTC if None.
        executor: "ray", "inline" (this process), or "auto".
        address: a Ray cluster; RAY_ADDRESS or the surrounding job's if None.
        placement_timeout_s: seconds to wait while no actor can be placed.
        metrics_port: where Prometheus finds the metrics of a Ray that is started here; any port if
            None.
        wait_s: seconds to wait for another driver's lease on the run to end.
        retry_failed: whether to try shards again that failed in an earlier attempt.
        reuse: another run, as ``Run.open`` takes it: rows stored there are taken where a fit here
            would have the same bits. The shards are the same with and without.
        on_progress: called with how far the run is and what it does, whenever a shard is stored
            and every second; by one thread at a time, but not always this one.
        on_message: called with one line for the user at a time.

    Returns:
        The sealed run.

    Raises:
        SpecError, LimitExceeded, UsageError: what is asked for cannot be run.
        PlanMismatch: the run id belongs to another plan, or ``reuse`` holds no plan.
        RunNotFound: there is no run at ``reuse``; if a complete run took rows of it before, that is
            only said.
        RunHeld: another driver works on this run.
        StoreError, ClusterError: the store or the cluster fails.
        FailedShards: some shards could not be computed; the others are stored.
        Drained: SIGTERM came; the same call resumes the run.
    """
    check_working_folder()
    spec = Spec.of(spec)
    plan = Plan.of(spec)
    check_store_is_named(spec, store)
    day = read_date(date)
    run = run_address(spec, plan, store, endpoint_url, run_id, day)
    attempt = _attempt_name()
    log = DriverLog("/".join(run.uri.split("/")[-2:]), attempt, on_message)
    on_message = log.message
    workplace = Workplace.choose(
        executor, plan, spec.resources, address, placement_timeout_s, on_message, metrics_port
    )
    on_message(f"{run.uri}: attempt {attempt}, {workplace.wanted(plan)}")
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(on_message))
        heartbeat = Heartbeat(
            plan, attempt, _both(log.progress, on_progress), lambda: signals.number
        )
        stack.callback(heartbeat.close)
        heartbeat.set_stage("checking which fits can start")
        for line in Precheck.of(plan.sweep).lines(spec) + advice(spec, plan.sweep):
            on_message(f"warning: {line}")
        heartbeat.set_stage("opening the store")
        ledger = Ledger(run.open(), plan)
        source, reuse_line = None, None
        if reuse is not None:  # before anything is written
            try:
                source, reuse_line = reuse_source(reuse, endpoint_url, run, plan, day)
            except PolyfitError as error:
                if not _gave_rows(reuse, ledger, run, day):
                    raise
                on_message(f"warning: --reuse {reuse}: {error}")
        ledger.open(spec.text)
        done = f"{run.uri} is complete already: nothing is left to fit"
        if ledger.complete():
            on_message(done)
            return Run.open(run.uri, run.endpoint_url)
        if reuse_line is not None:
            on_message(reuse_line)
        honours_conditions = ledger.honours_conditional_writes()
        lease = Lease(ledger.store, Holder.here(attempt))
        heartbeat.set_stage("waiting for the run's lease")
        lease.acquire(wait_s)
        renewer = LeaseRenewer(lease, on_message)
        stack.callback(renewer.close)
        if ledger.complete():  # by the driver that held it until now
            on_message(done)
        else:
            if ledger.manifest() is not None:
                on_message(f"shards of the complete run {run.uri} are missing: fitting them again")
            if lease.lost_holder is not None:
                _note_lost_driver(ledger, lease.lost_holder, attempt, on_message)
            abilities = _store_abilities(ledger, attempt, honours_conditions, on_message)
            job = Job(run, attempt, source, read_again=not all(abilities.values()))
            Attempt(
                plan,
                ledger,
                job,
                heartbeat,
                renewer,
                signals,
                log,
                stop_on_failure=spec.on_failure == "stop",
            ).run(workplace, retry_failed, _facts(attempt, workplace, plan) | abilities)
    return Run.open(run.uri, run.endpoint_url)


def _both(first: Listener, second: Listener) -> Listener:
    def listen(progress: Progress) -> None:
        first(progress)
        second(progress)

    return listen


def _gave_rows(reuse: str | os.PathLike[str], ledger: Ledger, run: StoreAddress, day: Date) -> bool:
    """Whether a complete run took rows of the run at this address, or of this name, before: that
    may be gone now."""
    if not ledger.complete():
        return False
    name = fill_date(str(reuse), day)
    named = {StoreAddress.of(name).uri, f"{run.uri.rsplit('/', 2)[0]}/{name}"}
    noted = (facts.get("reuse") for facts in ledger.attempts())
    return any(isinstance(one, dict) and one.get("run") in named for one in noted)


def _attempt_name() -> str:
    return f"{now().replace(':', '').replace('-', '').lower()}-{secrets.token_hex(4)}"


def _facts(attempt: str, workplace: Workplace, plan: Plan) -> dict[str, Any]:
    """What is noted with an attempt when it begins."""
    return job_facts() | {
        "attempt": attempt,
        "started_at": now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "executor": workplace.kind,
        "plan": plan.hash,
    }


def _note_lost_driver(ledger: Ledger, holder: Holder, attempt: str, on_message: OnMessage) -> None:
    """Note with its attempt that a driver has died, which it could not note itself."""
    with suppress(StoreError):
        if ledger.note_lost_driver(holder.attempt, attempt):
            who = f"attempt {holder.attempt}, process {holder.pid} on {holder.host}"
            on_message(f"the last driver has died without noting its end: {who}")


_MISSING_ABILITIES: Final = {
    "conditions": "ignores If-None-Match (two drivers at once would write shards twice, the same "
    "bytes)",
    "content_md5": "does not compare Content-MD5 (bytes that arrive wrong are kept)",
    "metadata": "drops metadata (without a digest, wrong bytes of an answer are not noticed)",
}
"""What a store may lack, and what follows."""


def _store_abilities(
    ledger: Ledger, attempt: str, honours_conditions: bool, on_message: OnMessage
) -> dict[str, bool]:
    """Which checks the store makes for us, found out by trying; what is missing is reported."""
    checks = ledger.store.probe_integrity(attempt_key(attempt), dump_json({"attempt": attempt}))
    abilities = {"conditions": honours_conditions, **asdict(checks)}
    missing = [_MISSING_ABILITIES[name] for name, there in abilities.items() if not there]
    if missing:
        on_message(
            f"this store {' and '.join(missing)}: every shard is read again, and inspected, before "
            "the seal"
        )
    return abilities
