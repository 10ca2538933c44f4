"""A run from start to seal in this process: resume, failures, another plan, unreachable stores."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import polyfit
from polyfit import dispatch, driver
from polyfit.dispatch import InlineExecutor, Outcome, Task
from polyfit.errors import (
    DamagedRun,
    FailedShards,
    PlanMismatch,
    RunHeld,
    StoreError,
    UsageError,
)
from polyfit.spec import Spec

TEXT = """\
name: small
shard: 10
fit: {steps: 12, points: 40}
sweep: {degree: [1, 4], seed: {count: 25}}
"""
SPEC = Spec.parse(TEXT)


def run(tmp_path: Path, spec: Spec = SPEC, **options: Any) -> polyfit.Run:
    return polyfit.execute(spec, store=str(tmp_path), executor="inline", **options)


def keys(run: polyfit.Run) -> list[str]:
    folder = Path(run.uri)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_run_has_the_layout_that_is_promised(tmp_path: Path) -> None:
    finished = run(tmp_path)
    short = finished.plan.hash[:8]
    worker, attempt = sorted(
        (key for key in keys(finished) if key.startswith("attempts/")), key=len, reverse=True
    )
    assert keys(finished) == sorted(
        [
            "spec.yaml",
            "plan.json",
            "manifest.json",
            "status.json",
            "lease.json",
            attempt,
            worker,
            *(f"shards/{number:06d}-{short}.parquet" for number in range(5)),
        ]
    )
    assert Path(finished.uri) == tmp_path / "small" / finished.plan.run_id
    assert (Path(finished.uri) / "spec.yaml").read_text() == TEXT
    status = json.loads((Path(finished.uri) / "status.json").read_text())
    assert (status["state"], status["done"], status["shards"]) == ("complete", 5, 5)
    assert json.loads((Path(finished.uri) / attempt).read_text())["exit_code"] == 0
    assert json.loads((Path(finished.uri) / "lease.json").read_text())["released"] is True
    assert finished.verify().problems == []


class Counted(InlineExecutor):
    """An executor that remembers what it was asked to do."""

    asked: list[Task]
    stop_after: int | None = None

    def run(self, todo: deque[Task]) -> Iterator[Outcome]:
        type(self).asked = []
        for outcome in super().run(todo):
            type(self).asked.append(outcome.task)
            yield outcome
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    Counted.asked, Counted.stop_after = [], None
    monkeypatch.setattr(driver, "InlineExecutor", Counted)
    return Counted


def test_a_run_that_broke_off_fits_only_what_is_missing(
    tmp_path: Path, counted: type[Counted]
) -> None:
    counted.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    first = {task.shard for task in counted.asked}
    counted.stop_after = None
    finished = run(tmp_path)
    computed = {task.shard for task in counted.asked if task.kind == "compute"}
    inspected = {task.shard for task in counted.asked if task.kind == "inspect"}
    assert (computed, inspected) == (set(range(5)) - first, first)
    assert finished.verify().problems == []


def test_a_finished_run_is_a_no_op(tmp_path: Path, counted: type[Counted]) -> None:
    before = keys(run(tmp_path))
    counted.asked = []
    told: list[str] = []
    assert keys(run(tmp_path, tell=told.append)) == before
    assert counted.asked == []
    assert any("complete already" in line for line in told)


def test_costly_shards_go_first(tmp_path: Path, counted: type[Counted]) -> None:
    run(tmp_path)
    assert [task.shard for task in counted.asked] == [3, 4, 0, 1, 2]


def test_a_run_id_of_another_plan_is_refused_and_nothing_is_mixed(tmp_path: Path) -> None:
    before = keys(run(tmp_path, run_id="mine"))
    other = Spec.parse(TEXT.replace("steps: 12", "steps: 13"))
    with pytest.raises(PlanMismatch, match="belongs to plan"):
        run(tmp_path, other, run_id="mine")
    assert keys(polyfit.Run.open(str(tmp_path / "small" / "mine"))) == before


@pytest.mark.parametrize("run_id", ["../x", "", "A", "a/b", "-a", "a" * 64])
def test_a_run_id_that_is_no_name_is_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        run(tmp_path, run_id=run_id)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_fails_thrice_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit import worker

    tried: list[int] = []
    compute = worker.run_shard

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
    assert run(tmp_path).complete, "what was mended counts as set aside"


def test_with_on_failure_stop_the_rest_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit import worker

    monkeypatch.setattr(driver, "ATTEMPTS", 1)
    compute = worker.run_shard

    def failing(plan: Any, number: int, *rest: Any) -> Any:
        if number == 4:
            raise ZeroDivisionError("planted")
        return compute(plan, number, *rest)

    monkeypatch.setattr(worker, "run_shard", failing)
    spec = Spec.parse(TEXT + "on_failure: stop\n")
    with pytest.raises(FailedShards, match=r"1 of 5 shards failed, the others are not all at rest"):
        run(tmp_path, spec)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert polyfit.Plan.of(spec).hash == polyfit.Plan.of(SPEC).hash
    monkeypatch.undo()
    assert run(tmp_path, spec, retry_failed=True).verify().problems == []


def test_a_run_that_another_driver_holds_is_left_alone(tmp_path: Path) -> None:
    from polyfit.lease import Holder, Lease
    from polyfit.store import FolderStore

    home = tmp_path / "small" / polyfit.Plan.of(SPEC).run_id
    home.mkdir(parents=True)
    Lease(FolderStore(str(home)), Holder.here("first")).acquire()
    with pytest.raises(RunHeld, match="held by attempt first"):
        run(tmp_path, wait_s=0)
    assert not list(home.rglob("*.parquet"))


def test_a_driver_whose_run_was_taken_over_stops(
    tmp_path: Path, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit.lease import Keeper

    class Lost(Keeper):
        def check(self) -> None:
            if counted.asked:
                raise RunHeld("another driver has taken over")

    monkeypatch.setattr(driver, "Keeper", Lost)
    with pytest.raises(RunHeld):
        run(tmp_path)
    assert len(counted.asked) == 1
    monkeypatch.undo()
    assert run(tmp_path).verify().problems == []


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, driver.Drained), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_lets_what_is_in_flight_come_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    from polyfit import worker

    compute = worker.run_shard

    def signalled(*args: Any) -> Any:
        os.kill(os.getpid(), number)
        return compute(*args)

    monkeypatch.setattr(worker, "run_shard", signalled)
    told: list[str] = []
    with pytest.raises(error):
        run(tmp_path, tell=told.append)
    assert sum("in flight" in line for line in told) == 1
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    (lease,) = tmp_path.rglob("lease.json")
    assert json.loads(lease.read_text())["released"] is True
    monkeypatch.undo()
    assert run(tmp_path).verify().problems == []


def test_sigterm_while_ray_starts_is_told_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until ``ray.init`` is through, its own handler answers the signal with ``sys.exit(15)``."""

    def starting(*rest: Any) -> Any:
        sys.exit(signal.SIGTERM)

    monkeypatch.setattr(driver, "_executor", starting)
    with pytest.raises(driver.Drained, match="the same command goes on from here"):
        run(tmp_path)
    (attempt,) = tmp_path.rglob("attempts/*.json")
    assert json.loads(attempt.read_text())["exit_code"] == 143
    monkeypatch.undo()
    assert run(tmp_path).verify().problems == []


def test_a_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polyfit import worker

    def signalled(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(worker, "run_shard", signalled)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_store_that_fails_for_a_moment_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit import worker

    monkeypatch.setattr(driver, "STORE_PAUSE_S", 0.01)
    compute, failures = worker.run_shard, iter([True, False, True, True])

    def failing(*args: Any) -> Any:
        if next(failures, False):
            raise StoreError("planted", passing=True)
        return compute(*args)

    monkeypatch.setattr(worker, "run_shard", failing)
    told: list[str] = []
    assert run(tmp_path, tell=told.append).verify().problems == []
    assert sum("planted; trying again" in line for line in told) == 2


def test_a_shard_is_tried_again_after_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit import worker

    compute = worker.run_shard
    failures = iter([True])

    def failing(*args: Any) -> Any:
        if next(failures, False):
            raise ZeroDivisionError("planted")
        return compute(*args)

    monkeypatch.setattr(worker, "run_shard", failing)
    assert run(tmp_path).verify().problems == []


@pytest.mark.parametrize("passing", [False, True])
def test_a_store_that_does_not_come_back_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passing: bool
) -> None:
    from polyfit import worker

    monkeypatch.setattr(driver, "STORE_BUDGET_S", 0.2)
    monkeypatch.setattr(driver, "STORE_PAUSE_S", 0.01)
    calls = []

    def failing(*args: Any) -> Any:
        calls.append(args)
        raise StoreError("planted", passing)

    monkeypatch.setattr(worker, "run_shard", failing)
    with pytest.raises(StoreError, match="planted"):
        run(tmp_path)
    assert (len(calls) > 1) is passing, "only what may pass is tried again"


def test_a_damaged_shard_found_on_resume_fails_and_is_not_sealed(
    tmp_path: Path, counted: type[Counted]
) -> None:
    counted.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    counted.stop_after = None
    (shard,) = tmp_path.rglob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(FailedShards, match="cannot be read"):
        run(tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_worker_that_does_not_see_the_drivers_folder_says_so(tmp_path: Path) -> None:
    from polyfit.store import StoreAddress

    job = dispatch.Job(StoreAddress(str(tmp_path / "elsewhere")), "attempt")
    with pytest.raises(StoreError, match=r"is not the driver's on .*shared by all machines"):
        dispatch.Workbench(job, accelerated=False, threads=1)


def test_small_work_stays_in_this_process_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    polyfit.execute(SPEC, store=str(tmp_path), tell=told.append)
    assert any("in this process" in line and "smaller than starting Ray" in line for line in told)


def test_work_larger_than_starting_ray_goes_to_ray() -> None:
    large = Spec.parse("name: large\nsweep: {seed: {count: 10000000}}")
    plan = polyfit.Plan.of(large)
    assert driver._choose("auto", None, plan, lambda line: None) == "ray"


def test_a_store_that_ignores_conditions_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit.store import FolderStore

    def create(self: FolderStore, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    monkeypatch.setattr(FolderStore, "create", create)
    told: list[str] = []
    assert run(tmp_path, tell=told.append).verify().problems == []
    assert sum("If-None-Match" in line for line in told) == 1


def test_two_runs_of_one_plan_in_two_places_have_the_same_bytes(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", run_id="other")
    for key in keys(one):
        if key.startswith("shards/") or key in ("plan.json", "manifest.json"):
            assert (Path(one.uri) / key).read_bytes() == (Path(other.uri) / key).read_bytes()


def test_a_manifest_is_not_written_while_a_receipt_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(InlineExecutor):
        def run(self, todo: deque[Task]) -> Iterator[Outcome]:
            todo.popleft()
            yield from super().run(todo)

    monkeypatch.setattr(driver, "InlineExecutor", Forgetful)
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
    with pytest.raises(FailedShards, match="remove that object and run the same spec again"):
        run(tmp_path)
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
        finished.table()
    told: list[str] = []
    assert run(tmp_path, tell=told.append).verify().problems == []
    assert shard.read_bytes() == before
    assert [task.shard for task in counted.asked if task.kind == "compute"] == [2]
    assert any("are missing: fitting them again" in line for line in told)


def test_a_finished_run_on_a_store_that_cannot_be_written_is_still_a_no_op(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyfit.store import FolderStore

    run(tmp_path)

    def refuse(self: FolderStore, key: str, data: bytes) -> bool:
        raise StoreError("read-only")

    monkeypatch.setattr(FolderStore, "create", refuse)
    monkeypatch.setattr(FolderStore, "put", refuse)
    assert run(tmp_path).complete


def test_progress_counts_what_was_at_rest_before(tmp_path: Path, counted: type[Counted]) -> None:
    counted.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    counted.stop_after = None
    seen: list[driver.Progress] = []
    run(tmp_path, on_progress=seen.append)
    assert (seen[0].shards_done, seen[0].fits_done) == (3, 30)
    assert (seen[-1].shards_done, seen[-1].fits_done) == (5, 50)


def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(tmp_path: Path) -> None:
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
        ours, text=True, capture_output=True, timeout=240, check=False, preexec_fn=small_files
    )
    assert full.returncode == 5, full.stderr
    assert "File too large (shards/000000-" in full.stderr
    assert "Traceback" not in full.stderr
    left = [str(path) for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".part", ".parquet"))]
    done = subprocess.run(ours, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    (manifest,) = tmp_path.rglob("manifest.json")
    assert polyfit.Run.open(str(manifest.parent)).verify().problems == []
