"""Opening a run, and reading it: tables, batches, rows; damage is named."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from limits import HANG_S
from numpy.polynomial import chebyshev, legendre, polynomial
from small_run import FITS, SHARDS, file, ids, shard

import polyfit
from polyfit.errors import DamagedRun, PlanMismatch, RunNotFound, UsageError
from polyfit.run.keys import MANIFEST, PLAN, shard_key
from polyfit.run.reader import Run
from polyfit.spec.plan import dump_json
from polyfit.spec.spec import Spec
from polyfit.store.object_file import ObjectFile

pytest_plugins = ["small_run_fixtures"]


def test_a_table_holds_every_fit_in_order(run: Run) -> None:
    assert ids(run.to_arrow()) == list(range(FITS))


def test_a_table_holds_what_the_shards_hold(run: Run) -> None:
    files = sorted(Path(run.uri).glob("shards/*.parquet"))
    assert run.to_arrow().to_pylist() == [r for f in files for r in pq.read_table(f).to_pylist()]


def test_columns_come_in_the_order_asked_for(run: Run) -> None:
    assert run.to_arrow(["loss", "fit"]).column_names == ["loss", "fit"]


def test_a_condition_may_name_columns_that_are_not_shown(run: Run) -> None:
    found = run.to_arrow(["fit"], where="degree == 3")
    assert (found.column_names, ids(found)) == (["fit"], list(range(24, 48)))


def test_a_condition_that_nothing_meets_gives_no_rows_and_the_same_columns(run: Run) -> None:
    found = run.to_arrow(["fit", "status"], where="degree == 2")
    assert (len(found), found.schema) == (0, run.to_arrow(["fit", "status"]).schema)


def test_an_unknown_column_is_named_with_the_near_ones(run: Run) -> None:
    with pytest.raises(UsageError, match=r"no column 'los'; did you mean 'loss'\?"):
        run.to_arrow(["los"])


def test_batches_are_the_shards(run: Run) -> None:
    assert [ids(part) for part in run.batches(["fit"])] == [
        list(range(start, min(start + 10, FITS))) for start in range(0, FITS, 10)
    ]


def test_pandas_has_the_same_rows(run: Run, frame: pd.DataFrame) -> None:
    found = run.to_pandas(["fit", "degree", "loss", "seed"])
    pd.testing.assert_frame_equal(found, frame[["fit", "degree", "loss", "seed"]])


def test_a_row_is_one_fits(run: Run) -> None:
    for fit in (0, 9, 10, 47):
        assert run.row(fit) == run.to_arrow().slice(fit, 1).to_pylist()[0]


@pytest.mark.parametrize("fit", [-1, FITS])
def test_a_fit_that_is_not_in_the_plan_is_refused(run: Run, fit: int) -> None:
    with pytest.raises(UsageError, match=f"fit {fit}; this run has fits 0 to 47"):
        run.row(fit)


def test_a_run_is_opened_by_its_folder(run: Run) -> None:
    opened = Run.open(run.uri)
    assert (opened.plan, opened.complete, opened.uri) == (run.plan, True, run.uri)


@pytest.mark.parametrize("below", ["", "not/there"])
def test_a_folder_that_is_no_run_is_named_with_what_is_expected(tmp_path: Path, below: str) -> None:
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


def test_reading_a_damaged_shard_is_reported_with_its_key(copy: Run) -> None:
    shard(copy, 1).write_bytes(b"PAR1")
    with pytest.raises(DamagedRun, match=shard_key(copy.plan, 1)):
        copy.to_arrow()


READING = """\
import sys
from pathlib import Path
from polyfit import Run
from polyfit.errors import DamagedRun

run, start = Run.open(sys.argv[1]), int(sys.argv[2])
(path,) = Path(run.uri).glob("shards/*")
whole = path.read_bytes()
some = ["fit", "loss", "status", "coefficients"]
readers = [lambda: run.to_arrow(some), run.to_arrow, lambda: run.stored(3).row]
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
    outcomes = [line.partition(" ") for line in done.stdout.splitlines()]
    assert done.returncode == 0, (outcomes[-1:], done.stderr)
    assert [int(place) for place, _, _ in outcomes] == list(range(start, len(data)))
    assert {how for _, _, how in outcomes} == {"the same", "refused"}


def test_a_row_of_a_shard_that_is_missing_is_reported_with_its_key(copy: Run) -> None:
    shard(copy, 1).unlink()
    with pytest.raises(DamagedRun, match=shard_key(copy.plan, 1)):
        copy.row(10)


def test_an_unfinished_run_shows_what_is_stored(copy: Run) -> None:
    shard(copy, 1).unlink()
    file(copy, MANIFEST).unlink()
    assert ids(copy.to_arrow()) == [*range(10), *range(20, FITS)]


def test_reading_and_verifying_import_neither_torch_nor_ray(run: Run) -> None:
    script = (
        "import sys; from polyfit import Run; run = Run.open(sys.argv[1]); "
        "print(run.verify().problems, len(run.to_pandas()), len(run.groups()), "
        "[name for name in ('torch', 'ray') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, run.uri], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == f"[] {FITS} 24 []"


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
    assert len(again.to_arrow(["fit", "loss", "loss_history"])) == FITS
    assert set(asked) == {threading.current_thread()}
    assert len(asked) <= 4 * SHARDS  # two for the footer, one for the columns, one more manifest


def test_columns_are_read_in_the_order_of_the_file_and_come_in_that_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read ahead serves the next column; to go back costs a request."""
    names, starts, seek = ["loss_history", "status", "loss", "fit"], [], ObjectFile.seek

    def noted(file: ObjectFile, offset: int, whence: int = 0) -> int:
        starts.append(seek(file, offset, whence))
        return starts[-1]

    monkeypatch.setattr(ObjectFile, "seek", noted)
    assert Run.open(run.uri).shard_rows(0, names).column_names == names
    columns = starts[-len(names) :]
    assert columns == sorted(set(columns))


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
