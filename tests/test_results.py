"""Reading a run, and proving it whole: what is planted is found and named."""

import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.polynomial import chebyshev, legendre, polynomial

import polyfit
from polyfit.errors import DamagedRun, PlanMismatch, RunNotFound, UsageError
from polyfit.ledger import MANIFEST, PLAN, Receipt, shard_key
from polyfit.plan import dump_json
from polyfit.results import Run, condition
from polyfit.spec import Spec

TEXT = """\
name: small
shard: 10
fit: {steps: 20, points: 30, noise: 0.1, noise_seed: 7, stop: {gradient: 0.001}}
sweep:
  degree: [1, 3]
  basis: [chebyshev, legendre, power]
  range: [[-1, 1], [0, 2]]
  lr: [auto, 1.0e+30]
  seed: {count: 2}
record: {every: 10, of: [loss]}
"""
FITS = 48
SHARDS = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """48 fits in five shards; every second pair diverges at once."""
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(TEXT), store=folder, executor="inline")


@pytest.fixture(scope="module")
def frame(run: Run) -> pd.DataFrame:
    """All rows, read by pandas alone."""
    files = sorted(Path(run.uri).glob("shards/*.parquet"))
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    assert len(rows) == FITS
    return rows


def ids(rows: pa.Table) -> list[int]:
    fits: list[int] = rows["fit"].to_pylist()
    return fits


# --- tables ----------------------------------------------------------------------------------


def test_a_table_holds_every_fit_in_order(run: Run) -> None:
    assert ids(run.table()) == list(range(FITS))


def test_a_table_holds_what_the_shards_hold(run: Run) -> None:
    files = sorted(Path(run.uri).glob("shards/*.parquet"))
    assert run.table().to_pylist() == [r for f in files for r in pq.read_table(f).to_pylist()]


def test_columns_come_in_the_order_asked_for(run: Run) -> None:
    assert run.table(["loss", "fit"]).column_names == ["loss", "fit"]


def test_a_condition_may_name_columns_that_are_not_shown(run: Run) -> None:
    found = run.table(["fit"], where="degree == 3")
    assert (found.column_names, ids(found)) == (["fit"], list(range(24, 48)))


def test_a_condition_that_nothing_meets_gives_no_rows_and_the_same_columns(run: Run) -> None:
    found = run.table(["fit", "status"], where="degree == 2")
    assert (len(found), found.schema) == (0, run.table(["fit", "status"]).schema)


def test_an_unknown_column_is_named_with_those_that_are(run: Run) -> None:
    with pytest.raises(UsageError, match=r"no column 'los'; the columns are fit, degree"):
        run.table(["los"])


def test_batches_are_the_shards(run: Run) -> None:
    assert [ids(part) for part in run.batches(["fit"])] == [
        list(range(start, min(start + 10, FITS))) for start in range(0, FITS, 10)
    ]


def test_pandas_has_the_same_rows(run: Run, frame: pd.DataFrame) -> None:
    found = run.to_pandas(["fit", "degree", "loss", "seed"])
    pd.testing.assert_frame_equal(found, frame[["fit", "degree", "loss", "seed"]])


def test_a_row_is_one_fits(run: Run) -> None:
    for fit in (0, 9, 10, 47):
        assert run.row(fit) == run.table().slice(fit, 1).to_pylist()[0]


@pytest.mark.parametrize("fit", [-1, FITS])
def test_a_fit_that_is_not_in_the_plan_is_refused(run: Run, fit: int) -> None:
    with pytest.raises(UsageError, match=f"fit {fit}; this run has fits 0 to 47"):
        run.row(fit)


# --- top -------------------------------------------------------------------------------------


def expected_order(frame: pd.DataFrame, column: str, ascending: bool) -> list[int]:
    keyed = frame.assign(key=frame[column].astype(object).where(frame[column].notna(), None))
    some = keyed[keyed["key"].notna()]
    order = sorted(
        zip(some["key"], some["fit"], strict=True),
        key=lambda pair: pair[0],
        reverse=not ascending,
    )
    ties: dict[Any, list[int]] = {}
    for value, fit in order:
        ties.setdefault(value, []).append(fit)
    return [f for fits in ties.values() for f in sorted(fits)] + keyed["fit"][
        keyed["key"].isna()
    ].tolist()


@pytest.mark.parametrize("column", ["loss", "excess_loss", "seed", "basis", "status", "fit"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_top_sorts_nulls_last_and_ties_by_fit(
    run: Run, frame: pd.DataFrame, column: str, sign: str
) -> None:
    expected = expected_order(frame, column, ascending=not sign)
    assert ids(run.top(sign + column)) == expected
    assert ids(run.top(sign + column, 7)) == expected[:7]


def test_there_are_nulls_to_come_last(frame: pd.DataFrame) -> None:
    assert 0 < int(frame["loss"].isna().sum()) < FITS


def test_top_without_a_column_is_by_fit(run: Run) -> None:
    assert ids(run.top(limit=13)) == list(range(13))


def test_top_shows_the_columns_asked_for_whatever_it_sorts_by(run: Run) -> None:
    assert run.top("loss", 3, ["fit", "rmse"]).column_names == ["fit", "rmse"]


def test_top_of_more_than_there_are_is_all(run: Run) -> None:
    assert len(run.top("loss", 1_000)) == FITS


def test_top_meets_its_condition(run: Run) -> None:
    assert ids(run.top("-fit", 2, where="basis == 'legendre'")) == [39, 38]


def test_top_of_nothing_has_its_columns(run: Run) -> None:
    found = run.top("loss", 3, ["fit", "loss"], where="degree == 2")
    assert (len(found), found.column_names) == (0, ["fit", "loss"])


@pytest.mark.parametrize("sort", ["los", "-los", "-", "--loss"])
def test_top_by_an_unknown_column_is_refused(run: Run, sort: str) -> None:
    with pytest.raises(UsageError, match="no column"):
        run.top(sort)


def test_top_by_a_list_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="a list has no order"):
        run.top("coefficients")


# --- predictions -----------------------------------------------------------------------------

VALUES: dict[str, Callable[..., Any]] = {
    "chebyshev": chebyshev.chebval,
    "legendre": legendre.legval,
    "power": polynomial.polyval,
}


@pytest.mark.parametrize("basis", VALUES)
def test_predictions_are_numpys_of_the_same_coefficients(
    run: Run, frame: pd.DataFrame, basis: str
) -> None:
    chosen = frame[(frame["basis"] == basis) & (frame["degree"] == 3) & frame["loss"].notna()]
    rows: list[Any] = chosen.to_dict("records")
    assert {row["range_low"] for row in rows} == {-1.0, 0.0}
    for row in rows:
        x = np.linspace(row["range_low"], row["range_high"], 11)
        half = (row["range_high"] - row["range_low"]) / 2
        t = x if basis == "power" else (x - row["range_low"]) / half - 1
        wanted = VALUES[basis](t, np.array(row["coefficients"], dtype=np.float64))
        np.testing.assert_allclose(run.predict(row["fit"], x), wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_predictions_have_the_shape_of_x(run: Run, shape: tuple[int, ...]) -> None:
    found = run.predict(0, np.zeros(shape))
    assert found.shape == shape
    assert found.dtype == np.float64


# --- groups ----------------------------------------------------------------------------------


def naive_groups(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    found = []
    for key, rows in frame.groupby(["degree", "range_low", "range_high"]):
        judged = rows["optimum_loss"].notna()
        far = ~(rows["loss"] <= rows["optimum_loss"] * 1.01)
        counts = rows["status"].astype(str).value_counts().to_dict()
        found.append(
            (
                *(key if isinstance(key, tuple) else ()),
                len(rows),
                None if rows["loss"].isna().all() else rows["loss"].min(),
                None if rows["loss"].isna().all() else rows["loss"].median(),
                counts,
                int((judged & far).sum()) if judged.any() else None,
            )
        )
    return found


def as_tuples(run: Run) -> list[tuple[Any, ...]]:
    return [
        (g.degree, g.low, g.high, g.fits, g.best_loss, g.median_loss, g.statuses, g.above_optimum)
        for g in run.groups()
    ]


def test_groups_are_those_of_a_naive_computation(run: Run, frame: pd.DataFrame) -> None:
    found = as_tuples(run)
    assert found == naive_groups(frame)
    assert [group[:4] for group in found] == [
        (1, -1.0, 1.0, 12),
        (1, 0.0, 2.0, 12),
        (3, -1.0, 1.0, 12),
        (3, 0.0, 2.0, 12),
    ]


def test_an_objective_without_a_closed_form_has_no_count_above_the_optimum(
    tmp_path: Path,
) -> None:
    text = "name: l1\nfit: {objective: l1, lr: 0.001, steps: 5}\nsweep: {seed: {count: 3}}"
    run = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    assert [group.above_optimum for group in run.groups()] == [None]


def test_a_group_without_a_loss_says_so(tmp_path: Path) -> None:
    text = "name: no\nfit: {lr: 1.0e+30, steps: 50}"
    run = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    assert as_tuples(run) == naive_groups(run.to_pandas())
    (group,) = run.groups()
    assert (group.best_loss, group.median_loss, group.above_optimum) == (None, None, 1)


# --- conditions ------------------------------------------------------------------------------

CONDITIONS: dict[str, Callable[[Any], Any]] = {
    "degree == 3": lambda f: f.degree == 3,
    "degree != 3": lambda f: f.degree != 3,
    "loss < 1": lambda f: f.loss < 1,
    "loss <= 1.5": lambda f: f.loss <= 1.5,
    "fit > 30": lambda f: f.fit > 30,
    "fit >= 30": lambda f: f.fit >= 30,
    "10 < fit": lambda f: f.fit > 10,
    "3 < fit <= 30": lambda f: (f.fit > 3) & (f.fit <= 30),
    "1 <= degree < 3 < fit": lambda f: (f.degree < 3) & (f.fit > 3),
    "basis == 'legendre'": lambda f: f.basis == "legendre",
    "basis < status": lambda f: f.basis.astype(str) < f.status.astype(str),
    "status in ['diverged', 'completed']": lambda f: f.status.isin(["diverged", "completed"]),
    "basis not in ('power', 'legendre')": lambda f: f.basis == "chebyshev",
    "fit in {3, 5, 99}": lambda f: f.fit.isin([3, 5]),
    "fit in []": lambda f: f.fit < 0,
    "loss == None": lambda f: f.loss.isna(),
    "loss != None": lambda f: f.loss.notna(),
    "None == loss": lambda f: f.loss.isna(),
    "degree == 3 and seed == 0": lambda f: (f.degree == 3) & (f.seed == 0),
    "degree == 1 or seed == 1": lambda f: (f.degree == 1) | (f.seed == 1),
    "not degree == 3": lambda f: f.degree != 3,
    "not (degree == 3 or seed == 0)": lambda f: (f.degree != 3) & (f.seed != 0),
    "seed == 0 or degree == 3 and fit > 40": lambda f: (f.seed == 0) | (f.fit > 40),
    "not loss < 1": lambda f: f.loss >= 1,
    "loss != 1": lambda f: f.loss.notna(),
    "fit + degree > 20": lambda f: f.fit + f.degree > 20,
    "fit - degree > 20": lambda f: f.fit - f.degree > 20,
    "fit * 2 == 20": lambda f: f.fit == 10,
    "loss / 2 < 0.5": lambda f: f.loss < 1,
    "excess_loss / loss > 0.01": lambda f: f.excess_loss / f.loss > 0.01,
    "-degree < -2": lambda f: f.degree > 2,
    "range_low == -1": lambda f: f.range_low == -1,
    "  degree == 3  ": lambda f: f.degree == 3,
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_chooses_rows(run: Run, frame: pd.DataFrame, text: str) -> None:
    assert ids(run.table(where=text)) == frame["fit"][CONDITIONS[text](frame)].tolist()


UNREADABLE = [
    "degree ==",
    "degree = 3",
    "abs(loss) < 1",
    "__import__('os').system('true')",
    "loss.real < 1",
    "loss[0] < 1",
    "lambda: loss",
    "[x for x in loss]",
    "loss if degree else rmse",
    "loss ** 2 < 1",
    "degree % 2 == 0",
    "degree // 2 == 0",
    "loss < None",
    "None <= loss",
    "loss is None",
    "degree == [1, 3]",
    "degree in 3",
    "degree in [seed]",
    "degree == 1j",
    "basis == b'power'",
    "f'{loss}' == '1'",
    "(x := degree) == 3",
    "not " * 20_000 + "degree == 3",
    "loss < 1 / 0",
    "loss < -'a'",
    "loss < 'a' + 1",
    "fit == 1000000000000000000000000",
    "degree == 3\x00",
]


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: text[:40])
def test_a_condition_that_cannot_be_read_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read; allowed: columns"):
        condition(text, ["degree", "loss", "seed", "fit", "basis", "rmse"])


@pytest.mark.parametrize("text", ["1 < 2", "3", "'a'", "None", "1 + 1"])
def test_a_condition_without_a_column_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"names no column|cannot be read"):
        condition(text, ["degree"])


def test_a_condition_on_an_unknown_column_names_those_that_are() -> None:
    with pytest.raises(UsageError, match="no column 'los'; the columns are degree, loss"):
        condition("los < 1", ["degree", "loss"])


@pytest.mark.parametrize(
    "text",
    [
        "loss < 'a'",
        "basis < 1",
        "degree",
        "not degree",
        "not 3 and degree == 1",
        "degree and seed",
        "-basis == 'a'",
        "basis + 1 == 2",
        "coefficients == 1",
        "degree in ['a']",
        "loss + 'a' < 1",
    ],
)
def test_a_condition_on_the_wrong_types_is_refused(run: Run, text: str) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        run.table(where=text)


def test_a_condition_is_one_expression_of_arrow() -> None:
    assert condition("degree == 3", ["degree"]).equals(pc.field("degree") == 3)


# --- opening ---------------------------------------------------------------------------------


def test_a_run_is_opened_by_its_folder(run: Run) -> None:
    opened = Run.open(run.uri)
    assert (opened.plan, opened.complete, opened.uri) == (run.plan, True, run.uri)


@pytest.mark.parametrize("below", ["", "not/there"])
def test_a_folder_that_is_no_run_is_told_with_what_is_expected(tmp_path: Path, below: str) -> None:
    with pytest.raises(RunNotFound, match=r"holds no run; expected plan\.json"):
        Run.open(str(tmp_path / below))


def test_the_store_above_a_run_is_no_run(run: Run) -> None:
    with pytest.raises(RunNotFound):
        Run.open(str(Path(run.uri).parent))


def test_a_run_below_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunNotFound, match="holds no run"):
        Run.open(str(tmp_path / "file" / "run"))


def test_a_plan_of_another_version_is_refused(copy: Run) -> None:
    plan = json.loads(file(copy, PLAN).read_bytes())
    file(copy, PLAN).write_bytes(dump_json({**plan, "ENGINE": 0, "hash": "0" * 64}))
    with pytest.raises(PlanMismatch, match="ENGINE 0"):
        Run.open(copy.uri)


# --- verify ----------------------------------------------------------------------------------


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The run once more, to be damaged."""
    shutil.copytree(run.uri, tmp_path / "copy")
    return Run.open(str(tmp_path / "copy"))


def file(run: Run, key: str) -> Path:
    return Path(run.uri) / key


def shard(run: Run, number: int) -> Path:
    return file(run, shard_key(run.plan, number))


def place(run: Run, number: int) -> str:
    """How a problem names a shard."""
    first, last = 10 * number, min(10 * number + 9, FITS - 1)
    return f"{shard_key(run.plan, number)} (fits {first} to {last}): "


def problems(run: Run) -> list[str]:
    return Run.open(run.uri).verify().problems


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
    assert problems(copy) == [f"{place(copy, 2)}missing"]


def test_what_is_intact_is_counted_beside_what_is_not(copy: Run) -> None:
    shard(copy, 2).unlink()
    verdict = copy.verify()
    assert (verdict.shards, verdict.fits) == (SHARDS - 1, FITS - 10)


def test_a_truncated_object_is_named(copy: Run) -> None:
    data = shard(copy, 4).read_bytes()
    shard(copy, 4).write_bytes(data[:-1])
    (problem,) = problems(copy)
    assert problem == f"{place(copy, 4)}{len(data) - 1} bytes, the manifest says {len(data)}"


def test_a_flipped_byte_anywhere_is_named(copy: Run) -> None:
    data = shard(copy, 1).read_bytes()
    for position in range(0, len(data), len(data) // 17):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        shard(copy, 1).write_bytes(flipped)
        assert problems(copy) == [f"{place(copy, 1)}other bytes than the manifest's SHA-256"]


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
    assert problems(copy) == [f"{place(copy, 3)}holds plan {other.plan.hash}"]


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
        "10 of other shards [20, 21, 22, 23, 24]"
    )
    assert found[1].startswith(place(copy, 2))


def test_doubled_rows_are_named(copy: Run) -> None:
    rewrite(shard(copy, 0), lambda rows: pa.concat_tables([rows, rows.slice(3, 2)]))
    assert problems(copy)[0].startswith(place(copy, 0))
    reseal(copy, 0)
    assert problems(copy) == [
        f"{place(copy, 0)}12 rows for 10 fits: 0 missing [], 2 doubled [3, 4], 0 of other shards []"
    ]


def test_a_row_in_anothers_place_is_named(copy: Run) -> None:
    """As many rows as fits, and one fit missing."""
    rewrite(shard(copy, 3), lambda rows: pa.concat_tables([rows.slice(0, 9), rows.slice(0, 1)]))
    reseal(copy, 3)
    assert problems(copy) == [
        f"{place(copy, 3)}10 rows for 10 fits: 1 missing [39], 1 doubled [30], 0 of other shards []"
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
    assert opened.verify().problems == ["no manifest: the run is not complete; run it again"]


def test_a_manifest_with_a_missing_shard_is_told(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    short = type(manifest)(manifest.plan, manifest.receipts[:-1])
    file(copy, MANIFEST).write_bytes(short.to_json())
    assert "the manifest does not name every shard of the plan once" in problems(copy)[0]


def test_a_manifest_with_a_doubled_shard_is_told(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    double = type(manifest)(manifest.plan, (*manifest.receipts, manifest.receipts[0]))
    file(copy, MANIFEST).write_bytes(double.to_json())
    assert "the manifest does not name every shard of the plan once" in problems(copy)[0]


@pytest.mark.parametrize(
    ("name", "wrong"), [("fits", 49), ("bytes", 1), ("statuses", {"completed": 48})]
)
def test_a_manifest_with_wrong_totals_is_told(copy: Run, name: str, wrong: object) -> None:
    facts = json.loads(file(copy, MANIFEST).read_bytes())
    file(copy, MANIFEST).write_bytes(dump_json({**facts, name: wrong}))
    (problem,) = problems(copy)
    assert f"manifest.json: {name} " in problem


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
    assert second == f"{place(copy, 2)}missing"


def test_the_manifest_of_another_plan_is_told(copy: Run) -> None:
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


def test_reading_a_damaged_shard_is_told_with_its_key(copy: Run) -> None:
    shard(copy, 1).write_bytes(b"PAR1")
    with pytest.raises(DamagedRun, match=shard_key(copy.plan, 1)):
        copy.table()


def test_a_row_of_a_shard_that_is_missing_is_told_with_its_key(copy: Run) -> None:
    shard(copy, 1).unlink()
    with pytest.raises(DamagedRun, match=shard_key(copy.plan, 1)):
        copy.row(10)


def test_a_run_that_broke_off_shows_what_is_at_rest(copy: Run) -> None:
    shard(copy, 1).unlink()
    file(copy, MANIFEST).unlink()
    assert ids(copy.table()) == [*range(10), *range(20, FITS)]


def test_reading_and_verifying_import_neither_torch_nor_ray(run: Run) -> None:
    script = (
        "import sys; from polyfit import Run; run = Run.open(sys.argv[1]); "
        "print(run.verify().problems, len(run.to_pandas()), len(run.groups()), "
        "[name for name in ('torch', 'ray') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, run.uri], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == f"[] {FITS} 4 []"


def test_shards_are_read_in_few_requests_and_in_the_callers_thread(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of Arrow's that held our objects could end the interpreter with SIGABRT."""
    again = Run.open(run.uri)
    asked: list[threading.Thread] = []
    get = again._store.get

    def recorded(key: str, start: int = 0, length: int | None = None) -> bytes:
        asked.append(threading.current_thread())
        return get(key, start, length)

    monkeypatch.setattr(again._store, "get", recorded)
    assert len(again.table(["fit", "loss", "loss_history"])) == FITS
    assert set(asked) == {threading.current_thread()}
    assert len(asked) <= 4 * SHARDS  # two for the footer, one for the columns, one more manifest
