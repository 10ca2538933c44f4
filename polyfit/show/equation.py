"""The equation of one fit, from its row."""

import textwrap
from typing import Any, Final

from polyfit.run.stored_fit import grid_of_row

__all__ = ["equation_lines", "equations"]

WIDTH: Final = 100

DUST: Final = 2.0**-52
"""A term whose largest value is at most this share of the largest term's is rounding."""


def equation_lines(row: dict[str, Any]) -> list[str]:
    """``equations`` to be read: in lines of ``WIDTH``, without terms that are rounding alone."""
    grid = grid_of_row(row)
    far = max(abs(row["range_low"]), abs(row["range_high"]))
    own, in_x = equations(
        {
            **row,
            "coefficients": _kept(row["coefficients"], far, grid.basis),
            "power_coefficients": _kept(row["power_coefficients"], far, "power"),
        }
    )
    if in_x is None:
        in_x = "in powers of x: unknown, because converting would change the predictions"
    texts = [own] if own == in_x else [own, in_x]
    return [line for text in texts for line in _wrapped(text)]


def _kept(values: list[float | None] | None, far: float, basis: str) -> list[float | None] | None:
    """0 instead of what is small at every x of a range that goes to ``far``."""
    if values is None:
        return None
    sizes = [abs(v or 0.0) * (far**k if basis == "power" else 1) for k, v in enumerate(values)]
    least = DUST * max(sizes, default=0.0)
    return [
        0.0 if v is not None and size <= least else v for v, size in zip(values, sizes, strict=True)
    ]


def _wrapped(text: str) -> list[str]:
    sum_, comma, where = text.removeprefix("y = ").partition(", t = ")
    if not text.startswith("y = "):
        return [text]
    terms = [term for term in sum_.split(" + ") if term.partition(" ")[0] not in ("0.0", "-0.0")]
    shown = f"y = {' + '.join(terms) or '0'}".replace("+ -", "- ")
    middle, _, half = where.removeprefix("(x - ").partition(") / ")
    if comma:
        less = "x" if float(middle) == 0 else f"(x - {_short(middle)})".replace("- -", "+ ")
        shown += f", t = {less}" + ("" if float(half) == 1 else f" / {_short(half)}")
    glued = shown.replace(" + ", f" +{_GLUE}").replace(" - ", f" -{_GLUE}")
    for name in "TPx":
        glued = glued.replace(f" {name}", f"{_GLUE}{name}")
    glued = glued.replace("t = ", f"t{_GLUE}={_GLUE}").replace(f"(x -{_GLUE}", f"(x{_GLUE}-{_GLUE}")
    lines = textwrap.wrap(
        glued, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_GLUE, " ") for line in lines]


_GLUE: Final = "\u00a0"  # where a line is not broken


def _short(number: str) -> str:
    return number.removesuffix(".0")


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
