"""The charts of a run of which some fits diverge: what is left out is said, the rest is seen."""

from typing import Any

import pytest

import polyfit
from polyfit.charts.edge import edge_chart
from polyfit.charts.groups import LOST, SLOW
from polyfit.errors import UsageError
from polyfit.run.reader import Run
from polyfit.spec.spec import Spec

TEXT = """\
name: rates
fit: {target: sin(3*x) + x/2, degree: 5, points: 100, steps: 200, range: [-2, 2]}
sweep: {lr: {logspace: [-5, 0, 21]}, seed: {count: 3}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """21 rates, of which the first come nowhere near the optimum and the last diverge."""
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(TEXT), store=folder, executor="inline")


def parts(chart: Any, name: str) -> list[Any]:
    """Everything in a chart's Vega-Lite that is called ``name``."""
    if isinstance(chart, list):
        return [found for one in chart for found in parts(one, name)]
    if not isinstance(chart, dict):
        return []
    own = [chart[name]] if name in chart else []
    return own + [found for one in chart.values() for found in parts(one, name)]


def short(number: float) -> str:
    return f"{number:.4g}"


def tops(chart: Any) -> set[float]:
    """The upper ends of the y axes."""
    axes = [axis for axis in parts(chart, "y") if isinstance(axis, dict) and "scale" in axis]
    return {axis["scale"]["domain"][1] for axis in axes}


def test_a_rate_that_is_too_slow_is_not_shown_as_one_that_diverges(run: Run) -> None:
    rows = run.to_polars().group_by("lr").agg("status", "steps_to_1pct").sort("lr").to_dicts()
    lost = {short(row["lr"]) for row in rows if set(row["status"]) == {"diverged"}}
    slow = {short(row["lr"]) for row in rows if set(row["steps_to_1pct"]) == {None}} - lost
    chart = run.plot.steps().to_dict()
    marked = [r for rows in chart["datasets"].values() for r in rows if "why" in r]

    assert {short(r["x"]) for r in marked if r["why"] == LOST} == lost
    assert {short(r["x"]) for r in marked if r["why"] == SLOW} == slow
    assert lost
    assert slow
    assert [LOST, SLOW] in parts(chart, "domain")
    assert all(axis["scale"]["type"] == "log" for axis in parts(chart, "y") if "scale" in axis)


def test_the_courses_show_the_first_rate_that_diverges_and_hide_no_other(run: Run) -> None:
    rows = run.to_polars(columns=["lr", "status"]).filter(status="diverged")
    first = min(rows["lr"].to_list())
    chart = run.plot.history().to_dict()
    titles = [
        title["text"]
        for title in parts(chart, "title")
        if isinstance(title, dict) and "text" in title
    ]

    assert f"learning rate {first:.4g}" in titles
    assert "9 of the 21 values of learning rate; losses that grow" in parts(chart, "subtitle")[0]
    assert max(tops(chart)) <= 1e7


def test_fits_that_diverged_are_at_the_top_of_the_edge(run: Run) -> None:
    chart = run.plot.edge().to_dict()
    fits = [r for rows in chart["datasets"].values() for r in rows if "status" in r]
    diverged = {record["y"] for record in fits if record["status"] == "diverged"}

    assert diverged == tops(chart)
    assert max(tops(chart)) <= 1e5
    assert max(r["y"] for r in fits if r["status"] != "diverged") < min(diverged)


def test_where_all_diverged_they_are_at_the_top_too() -> None:
    fits = [{"fit": n, "share": 1e3 + n, "loss": None, "status": "diverged"} for n in range(3)]
    chart = edge_chart(fits).to_dict()
    drawn = {r["y"] for rows in chart["datasets"].values() for r in rows if "y" in r}

    assert drawn == tops(chart)


def test_the_losses_in_order_say_which_fits_they_are_of(run: Run) -> None:
    kept = len(run.to_polars(columns=["status"]).filter(status="completed"))
    subtitles = parts(run.plot.distribution().to_dict(), "subtitle")
    assert subtitles == [f"{kept} of 63 fits: those that did not diverge"]


def test_a_fit_is_named_with_what_was_swept_and_its_error(run: Run) -> None:
    row, chart = run.row(30), run.plot.fit(30).to_dict()
    title = next(one for one in parts(chart, "title") if isinstance(one, dict) and "text" in one)
    assert title["text"] == "Fit 30"
    assert title["subtitle"] == (
        f"{row['target']}, learning rate {row['lr']:.4g}; loss {row['loss']:.4g}, "
        f"largest error {row['max_error']:.4g}"
    )


def test_a_kind_of_chart_that_there_is_not_is_named_with_those_that_there_are(run: Run) -> None:
    with pytest.raises(UsageError, match=r"no kind 'losses'; the kinds are loss, max_error, .*"):
        run.plot.chart("losses")
