"""A run is proved, and whatever is wrong in it is named."""

import io
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import use
from servers import S3Server
from small_run import FITS, SHARDS, TEXT, file, place, shard

import polyfit
from polyfit.errors import PlanMismatch
from polyfit.run.keys import MANIFEST, PLAN, shard_key
from polyfit.run.manifest import RESEAL_HINT, Receipt
from polyfit.run.parquet import REFIT_HINT
from polyfit.run.reader import Run
from polyfit.spec.plan import dump_json
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress

pytest_plugins = ["small_run_fixtures"]

MISSING = "missing; run the same spec again: it fits what is missing"


SEALED = f"{REFIT_HINT} (it was sealed so: remove manifest.json too)"


def problems(run: Run) -> list[str]:
    """What is found; each names an object, the fits that it is about, and what to do."""
    found = Run.open(run.uri, run.address.endpoint_url).verify().problems
    for problem in found:
        assert re.search(r"shards/|manifest\.json|plan\.json", problem), problem
        assert re.search(r"move|run the same spec again", problem), problem
    return found


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Other rows under the same footer, in Parquet that is sound."""
    rows = pq.read_table(path)
    sink = io.BytesIO()
    metadata = pq.read_metadata(path).metadata
    pq.write_table(change(rows).replace_schema_metadata(metadata), sink, write_page_checksum=True)
    path.write_bytes(sink.getvalue())


def reseal(run: Run, *numbers: int) -> None:
    """A manifest that believes what lies there: only rows and footers can tell."""
    manifest = run.manifest
    assert manifest is not None
    receipts = list(manifest.receipts)
    for number in numbers:
        data = shard(run, number).read_bytes()
        receipts[number] = Receipt.of(run.plan.shard(number), data, receipts[number].statuses)
    sealed = type(manifest)(manifest.plan, tuple(receipts))
    file(run, MANIFEST).write_bytes(sealed.to_json())


def test_an_intact_run_is_proved(run: Run, frame: pd.DataFrame) -> None:
    verdict = run.verify()
    assert verdict.problems == []
    assert (verdict.shards, verdict.fits) == (SHARDS, FITS)
    assert verdict.bytes == sum(shard(run, n).stat().st_size for n in range(SHARDS))
    assert verdict.statuses == frame["status"].astype(str).value_counts().to_dict()


def test_a_missing_shard_is_named(copy: Run) -> None:
    shard(copy, 2).unlink()
    assert problems(copy) == [f"{place(copy, 2)}{MISSING}"]


def test_what_is_intact_is_counted_beside_what_is_not(copy: Run) -> None:
    shard(copy, 2).unlink()
    verdict = copy.verify()
    assert (verdict.shards, verdict.fits) == (SHARDS - 1, FITS - 10)


def test_a_truncated_object_is_named(copy: Run) -> None:
    data = shard(copy, 4).read_bytes()
    shard(copy, 4).write_bytes(data[:-1])
    (problem,) = problems(copy)
    said = f"{len(data) - 1} bytes, the manifest says {len(data)}"
    assert problem == f"{place(copy, 4)}{said}; {REFIT_HINT}"


def test_a_flipped_byte_anywhere_is_named(copy: Run) -> None:
    data = shard(copy, 1).read_bytes()
    for position in range(0, len(data), len(data) // 17):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        shard(copy, 1).write_bytes(flipped)
        assert problems(copy) == [
            f"{place(copy, 1)}other bytes than the manifest's SHA-256; {REFIT_HINT}"
        ]


def test_a_flipped_byte_in_a_page_is_found_without_the_manifest(copy: Run) -> None:
    chunk = pq.read_metadata(shard(copy, 1)).row_group(0).column(0)
    data = bytearray(shard(copy, 1).read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    shard(copy, 1).write_bytes(data)
    file(copy, MANIFEST).unlink()
    _, problem = problems(copy)
    assert problem.startswith(f"{place(copy, 1)}cannot be read (")


def test_a_shard_of_another_plan_under_this_key_is_named(copy: Run, tmp_path: Path) -> None:
    other = polyfit.execute(
        Spec.parse(TEXT.replace("steps: 20", "steps: 21")), store=str(tmp_path), executor="inline"
    )
    shutil.copy(shard(other, 3), shard(copy, 3))
    assert problems(copy)[0].startswith(place(copy, 3))
    reseal(copy, 3)
    assert problems(copy) == [f"{place(copy, 3)}holds plan {other.plan.hash}; {SEALED}"]


def test_swapped_shards_are_named(copy: Run) -> None:
    one, other = shard(copy, 1).read_bytes(), shard(copy, 2).read_bytes()
    shard(copy, 1).write_bytes(other)
    shard(copy, 2).write_bytes(one)
    one_problem, other_problem = problems(copy)
    assert one_problem.startswith(place(copy, 1))
    assert other_problem.startswith(place(copy, 2))
    reseal(copy, 1, 2)
    found = problems(copy)
    assert found[0] == (
        f"{place(copy, 1)}10 rows for 10 fits: 10 missing [10, 11, 12, 13, 14], 0 doubled [], "
        f"10 of other shards [20, 21, 22, 23, 24]; {SEALED}"
    )
    assert found[1].startswith(place(copy, 2))


def test_doubled_rows_are_named(copy: Run) -> None:
    rewrite(shard(copy, 0), lambda rows: pa.concat_tables([rows, rows.slice(3, 2)]))
    assert problems(copy)[0].startswith(place(copy, 0))
    reseal(copy, 0)
    assert problems(copy) == [
        f"{place(copy, 0)}12 rows for 10 fits: 0 missing [], 2 doubled [3, 4], "
        f"0 of other shards []; {SEALED}"
    ]


def test_a_row_in_anothers_place_is_named(copy: Run) -> None:
    """As many rows as fits, and one fit missing."""
    rewrite(shard(copy, 3), lambda rows: pa.concat_tables([rows.slice(0, 9), rows.slice(0, 1)]))
    reseal(copy, 3)
    assert problems(copy) == [
        f"{place(copy, 3)}10 rows for 10 fits: 1 missing [39], 1 doubled [30], "
        f"0 of other shards []; {SEALED}"
    ]


def test_rows_out_of_order_are_named(copy: Run) -> None:
    rewrite(shard(copy, 3), lambda rows: rows.take(list(reversed(range(10)))))
    reseal(copy, 3)
    assert problems(copy)[0].startswith(place(copy, 3))


def test_statuses_that_are_not_the_receipts_are_named(copy: Run) -> None:
    def diverge(rows: pa.Table) -> pa.Table:
        place = rows.column_names.index("status")
        return rows.set_column(
            place, rows.field(place), pa.array(["diverged"] * len(rows)).dictionary_encode()
        )

    rewrite(shard(copy, 0), diverge)
    reseal(copy, 0)
    (problem,) = problems(copy)
    assert problem.startswith(f"{place(copy, 0)}statuses {{'diverged': 10}}, its footer says")


def test_an_object_that_is_no_shard_is_named(copy: Run) -> None:
    """Sound Parquet, our plan's footer, other columns."""
    rewrite(shard(copy, 0), lambda rows: rows.drop_columns(["fit"]))
    reseal(copy, 0)
    (problem,) = problems(copy)
    assert problem.startswith(place(copy, 0))


def test_a_run_without_a_manifest_is_not_complete(copy: Run) -> None:
    file(copy, MANIFEST).unlink()
    opened = Run.open(copy.uri)
    assert not opened.complete
    (said,) = problems(opened)
    head = "no manifest.json: the run (fits 0 to 47) is not complete; no driver is at work on it: "
    assert said.startswith(f"{head}attempt ")
    assert said.endswith(" ended with exit code 0; run the same spec again")


def test_a_manifest_with_a_missing_shard_is_reported(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    short = type(manifest)(manifest.plan, manifest.receipts[:-1])
    file(copy, MANIFEST).write_bytes(short.to_json())
    said = "intact, but manifest.json has 0 receipts of it"
    assert problems(copy) == [f"{place(copy, 4)}{said}; {RESEAL_HINT}"]


def test_a_manifest_with_a_doubled_shard_is_reported(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    double = type(manifest)(manifest.plan, (*manifest.receipts, manifest.receipts[0]))
    file(copy, MANIFEST).write_bytes(double.to_json())
    said = "intact, but manifest.json has 2 receipts of it"
    assert problems(copy) == [f"{place(copy, 0)}{said}; {RESEAL_HINT}"]


def test_a_manifest_with_a_shard_beyond_the_plan_is_reported(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    strange = replace(manifest.receipts[0], shard=7)
    long = type(manifest)(manifest.plan, (*manifest.receipts, strange))
    file(copy, MANIFEST).write_bytes(long.to_json())
    said = "manifest.json has a receipt of shard 7, this plan has 5 (fits 0 to 47)"
    assert problems(copy) == [f"{said}; {RESEAL_HINT}"]


def test_a_receipt_with_other_counts_is_named(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    wrong = replace(manifest.receipts[2], statuses={"completed": 10})
    receipts = (*manifest.receipts[:2], wrong, *manifest.receipts[3:])
    file(copy, MANIFEST).write_bytes(type(manifest)(manifest.plan, receipts).to_json())
    (problem,) = problems(copy)
    assert problem.startswith(f"{place(copy, 2)}intact, with statuses {{")
    assert problem.endswith(f"but manifest.json says {{'completed': 10}}; {RESEAL_HINT}")


def test_a_manifest_of_other_receipts_is_named_shard_by_shard(copy: Run) -> None:
    """That of a run of the same plan whose objects have other bytes."""
    manifest = copy.manifest
    assert manifest is not None
    others = tuple(replace(one, sha256="0" * 64) for one in manifest.receipts)
    file(copy, MANIFEST).write_bytes(type(manifest)(manifest.plan, others).to_json())
    assert problems(copy) == [
        f"{place(copy, n)}other bytes than the manifest's SHA-256; {REFIT_HINT}"
        for n in range(SHARDS)
    ]


@pytest.mark.parametrize(("name", "wrong"), [("fits", 49), ("shards", 1), ("fits", None)])
def test_a_plan_whose_totals_were_altered_is_reported(copy: Run, name: str, wrong: object) -> None:
    facts = json.loads(file(copy, PLAN).read_bytes())
    file(copy, PLAN).write_bytes(dump_json({**facts, name: wrong}))
    (problem,) = problems(copy)
    assert problem.startswith(f"plan.json: it says {name} {wrong}, its sweep has ")
    assert problem.endswith("(fits 0 to 47); remove it and run the same spec again")


@pytest.mark.parametrize("name", ["hash", "engine", "shard", "torch"])
def test_a_plan_whose_decisions_were_altered_is_refused(copy: Run, name: str) -> None:
    facts = json.loads(file(copy, PLAN).read_bytes())
    altered = facts[name] + 1 if name == "shard" else f"{facts[name]}0"
    file(copy, PLAN).write_bytes(dump_json({**facts, name: altered}))
    with pytest.raises(PlanMismatch, match=r"plan\.json .* remove it and run the same spec again"):
        Run.open(copy.uri)


def test_a_plan_that_came_in_place_of_the_runs_finds_none_of_its_shards(copy: Run) -> None:
    other = polyfit.Plan.of(Spec.parse(TEXT.replace("steps: 20", "steps: 21")))
    before = copy.verify
    file(copy, PLAN).write_bytes(other.to_json())
    message = "plan.json is no longer that of plan"
    assert [problem[: len(message)] for problem in before().problems] == [message]
    found = problems(copy)
    assert "seals plan" in found[0]
    assert sum("missing" in problem for problem in found) == SHARDS
    assert sum("is no shard of this plan" in problem for problem in found) == SHARDS


@pytest.mark.parametrize(
    "key", ["000005-{hash}.parquet", "000000-00000000.parquet", "rows.parquet", "old/0.parquet"]
)
def test_an_object_too_many_among_the_shards_is_named(copy: Run, key: str) -> None:
    """Whoever reads the folder reads it too: fits would be there twice."""
    extra = f"shards/{key.format(hash=copy.plan.hash[:8])}"
    file(copy, extra).parent.mkdir(exist_ok=True)
    file(copy, extra).write_bytes(shard(copy, 0).read_bytes())
    assert problems(copy) == [
        f"{extra} is no shard of this plan (5 shards, fits 0 to 47); a reader of the whole folder "
        "would read it too: move it elsewhere"
    ]


def test_other_objects_beside_the_shards_are_ignored(copy: Run) -> None:
    file(copy, "notes.txt").write_bytes(b"mine")
    file(copy, "failed").mkdir()
    file(copy, "failed/000001.json").write_bytes(b"{}")
    assert problems(copy) == []


def test_the_advice_repairs_the_run(copy: Run, tmp_path: Path) -> None:
    """Each kind of damage, and then what its message says."""
    home = tmp_path / "small" / "mended"
    shutil.copytree(copy.uri, home)
    mended = Run.open(str(home))
    shard(mended, 0).unlink()
    rewrite(shard(mended, 1), lambda rows: rows.slice(0, 9))
    reseal(mended, 1)
    shard(mended, 2).write_bytes(b"")
    file(mended, "shards/extra.parquet").write_bytes(b"")
    for problem in problems(mended):
        if not problem.startswith(place(mended, 0)):
            file(mended, problem.split()[0]).unlink()
        if "remove manifest.json too" in problem:
            file(mended, MANIFEST).unlink()
    spec = Spec.parse(TEXT)
    polyfit.execute(spec, store=str(tmp_path), run_id="mended", executor="inline")
    assert problems(mended) == []
    assert [shard(mended, n).read_bytes() for n in range(SHARDS)] == [
        shard(copy, n).read_bytes() for n in range(SHARDS)
    ]


def test_damage_in_s3_is_named_as_in_a_folder(
    run: Run, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(seaweed, monkeypatch)
    address = StoreAddress.of(seaweed.fresh_uri())
    store = address.open()
    for path in Path(run.uri).rglob("*"):
        if path.is_file():
            store.put(path.relative_to(run.uri).as_posix(), path.read_bytes())
    there = Run.open(address.uri)
    assert there.verify().problems == []
    keys = [shard_key(run.plan, number) for number in range(SHARDS)]
    bucket, _, prefix = address.uri.removeprefix("s3://").partition("/")
    seaweed.client().delete_object(Bucket=bucket, Key=f"{prefix}/{keys[0]}")
    data = [store.get(key) for key in keys[1:]]
    store.put(keys[1], data[0][:-1])
    store.put(keys[2], data[1][:40] + bytes([data[1][40] ^ 1]) + data[1][41:])
    store.put(keys[3], data[3])
    store.put("shards/extra", b"")
    found = problems(there)
    assert found[0] == f"{place(run, 0)}{MISSING}"
    assert f"{place(run, 1)}{len(data[0]) - 1} bytes" in found[1]
    assert found[2] == f"{place(run, 2)}other bytes than the manifest's SHA-256; {REFIT_HINT}"
    assert found[3].startswith(place(run, 3))
    assert found[4].startswith("shards/extra is no shard of this plan")
    assert len(found) == 5


@pytest.mark.slow
def test_verify_holds_one_shard_at_a_time(tmp_path: Path) -> None:
    """Its memory does not grow with the run."""
    text = "name: large\nshard: 400\nengine: eager\nfit: {steps: 200, points: 9}\n"
    text += "record: {every: 1, of: [loss, gradient_norm]}\nsweep: {seed: {count: 6000}}\n"
    large = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.parquet")]
    assert sum(sizes) > 10 * max(sizes)
    tracemalloc.start()
    try:
        assert large.verify().problems == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * max(sizes)


@pytest.mark.parametrize(
    ("name", "wrong"), [("fits", 49), ("bytes", 1), ("statuses", {"completed": 48})]
)
def test_a_manifest_with_wrong_totals_is_reported(copy: Run, name: str, wrong: object) -> None:
    facts = json.loads(file(copy, MANIFEST).read_bytes())
    file(copy, MANIFEST).write_bytes(dump_json({**facts, name: wrong}))
    (problem,) = problems(copy)
    assert f"manifest.json: it says {name} " in problem


@pytest.mark.parametrize("rows", [9, 11])
def test_a_receipt_with_a_wrong_number_of_rows_is_named(copy: Run, rows: int) -> None:
    facts = json.loads(file(copy, MANIFEST).read_bytes())
    facts["shards"][1]["rows"] = rows
    facts["fits"] += rows - 10
    file(copy, MANIFEST).write_bytes(dump_json(facts))
    (problem,) = problems(copy)
    assert problem.startswith(place(copy, 1))


def test_a_manifest_that_cannot_be_read_does_not_hide_the_shards(copy: Run) -> None:
    file(copy, MANIFEST).write_bytes(b"{")
    shard(copy, 2).unlink()
    first, second = problems(copy)
    assert first.startswith("manifest.json cannot be read")
    assert second == f"{place(copy, 2)}{MISSING}"


def test_the_manifest_of_another_plan_is_reported(copy: Run) -> None:
    facts = json.loads(file(copy, MANIFEST).read_bytes())
    file(copy, MANIFEST).write_bytes(dump_json({**facts, "plan": "0" * 64}))
    (problem,) = problems(copy)
    assert "seals plan 000000000000" in problem


def test_several_faults_are_all_named(copy: Run) -> None:
    shard(copy, 0).unlink()
    shard(copy, 4).write_bytes(b"")
    one, other = problems(copy)
    assert one.startswith(place(copy, 0))
    assert other.startswith(place(copy, 4))
