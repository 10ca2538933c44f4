"""Numbers, counts, sizes and times as short text for people."""

import math
from collections.abc import Iterable
from typing import Any

__all__ = [
    "format_bytes",
    "format_cell",
    "format_change",
    "format_count",
    "format_duration",
    "format_number",
    "format_pairs",
    "format_statuses",
    "three_digits",
]


def format_number(value: float | None) -> str:
    """Six significant digits; ``-`` for null."""
    return "-" if value is None else f"{value:.6g}"


def format_cell(value: Any) -> str:
    """One value of a row, for a table: a number, a list of numbers, a word or null."""
    if value is None or isinstance(value, float):
        return format_number(value)
    if isinstance(value, list):
        return "[" + ", ".join(format_cell(item) for item in value) + "]"
    return str(value)


def format_count(number: int, noun: str) -> str:
    """``1 fit``, ``20 fits``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_change(factor: float | None) -> str:
    """A number as a multiple of an earlier one: ``+5.2%``, ``12 times``, ``1/675,000``.

    A percentage below a factor of ten either way; ``-`` for null.
    """
    if factor is None:
        return "-"
    if factor in (0.0, math.inf):
        return "from 0" if factor else "to 0"
    if 0.1 < factor < 10:
        return f"{100 * (factor - 1):+.3g}%"
    return f"{three_digits(factor)} times" if factor > 1 else f"1/{three_digits(1 / factor)}"


def three_digits(number: float) -> str:
    """``1,230``: a number where more digits are noise."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.12g}" if rounded < 1e9 else f"{rounded:.3g}"


def format_statuses(statuses: dict[str, int]) -> str:
    """``18 completed, 2 diverged``."""
    return ", ".join(f"{count:,} {status}" for status, count in statuses.items())


def format_bytes(num_bytes: float) -> str:
    """In the largest binary unit that keeps the number at 1 or above."""
    if num_bytes < 1024:
        return f"{num_bytes:,.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        num_bytes /= 1024
        if num_bytes < 1024:
            return f"{num_bytes:,.1f} {unit}"
    return f"{num_bytes / 1024:,.1f} TiB"


def format_duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, else hours."""
    if seconds < 120:
        return f"{seconds:,.3g} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def format_pairs(pairs: Iterable[tuple[str, str]], width: int) -> str:
    """One line per name and value; the values begin in the same column."""
    return "\n".join(f"{name:<{width}} {value}" for name, value in pairs)
