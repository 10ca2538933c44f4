"""Reading a run, and proving it whole: what is planted is found and named."""

import io
import json
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from limits import HANG_S
from numpy.polynomial import chebyshev, legendre, polynomial
from places import use
from servers import S3Server

import polyfit
from polyfit.errors import DamagedRun, PlanMismatch, RunNotFound, UsageError
from polyfit.run.condition import condition
from polyfit.run.keys import MANIFEST, PLAN, shard_key
from polyfit.run.manifest import RESEAL_HINT, Receipt
from polyfit.run.parquet import REFIT_HINT
from polyfit.run.reader import Run
from polyfit.spec.plan import dump_json
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress

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


def test_a_manifest_with_a_missing_shard_is_told(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    short = type(manifest)(manifest.plan, manifest.receipts[:-1])
    file(copy, MANIFEST).write_bytes(short.to_json())
    said = "intact, but manifest.json has 0 receipts of it"
    assert problems(copy) == [f"{place(copy, 4)}{said}; {RESEAL_HINT}"]


def test_a_manifest_with_a_doubled_shard_is_told(copy: Run) -> None:
    manifest = copy.manifest
    assert manifest is not None
    double = type(manifest)(manifest.plan, (*manifest.receipts, manifest.receipts[0]))
    file(copy, MANIFEST).write_bytes(double.to_json())
    said = "intact, but manifest.json has 2 receipts of it"
    assert problems(copy) == [f"{place(copy, 0)}{said}; {RESEAL_HINT}"]


def test_a_manifest_with_a_shard_beyond_the_plan_is_told(copy: Run) -> None:
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
def test_a_plan_whose_totals_were_altered_is_told(copy: Run, name: str, wrong: object) -> None:
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
    told = "plan.json is no longer that of plan"
    assert [problem[: len(told)] for problem in before().problems] == [told]
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


def test_what_lies_beside_the_shards_is_nobodys_business(copy: Run) -> None:
    file(copy, "notes.txt").write_bytes(b"mine")
    file(copy, "failed").mkdir()
    file(copy, "failed/000001.json").write_bytes(b"{}")
    assert problems(copy) == []


def test_what_is_to_be_done_mends_the_run(copy: Run, tmp_path: Path) -> None:
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
    assert second == f"{place(copy, 2)}{MISSING}"


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


READING = """\
import sys
from pathlib import Path
from polyfit import Run
from polyfit.errors import DamagedRun

run, start = Run.open(sys.argv[1]), int(sys.argv[2])
(path,) = Path(run.uri).glob("shards/*")
whole = path.read_bytes()
some = ["fit", "loss", "status", "coefficients"]
readers = [lambda: run.table(some), run.table, lambda: run.stored(3).row]
wanted = [read() for read in readers]
for place in range(start, len(whole)):
    data = bytearray(whole)
    data[place] ^= 1 << place % 8
    path.write_bytes(data)
    try:
        same = readers[place % 3]() == wanted[place % 3]
        print(place, "the same" if same else "other rows", flush=True)
    except DamagedRun as error:
        assert f"{path.name} " in str(error) and "remove that object" in str(error)
        print(place, "refused", flush=True)
"""


def test_whatever_bit_of_a_footer_is_damaged_its_rows_are_the_same_or_refused(
    tmp_path: Path,
) -> None:
    """In a process of its own: damaged metadata can end the one that asks it too much."""
    spec = Spec.parse(
        "name: one\nengine: eager\nfit: {steps: 9, points: 9}\nsweep: {seed: {count: 4}}"
    )
    run = polyfit.execute(spec, store=str(tmp_path), executor="inline")
    data = shard(run, 0).read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    done = subprocess.run(
        [sys.executable, "-c", READING, run.uri, str(start)],
        text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    told = [line.partition(" ") for line in done.stdout.splitlines()]
    assert done.returncode == 0, (told[-1:], done.stderr)
    assert [int(place) for place, _, _ in told] == list(range(start, len(data)))
    assert {how for _, _, how in told} == {"the same", "refused"}


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
    get = again._ledger.store.get

    def recorded(key: str, start: int = 0, length: int | None = None) -> bytes:
        asked.append(threading.current_thread())
        return get(key, start, length)

    monkeypatch.setattr(again._ledger.store, "get", recorded)
    assert len(again.table(["fit", "loss", "loss_history"])) == FITS
    assert set(asked) == {threading.current_thread()}
    assert len(asked) <= 4 * SHARDS  # two for the footer, one for the columns, one more manifest
