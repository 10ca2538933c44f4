"""What a report says in words: each sentence is true of the rows."""

from pathlib import Path

import polars as pl
import pytest

import polyfit
from polyfit.run.digest import digest
from polyfit.run.reader import Run
from polyfit.show.conclusion import conclusion
from polyfit.show.findings import headline, to_look_at
from polyfit.show.report_charts import rates as edge_section
from polyfit.show.report_tables import groups_table, versus_table, versus_words
from polyfit.spec.spec import Spec

FIT = "fit: {target: sin(3*x) + x/2, degree: 5, points: 200, steps: 500, range: [-2, 2]}"
RATES = "sweep: {lr: [0.00001, 0.0001, 0.001, 0.003, 0.01, 0.1], seed: {count: 3}}"
SHARES = "sweep: {lr: {of_limit: [0.5, 0.9, 1, 1.01, 1.2]}, seed: {count: 3}}"
DEGREES = "sweep: {degree: {start: 1, stop: 9}, seed: {count: 2}}"


def ran(name: str, fit: str, sweep: str, folder: Path) -> Run:
    text = f"name: {name}\n{fit}\n{sweep}\n"
    return polyfit.execute(Spec.parse(text), store=str(folder), executor="inline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def rates(folder: Path) -> Run:
    return ran("rates", FIT, RATES, folder)


def words(run: Run) -> str:
    return " ".join(to_look_at(run.plot.digest))


def test_rates_that_work_the_fastest_and_those_that_diverge(rates: Run) -> None:
    assert conclusion(rates.plot.digest) == [
        "Learning rates from 0.001 to 0.003 brought every fit within 1% of the least-squares "
        "optimum; 0.003 was the fastest: median update 20, of those recorded. Smaller ones did not "
        "bring every fit there in its updates.",
        "From a learning rate of 0.01 on every fit diverged; up to 0.003 none did.",
    ]
    assert headline(rates.plan).endswith("degree 5, over 6 learning rates and 3 seeds")
    assert "6 fits diverged; most of all with learning rate 0.01 and 0.1: 6 of 6." in words(rates)


def test_a_rate_at_the_stability_limit_is_not_said_to_diverge(folder: Path) -> None:
    run = ran("shares", FIT, SHARES, folder)
    statuses = run.to_polars(columns=["lr_share", "status"])

    assert (statuses.filter(statuses["status"] == "diverged")["lr_share"] > 1.001).all()
    assert "6 fits had a rate above the stability limit: all diverged." in words(run)
    assert "3 fits had a rate at the stability limit, where a fit may neither" in words(run)
    assert conclusion(run.plot.digest)[-1] == (
        "From 1.01 of the stability limit on every fit diverged; up to 1 none did."
    )


def test_degrees_that_are_good_enough(folder: Path) -> None:
    fit = "fit: {target: exp(-x**2), range: [-3, 3], points: 100, dtype: float64}"
    run = ran("degrees", fit, DEGREES, folder)
    errors = run.to_polars().group_by("degree").agg(error=pl.col("max_error").max()).sort("degree")
    best, thresholds = conclusion(run.plot.digest)

    assert best == (
        "Degree 8 has the least median loss, 0.03529; its largest error is "
        f"{errors['error'][7]:.4g}."
    )
    assert thresholds == "The smallest degree with a largest error below 0.1 is 6."
    assert [row["degree"] for row in errors.to_dicts() if row["error"] < 0.1] == [6, 7, 8]


def test_no_degree_is_the_best_while_fits_of_another_are_far_from_their_optimum(
    folder: Path,
) -> None:
    fit = "fit: {target: sin(x), range: [-3, 3], points: 100, basis: power, steps: 50}"
    run = ran("unfinished", fit, "sweep: {degree: [1, 3, 5], seed: {count: 2}}", folder)
    far = run.groups("degree")["above_optimum"].to_list()
    found = run.plot.digest

    assert far == found.by_group["above_optimum"].to_list() == [0, 2, 2]
    (line,) = conclusion(found)
    assert line.startswith(
        "No conclusion on the degree: all fits of degrees 3 and 5 were still more than 1% above "
        "their optimum after 50 updates. As they ended, degree "
    )

    swept = "sweep: {degree: [1, 3, 5], points: [50, 100], seed: {count: 2}}"
    (line,) = conclusion(ran("unfinished-2", fit, swept, folder).plot.digest)
    assert line.startswith("The least median loss, ")
    assert line.endswith(
        "; but 8 of 12 fits were still more than 1% above their optimum after 50 updates."
    )


def test_page_and_terminal_count_the_same_fits_as_above_the_optimum(rates: Run) -> None:
    table = groups_table(rates.plot.digest)
    column = [column.title for column in table.columns].index("above optimum")
    by = rates.groups("swept")

    assert [row[column] for row in table.rows] == by["above_optimum"].to_list()
    assert by.filter(pl.col("diverged") > 0)["above_optimum"].to_list() == [3, 3]


def test_of_a_run_without_rows_nothing_is_known(rates: Run) -> None:
    nothing = digest(rates.plan, iter([]))
    assert conclusion(nothing) == []
    assert to_look_at(nothing) == ["Nothing is known yet: no fit is stored."]


def test_how_many_groups_of_two_runs_are_compared_and_why_not_all(rates: Run, folder: Path) -> None:
    other = ran("more", FIT, RATES.replace("0.00001, ", "").replace("count: 3", "count: 4"), folder)
    found = rates.compare(other)

    assert versus_words(found, "more") == [
        "Against more: 5 groups are in both runs, and 1 group only now.",
        "Of 3 groups compared, none is worse and none is better by more than 0.0001%.",
        "In 5 groups a run has fits that the other has not: only the common ones are compared.",
        "Left out: 2 groups in which every fit diverges in both runs.",
    ]
    assert len(versus_table(found).rows) == 5
    assert versus_words(found, "more")[1:] == found.groups_in_words(found.tolerance)
    heads = [column.title for column in versus_table(found).columns]
    assert heads[:4] == ["lr", "median loss before", "median loss now", "change"]


def test_the_edge_names_the_stability_limits(rates: Run) -> None:
    limits = rates.to_polars(["lr_limit"])["lr_limit"]
    section = edge_section(rates.plot)

    assert section is not None
    (figure,) = section.figures
    assert limits.n_unique() == 1
    assert figure.text == f"a point for each fit; the stability limit is {limits[0]:.4g}"
