"""Numbers, counts, sizes and times as short text for people."""

from collections.abc import Iterable
from typing import Any

__all__ = [
    "format_bytes",
    "format_cell",
    "format_count",
    "format_duration",
    "format_number",
    "format_pairs",
    "format_statuses",
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
