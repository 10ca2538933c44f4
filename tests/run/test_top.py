"""The first rows by a column."""

from typing import Any

import pandas as pd
import polars as pl
import pytest
from small_run import FITS

from polyfit.errors import UsageError
from polyfit.run.reader import Run

pytest_plugins = ["small_run_fixtures"]


def fits(rows: pl.DataFrame) -> list[int]:
    return rows["fit"].to_list()


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
    assert fits(run.top(sign + column)) == expected
    assert fits(run.top(sign + column, 7)) == expected[:7]


def test_there_are_nulls_to_come_last(frame: pd.DataFrame) -> None:
    assert 0 < int(frame["loss"].isna().sum()) < FITS


def test_top_without_a_column_is_by_fit(run: Run) -> None:
    assert fits(run.top(limit=13)) == list(range(13))


def test_top_shows_the_columns_asked_for_whatever_it_sorts_by(run: Run) -> None:
    assert run.top("loss", 3, ["fit", "rmse"]).columns == ["fit", "rmse"]


def test_top_of_more_than_there_are_is_all(run: Run) -> None:
    assert len(run.top("loss", 1_000)) == FITS


def test_top_meets_its_condition(run: Run) -> None:
    assert fits(run.top("-fit", 2, where="basis == 'legendre'")) == [39, 38]


def test_top_of_nothing_has_its_columns(run: Run) -> None:
    found = run.top("loss", 3, ["fit", "loss"], where="degree == 2")
    assert (len(found), found.columns) == (0, ["fit", "loss"])


@pytest.mark.parametrize("sort", ["los", "-los", "-", "--loss"])
def test_top_by_an_unknown_column_is_refused(run: Run, sort: str) -> None:
    with pytest.raises(UsageError, match="no column"):
        run.top(sort)


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [("loss:desc", "--sort -loss "), ("loss asc", "--sort loss "), ("los", "did you mean 'loss'")],
)
def test_another_way_to_write_an_order_is_corrected(run: Run, sort: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        run.top(sort)


def test_top_by_a_list_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="a list has no order"):
        run.top("coefficients")
