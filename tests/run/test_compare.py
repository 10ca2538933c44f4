"""Two runs compared, fit by fit and group by group."""

from pathlib import Path

import polars as pl
import pytest
from small_run import TEXT, file, shard

import polyfit
from polyfit.errors import UsageError
from polyfit.run.keys import MANIFEST
from polyfit.run.reader import Run
from polyfit.spec.spec import Spec

pytest_plugins = ["small_run_fixtures"]


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run with one more seed, one degree less, another shard size and fewer updates."""
    text = (
        TEXT.replace("count: 2", "count: 3")
        .replace("[1, 3]", "[3]")
        .replace("shard: 10", "shard: 7")
    )
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(text), store=folder, executor="inline")


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run with a looser stop rule: other losses, other fits."""
    folder = str(tmp_path_factory.mktemp("store"))
    text = TEXT.replace("steps: 20", "steps: 5").replace("every: 10", "every: 5")
    return polyfit.execute(Spec.parse(text), store=folder, executor="inline")


def test_a_run_is_as_it_is(run: Run) -> None:
    found = run.compare(run)
    assert (found.common, found.only_here, found.only_before, found.identical) == (48, 0, 0, 48)
    assert (found.other_bits, found.beyond, dict(found.statuses)) == (None, 0, {})
    assert len(found.groups) == 24
    assert (len(found.worse(0)), len(found.better(0)), len(found.largest)) == (0, 0, 0)


def test_common_fits_are_those_with_equal_fields_wherever_they_lie(run: Run, later: Run) -> None:
    found = later.compare(run)
    assert (found.common, found.only_here, found.only_before) == (24, 12, 24)
    assert found.identical == 24
    back = run.compare(later)
    assert (back.common, back.only_here, back.only_before) == (24, 24, 12)


def test_only_what_is_stored_counts(copy: Run, later: Run) -> None:
    shard(copy, 4).unlink()  # fits 40 to 47
    file(copy, MANIFEST).unlink()
    found = later.compare(copy)
    assert (found.common, found.only_here, found.only_before) == (16, 20, 24)
    back = copy.compare(later)
    assert (back.common, back.only_here, back.only_before) == (16, 24, 20)


def test_other_fits_are_compared_by_their_groups(run: Run, shorter: Run) -> None:
    found = shorter.compare(run, by=["degree", "basis"])
    assert (found.common, found.only_here) == (0, 48)
    assert found.other_bits is not None
    wanted = {
        key: rows.filter(pl.col("status").cast(pl.String) != "diverged")["loss"].median()
        for key, rows in run.to_polars().partition_by("degree", "basis", as_dict=True).items()
    }
    assert len(found.groups) == 6
    for group in found.groups.to_dicts():
        assert group["median_loss_before"] == wanted[group["degree"], group["basis"]]
        assert (group["common"], group["compared"], group["compared_before"]) == (0, 8, 8)
        assert (group["diverged"], group["diverged_before"]) == (4, 4)
        now = group["median_loss"]
        assert group["change"] == pytest.approx(now / group["median_loss_before"] - 1)
    assert len(found.worse(0)) + len(found.better(0)) == 6


def test_added_fits_make_no_group_worse_and_are_named(run: Run, later: Run) -> None:
    """One more seed: the medians over all fits differ, the common fits have the same bits."""
    for found in (later.compare(run), run.compare(later)):
        assert len(found.groups) == 12
        assert (len(found.worse(0)), len(found.better(0))) == (0, 0)
        assert set(found.groups["change"].drop_nulls()) == {0.0}
        assert (len(found.with_other_fits()), len(found.all_diverged())) == (12, 6)
    assert found.groups_only_here == 12
    assert found.groups_in_words(0.01) == [
        "Of 6 groups compared, none is worse and none is better by more than 1%.",
        "In 12 groups a run has fits that the other has not: only the common ones are compared.",
        "Left out: 6 groups in which every fit diverges in both runs.",
    ]


def test_a_group_is_worse_if_more_of_its_fits_diverge(run: Run, copy: Run) -> None:
    rows = run.to_polars()
    lost = (pl.col("status").cast(pl.String) != "diverged") & (pl.col("degree") == 3)
    lost &= pl.col("seed") == 0
    status = pl.when(lost).then(pl.lit("diverged")).otherwise(pl.col("status").cast(pl.String))
    changed = rows.with_columns(status.alias("status"))
    copy.shard_rows = lambda number, columns: (  # type: ignore[method-assign]
        changed.slice(10 * number, 10).select(columns).to_arrow()
    )
    found = copy.compare(run, "degree")
    assert found.worse(0.2).select("degree", "diverged_before", "diverged").rows() == [(3, 12, 18)]
    assert len(found.worse(0.3)) == 0
    assert len(run.compare(copy, "degree").better(0)) == 1


def test_diverged_fits_are_no_differences_and_no_field_is_a_result(run: Run, copy: Run) -> None:
    grown = run.to_polars().with_columns(pl.when(pl.col("status").cast(pl.String) == "diverged")
                                         .then(1e40).otherwise("loss").alias("loss"))  # fmt: skip
    copy.shard_rows = lambda number, columns: (  # type: ignore[method-assign]
        grown.slice(10 * number, 10).select(columns).to_arrow()
    )
    found = copy.compare(run)
    assert (found.beyond, len(found.worse(0)), len(found.all_diverged())) == (0, 0, 12)
    with pytest.raises(UsageError, match="no column 'status'"):
        run.compare(run, "status")


def test_changes_of_a_fit_are_counted_and_the_largest_kept(run: Run, copy: Run) -> None:
    """Rows of a run that was made by hand: the same fits with other losses."""
    rows = run.to_polars()
    loss = pl.col("loss")
    changed = rows.with_columns(
        pl.when(pl.col("fit") == 4).then(loss * 2).when(pl.col("fit") == 5).then(loss * (1 + 1e-9))
        .otherwise(loss).alias("loss"),
        pl.when(pl.col("fit") == 8).then(pl.lit("diverged")).otherwise(pl.col("status").cast(str))
        .alias("status"),
    )  # fmt: skip
    copy.shard_rows = lambda number, columns: (  # type: ignore[method-assign]
        changed.slice(10 * number, 10).select(columns).to_arrow()
    )
    found = copy.compare(run)
    was = rows["status"][8]
    assert dict(found.statuses) == {(was, "diverged"): 1}
    assert (found.common, found.identical, found.beyond) == (48, 45, 1)
    assert found.largest.select("fit", "fit_before", "change").rows() == [(4, 4, 0.5)]


def test_a_group_that_has_no_loss_any_more_is_worse(tmp_path: Path) -> None:
    text = "name: a\nfit: {steps: 50, points: 9, lr: LR}\nsweep: {seed: {count: 2}}"
    fine, lost = (
        polyfit.execute(Spec.parse(text.replace("LR", lr)), store=tmp_path, executor="inline")
        for lr in ("auto", "1.0e+30")
    )
    assert len(lost.compare(fine).worse(1e9)) == 1
    assert len(fine.compare(lost).better(1e9)) == 1
