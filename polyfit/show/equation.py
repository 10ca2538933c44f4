"""The equation of one fit, from its row."""

from typing import Any

from polyfit.run.stored_fit import grid_of_row

__all__ = ["equations"]


def equations(row: dict[str, Any]) -> tuple[str, str | None]:
    """``y = ...`` in the fit's own basis, and in powers of x: None where those are not known."""
    grid = grid_of_row(row)
    coefficients, powers = row["coefficients"], row["power_coefficients"]
    in_x = None if powers is None else f"y = {_sum_of_powers(powers)}"
    if grid.basis == "power":
        return f"y = {_sum_of_powers(coefficients)}", in_x
    letter = {"chebyshev": "T", "legendre": "P"}[grid.basis]
    names = [f" {letter}{k}(t)" for k in range(len(coefficients))]
    return f"y = {_sum(coefficients, names)}, t = (x - {grid.middle}) / {grid.half}", in_x


def _sum_of_powers(coefficients: list[float | None]) -> str:
    return _sum(coefficients, ["", " x", *(f" x^{k}" for k in range(2, len(coefficients)))])


def _sum(coefficients: list[float | None], names: list[str]) -> str:
    """``?`` stands for a coefficient that the row does not hold."""
    # A constant has fewer coefficients than the names of powers.
    return " + ".join(
        f"{'?' if coefficient is None else coefficient}{name}"
        for coefficient, name in zip(coefficients, names, strict=False)
    )
