"""Rows of another run are taken where a fit would have the same bits, and nowhere else."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from engines import CPU
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import HANG_S
from servers import RayHead, S3Server

import polyfit
from polyfit.errors import PlanMismatch, RunNotFound, StoreError
from polyfit.run import parquet
from polyfit.run.reuse import NothingAlike, Reuse, ReusedRows
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.folder import FolderStore
from polyfit.store.s3 import S3Store
from polyfit.work import fitting, retry, storing, worker
from polyfit.work.progress import Progress
from polyfit.work.run_address import reuse_source
from polyfit.work.task import Job
from polyfit.work.worker import ShardWorker

FIRST = """\
name: first
shard: 16
fit: {steps: 25, points: 40}
sweep: {degree: [1, 4], lr: [auto, 100.0], seed: {count: 10}}
record: {every: 10, of: [loss, coefficients, gradient_norm]}
"""


MORE_SEEDS = FIRST.replace("first", "more").replace("count: 10", "count: 25, start: 3")


ONE_DEGREE = FIRST.replace("first", "more").replace("[1, 4]", "[1, 2, 4]")


ANOTHER_RANGE = FIRST.replace("first", "more").replace(
    "sweep: {", "sweep: {range: [[0, 1], [-pi, pi]], "
)


class Fitted:
    """How many fits went through ``fitting.fit_batch``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fits = 0
        fit_batch = vars(fitting)["fit_batch"]

        def counting(inputs: Any, *rest: Any) -> Any:
            self.fits += len(inputs.lr_B)
            return fit_batch(inputs, *rest)

        monkeypatch.setattr(fitting, "fit_batch", counting)


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> Fitted:
    return Fitted(monkeypatch)


def run(folder: Path, text: str, **options: Any) -> polyfit.Run:
    return polyfit.execute(Spec.parse(text), store=str(folder), executor="inline", **options)


def objects(run: polyfit.Run) -> dict[str, bytes]:
    """What must not depend on where rows came from."""
    folder = Path(run.uri)
    paths = [*folder.glob("shards/*"), folder / "plan.json", folder / "manifest.json"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("text", "taken", "fits"),
    [
        (MORE_SEEDS, 28, 100),
        (ONE_DEGREE, 40, 60),
        (ANOTHER_RANGE, 40, 80),
        (FIRST.replace("shard: 16", "shard: 7"), 40, 40),
        (FIRST.replace("first", "zipped").replace(
            "lr: [auto, 100.0], seed: {count: 10}",
            "zip: [{lr: [100.0, auto, 1.0, auto], seed: [3, 3, 3, 11]}]"), 4, 8),
    ],
    ids=["more seeds", "one more degree", "another range", "other shards", "a zip"],
)  # fmt: skip
def test_a_run_that_reuses_another_fits_the_rest_and_has_the_same_bytes(
    tmp_path: Path, fitted: Fitted, text: str, taken: int, fits: int
) -> None:
    first = run(tmp_path, FIRST)
    without = run(tmp_path / "without", text)
    fitted.fits = 0
    messages: list[str] = []
    seen: list[Progress] = []
    reused = run(
        tmp_path / "with",
        text,
        reuse=first.uri,
        on_message=messages.append,
        on_progress=seen.append,
    )
    assert fitted.fits == fits - taken
    assert objects(reused) == objects(without)
    assert f"reusing rows of {first.uri}, where it has fits of this plan" in messages
    assert f"reused {taken} fits of {first.uri}, fitted {fits - taken}" in messages
    assert seen[-1].fits_reused == taken
    assert reused.verify().problems == []


MIXED = """\
name: mixed
shard: 50
fit: {steps: 30, points: 50}
sweep:
  degree: [0, 3, 10]
  basis: [chebyshev, power]
  range: [[0, 1], [1.0e+6, 1000001]]
  objective: [sse, huber]
  noise: [0, 0.1]
  seed: {count: 3}
  zip:
  - optimizer: [gd, adam, gd, gd]
    stop: [none, {gradient: 0.5}, {loss_change: 0.01}, none]
    lr: [auto, auto, auto, 100.0]
record: {at: [0, 1, 7, 20], of: [coefficients, loss]}
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_every_kind_are_taken_bit_for_bit(
    tmp_path: Path, fitted: Fitted, dtype: str
) -> None:
    text = MIXED.replace("fit: {", f"fit: {{dtype: {dtype}, ")
    first = run(tmp_path, text)
    statuses = first.to_arrow(["status", "power_coefficients"])
    assert {"completed", "converged", "diverged"} <= set(statuses["status"].to_pylist())
    assert 0 < statuses["power_coefficients"].null_count < len(statuses)
    more = text.replace("shard: 50", "shard: 37").replace("[0, 3, 10]", "[0, 10, 3, 1]")
    without = run(tmp_path / "without", more)
    fitted.fits = 0
    assert objects(run(tmp_path / "with", more, reuse=first.uri)) == objects(without)
    assert fitted.fits == without.plan.fits - first.plan.fits


def test_a_whole_run_is_copied_without_a_fit(tmp_path: Path, fitted: Fitted) -> None:
    first = run(tmp_path, FIRST)
    fitted.fits = 0
    assert objects(run(tmp_path / "copy", FIRST, reuse=first.uri)) == objects(first)
    assert fitted.fits == 0


def test_shards_of_several_row_groups_are_read_in_part(
    tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 5)
    first = run(tmp_path, FIRST)
    without = run(tmp_path / "without", MORE_SEEDS)
    fitted.fits = 0
    assert objects(run(tmp_path / "with", MORE_SEEDS, reuse=first.uri)) == objects(without)
    assert fitted.fits == 72


def test_the_compiled_engine_reuses_too(tmp_path: Path, fitted: Fitted) -> None:
    text = (
        "name: first\nengine: compiled\nfit: {steps: 11, points: 30, lr: 0.001}\n"
        "sweep: {objective: [sse, huber], noise: [1, 2], seed: {count: 5}}\n"
    )
    more = text.replace("first", "more").replace("[1, 2]", "[0, 1, 2]").replace("5}", "9}")
    first, without = run(tmp_path, text), run(tmp_path / "without", more)
    fitted.fits = 0
    assert objects(run(tmp_path / "with", more, reuse=first.uri)) == objects(without)
    assert fitted.fits == 54 - 20


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (MORE_SEEDS + "engine: eager\n", "its engine is compiled, this plan's is eager"),
        (MORE_SEEDS.replace("every: 10", "every: 5"), r"it records .*10.*, this plan .*5"),
        (MORE_SEEDS.replace("points: 40", "points: 40, dtype: float64"), "stores .* as float32"),
        (
            MORE_SEEDS.replace("points: 40", "points: 41").replace("steps: 25", "steps: 24"),
            "no fit is in both: points is 40 there and 41 here, steps is 25 there and 24 here",
        ),
    ],
    ids=["engine", "record", "lists", "fields"],
)
def test_where_no_row_could_have_the_same_bits_one_line_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, why: str
) -> None:
    first = run(tmp_path, FIRST)
    plan = polyfit.Plan.of(Spec.parse(other))
    home = StoreAddress.of(str(tmp_path / "elsewhere"))
    source, line = reuse_source(first.uri, None, home, plan)
    assert source is None
    assert re.match(rf"reusing nothing of {first.uri}: .*{why}", line)


def test_a_run_to_reuse_is_looked_for_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="there is no run 'typo'"):
        run(tmp_path / "new", FIRST, reuse="typo")
    assert not (tmp_path / "new").exists()
    run(tmp_path / "new", FIRST)
    with pytest.raises(RunNotFound, match="there is no run 'typo'"):  # though nothing is missing
        run(tmp_path / "new", FIRST, reuse="typo")


@pytest.mark.parametrize("in_full", [False, True])
def test_a_complete_run_of_a_date_needs_no_more_what_it_reused(
    tmp_path: Path, in_full: bool
) -> None:
    reuse = f"{tmp_path}/" * in_full + "first/night-{date}"
    options = {"run_id": "night-{date}", "date": "2026-03-01"}
    first = run(tmp_path, FIRST, **options)
    run(tmp_path, MORE_SEEDS, reuse=reuse, **options)
    shutil.rmtree(first.uri)
    messages: list[str] = []
    again = run(tmp_path, MORE_SEEDS, reuse=reuse, on_message=messages.append, **options)
    assert again.complete
    assert sum(line.startswith(f"warning: --reuse {reuse}: ") for line in messages) == 1
    with pytest.raises(RunNotFound):
        run(tmp_path, MORE_SEEDS, reuse="first/night-2026-03-02", **options)


def test_a_run_with_none_of_the_fits_gives_none_and_one_line_says_so(
    tmp_path: Path, fitted: Fitted
) -> None:
    first = run(tmp_path, FIRST)
    fitted.fits = 0
    messages: list[str] = []
    run(
        tmp_path,
        MORE_SEEDS.replace("steps: 25", "steps: 24"),
        reuse=first.uri,
        on_message=messages.append,
    )
    assert fitted.fits == 100
    assert (
        f"reusing nothing of {first.uri}: no fit is in both: steps is 25 there and 24 here"
        in messages
    )


def test_the_affine_engine_takes_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, FIRST)
    plan = polyfit.Plan.of(Spec.parse(FIRST + "engine: affine\n"))
    with pytest.raises(NothingAlike, match="engine is affine"):
        Reuse(plan, first.address)


@pytest.mark.parametrize("name", ["ENGINE", "SCHEMA"])
def test_no_rows_are_taken_of_a_run_by_another_engine_and_a_message_says_so(
    tmp_path: Path, fitted: Fitted, name: str
) -> None:
    first = run(tmp_path, FIRST)
    path = Path(first.uri) / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: 0, "hash": "0" * 64}))
    messages: list[str] = []
    fitted.fits = 0
    run(tmp_path / "with", MORE_SEEDS, reuse=first.uri, on_message=messages.append)
    assert fitted.fits == 100
    assert any(
        line.startswith(f"reusing nothing of {first.uri}: it was made with") for line in messages
    )


@pytest.mark.parametrize(
    ("name", "value"), [("cpu", "another kind"), ("device", "cuda"), ("torch", "2.13.99")]
)
def test_rows_of_other_provenance_are_fitted_and_one_message_says_so(
    tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    made = storing.provenance
    with monkeypatch.context() as there:
        there.setattr(storing, "provenance", lambda *args: {**made(*args), name: value})
        first = run(tmp_path, FIRST)
    without = run(tmp_path / "without", MORE_SEEDS)
    fitted.fits = 0
    messages: list[str] = []
    reused = run(tmp_path / "with", MORE_SEEDS, reuse=first.uri, on_message=messages.append)
    assert (fitted.fits, objects(reused)) == (100, objects(without))
    assert sum(f"was made with {name} {value}, here it is" in line for line in messages) == 1


def test_on_an_accelerator_nothing_is_taken(tmp_path: Path) -> None:
    first = run(tmp_path, FIRST)
    plan = first.plan
    known = Reuse(plan, first.address).rows_for(plan.shard(0), {"device": "cuda"})
    assert (known.num_fits, list(known.refused)) == (0, ["device"])


def test_of_an_unfinished_run_stored_rows_are_taken(tmp_path: Path, fitted: Fitted) -> None:
    first = run(tmp_path, FIRST)
    shards = sorted(Path(first.uri).glob("shards/*"))
    shards[1].unlink()
    for name in ("manifest.json", "status.json"):
        (Path(first.uri) / name).unlink()
    without = run(tmp_path / "without", ONE_DEGREE)
    fitted.fits = 0
    messages: list[str] = []
    reused = run(tmp_path / "with", ONE_DEGREE, reuse=first.uri, on_message=messages.append)
    assert (fitted.fits, objects(reused)) == (60 - 24, objects(without))
    assert sum("is not there" in line for line in messages) == 1
    assert len(list(Path(first.uri).glob("shards/*"))) == 2, "it was written to"


def flipped(path: Path, column: str) -> None:
    """Change one bit of the last page of ``column``."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = [group.column(k) for k in range(group.num_columns)]
    (chunk,) = [c for c in chunks if c.path_in_schema.partition(".")[0] == column]
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 1
    path.write_bytes(data)


def swapped(path: Path) -> None:
    """Put another shard in its place."""
    path.write_bytes(path.with_name(path.name.replace("000001", "000000")).read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: flipped(path, "loss"),
        lambda path: flipped(path, "coefficients_history"),
        swapped,
        lambda path: path.chmod(0) if os.getuid() else (path.unlink(), path.mkdir()),
    ],
    ids=["empty", "cut", "a scalar", "a history", "another shard", "unreadable"],
)
def test_a_damaged_shard_of_the_other_run_is_fitted_again_and_one_message_says_so(
    tmp_path: Path, fitted: Fitted, damage: Callable[[Path], object]
) -> None:
    first = run(tmp_path, FIRST)
    damage(sorted(Path(first.uri).glob("shards/*"))[1])
    without = run(tmp_path / "without", ONE_DEGREE)
    fitted.fits = 0
    messages: list[str] = []
    reused = run(tmp_path / "with", ONE_DEGREE, reuse=first.uri, on_message=messages.append)
    assert (fitted.fits, objects(reused)) == (60 - 24, objects(without))
    assert sum("000001-" in line for line in messages) == 1
    assert "reused 24 fits" in messages[-2]  # the last one is the receipt


@given(data=st.data())
@settings(max_examples=150)
def test_whatever_byte_is_damaged_no_row_is_another(harmed: "Harmed", data: st.DataObject) -> None:
    """A shard with one wrong byte gives the right rows, or none."""
    place = data.draw(st.integers(0, len(harmed.shard) - 1))
    flip = data.draw(st.integers(1, 255))
    known = harmed.known(place, flip)
    assert known.num_fits in (0, 16)
    assert fitting.compute(harmed.plan, harmed.first, CPU, 1, known).equals(harmed.whole)


class Harmed:
    """A run whose first shard can be given back with one byte changed."""

    def __init__(self, folder: Path) -> None:
        self.run = run(folder, FIRST)
        self.plan = self.run.plan
        self.first = self.plan.shard(0)
        self.path = min(Path(self.run.uri).glob("shards/*"))
        self.shard = self.path.read_bytes()
        self.whole = fitting.compute(self.plan, self.first, CPU)
        self.here = storing.provenance(self.plan, CPU)

    def known(self, place: int, flip: int) -> ReusedRows:
        data = bytearray(self.shard)
        data[place] ^= flip
        self.path.write_bytes(data)
        return Reuse(self.plan, self.run.address).rows_for(self.first, self.here)


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    return Harmed(tmp_path_factory.mktemp("harmed"))


def test_an_interrupted_run_resumes_with_and_without_reuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, FIRST)
    without = run(tmp_path / "without", MORE_SEEDS)
    compute = storing.run_shard

    def break_off(after: int, **options: Any) -> None:
        left = iter(range(after))

        def breaking(*args: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return compute(*args)

        monkeypatch.setattr(worker, "run_shard", breaking)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "with", MORE_SEEDS, **options)
        monkeypatch.setattr(worker, "run_shard", compute)

    break_off(2, reuse=first.uri)
    break_off(2)
    break_off(1, reuse=first.uri)
    finished = run(tmp_path / "with", MORE_SEEDS)
    assert objects(finished) == objects(without)


def test_an_attempt_says_what_it_reused(tmp_path: Path) -> None:
    first = run(tmp_path, FIRST)
    reused = run(tmp_path / "with", MORE_SEEDS, reuse=first.uri)
    attempts = [json.loads(path.read_bytes()) for path in Path(reused.uri).glob("attempts/*.json")]
    assert [fact["reuse"] for fact in attempts] == [{"run": first.uri, "fits": 28}]


def test_a_run_that_reuses_itself_resumes(tmp_path: Path) -> None:
    first = run(tmp_path, FIRST)
    messages: list[str] = []
    run(tmp_path, FIRST, reuse=first.uri, on_message=messages.append)
    assert any("complete already" in line for line in messages)
    min(Path(first.uri).glob("shards/*")).unlink()
    messages.clear()
    assert (
        run(tmp_path, FIRST, reuse=f"{first.uri}/", on_message=messages.append).verify().problems
        == []
    )
    assert any("is this run: it resumes from what is stored" in line for line in messages)
    assert not any(line.startswith("reus") for line in messages)


def test_a_finished_run_is_a_no_op_whatever_became_of_the_other(tmp_path: Path) -> None:
    first = run(tmp_path, FIRST)
    again = run(tmp_path / "with", MORE_SEEDS, reuse=first.uri)
    shutil.rmtree(first.uri)
    before = objects(again)
    assert objects(run(tmp_path / "with", MORE_SEEDS, reuse=first.uri)) == before


def test_a_place_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match=r"holds no run; expected plan.json there"):
        run(tmp_path, FIRST, reuse=str(tmp_path))
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(PlanMismatch, match="is no plan that this version reads"):
        run(tmp_path, FIRST, reuse=str(tmp_path))
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_worker_that_does_not_see_the_other_run_says_so(tmp_path: Path) -> None:
    first = run(tmp_path, FIRST)
    attempt = min(Path(first.uri).glob("attempts/*.json"), key=lambda path: len(path.name)).stem
    job = Job(first.address, attempt, StoreAddress(str(tmp_path / "elsewhere")))
    with pytest.raises(StoreError, match=r"holds no run.*shared by all machines"):
        ShardWorker(job, accelerated=False, threads=1)


def test_a_store_that_fails_for_a_moment_is_asked_again(
    tmp_path: Path, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "STORE_PAUSE_S", 0.01)
    first = run(tmp_path, FIRST)
    size, failures = FolderStore.size, iter([True, True])

    def failing(self: FolderStore, key: str) -> int:
        if self.uri == first.uri and next(failures, False):
            raise StoreError("planted", transient=True)
        return size(self, key)

    monkeypatch.setattr(FolderStore, "size", failing)
    fitted.fits = 0
    run(tmp_path / "with", MORE_SEEDS, reuse=first.uri)
    assert fitted.fits == 72


def command(*arguments: object, env: Mapping[str, str] | None = None) -> tuple[int, Any, str]:
    """Exit code, JSON and remarks of ``polyfit run --json``."""
    done = subprocess.run(
        [sys.executable, "-m", "polyfit", "run", "--json", *map(str, arguments)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.fixture
def more(tmp_path: Path) -> Path:
    path = tmp_path / "more.yaml"
    path.write_text(MORE_SEEDS)
    return path


def test_the_command_says_what_it_reuses_and_counts_it_as_json(tmp_path: Path, more: Path) -> None:
    first = run(tmp_path / "runs", FIRST)
    code, summary, err = command(
        more, "--store", tmp_path / "runs", "--executor", "inline", "--reuse", first.uri
    )
    assert (code, summary["fits"], summary["fits_reused"]) == (0, 100, 28)
    assert f"more: reusing rows of {first.uri}" in err
    assert f"more: reused 28 fits of {first.uri}, fitted 72" in err
    code, summary, err = command(more, "--store", tmp_path / "runs")
    assert (code, "fits_reused" in summary) == (0, False)
    code, summary, err = command(more, "--store", tmp_path / "runs", "--reuse", first.uri)
    assert (code, summary["fits_reused"]) == (0, 0)
    assert "reus" not in err.replace(str(tmp_path), "")


def test_a_place_without_a_run_ends_with_2(tmp_path: Path, more: Path) -> None:
    code, summary, err = command(more, "--store", tmp_path / "runs", "--reuse", tmp_path)
    assert (code, summary) == (2, None)
    assert f"polyfit: {tmp_path} holds no run; expected plan.json there" in err


def test_a_run_in_s3_is_reused_on_ray_and_its_keys_travel_nowhere(
    seaweed: S3Server,
    ray_cluster: RayHead,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    more: Path,
) -> None:
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    store = seaweed.fresh_uri()
    first = polyfit.execute(Spec.parse(FIRST), store=store, executor="inline")
    without = run(tmp_path / "without", MORE_SEEDS)
    endpoint = ("--endpoint-url", seaweed.endpoint_url)
    code, summary, err = command(
        more, "--store", store, *endpoint, "--reuse", first.uri, env=ray_cluster.env
    )
    assert (code, summary["fits_reused"]) == (0, 28), err
    there = polyfit.Run.open(summary["run"], seaweed.endpoint_url)
    assert there.manifest == without.manifest
    client, prefix = seaweed.client(), there.uri.removeprefix(f"s3://{seaweed.bucket}/")
    for item in client.list_objects_v2(Bucket=seaweed.bucket, Prefix=prefix)["Contents"]:
        body = client.get_object(Bucket=seaweed.bucket, Key=item["Key"])["Body"].read()
        assert seaweed.env["AWS_SECRET_ACCESS_KEY"].encode() not in body


def test_a_run_in_s3_is_read_in_few_requests(
    seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fitted: Fitted
) -> None:
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    first = polyfit.execute(Spec.parse(FIRST), store=seaweed.fresh_uri(), executor="inline")
    asked: list[str] = []
    get = S3Store.get

    def counting(self: S3Store, key: str, start: int = 0, length: int | None = None) -> bytes:
        asked.append(key)
        return get(self, key, start, length)

    monkeypatch.setattr(S3Store, "get", counting)
    fitted.fits = 0
    run(tmp_path, ONE_DEGREE, reuse=first.uri)
    assert fitted.fits == 20
    assert max(Counter(key for key in asked if "shards/" in key).values()) <= 2 * 2
