"""The curve in the terminal, for targets at any scale."""

from typing import Any

import pytest

from polyfit.show.curve import HEIGHT, WIDTH, curve


def drawn(lines: list[str]) -> list[str]:
    """The rows of the drawing, without their labels."""
    return [line.partition("|")[2].ljust(WIDTH) for line in lines[:HEIGHT]]


def column_of(cells: list[str], column: int, marks: str) -> list[int]:
    return [line for line in range(HEIGHT) if cells[line][column] in marks]


def row_of(**changes: Any) -> dict[str, Any]:
    """The row of y = x on [0, 1], with changes."""
    return {
        "status": "completed", "range_low": 0.0, "range_high": 1.0, "points": 200, "degree": 1,
        "basis": "power", "target": "x", "noise": 0.0, "noise_seed": 0,
        "coefficients": [0.0, 1.0], **changes,
    }  # fmt: skip


def test_a_curve_has_its_size_and_its_labels() -> None:
    lines = curve(row_of())
    assert len(drawn(lines)) == HEIGHT
    assert {len(line) for line in drawn(lines)} == {WIDTH}
    assert lines[0].split()[0] == "1"
    assert lines[HEIGHT - 1].split()[0] == "0"
    assert lines[-2].split() == ["0", "1"]
    assert lines[-1].strip() == "o target   * polynomial   # both"
    assert all(line.isascii() for line in lines)


def test_a_fit_that_is_its_target_is_one_line_from_corner_to_corner() -> None:
    cells = drawn(curve(row_of()))
    assert (cells[HEIGHT - 1][0], cells[0][WIDTH - 1]) == ("#", "#")
    assert set("".join(cells)) == {"#", " "}
    for column in range(WIDTH):
        assert HEIGHT - 1 - column * HEIGHT // WIDTH in column_of(cells, column, "#")


def test_target_and_polynomial_are_drawn_apart() -> None:
    cells = drawn(curve(row_of(coefficients=[1.0, -1.0])))
    assert (cells[HEIGHT - 1][0], cells[0][0]) == ("o", "*")
    assert (cells[0][WIDTH - 1], cells[HEIGHT - 1][WIDTH - 1]) == ("o", "*")


def test_a_steep_polynomial_has_no_gaps() -> None:
    cells = drawn(curve(row_of(coefficients=[0.0, 7.0], points=2)))
    assert all(column_of(cells, column, "*#") for column in range(WIDTH))
    assert all(set(line) & {"*", "#"} for line in cells)


def test_noise_is_drawn_as_part_of_the_data() -> None:
    still, loud = (curve(row_of(noise=noise)) for noise in (0.0, 0.3))
    assert loud[-1].strip() == "o target with noise   * polynomial   # both"
    assert "o" not in "".join(drawn(still))
    assert "o" in "".join(drawn(loud))


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "1", "coefficients": [1.0, 0.0]},
        {"target": "0", "coefficients": [0.0, 0.0]},
        {"target": "1.7e308 * sign(x - 0.5)"},
        {"target": "1 / x"},
        {"target": "log(x - 2)"},
        {"target": "5e-324 * x", "coefficients": [0.0, 0.0]},
        {"points": 2},
        {"degree": 0, "coefficients": [0.5], "points": 1},
        {"range_low": 1.0e6, "range_high": 1.0e6 + 1},
        {"range_low": -8.0e307, "range_high": 8.0e307},
    ],
    ids=str,
)
def test_every_curve_can_be_drawn(changes: dict[str, Any]) -> None:
    lines = curve(row_of(**changes))
    assert len(lines) == HEIGHT + 3
    assert {len(line) for line in drawn(lines)} == {WIDTH}


def test_a_fit_that_diverged_has_no_curve() -> None:
    row = row_of(status="diverged", coefficients=[None, None])
    assert curve(row) == ["no curve: the fit diverged"]


@pytest.mark.parametrize("coefficients", [[0.0, None], [0.0]], ids=str)
def test_a_row_without_all_coefficients_has_no_curve(coefficients: list[float | None]) -> None:
    lines = curve(row_of(coefficients=coefficients))
    assert lines == ["no curve: the row does not hold all coefficients"]
