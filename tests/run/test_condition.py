"""Conditions on columns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_run import ids

from polyfit.errors import UsageError
from polyfit.run.condition import condition, filter_rows
from polyfit.run.reader import Run
from polyfit.spec.field_conditions import FieldCondition

pytest_plugins = ["small_run_fixtures"]

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
    "fit / 2 == 1.5": lambda f: f.fit == 3,
    "excess_loss / loss > 0.01": lambda f: f.excess_loss / f.loss > 0.01,
    "-degree < -2": lambda f: f.degree > 2,
    "fit / (degree - 3) > 5": lambda f: (f.degree != 3) & (f.fit / (f.degree - 3) > 5),
    "loss / (degree - degree) == None": lambda f: f.fit >= 0,
    "not 1 / seed > 0": lambda f: f.seed < 0,
    "range_low == -1": lambda f: f.range_low == -1,
    "  degree == 3  ": lambda f: f.degree == 3,
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_chooses_rows(run: Run, frame: pd.DataFrame, text: str) -> None:
    assert ids(run.to_arrow(where=text)) == frame["fit"][CONDITIONS[text](frame)].tolist()


@pytest.mark.parametrize(
    "text",
    ["steps / degree > 5", "not steps / degree > 5", "noise / degree == None", "1 / noise > 1e307"],
)
def test_what_is_divided_by_zero_is_unknown_in_rows_and_to_exclude(text: str) -> None:
    columns = {"degree": [0, 0, 3, 3], "steps": [0, 9, 9, 60], "noise": [0.0, 1.0, 1e-310, 1e-308]}
    rows = filter_rows(pa.table({**columns, "row": range(4)}), condition(text, [*columns]), text)
    values = {name: np.array(numbers, dtype=object) for name, numbers in columns.items()}
    excluded = FieldCondition.parse(text).holds(values.__getitem__)

    assert rows["row"].to_pylist() == np.flatnonzero(excluded).tolist()
    assert 0 < rows.num_rows < 4


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("noise_seed == 0", [0]),
        ("noise_seed == 18446744073709551615", [3]),
        ("noise_seed > -1", [0, 1, 2, 3]),
        ("noise_seed < 5.5", [0, 1]),
        ("3 < noise_seed <= 9223372036854775808", [1, 2]),
        ("noise_seed in [0, 18446744073709551615]", [0, 3]),
        ("noise_seed not in [0, 1.5]", [1, 2, 3]),
        ("noise_seed / 2 - 1 < fit + 1", [0, 1]),
    ],
)
def test_a_condition_on_noise_seeds_of_64_bits_is_exact(text: str, fits: list[int]) -> None:
    seeds = pa.array([0, 5, 2**63, 2**64 - 1], pa.uint64())
    rows = pa.table({"fit": range(4), "noise_seed": seeds})
    assert ids(filter_rows(rows, condition(text, rows.column_names), text)) == fits


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
    with pytest.raises(UsageError, match="no column 'los'; did you mean 'loss'"):
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
        run.to_arrow(where=text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("status == diverged", "put a text in quotes: 'diverged'"),
        ("basis != Power", "put a text in quotes: 'power'"),
        ("optimizer == gd", "put a text in quotes: 'gd'"),
        ("status == 'Diverged'", "no status is 'Diverged'; did you mean 'diverged'"),
        ("degree == 1 and basis in ['power', 'sine']", "no basis is 'sine'; allowed: chebyshev"),
        ("degree == 1 && status == 'a & b'", "write and for &&$"),
        ("degree == 1 || !(degree == 3)", r"write or for \|\|, write not for !$"),
        ("degre == 1", "no column 'degre'; did you mean 'degree'"),
        ("rate > 1", "no column 'rate'; did you mean 'lr'"),
    ],
)
def test_what_was_probably_meant_is_said(run: Run, text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        condition(text, run.schema.names)


def test_a_condition_is_one_expression_of_arrow() -> None:
    assert condition("degree == 3", ["degree"]).equals(pc.field("degree") == 3)
