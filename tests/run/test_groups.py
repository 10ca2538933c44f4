"""Sums per group."""

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import polyfit
from polyfit.errors import UsageError
from polyfit.run import columns, groups
from polyfit.run.reader import Run
from polyfit.run.several import SeveralRuns
from polyfit.show.groups import group_keys
from polyfit.spec.spec import Spec

pytest_plugins = ["small_run_fixtures"]


def naive_groups(frame: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    """Of all rows at once, by pandas."""
    found = []
    statuses = sorted(frame["status"].astype(str).unique())
    keys: Any = by or [0] * len(frame)
    for key, rows in frame.groupby(keys, observed=True, dropna=False):
        loss = rows["loss"].dropna()
        judged = rows["optimum_loss"].notna()
        far = ~(rows["loss"] <= rows["optimum_loss"] * 1.01)
        counts = rows["status"].astype(str).value_counts()
        quantiles = [float(loss.quantile(q)) if len(loss) else None for q in (0.1, 0.5, 0.9)]
        found.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=False)),
                "fits": len(rows),
                "best_loss": loss.min() if len(loss) else None,
                **dict(zip(("p10_loss", "median_loss", "p90_loss"), quantiles, strict=True)),
                "median_max_error": none_if_nan(rows["max_error"].median()),
                "median_steps": rows["steps_taken"].median(),
                "median_steps_to_1pct": none_if_nan(rows["steps_to_1pct"].median()),
                "with_optimum": int(judged.sum()),
                "above_optimum": int((judged & far).sum()) if judged.any() else None,
                **{name: int(counts.get(name, 0)) for name in statuses},
            }
        )
    return found


def rounded(group: dict[str, Any]) -> dict[str, str]:
    """To the digits that do not depend on the order of additions; null for NaN."""
    return {
        name: "null" if pd.isna(value) else value if isinstance(value, str) else f"{value:.11g}"
        for name, value in group.items()
    }


def none_if_nan(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


@pytest.mark.parametrize(
    "by",
    [
        ["degree", "range"],
        ["basis"],
        ["lr"],
        ["optimizer", "stop"],
        [],
        ["status", "seed"],
        ["steps_taken", "loss"],
    ],
    ids=str,
)
def test_groups_are_those_of_a_naive_computation(
    run: Run, frame: pd.DataFrame, by: list[str]
) -> None:
    found = run.groups(by)

    wanted = naive_groups(frame, columns.expand(by))
    assert found.columns == list(wanted[0])
    for group, naive in zip(found.to_dicts(), wanted, strict=True):
        assert rounded(group) == rounded(naive)


def test_by_default_groups_are_of_what_was_swept_but_for_seeds(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run.groups()
    assert found.columns[:6] == ["degree", "basis", "range_low", "range_high", "lr", "fits"]
    assert found["fits"].to_list() == [2] * 24
    monkeypatch.setattr(columns, "MAX_GROUPS", 7)
    assert columns.default_groups(run.plan) == ["degree", "basis"]


def test_a_condition_chooses_the_rows_that_count(run: Run) -> None:
    found = run.groups("degree", where="basis == 'power' and seed == 0")
    assert found.select("degree", "fits").rows() == [(1, 4), (3, 4)]
    with pytest.raises(UsageError, match="no column 'width'; the columns are fit, degree"):
        run.groups("width")
    none = run.groups("degree", where="degree > 9")
    assert (len(none), none.columns[:3]) == (0, ["degree", "fits", "best_loss"])
    with pytest.raises(UsageError, match="no column 'degre'; did you mean 'degree'"):
        run.groups("degre")


def test_of_a_large_run_quantiles_are_of_a_sample_and_counts_of_all_fits(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = run.groups("degree")
    monkeypatch.setattr(groups, "SAMPLED_FITS", FITS_SAMPLED)
    monkeypatch.setattr(groups, "_MERGED_PARTS", 2)
    sampled = run.groups("degree")
    counts = ["degree", "fits", "best_loss", "with_optimum", "above_optimum", "diverged"]
    assert sampled.select(counts).equals(exact.select(counts))
    assert not sampled.equals(exact)


FITS_SAMPLED = 20


def test_the_sample_has_its_share_of_every_seed() -> None:
    """Also where the number of seeds divides what every n-th fit would be."""
    fits = pl.DataFrame({"fit": range(5_000_000)})
    sample = fits.filter(groups.is_sampled(5_000_000))
    assert len(sample) == pytest.approx(1_000_000, rel=1e-3)
    for seeds in (2, 5, 10, 100, 1000):
        per_seed = sample.group_by(pl.col("fit") % seeds).len()["len"]
        assert len(per_seed) == seeds
        assert per_seed.cast(pl.Int64).to_numpy() == pytest.approx(1_000_000 / seeds, rel=0.05)


def test_an_objective_without_a_closed_form_has_no_count_above_the_optimum(
    tmp_path: Path,
) -> None:
    text = "name: l1\nfit: {objective: l1, lr: 0.001, steps: 5}\nsweep: {seed: {count: 3}}"
    run = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    assert run.groups()["above_optimum"].to_list() == [None]


def test_a_group_without_a_loss_says_so(tmp_path: Path) -> None:
    text = "name: no\nfit: {lr: 1.0e+30, steps: 50}"
    run = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    (group,) = run.groups().to_dicts()
    assert group == naive_groups(run.to_pandas(), [])[0]
    assert (group["best_loss"], group["median_loss"], group["above_optimum"]) == (None, None, 1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Another run, in float64 and with other records."""
    text = (
        "name: other\nfit: {steps: 9, points: 9, dtype: float64}\n"
        "sweep: {degree: [1, 2], seed: {count: 3}}\nrecord: none"
    )
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(text), store=folder, executor="inline")


def test_several_runs_are_one_table_with_their_names(run: Run, other: Run) -> None:
    both = SeveralRuns([run, other])
    rows = pl.concat([pl.DataFrame(part) for part in both.parts(["run", "fit", "coefficients"])])
    assert rows["run"].cast(pl.String).to_list() == [run.label] * 48 + [other.label] * 6
    assert rows["coefficients"].to_list()[48:] == other.to_polars()["coefficients"].to_list()
    assert "loss_history" not in both.columns
    found = both.groups(["degree"])
    assert found.select("degree", pl.col("run").cast(pl.String), "fits").rows() == [
        (1, other.label, 3),
        (1, run.label, 24),
        (2, other.label, 3),
        (3, run.label, 24),
    ]
    assert both.top(None, 50, ["fit"])["fit"].to_pylist() == [*range(48), 0, 1]
    assert both.top("-degree", 25, ["run", "degree"])["degree"].to_pylist() == [3] * 24 + [2]
    assert both.worst(["degree"]).select(pl.col("run").cast(pl.String), "degree").rows() == [
        *((run.label, degree) for degree in (1, 3)),
        *((other.label, degree) for degree in (1, 2)),
    ]


def test_one_run_has_no_column_of_runs(run: Run) -> None:
    alone = SeveralRuns([run])
    assert alone.columns == run.schema.names
    assert alone.groups().equals(run.groups())


def test_columns_are_named_in_a_list_or_a_text(run: Run) -> None:
    assert run.groups("swept").equals(run.groups())
    assert run.groups("degree, range").equals(run.groups(["degree", "range"]))
    with pytest.raises(UsageError, match="' , ' names no column"):
        run.groups(" , ")
    assert run.extremes("degree,basis").equals(run.extremes(["degree", "basis"]))
    chart = run.plot.loss("degree", "basis").to_dict()
    for by in ("degree,basis", ["degree", "basis"]):
        assert run.plot.loss(by).to_dict() == chart
    with pytest.raises(UsageError, match="3 names no column; allowed: 'degree, lr' or a list"):
        run.groups(3)  # type: ignore[arg-type]


def test_the_share_of_the_limit_is_the_one_asked_for(tmp_path: Path) -> None:
    """lr / lr_limit differs from it in its last bit for some fits."""
    text = (
        "name: shares\nfit: {steps: 2, points: 30}\nsweep: {lr: [auto, 0.001, "
        "{of_limit: 0.9}, {of_limit: 1.1}], degree: {start: 0, stop: 20}}"
    )
    run = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    rows = run.to_polars(["lr", "lr_limit", "lr_share"])
    stated = rows["lr"] == 0.001
    assert set(rows["lr_share"].filter(~stated)) == {0.5, 0.9, 1.1}
    assert rows.filter(stated).select(pl.col("lr") / pl.col("lr_limit")).to_series().equals(
        rows["lr_share"].filter(stated), check_names=False
    )  # fmt: skip
    keys = [keys[0] for keys in group_keys(run.groups("lr").to_dicts(), ["lr"])]
    assert len({*keys}) == len(keys) == len({*rows["lr"]})
