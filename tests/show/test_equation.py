"""An equation has the numbers of its row."""

import re
from typing import Any

import numpy as np
import pytest
from shards import TWELVE_FITS, stored_run

from polyfit.run.reader import Run
from polyfit.show.equation import equation_lines, equations

FITS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 fits in three shards; not to be changed."""
    return stored_run(TWELVE_FITS, tmp_path_factory.mktemp("store"))


TERM = r"(-?[\d.]+(?:e[-+]?\d+)?)"


def value_of(equation: str, x: Any) -> Any:
    """A shown equation at ``x``, read as a reader would."""
    sum_, _, where = equation.removeprefix("y = ").partition(", ")
    t = x
    if where:
        found = re.fullmatch(rf"t = \(x - {TERM}\) / {TERM}", where)
        assert found is not None
        t = (x - float(found[1])) / float(found[2])
    polynomials: dict[str, Any] = {
        "T": np.polynomial.Chebyshev,
        "P": np.polynomial.Legendre,
        "": np.polynomial.Polynomial,
    }
    total = np.zeros_like(x)
    for term in sum_.split(" + "):
        found = re.fullmatch(rf"{TERM}(?: ([TP])(\d+)\(t\)| x(?:\^(\d+))?)?", term)
        assert found is not None
        degree = int(found[3] or found[4] or (1 if term.endswith("x") else 0))
        total += float(found[1]) * polynomials[found[2] or ""].basis(degree)(t)
    return total


@pytest.mark.parametrize("fit", range(0, FITS, 2))
def test_equations_are_the_rows_polynomial(run: Run, fit: int) -> None:
    row = run.row(fit)
    x = np.linspace(row["range_low"], row["range_high"], 9)
    own, in_x = equations(row)
    assert in_x is not None
    np.testing.assert_allclose(value_of(own, x), run.predict(fit, x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(value_of(in_x, x), run.predict(fit, x), rtol=1e-5, atol=1e-6)


def test_an_equation_has_the_numbers_of_its_row(run: Run) -> None:
    row = run.row(8)
    a, b, c, d = row["coefficients"]
    assert row["basis"] == "power"
    assert equations(row) == (f"y = {a} + {b} x + {c} x^2 + {d} x^3",) * 2


def test_a_missing_coefficient_is_a_question_mark(run: Run) -> None:
    row = {**run.row(0), "coefficients": [1.5, None], "power_coefficients": None}
    assert equations(row) == ("y = 1.5 T0(t) + ? T1(t), t = (x - 0.0) / 1.0", None)


def test_an_equation_to_be_read_has_short_lines_and_no_rounding() -> None:
    values = [1.5, -6.35e-17, None, -0.25, *(0.123456789012345678 / k for k in range(1, 9))]
    row = {
        "degree": 11, "points": 20, "basis": "chebyshev", "range_low": -1.0, "range_high": 3.0,
        "coefficients": values, "power_coefficients": [0.0, -2.0],
    }  # fmt: skip
    *own, in_x = equation_lines(row)

    assert own[0].startswith("y = 1.5 T0(t) + ? T2(t) - 0.25 T3(t) + 0.12345678901234568 T4(t) + ")
    assert " ".join(line.strip() for line in own).endswith("T11(t), t = (x - 1) / 2")
    assert all(len(line) <= 100 and line.startswith(("y = ", "    + ", "    t = ")) for line in own)
    assert in_x == "y = -2.0 x"


@pytest.mark.parametrize("fit", range(0, FITS, 2))
def test_what_is_left_out_of_an_equation_is_rounding(run: Run, fit: int) -> None:
    row = run.row(fit)
    x = np.linspace(row["range_low"], row["range_high"], 9)
    text = " ".join(line.strip() for line in equation_lines(row))
    own = text.replace(" - ", " + -").replace("(x + -", "(x - ").partition(" y = ")[0]
    own = own.replace("t = x", "t = (x - 0)")
    if "t = " in own and "/" not in own:
        own += " / 1"
    np.testing.assert_allclose(value_of(own, x), run.predict(fit, x), rtol=1e-12, atol=1e-14)
