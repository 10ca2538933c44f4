"""A run from start to seal in this process: resume, failures, another plan, unreachable stores."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
import torch
from limits import HANG_S, wait_for
from local_s3 import free_port
from odd import Answer, Asked, odd_s3, refusal
from places import Place, use
from servers import S3Server

import polyfit
from polyfit.errors import (
    ClusterError,
    DamagedRun,
    Drained,
    FailedShards,
    PlanMismatch,
    RunHeld,
    StoreError,
    UsageError,
)
from polyfit.run.holder import Holder
from polyfit.run.keys import MANIFEST, PLAN, shard_key
from polyfit.run.lease import Lease
from polyfit.run.ledger import Ledger
from polyfit.run.renewal import LeaseRenewer
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store
from polyfit.store.folder import FolderStore
from polyfit.work import (
    cluster,
    driver,
    fitting,
    heartbeat,
    retry,
    signals,
    storing,
    worker,
    workplace,
)
from polyfit.work.actor import ShardActor
from polyfit.work.inline import InlineExecutor
from polyfit.work.progress import Message, Progress
from polyfit.work.task import Job, Task, TaskResult
from polyfit.work.worker import ShardWorker
from polyfit.work.workplace import Workplace

TEXT = """\
name: small
shard: 10
fit: {steps: 12, points: 40}
sweep: {degree: [1, 4], seed: {count: 25}}
"""
SPEC = Spec.parse(TEXT)


def run(where: Path | Place, spec: Spec = SPEC, **options: Any) -> polyfit.Run:
    store = where.uri if isinstance(where, Place) else str(where)
    return polyfit.execute(spec, store=store, executor="inline", **options)


def keys(run: polyfit.Run) -> list[str]:
    return sorted(entry.key for entry in run.address.open().list(""))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shard_in_this_process_has_the_same_time_to_finish_as_on_ray(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one signal, a shard that takes longer is left; the run resumes later."""
    left = threading.Event()

    def hanging(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), number)
        assert left.wait(HANG_S), "the run waits for it"
        raise ZeroDivisionError("it is not to be stored")

    with monkeypatch.context() as slow:
        slow.setattr(signals, "DRAIN_S", 0.5)
        slow.setattr(storing, "compute", hanging)
        with pytest.raises((Drained, KeyboardInterrupt)):
            run(tmp_path)
    left.set()
    assert run(tmp_path).verify().problems == []


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"RAY_JOB_STOP_WAIT_TIME_S": "3"}, "25"),  # in no job of Ray it says nothing
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, "1"),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_JOB_STOP_WAIT_TIME_S": "10"}, "8"),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_JOB_STOP_WAIT_TIME_S": "40"}, "25"),
    ],
)
def test_no_more_time_is_promised_than_a_job_of_ray_has(
    variables: dict[str, str], seconds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = fitting.compute

    def interrupted(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(storing, "compute", compute)
        os.kill(os.getpid(), signal.SIGTERM)
        return compute(*arguments, **options)

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storing, "compute", interrupted)
    lines: list[str] = []

    with pytest.raises(Drained):
        run(tmp_path, on_message=lines.append)

    assert f"stopping: waiting up to {seconds} s for running shards" in "\n".join(lines)


def home(place: Place, run_id: str | None = None, spec: Spec = SPEC) -> Store:
    """The folder of a run, as a store."""
    return place.address.under(f"small/{run_id or polyfit.Plan.of(spec).run_id}").open()


def shards(store: Store) -> dict[str, bytes]:
    """The stored shards, by their keys."""
    return {entry.key: store.get(entry.key) for entry in store.list("shards/")}


def test_a_run_has_the_layout_that_is_promised(tmp_path: Path) -> None:
    finished = run(tmp_path)
    short = finished.plan.hash[:8]
    notes = [key for key in keys(finished) if key.startswith("attempts/")]
    attempt, log, actor = sorted(notes, key=lambda key: (key.count("/"), key))
    assert (log, actor[:-14]) == (attempt.replace(".json", ".log"), attempt.removesuffix(".json"))
    assert keys(finished) == sorted(
        [
            "spec.yaml",
            "plan.json",
            "manifest.json",
            "status.json",
            "lease/000001.json",
            "receipt.json",
            attempt,
            actor,
            log,
            *(f"shards/{number:06d}-{short}.parquet" for number in range(5)),
        ]
    )
    assert Path(finished.uri) == tmp_path / "small" / finished.plan.run_id
    assert (Path(finished.uri) / "spec.yaml").read_text() == TEXT
    status = json.loads((Path(finished.uri) / "status.json").read_text())
    assert (status["state"], status["done"], status["shards"]) == ("complete", 5, 5)
    assert json.loads((Path(finished.uri) / attempt).read_text())["exit_code"] == 0
    lease = json.loads((Path(finished.uri) / "lease" / "000001.json").read_text())
    assert lease["released"] is True
    assert finished.verify().problems == []


class Counted(InlineExecutor):
    """An executor that remembers what it was asked to do."""

    asked: list[Task]
    stop_after: int | None = None

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        type(self).asked = []
        for outcome in super().run(todo):
            if outcome is not None:
                type(self).asked.append(outcome.task)
            yield outcome
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    Counted.asked, Counted.stop_after = [], None
    monkeypatch.setattr(workplace, "InlineExecutor", Counted)
    return Counted


def test_a_run_that_broke_off_fits_only_what_is_missing(
    place: Place, counted: type[Counted]
) -> None:
    counted.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(place)
    first = {task.shard for task in counted.asked}
    counted.stop_after = None
    finished = run(place)
    computed = {task.shard for task in counted.asked if task.kind == "compute"}
    inspected = {task.shard for task in counted.asked if task.kind == "inspect"}
    assert (computed, inspected) == (set(range(5)) - first, first)
    assert finished.verify().problems == []


def test_a_finished_run_is_a_no_op(place: Place, counted: type[Counted]) -> None:
    before = keys(run(place))
    counted.asked = []
    messages: list[str] = []
    assert keys(run(place, on_message=messages.append)) == before
    assert counted.asked == []
    assert any("complete already" in line for line in messages)


class Seen:
    """A listener that the driver's own thread may wait for."""

    def __init__(self) -> None:
        self._stages: set[tuple[str, str]] = set()
        self._news = threading.Condition()

    def __call__(self, progress: Progress) -> None:
        with self._news:
            self._stages.add((threading.current_thread().name, progress.stage))
            self._news.notify_all()

    def wait(self, stage: str) -> None:
        """Wait until the heartbeat's thread has reported this stage."""
        with self._news:
            assert self._news.wait_for(lambda: ("heartbeat", stage) in self._stages, HANG_S)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heart that beats as fast as it can."""
    monkeypatch.setattr(heartbeat, "TICK_S", 0.001)
    monkeypatch.setattr(heartbeat, "QUIET_AFTER_S", 0.0)


def status(store: Path) -> dict[str, Any]:
    (path,) = store.rglob("status.json")
    facts = json.loads(path.read_bytes())
    assert isinstance(facts, dict)
    return facts


@pytest.mark.usefixtures("quick")
def test_a_run_says_what_it_is_at_while_its_own_thread_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first shard is stored too."""

    seen, compute, noted = Seen(), storing.run_shard, list[dict[str, Any]]()
    compiles = [True]
    monkeypatch.setattr(worker, "compiling", lambda: compiles[0])

    def slow(*arguments: Any) -> Any:
        if not noted:
            seen.wait("compiling")
            compiles[0] = False
            seen.wait("fitting")
            wait_for(lambda: status(tmp_path)["stage"] == "fitting", "the status")
            noted.append(status(tmp_path))
        return compute(*arguments)

    monkeypatch.setattr(worker, "run_shard", slow)
    assert run(tmp_path, on_progress=seen).complete
    assert [noted[0][name] for name in ("state", "done", "shards")] == ["running", 0, 5]
    assert [status(tmp_path)[name] for name in ("state", "stage")] == ["complete", "sealed"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("address", "stage"),
    [(None, "starting Ray"), ("10.0.0.1:6379", "joining the Ray cluster at 10.0.0.1:6379")],
)
def test_a_run_says_so_while_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, stage: str
) -> None:
    seen = Seen()

    def starting(*rest: Any) -> Any:
        seen.wait(stage)
        wait_for(lambda: status(tmp_path)["stage"] == stage, "the status")
        raise ClusterError("planted")

    monkeypatch.setattr(Workplace, "open", starting)
    with pytest.raises(ClusterError, match="planted"):
        polyfit.execute(
            SPEC, store=str(tmp_path), executor="ray", address=address, on_progress=seen
        )
    assert [status(tmp_path)[name] for name in ("state", "stage")] == ["ended", stage]


@pytest.mark.usefixtures("quick")
def test_a_run_says_so_while_another_driver_holds_it(tmp_path: Path) -> None:
    store = home(Place("folder", StoreAddress(str(tmp_path))))
    other, seen = Lease(store, Holder.here("first")), Seen()
    (tmp_path / "small").mkdir()
    Path(store.uri).mkdir()
    other.acquire()

    def let_go() -> None:
        seen.wait("waiting for the run's lease")
        other.release()

    with ThreadPoolExecutor(1) as pool:
        released = pool.submit(let_go)
        assert run(tmp_path, on_progress=seen, wait_s=HANG_S).complete
        released.result()


@pytest.mark.usefixtures("quick")
def test_a_listener_that_raises_ends_the_run_also_where_another_thread_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    raised, compute = threading.Event(), storing.run_shard

    def listener(progress: Progress) -> None:
        if progress.stage == "fitting" and threading.current_thread().name == "heartbeat":
            raised.set()
            raise BrokenPipeError("nobody reads")

    def slow(*arguments: Any) -> Any:
        assert raised.wait(HANG_S)
        return compute(*arguments)

    monkeypatch.setattr(worker, "run_shard", slow)
    with pytest.raises(BrokenPipeError):
        run(tmp_path, on_progress=listener)


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ("", "actors wanted: 1 to 5"),
        ("resources: {actors: {min: 2, max: 3}}", "actors wanted: 2 to 3"),
        ("resources: {actors: {min: 9}}", "actors wanted: 5"),
        ("resources: {actors: {max: 1}}", "actors wanted: 1"),
    ],
)
def test_the_first_line_says_where_the_run_lies_its_attempt_and_the_actors_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: str, wanted: str
) -> None:
    def starting(*rest: Any) -> Any:
        raise ClusterError("planted")

    monkeypatch.setattr(Workplace, "open", starting)
    spec, messages = Spec.parse(TEXT + resources), list[str]()
    with pytest.raises(ClusterError):
        polyfit.execute(spec, store=str(tmp_path), executor="ray", on_message=messages.append)
    (attempt,) = tmp_path.rglob("attempts/*.json")
    assert messages[0] == f"{attempt.parent.parent}: attempt {attempt.stem}, {wanted}"


def test_costly_shards_go_first(tmp_path: Path, counted: type[Counted]) -> None:
    run(tmp_path)
    assert [task.shard for task in counted.asked] == [3, 4, 0, 1, 2]


def test_an_address_written_otherwise_is_the_same_place(place: Place) -> None:
    """A doubled slash is another key for some stores, and for others the same."""
    head, _, tail = place.uri.rpartition("/")
    lines: list[str] = []
    first = polyfit.execute(SPEC, store=f"{head}//{tail}//", executor="inline")
    again = run(place, on_message=lines.append)
    assert first.uri == again.uri == f"{place.uri}/small/{first.plan.run_id}"
    assert lines[-1] == f"{first.uri} is complete already: nothing is left to fit"
    assert polyfit.Run.open(f"{head}//{tail}/small//{first.plan.run_id}/").verify().problems == []
    assert keys(first) == keys(again)


def test_a_path_is_a_spec_and_a_store_and_a_run(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(TEXT)
    made = polyfit.execute(tmp_path / "job.yaml", store=tmp_path / "runs", executor="inline")
    assert polyfit.Run.open(Path(made.uri)).verify().fits == 50
    assert polyfit.execute(
        {"name": "more", "fit": {"steps": 12, "points": 40}},
        store=tmp_path / "runs",
        reuse=Path(made.uri),
        executor="inline",
    ).uri.startswith(f"{tmp_path}/runs/more/")


@pytest.mark.parametrize("store", ["", {"uri": "runs"}])
def test_a_store_that_is_none_is_refused_and_none_other_taken(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="allowed: a folder or s3://bucket/prefix"):
        polyfit.execute(SPEC, store=store, executor="inline")
    assert list(tmp_path.iterdir()) == []


def test_a_run_id_of_another_plan_is_refused_and_nothing_is_mixed(place: Place) -> None:
    finished = run(place, run_id="mine")
    before = keys(finished)
    other = Spec.parse(TEXT.replace("steps: 12", "steps: 13"))
    with pytest.raises(PlanMismatch, match="belongs to plan"):
        run(place, other, run_id="mine")
    assert keys(finished) == before


def test_workers_refuse_a_plan_that_came_in_place_of_their_drivers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers with two plans and one run id, at once, where conditions are ignored."""
    other = polyfit.Plan.of(Spec.parse(TEXT.replace("steps: 12", "steps: 13")))
    note = Ledger.note_attempt

    def late(self: Ledger, attempt: str, facts: dict[str, Any]) -> None:
        note(self, attempt, facts)
        self.store.put(PLAN, other.to_json())

    monkeypatch.setattr(Ledger, "note_attempt", late)
    with pytest.raises(PlanMismatch, match=r"no longer plan .*; choose another --run-id"):
        run(place, run_id="mine")
    assert shards(home(place, "mine")) == {}


@pytest.mark.parametrize("run_id", ["../x", "", "A", "a/b", "-a", "a" * 64])
def test_a_run_id_that_is_no_name_is_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        run(tmp_path, run_id=run_id)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_fails_thrice_has_failed_and_the_others_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    tried: list[int] = []
    compute = storing.run_shard

    def failing(plan: Any, number: int, *rest: Any) -> Any:
        if number == 3:
            tried.append(number)
            raise ZeroDivisionError("planted")
        return compute(plan, number, *rest)

    monkeypatch.setattr(worker, "run_shard", failing)
    with pytest.raises(FailedShards, match=r"1 of 5 shards failed.*shard 3.*planted"):
        run(tmp_path)
    opened = polyfit.Run.open(str(tmp_path / "small" / polyfit.Plan.of(SPEC).run_id))
    assert tried == [3, 3, 3]
    assert not opened.complete
    assert sum("parquet" in key for key in keys(opened)) == 4
    causes = json.loads((Path(opened.uri) / "failed" / "000003.json").read_text())["causes"]
    assert len(causes) == 3
    assert "Traceback" in causes[0]
    monkeypatch.undo()
    with pytest.raises(FailedShards, match=r"shard 3: ZeroDivisionError.*--retry-failed"):
        run(tmp_path)
    assert not list(tmp_path.rglob("000003-*.parquet")), "it was tried again unasked"
    assert run(tmp_path, retry_failed=True).verify().problems == []
    assert run(tmp_path).complete, "what was mended counts as failed"


def test_with_on_failure_stop_the_rest_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(retry, "MAX_TRIES", 1)
    compute = storing.run_shard

    def failing(plan: Any, number: int, *rest: Any) -> Any:
        if number == 4:
            raise ZeroDivisionError("planted")
        return compute(plan, number, *rest)

    monkeypatch.setattr(worker, "run_shard", failing)
    spec = Spec.parse(TEXT + "on_failure: stop\n")
    with pytest.raises(FailedShards, match=r"1 of 5 shards failed, not all others are stored"):
        run(tmp_path, spec)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert polyfit.Plan.of(spec).hash == polyfit.Plan.of(SPEC).hash
    monkeypatch.undo()
    assert run(tmp_path, spec, retry_failed=True).verify().problems == []


def test_a_run_that_another_driver_holds_is_left_alone(place: Place) -> None:
    store = home(place)
    if place.server is None:
        Path(place.uri).mkdir(parents=True)
    Lease(store, Holder.here("first")).acquire()
    with pytest.raises(RunHeld, match="held by attempt first"):
        run(place, wait_s=0)
    assert shards(store) == {}


def test_a_driver_whose_run_was_taken_over_stops(
    place: Place, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(LeaseRenewer):
        def check(self) -> None:
            if counted.asked:
                raise RunHeld("another driver has taken over")

    with monkeypatch.context() as planted:
        planted.setattr(driver, "LeaseRenewer", Lost)
        with pytest.raises(RunHeld):
            run(place)
    assert len(counted.asked) == 1
    assert run(place).verify().problems == []


class Unheld(Lease):
    """A lease that keeps nobody away."""

    def acquire(self, wait_s: float = 0.0) -> None:
        pass

    def renew(self) -> None:
        pass

    def release(self) -> None:
        pass


def test_two_drivers_at_once_make_one_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease saves money; without it all is fitted twice, and both seal the same."""
    monkeypatch.setattr(driver, "Lease", Unheld)
    barrier = threading.Barrier(2)

    class Together(InlineExecutor):
        def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
            barrier.wait()
            yield from super().run(todo)

    monkeypatch.setattr(workplace, "InlineExecutor", Together)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: run(place), range(2))
    assert one.manifest == other.manifest
    assert one.verify().problems == []


# --- where answers are lost, objects damaged, and drivers killed -----------------------------


def test_a_shard_whose_first_answer_was_lost_is_receipted_as_it_is_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try meets the object of the first, where conditions hold."""
    kind = type(place.store)
    create, answers = kind.create, dict[str, bool]()

    def twice(self: Any, key: str, data: bytes, *rest: Any, **more: Any) -> bool:
        create(self, key, data, *rest, **more)
        answers[key] = create(self, key, data, *rest, **more)
        return answers[key]

    monkeypatch.setattr(kind, "create", twice)
    finished = run(place)
    written = [answer for key, answer in answers.items() if key.startswith(("shards/", MANIFEST))]
    assert written == [not place.honours_conditions] * 6
    assert finished.verify().problems == []


def test_an_answer_that_is_lost_on_the_way_is_asked_for_again_by_boto3(place: Place) -> None:
    """It then sees 412 for its own write: False, and the object is there."""
    if place.server is None:
        return
    store: Any = place.store
    lost = iter([0.0])
    events = store._client.meta.events
    # botocore asks this after each answer: a number is the pause before it tries again.
    ask = lambda **_: next(lost, None)  # noqa: E731
    events.register_first("needs-retry.s3.PutObject", ask)
    try:
        assert store.create("key", b"data") is not place.honours_conditions
    finally:
        events.unregister("needs-retry.s3.PutObject", ask)
    assert next(lost, None) is None, "no answer was lost"
    assert store.get("key") == b"data"


def test_a_folder_where_a_shards_file_belongs_fails_that_shard_alone(tmp_path: Path) -> None:
    done = run(tmp_path)
    key = shard_key(done.plan, 1)
    for name in (key, MANIFEST):
        (Path(done.uri) / name).unlink()
    (Path(done.uri) / key).mkdir()
    with pytest.raises(
        FailedShards, match=rf"1 of 5 shards failed, the others .*{key} is a folder"
    ):
        run(tmp_path)


@pytest.mark.parametrize("kept", [0, 100], ids=["empty", "truncated"])
def test_a_damaged_shard_found_on_resume_fails_and_is_not_sealed(
    place: Place, counted: type[Counted], kept: int
) -> None:
    counted.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(place)
    counted.stop_after = None
    store = home(place)
    ((key, data),) = shards(store).items()
    store.put(key, data[:kept])
    with pytest.raises(FailedShards, match="cannot be read"):
        run(place)
    with pytest.raises(NoSuchKey):
        store.get(MANIFEST)


HALTING = """
import threading
from polyfit.__main__ import program
from polyfit.work import worker

run_shard, left = worker.run_shard, iter(range(2))

def halting(*arguments):
    if next(left, None) is None:
        threading.Event().wait()
    return run_shard(*arguments)

worker.run_shard = halting
program()
"""
"""The command, which stays at its third shard until it is killed."""


@pytest.mark.parametrize("place", ["folder", "seaweed", "rclone"], indirect=True)
def test_a_driver_killed_half_way_leaves_what_the_next_one_resumes_from(
    place: Place, tmp_path: Path
) -> None:
    """``kill -9`` of a process, the same plan again, and proof from the store alone."""
    path = tmp_path / "spec.yaml"
    path.write_text(TEXT)
    store = home(place)
    running = subprocess.Popen(
        [sys.executable, "-c", HALTING, "run", str(path), "--store", place.uri,
         "--executor", "inline"],
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with running as process:
        try:
            wait_for(lambda: len(shards(store)) >= 2, "two stored shards", process)
            opened = polyfit.Run.open(store.uri)
            assert f"(process {process.pid} on " in opened.driver()
            assert opened.driver().endswith(" is at work on it")
        finally:
            process.kill()
    left = shards(store)
    assert opened.driver().startswith("no driver is at work on it: attempt ")
    assert opened.driver().endswith(" was lost")
    assert any("was lost; run the same spec again" in line for line in opened.verify().problems)
    plan = polyfit.Plan.of(SPEC)
    assert len(left) == 2
    messages: list[str] = []
    finished = run(place, on_message=messages.append)
    assert f"{len(left)} of {plan.shards} shards are stored already" in messages
    (lost,) = (line for line in messages if "the last driver has died" in line)
    facts = Ledger(store, plan).attempt(lost.split("attempt ")[1].split(",")[0])
    assert (facts["pid"], facts["exit_code"]) == (process.pid, None)
    assert messages[0].split("attempt ")[1].split(",")[0] == facts["lost"]["found_by"]
    assert opened.driver().endswith(" ended with exit code 0")
    assert {key: data for key, data in shards(store).items() if key in left} == left
    verdict = finished.verify()
    assert (verdict.problems, verdict.fits) == ([], 50)


def test_what_the_store_can_do_is_noted_with_the_attempt_and_not_in_the_seal(
    place: Place,
) -> None:
    """Two drivers may seal, and what they seal must be the same bytes."""
    messages: list[str] = []
    finished = run(place, on_message=messages.append)
    store = finished.address.open()
    (noted,) = [key for key in keys(finished) if re.fullmatch(r"attempts/[^/]*\.json", key)]
    able = {"conditions": place.honours_conditions, **asdict(place.checks)}
    facts = json.loads(store.get(noted))
    assert {name: facts[name] for name in able} == able
    (line,) = [line for line in messages if "this store" in line] or [""]
    assert ("If-None-Match" in line) is not place.honours_conditions
    assert ("drops metadata" in line) is not place.checks.metadata
    assert ("Content-MD5" in line) is not place.checks.content_md5
    assert b"conditions" not in store.get(MANIFEST)


class Careless:
    """An S3 server that keeps objects and ETags and nothing else: it compares no MD5, and drops
    metadata. ``wrong`` are the methods of the next requests for a shard that change a byte."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.wrong: list[str] = []

    def __call__(self, asked: Asked) -> Answer:
        path, _, query = asked.path.partition("?")
        key = unquote(path).removeprefix("/bucket/")
        if asked.method == "PUT":
            if "if-none-match" in asked.headers and key in self.objects:
                return refusal(412, "PreconditionFailed", "there is one")
            self.objects[key] = self._spoilt(asked, key, asked.body)
            return Answer()
        if "list-type" in query:
            return Answer(body=self._listing(parse_qs(query)["prefix"][0]))
        if key not in self.objects:
            return refusal(404, "NoSuchKey", "there is none")
        headers = {"ETag": f'"{len(self.objects[key])}"'}
        return Answer(headers=headers, body=self._spoilt(asked, key, self.objects[key]))

    def _spoilt(self, asked: Asked, key: str, data: bytes) -> bytes:
        if not key.endswith(".parquet") or self.wrong[:1] != [asked.method]:
            return data
        self.wrong.pop(0)
        return data[:100] + bytes([data[100] ^ 1]) + data[101:]

    def _listing(self, prefix: str) -> bytes:
        found = sorted(key for key in self.objects if key.startswith(prefix))
        items = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(self.objects[key])}</Size></Contents>"
            for key in found
        )
        return f"<ListBucketResult>{items}</ListBucketResult>".encode()


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Careless, StoreAddress]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    heap = Careless()
    with odd_s3(heap) as server:
        yield heap, StoreAddress.of("s3://bucket/p", server.url)


@pytest.mark.slow
def test_where_a_store_checks_nothing_every_shard_is_read_again_before_the_seal(
    careless: tuple[Careless, StoreAddress],
) -> None:
    """What came wrong is kept there, and named; what goes wrong on the way back is read again."""
    heap, address = careless
    where = {"store": address.uri, "endpoint_url": address.endpoint_url, "executor": "inline"}
    messages: list[str] = []
    heap.wrong = ["PUT"]
    with pytest.raises(FailedShards, match=r"1 of 5 shards failed.*remove that object"):
        polyfit.execute(SPEC, on_message=messages.append, **where)  # type: ignore[arg-type]
    assert heap.wrong == []
    assert sum("does not compare Content-MD5" in line for line in messages) == 1
    assert sum("drops metadata" in line for line in messages) == 1
    assert not any("If-None-Match" in line for line in messages)
    (failed,) = [key for key in heap.objects if "/failed/" in key]
    number = failed.rpartition("/")[2][:6]
    del heap.objects[next(key for key in heap.objects if f"shards/{number}" in key)]
    heap.wrong = ["GET"]
    finished = polyfit.execute(SPEC, retry_failed=True, **where)  # type: ignore[arg-type]
    assert heap.wrong == []
    assert finished.verify().problems == []
    (attempt, _) = [key for key in sorted(heap.objects) if re.search(r"attempts/[^/]*\.json$", key)]
    facts = json.loads(heap.objects[attempt])
    assert (facts["conditions"], facts["content_md5"], facts["metadata"]) == (True, False, False)


def test_a_sealed_run_whose_shard_became_another_size_is_not_called_complete(
    place: Place,
) -> None:
    finished = run(place)
    store = finished.address.open()
    key, data = next(iter(shards(store).items()))
    store.put(key, b"garbage")
    messages: list[str] = []
    with pytest.raises(DamagedRun, match=rf"is damaged: {key} has 7 bytes.*remove that object"):
        run(place, on_message=messages.append)
    assert not any("complete already" in line for line in messages)
    store.put(key, data)
    assert run(place, on_message=messages.append).verify().problems == []
    assert sum("complete already" in line for line in messages) == 1


def test_a_sealed_run_that_lost_a_shard_asks_again_what_the_store_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another store may lie under the same name: a copy on a server that ignores them."""
    run(tmp_path)
    next(tmp_path.rglob("*.parquet")).unlink()

    def create(self: FolderStore, key: str, data: bytes, *arguments: Any, **options: Any) -> bool:
        self.put(key, data)
        return True

    monkeypatch.setattr(FolderStore, "create", create)
    messages: list[str] = []
    finished = run(tmp_path, on_message=messages.append)
    assert any("If-None-Match" in line for line in messages)
    notes = [json.loads(path.read_bytes()) for path in Path(finished.uri).glob("attempts/*.json")]
    assert {note["conditions"] for note in notes} == {True, False}


def test_no_run_resume_or_verify_ever_asks_to_delete(
    place: Place, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No right to delete is needed; moto's key has none."""
    asked: list[str] = []
    if place.server is None:
        for name in ("unlink", "remove", "rmdir"):
            plain = getattr(os, name)
            monkeypatch.setattr(os, name, partial(_noted, asked, plain))
    else:
        store: Any = place.store
        client = store._client
        client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    counted.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(place)
    counted.stop_after = None
    assert run(place).verify().problems == []
    run(place)
    if place.server is None:
        assert asked, "no file was moved"
        assert all(Path(path).name.startswith(".") for path in asked), "not one of its own"
    else:
        assert set(asked) == {"PutObject", "GetObject", "ListObjectsV2"}


def _noted(asked: list[str], function: Callable[[Any], None], path: Any) -> None:
    asked.append(os.fspath(path))
    function(path)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Drained), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_waits_for_running_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:

    compute = storing.run_shard

    def signalled(*args: Any) -> Any:
        os.kill(os.getpid(), number)
        return compute(*args)

    monkeypatch.setattr(worker, "run_shard", signalled)
    messages: list[str] = []
    with pytest.raises(error):
        run(tmp_path, on_message=messages.append)
    assert sum("running shards" in line for line in messages) == 1
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    (lease,) = tmp_path.rglob("lease/000001.json")
    assert json.loads(lease.read_text())["released"] is True
    monkeypatch.undo()
    assert run(tmp_path).verify().problems == []


def test_sigterm_while_ray_starts_is_reported_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until ``ray.init`` is through, its own handler answers the signal with ``sys.exit(15)``."""

    def starting(*rest: Any) -> Any:
        sys.exit(signal.SIGTERM)

    monkeypatch.setattr(Workplace, "open", starting)
    with pytest.raises(Drained, match="run the same command to resume"):
        run(tmp_path)
    (attempt,) = tmp_path.rglob("attempts/*.json")
    assert json.loads(attempt.read_text())["exit_code"] == 143
    monkeypatch.undo()
    assert run(tmp_path).verify().problems == []


def test_a_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard that runs meanwhile is not waited for."""
    noted, left = threading.Event(), threading.Event()

    def signalled(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted.wait(HANG_S)
        os.kill(os.getpid(), signal.SIGINT)
        assert left.wait(HANG_S), "the run waits for it"
        raise ZeroDivisionError("it is not to be stored")

    def on_message(line: str) -> None:
        if line.startswith("stopping"):
            noted.set()

    monkeypatch.setattr(worker, "run_shard", signalled)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_message=on_message)
    left.set()
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_store_that_fails_for_a_moment_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(retry, "STORE_PAUSE_S", 0.01)
    compute, failures = storing.run_shard, iter([True, False, True, True])

    def failing(*args: Any) -> Any:
        if next(failures, False):
            raise StoreError("planted", transient=True)
        return compute(*args)

    monkeypatch.setattr(worker, "run_shard", failing)
    messages: list[str] = []
    assert run(tmp_path, on_message=messages.append).verify().problems == []
    assert sum("planted; trying again" in line for line in messages) == 2


def test_a_shard_is_tried_again_after_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    compute = storing.run_shard
    failures = iter([True])

    def failing(*args: Any) -> Any:
        if next(failures, False):
            raise ZeroDivisionError("planted")
        return compute(*args)

    monkeypatch.setattr(worker, "run_shard", failing)
    assert run(tmp_path).verify().problems == []


@pytest.mark.parametrize("transient", [False, True])
def test_a_store_that_does_not_come_back_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transient: bool
) -> None:

    monkeypatch.setattr(retry, "STORE_BUDGET_S", 0.2)
    monkeypatch.setattr(retry, "STORE_PAUSE_S", 0.01)
    calls = []

    def failing(*args: Any) -> Any:
        calls.append(args)
        raise StoreError("planted", transient)

    lines: list[str] = []
    monkeypatch.setattr(worker, "run_shard", failing)
    with pytest.raises(StoreError, match="planted"):
        run(tmp_path, on_message=lines.append)
    assert (len(calls) > 1) is transient, "only what may pass is tried again"
    levels = [Message.of(line).level for line in lines if "planted; trying again" in line]
    assert levels == ["warning"] * transient


def test_a_worker_that_does_not_see_the_drivers_folder_says_so(tmp_path: Path) -> None:
    job = Job(StoreAddress(str(tmp_path / "elsewhere")), "attempt")
    with pytest.raises(StoreError, match=r"is not the driver's folder.*shared by all machines"):
        ShardWorker(job, accelerated=False, threads=1)


def test_a_worker_with_another_torch_than_the_plans_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(tmp_path)
    (attempt,) = (
        path.stem for path in tmp_path.rglob("attempts/*.json") if path.parent.name == "attempts"
    )
    monkeypatch.setattr(torch, "__version__", "1.0.0")
    with pytest.raises(ClusterError, match=r"made for torch .*, this worker has 1\.0.*one image"):
        ShardWorker(Job(done.address, attempt), accelerated=False, threads=1)


# --- what is found before anything is fitted -------------------------------------------------


def resources(text: str) -> Spec:
    return Spec.parse(f"{SPEC.text}\nresources: {{{text}}}\n")


@pytest.mark.parametrize("executor", ["inline", "auto"])
@pytest.mark.parametrize(("asked", "there"), [("1", 0), ("0.5", 0), ("2", 1)])
def test_gpus_that_are_asked_for_and_not_there_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, asked: str, there: int
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: there)
    spec = resources(f"gpus_per_actor: {asked}")
    with pytest.raises(ClusterError, match=f"gpus_per_actor: {asked}, .* finds {there} GPUs"):
        polyfit.execute(spec, store=str(tmp_path), executor=executor)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(("asked", "wanted"), [("auto", True), ("0", False), ("1", True)])
def test_a_gpu_in_this_process_is_taken_where_one_is_asked_for_or_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, wanted: bool
) -> None:
    found: list[bool] = []

    def pick(accelerated: bool) -> torch.device:
        found.append(accelerated)
        return torch.device("cpu")

    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(worker, "pick_device", pick)
    polyfit.execute(resources(f"gpus_per_actor: {asked}"), store=str(tmp_path), executor="inline")
    assert found == [wanted]


UNUSABLE = {
    "a wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refuses this secret key"),
    "an unknown key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not know this access key"),
    "no keys": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials"),
    "no server": ({"AWS_ENDPOINT_URL_S3": ""}, "cannot be reached"),
    "no bucket": ({}, "there is no such bucket"),
}


@pytest.fixture(params=UNUSABLE)
def unusable(
    request: pytest.FixtureRequest, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> tuple[StoreAddress, str]:
    """A place that cannot be used, and how the message about it begins."""
    use(moto, monkeypatch)
    changes, cause = UNUSABLE[request.param]
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    if request.param == "no server":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    if request.param == "no keys":
        for name in changes:
            monkeypatch.delenv(name)
    bucket = "nowhere" if request.param == "no bucket" else moto.bucket
    address = StoreAddress.of(f"s3://{bucket}/prefix")
    return address, rf"^bucket '{bucket}' at {address.endpoint_url}: .*{cause}"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that botocore would have waited between its tries."""
    import botocore.endpoint

    waits: list[float] = []
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=waits.append))
    return waits


def test_a_driver_that_cannot_use_its_store_ends_soon_and_before_it_looks_for_actors(
    unusable: tuple[StoreAddress, str], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With endpoint, bucket and cause."""

    def early(address: str | None) -> None:
        raise AssertionError("it went to Ray first")

    monkeypatch.setattr(cluster, "connect", early)
    address, message = unusable
    with pytest.raises(StoreError, match=message) as caught:
        polyfit.execute(SPEC, store=address.uri, executor="ray")
    assert "wrong" not in str(caught.value)
    assert sum(slept) < 30


def test_an_actor_that_cannot_use_the_store_says_so_before_its_first_shard(
    unusable: tuple[StoreAddress, str], slept: list[float]
) -> None:
    address, message = unusable
    actor = ShardActor(Job(address.under("small/id"), "attempt"), True, 1)
    error = actor.ready().error
    assert isinstance(error, StoreError)
    assert re.search(message, str(error))
    assert sum(slept) < 30


def test_keys_that_may_read_and_not_write_are_found_before_anything_is_fitted(
    place: Place, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On resume too: whether the store honours conditions is asked by writing."""
    counted.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(place)
    counted.asked = []

    def refuse(self: Any, key: str, data: bytes) -> bool:
        raise StoreError("the store refuses these keys (AccessDenied)")

    monkeypatch.setattr(type(place.store), "create", refuse)
    with pytest.raises(StoreError, match="refuses these keys"):
        run(place)
    assert counted.asked == []


def test_small_work_stays_in_this_process_and_says_so(tmp_path: Path) -> None:
    messages: list[str] = []
    polyfit.execute(SPEC, store=str(tmp_path), on_message=messages.append)
    assert "in this process: the work is smaller than starting Ray" in messages[0]
    assert messages[1].startswith("running in this process")


def test_work_larger_than_starting_ray_goes_to_ray() -> None:
    large = Spec.parse("name: large\nsweep: {seed: {count: 10000000}}")
    plan = polyfit.Plan.of(large)
    chosen = Workplace.choose("auto", plan, large.resources, None, 1.0, print)
    assert chosen.kind == "ray"


def test_two_runs_of_one_plan_in_two_places_have_the_same_bytes(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", run_id="other")
    for key in keys(one):
        if key.startswith("shards/") or key in ("plan.json", "manifest.json"):
            assert (Path(one.uri) / key).read_bytes() == (Path(other.uri) / key).read_bytes()


def test_a_manifest_is_not_written_while_a_receipt_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(InlineExecutor):
        def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
            todo.popleft()
            yield from super().run(todo)

    monkeypatch.setattr(workplace, "InlineExecutor", Forgetful)
    with pytest.raises(DamagedRun, match="4 receipts for 5 shards"):
        run(tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_damaged_column_found_on_resume_is_not_sealed(tmp_path: Path) -> None:
    """Every page of every column is looked at, not only what is counted."""
    import pyarrow.parquet as pq

    finished = run(tmp_path)
    shard = sorted(tmp_path.rglob("*.parquet"))[2]
    group = pq.ParquetFile(shard).metadata.row_group(0)
    columns = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    loss = columns["loss"]
    data = bytearray(shard.read_bytes())
    data[loss.data_page_offset + loss.total_compressed_size - 5] ^= 1
    shard.write_bytes(data)
    (Path(finished.uri) / "manifest.json").unlink()
    with pytest.raises(
        FailedShards, match="remove that object and run the same spec again"
    ) as failed:
        run(tmp_path)
    assert "--retry-failed" not in str(failed.value), "that would find it again"
    state = finished.state()
    assert (state.shards_done, state.shards_failed) == (finished.plan.shards - 1, 1)
    assert state.fits_done == finished.plan.fits - finished.plan.shard(2).fits
    assert not (Path(finished.uri) / "manifest.json").exists()
    shard.unlink()
    assert run(tmp_path).verify().problems == []


def test_a_sealed_run_that_lost_a_shard_is_mended_with_the_same_bytes(
    tmp_path: Path, counted: type[Counted]
) -> None:
    finished = run(tmp_path)
    shard = sorted(tmp_path.rglob("*.parquet"))[2]
    before = shard.read_bytes()
    shard.unlink()
    with pytest.raises(DamagedRun, match="is missing; run the same spec again"):
        finished.to_arrow()
    messages: list[str] = []
    assert run(tmp_path, on_message=messages.append).verify().problems == []
    assert shard.read_bytes() == before
    assert [task.shard for task in counted.asked if task.kind == "compute"] == [2]
    assert any("are missing: fitting them again" in line for line in messages)


def test_a_finished_run_on_a_store_that_cannot_be_written_is_still_a_no_op(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)

    def refuse(self: FolderStore, key: str, data: bytes) -> bool:
        raise StoreError("read-only")

    monkeypatch.setattr(FolderStore, "create", refuse)
    monkeypatch.setattr(FolderStore, "put", refuse)
    assert run(tmp_path).complete


def test_progress_counts_what_was_stored_before(tmp_path: Path, counted: type[Counted]) -> None:
    counted.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    counted.stop_after = None
    seen: list[Progress] = []
    run(tmp_path, on_progress=seen.append)
    assert (seen[0].shards_done, seen[0].fits_done) == (2, 20)
    assert (seen[-1].shards_done, seen[-1].fits_done) == (5, 50)


def test_a_full_disk_leaves_nothing_half_written_and_the_run_resumes_later(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the same error comes from the same call."""
    path = tmp_path / "full.yaml"
    path.write_text(
        "name: full\nshard: 500\nengine: eager\nfit: {steps: 20, points: 40}\n"
        "sweep: {seed: {count: 2000}}\n"
    )
    ours = [
        sys.executable, "-m", "polyfit", "run", str(path), "--store", str(tmp_path / "runs"),
        "--executor", "inline",
    ]  # fmt: skip

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(
        ours, text=True, capture_output=True, timeout=HANG_S, check=False, preexec_fn=small_files
    )
    assert full.returncode == 5, full.stderr
    assert "File too large (shards/000000-" in full.stderr
    assert "Traceback" not in full.stderr
    left = [str(path) for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".part", ".parquet"))]
    done = subprocess.run(ours, text=True, capture_output=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    (manifest,) = tmp_path.rglob("manifest.json")
    assert polyfit.Run.open(str(manifest.parent)).verify().problems == []


# --- how objects are written -----------------------------------------------------------------

SEALED = "sse: aws:kms, kms_key_id: alias/ours, storage_class: STANDARD_IA"


def written(server: S3Server, uri: str) -> dict[str, tuple[str | None, ...]]:
    """Encryption, its key and the class of every object of a run."""
    client, prefix = server.client(), uri.split("/", 3)[3]
    listed = client.list_objects_v2(Bucket=server.bucket, Prefix=prefix)["Contents"]
    found = {}
    for item in listed:
        head: Any = client.head_object(Bucket=server.bucket, Key=item["Key"])
        names = ("ServerSideEncryption", "SSEKMSKeyId", "StorageClass")
        found[item["Key"].removeprefix(f"{prefix}/")] = tuple(map(head.get, names))
    return found


@pytest.mark.parametrize("elsewhere", [False, True])
def test_all_objects_are_encrypted_and_shards_have_their_class(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Also where --store names another place than the spec."""
    use(moto, monkeypatch)
    uri = moto.fresh_uri()
    spec = Spec.parse(f"{TEXT}store: {{uri: {'s3://nowhere' if elsewhere else uri}, {SEALED}}}\n")
    finished = polyfit.execute(spec, store=uri if elsewhere else None, executor="inline")
    objects = written(moto, finished.uri)
    kinds = {key.partition("/")[0] for key in objects}
    assert {PLAN, "spec.yaml", MANIFEST, "status.json", "attempts", "shards"} < kinds
    for key, facts in objects.items():
        shard = key.startswith("shards/")
        assert facts == ("aws:kms", "alias/ours", "STANDARD_IA" if shard else None), key
    assert finished.verify().problems == []


def test_a_store_that_does_not_encrypt_is_told_before_any_fit(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(rclone, monkeypatch)
    spec = Spec.parse(f"{TEXT}store: {{uri: {rclone.fresh_uri()}, sse: AES256}}\n")
    with pytest.raises(
        StoreError, match=r"sse: AES256 was asked for .* names no encryption"
    ) as messages:
        polyfit.execute(spec, executor="inline")
    assert not messages.value.transient


def test_a_real_server_encrypts_what_it_is_asked_to(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(seaweed, monkeypatch)
    spec = Spec.parse(
        f"{TEXT}store: {{uri: {seaweed.fresh_uri()}, sse: AES256, storage_class: STANDARD_IA}}\n"
    )
    finished = polyfit.execute(spec, executor="inline")
    objects = written(seaweed, finished.uri)
    assert {facts[0] for facts in objects.values()} == {"AES256"}
    assert {key for key, facts in objects.items() if facts[2]} == {
        key for key in objects if key.startswith("shards/")
    }
    assert finished.verify().problems == []


def test_a_folder_takes_a_spec_whose_own_store_is_encrypted(tmp_path: Path) -> None:
    spec = Spec.parse(f"{TEXT}store: {{uri: s3://nowhere, {SEALED}}}\n")
    assert run(tmp_path, spec).complete
