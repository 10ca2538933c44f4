"""A run in few numbers: counts and extremes of all fits, quantiles of a sample."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from polyfit.run import digest as module
from polyfit.run.digest import Digest, digest, digest_columns, sampled
from polyfit.run.grouping import Grouping
from polyfit.run.reader import Run
from polyfit.show.findings import headline
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

pytest_plugins = ["small_run_fixtures"]


def made(run: Run) -> Digest:
    names = run.to_arrow().schema.names
    return digest(run.plan, run.batches(digest_columns(names)))


def test_counts_and_extremes_are_those_of_all_rows(run: Run) -> None:
    found, rows = made(run), run.to_polars()
    finished = rows.filter((pl.col("status") != "diverged") & pl.col("loss").is_not_null())

    assert (found.rows, len(found.sample)) == (48, 48)
    assert found.total("fits") == 48
    assert found.total("diverged") == len(rows.filter(pl.col("status") == "diverged"))
    assert found.best["loss"][0] == finished["loss"].min()
    assert found.worst["loss"][0] == finished["loss"].max()
    for row in found.groups.drop_nulls("least_loss").to_dicts():
        fit = rows.row(row["best_fit"], named=True)
        assert fit["loss"] == row["least_loss"]


def test_a_group_is_what_its_labels_say(run: Run) -> None:
    grouping, rows = Grouping.of(run.plan), run.to_polars()
    codes = grouping.codes(rows["fit"].to_numpy())

    for code, row in zip(codes.tolist(), rows.to_dicts(), strict=True):
        labels = grouping.labels(code)
        assert labels["degree"] == str(row["degree"])
        assert labels["basis"] == row["basis"]
        assert labels["range"] == f"[{row['range_low']:g}, {row['range_high']:g}]"


def test_a_sample_is_about_as_large_as_wanted_and_not_in_step_with_seeds() -> None:
    fits = np.arange(1_000_000)
    kept = fits[sampled(fits, len(fits), 10_000)]

    assert 9_500 < len(kept) < 10_500
    assert np.bincount(kept % 100).min() > 50


def test_many_values_become_bins_and_groups_stay_few() -> None:
    plan = Plan.of(
        Spec.parse(
            "name: many\nfit: {basis: power}\n"
            "sweep: {lr: {logspace: [-6, -1, 5000]}, noise: {linspace: [0, 1, 300]}, "
            "degree: [1, 2, 3], range: [[-1, 1], [0, 1]], seed: {count: 10000}}"
        )
    )
    grouping = Grouping.of(plan)
    codes = grouping.codes(np.linspace(0, plan.fits - 1, 10_000).astype(np.int64))

    assert np.prod(grouping.sizes) <= 2_000
    assert {"degree", "range"} <= {field.name for field in grouping.fields}
    assert (codes.min(), codes.max()) == (0, np.prod(grouping.sizes) - 1)


def test_a_sample_has_the_medians_of_pooled_groups_that_all_fits_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the fits of a degree lie on either side of the median, two powers of ten apart."""
    monkeypatch.setattr(module, "SAMPLE_FITS", 2_000)
    spec = "name: a\nsweep: {degree: [0, 1, 2, 3, 4], range: [[0, 1], [0, 2]], seed: {count: 1000}}"
    fits = np.arange(10_000)
    loss = np.where(fits // 1_000 % 2, 100.0, 1.0)
    columns = {"fit": fits, "loss": loss, "optimum_loss": loss, "max_error": loss + fits}
    steps = {"steps_taken": np.full(10_000, 7), "status": ["completed"] * 10_000}
    found = digest(Plan.of(Spec.parse(spec)), [pa.table({**columns, **steps})])

    errors = found.by_field(found.metric("max_error"), ["degree"]).records
    losses = found.by_field(found.metric("loss"), ["degree"]).records

    assert len(found.sample) < 2_500
    assert [record["median"] for record in losses] == [50.5] * 5
    assert [(record["q05"], record["q95"], record["fits"]) for record in losses] == [
        (1, 100, 2000)
    ] * 5
    assert [record["best"] for record in errors] == [1 + 2_000 * degree for degree in range(5)]
    assert [record["worst"] for record in errors] == [2_099 + 2_000 * degree for degree in range(5)]


def test_a_digest_of_nothing_is_empty(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_FITS", 10)
    found = digest(run.plan, iter([]))

    assert (found.rows, len(found.groups), found.statuses) == (0, 0, {})


def test_a_share_of_the_limit_among_rates_is_named_as_one() -> None:
    plan = Plan.of(Spec.parse("name: a\nsweep: {lr: [auto, {of_limit: 0.9}, 0.9]}"))
    (field,) = Grouping.of(plan).fields
    assert field.labels == ("auto", "0.9 of the limit", "0.9")


@pytest.mark.parametrize(
    "sweep",
    [
        "{degree: [5, 1, 3], lr: [0.001, 0.00001, 0.0001]}",
        "[{degree: [3, 5], lr: [0.001, 0.00001]}, {degree: [1], lr: [0.0001]}]",
        "{degree: [5, 1, 3], lr: [{of_limit: 0.5}, {of_limit: 0.1}]}",
        "{degree: {start: 5, stop: 0, step: -2}, steps: {start: 60, stop: 20, step: -20}}",
    ],
)
def test_numbers_are_in_their_order_however_a_spec_lists_them(sweep: str) -> None:
    plan = Plan.of(Spec.parse(f"name: a\nsweep: {sweep}"))
    for field in Grouping.of(plan).fields:
        assert field.numbers is not None
        assert list(field.numbers) == sorted(field.numbers), field.name
        fits = np.arange(plan.fits)
        swept = plan.sweep.column(field.name, fits)
        labels = [field.labels[code] for code in field.codes(plan, fits)]
        values = [getattr(swept.items[code], "value", swept.items[code]) for code in swept.codes]
        assert [float(label) for label in labels] == values
    assert "degrees 1 to 5" in headline(plan)


def test_what_is_no_number_is_in_the_order_of_the_sweep() -> None:
    sweep = "{target: [sin(x), abs(x)], basis: [power, legendre]}"
    plan = Plan.of(Spec.parse(f"name: a\nsweep: {sweep}"))
    assert [field.labels for field in Grouping.of(plan).fields] == [
        ("power", "legendre"),
        ("sin(x)", "abs(x)"),
    ]
