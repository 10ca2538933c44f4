"""Rows through Polars: lazily, as histories, the best of each group."""

import doctest
import shutil
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from small_run import FITS, file, shard

import polyfit
from polyfit.errors import DamagedRun, UsageError
from polyfit.run.keys import MANIFEST, shard_key
from polyfit.run.plot import Plots
from polyfit.run.reader import Run
from polyfit.run.stored_rows import StoredRows
from polyfit.spec.spec import Spec

pytest_plugins = ["small_run_fixtures"]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of the examples in docstrings: 12 fits in three shards."""
    text = """\
name: documented
shard: 5
fit: {points: 100, steps: 2000}
sweep: {degree: [1, 3, 5], seed: {count: 4}}
record: {at: auto, of: [loss, coefficients]}
"""
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(text), store=folder, executor="inline")


@pytest.mark.parametrize("kind", [StoredRows, Run, Plots])
def test_every_method_has_an_example_that_gives_what_it_says(
    kind: type, documented: Run, tmp_path: Path
) -> None:
    calls = [n for n, it in vars(kind).items() if isinstance(it, FunctionType | classmethod)]
    names = {"run": documented, "Run": Run, "polyfit": polyfit, "folder": str(tmp_path)}
    examples = doctest.DocTestFinder().find(kind, globs=names)
    shown = {example.name.rpartition(".")[2] for example in examples if example.examples}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in examples:
        runner.run(example)
    assert runner.summarize().failed == 0
    assert [name for name in calls if name[0] != "_" and name not in shown] == []


QUERIES: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "all": lambda rows: rows,
    "columns": lambda rows: rows.select("loss_history", "fit"),
    "filter": lambda rows: rows.filter(pl.col("loss") < 1).select("degree", "basis"),
    "word": lambda rows: rows.filter(pl.col("status") == "diverged").select("fit"),
    "head": lambda rows: rows.select("fit", "loss").head(13),
    "head, then filter": lambda rows: rows.head(13).filter(pl.col("seed") == 1).select("fit"),
    "filter, then head": lambda rows: rows.filter(pl.col("seed") == 1).head(7).select("fit"),
    "middle": lambda rows: rows.slice(15, 9).select("fit", "coefficients"),
    "groups": lambda rows: rows.group_by("degree", "basis", maintain_order=True).agg(
        pl.len(), pl.col("loss").filter(pl.col("fit") % 2 == 0).median()
    ),
    "count": lambda rows: rows.select(pl.len()),
    "none": lambda rows: rows.filter(pl.col("degree") > 30),
}


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_a_scan_is_that_of_all_rows(run: Run, name: str, engine: Any) -> None:
    query = QUERIES[name]

    found = query(run.scan()).collect(engine=engine)

    assert found.equals(query(run.to_polars().lazy()).collect())


def test_a_scan_reads_the_columns_of_a_query_and_no_shard_after_its_last_row(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, list[str]]] = []
    again = Run.open(run.uri)
    read = again._shards.read

    def recorded(number: int, columns: Any, size: int | None = None) -> Any:
        asked.append((number, list(columns)))
        return read(number, columns, size)

    monkeypatch.setattr(again._shards, "read", recorded)
    again.scan().filter(pl.col("degree") == 3).select("loss").collect()
    assert sorted(asked) == [(number, ["degree", "loss"]) for number in range(5)]
    asked.clear()
    assert again.to_arrow(["loss"], where="degree == 3").column_names == ["loss"]
    assert {tuple(columns) for _, columns in asked} == {("loss", "degree")}
    asked.clear()
    again.rows([12, 47], ["loss"])
    assert [number for number, _ in asked] == [1, 4]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_query_names_a_damaged_shard(copy: Run, engine: Any) -> None:
    shard(copy, 3).write_bytes(b"PAR1")
    with pytest.raises(DamagedRun, match=shard_key(copy.plan, 3)):
        copy.scan().select(pl.col("loss").max()).collect(engine=engine)


def test_a_scan_of_an_unfinished_run_has_what_is_stored(copy: Run) -> None:
    shard(copy, 1).unlink()
    file(copy, MANIFEST).unlink()
    fits = copy.scan().select("fit").collect()["fit"].to_list()
    assert fits == [*range(10), *range(20, FITS)]


@pytest.mark.parametrize("by", [[], ["degree"], ["range", "basis"]])
@pytest.mark.parametrize("worst", [False, True])
def test_extremes_are_those_of_a_naive_computation(
    run: Run, frame: pd.DataFrame, by: list[str], worst: bool
) -> None:
    columns = [
        c for name in by for c in (["range_low", "range_high"] if name == "range" else [name])
    ]
    losses = frame.assign(loss=frame["loss"].fillna(np.inf), all=0)
    wanted = {
        rows.sort_values(["loss", "fit"], ascending=[not worst, True])["fit"].iloc[0]
        for _, rows in losses.groupby(columns or ["all"], observed=True)
    }

    found = run.extremes(by, worst=worst)

    assert sorted(found["fit"]) == sorted(wanted)
    assert found.columns == run.scalar_columns


def test_a_history_has_a_line_for_each_recorded_update(run: Run) -> None:
    history = run.history([30, 5, 30])
    for fit in (5, 30):
        values = run.row(fit)["loss_history"]
        lines = history.filter(pl.col("fit") == fit)
        assert lines["loss"].to_list() == values
        assert lines["step"].to_list() == [9, 19][: len(values)]
    assert history["fit"].unique(maintain_order=True).to_list() == [30, 5]


def test_a_run_without_records_has_no_history(tmp_path: Path) -> None:
    spec = Spec.parse("name: none\nfit: {steps: 3, points: 9}\nrecord: none")
    run = polyfit.execute(spec, store=str(tmp_path), executor="inline")
    with pytest.raises(UsageError, match="nothing was recorded"):
        run.history(0)


def test_rows_come_in_the_order_asked_for_and_a_fit_may_be_asked_for_twice(run: Run) -> None:
    rows = run.to_arrow().to_pylist()
    assert run.rows([47, 3, 12, 3]).to_pylist() == [rows[fit] for fit in (47, 3, 12, 3)]
    assert len(run.rows([])) == 0
    with pytest.raises(UsageError, match="this run has fits 0 to 47"):
        run.rows([3, 48])


def test_a_shard_of_another_place_does_not_hold_a_fit(copy: Run) -> None:
    shutil.copy(shard(copy, 0), shard(copy, 1))
    with pytest.raises(DamagedRun, match="does not hold fit 12 in its place"):
        copy.rows([3, 12], ["fit", "loss"])


def test_predictions_of_several_fits_are_those_of_each(run: Run) -> None:
    x = np.linspace(0, 1, 6).reshape(2, 3)
    both = run.predict([0, 4], x)
    assert both.shape == (2, 2, 3)
    assert np.array_equal(both, [run.predict(0, x), run.predict(4, x)])


def test_a_prediction_outside_the_range_warns(run: Run) -> None:
    with pytest.warns(UserWarning, match=r"fit 0: 1 of 2 x are outside its range \[-1, 1\]"):
        run.predict(0, [0.5, 3])


def test_the_view_in_a_notebook_shows_the_groups(run: Run) -> None:
    html = run._repr_html_()
    assert "48 fits, complete; 20 of 24 groups" in html
    assert html.count("<tr>") == 21
    assert "<th>degree</th>" in html
