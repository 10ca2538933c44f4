"""Sums per degree and range."""

from pathlib import Path
from typing import Any

import pandas as pd

import polyfit
from polyfit.run.reader import Run
from polyfit.spec.spec import Spec

pytest_plugins = ["small_run_fixtures"]


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
