"""A run summed up per group: for ``polyfit results --by``, and after ``polyfit run``."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from polyfit.show.text import format_cell, format_number, format_statuses

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Layout", "change_factor", "group_heads", "group_keys", "groups_facts", "groups_table"]

Layout = Callable[[Sequence[str], Iterable[Sequence[str]]], str]
"""Makes a table of heads and cells."""

_Key = str | float | int | None | tuple[float, float]
"""What a group has in a column, or in the two of a range."""

_NUMBERS: Final = {
    "best_loss": "best loss",
    "p10_loss": "10% below",
    "median_loss": "median loss",
    "p90_loss": "90% below",
    "median_max_error": "median\nmax error",
    "median_steps": "median\nsteps",
    "median_steps_to_1pct": "median\nto 1%",
}
"""Columns of numbers, and their heads."""

_SHORT: Final = ("best_loss", "median_loss", "median_max_error")
_FIXED: Final = ("fits", *_NUMBERS, "with_optimum", "above_optimum")


def groups_facts(groups: "pl.DataFrame") -> list[dict[str, Any]]:
    """Each group as JSON: all columns, with the counts per status in one object."""
    statuses = _status_columns(groups)
    return [
        {
            **{name: value for name, value in group.items() if name not in statuses},
            "statuses": _statuses(group, statuses),
        }
        for group in groups.to_dicts()
    ]


def groups_table(groups: "pl.DataFrame", layout: Layout, short: bool = False) -> str:
    """A line per group; fewer columns if ``short``."""
    by = groups.columns[: groups.columns.index("fits")]
    numbers = _SHORT if short else tuple(_NUMBERS)
    heads = [
        *group_heads(by),
        "fits",
        *(_NUMBERS[name] for name in numbers),
        ">1% above\noptimum",
        "statuses",
    ]
    statuses = _status_columns(groups)
    rows = groups.to_dicts()
    return layout(heads, [
        [*keys, *_cells(group, numbers, statuses)]
        for keys, group in zip(group_keys(rows, by), rows, strict=True)
    ])  # fmt: skip


def _cells(group: dict[str, Any], numbers: Sequence[str], statuses: list[str]) -> list[str]:
    return [
        f"{group['fits']:,}",
        *(format_number(group[name]) for name in numbers),
        _above_optimum(group),
        format_statuses(_statuses(group, statuses)),
    ]


def group_heads(by: Sequence[str]) -> list[str]:
    """The heads of the columns that make a group."""
    both = {"range_low", "range_high"} <= {*by}
    return ["range" if both and name == "range_low" else name for name in _shown(by)]


def group_keys(groups: Sequence[dict[str, Any]], by: Sequence[str]) -> list[list[str]]:
    """The cells of the columns that make each group; values that differ have different texts."""
    columns = [_distinct_texts([_key(group, name) for group in groups]) for name in _shown(by)]
    return [list(keys) for keys in zip(*columns, strict=True)] if columns else [[] for _ in groups]


def change_factor(group: dict[str, Any]) -> float | None:
    """The median loss of a group of ``Comparison.groups`` as a multiple of the one before; None
    where a run has none. The column ``change`` cannot tell factors near 0 apart."""
    before, now = group["median_loss_before"], group["median_loss"]
    if before is None or now is None:
        return None
    if before == now:
        return 1.0
    return float(now / before) if before else math.inf


def _distinct_texts(keys: Sequence[_Key]) -> list[str]:
    """With as few digits as tell them apart, and six, or for ranges five, at least."""
    texts: list[str] = []
    for digits in (None, *range(7, 18)):
        texts = [_text(key, digits) for key in keys]
        if len({*texts}) == len({*keys}):
            break
    return texts


def _text(key: _Key, digits: int | None) -> str:
    if isinstance(key, tuple):
        return "[" + ", ".join(f"{end:.{digits or 5}g}" for end in key) + "]"
    return format_cell(key) if digits is None or not isinstance(key, float) else f"{key:.{digits}g}"


def _shown(by: Sequence[str]) -> list[str]:
    """The columns, with both ends of a range in one."""
    both = {"range_low", "range_high"} <= {*by}
    return [name for name in by if not (both and name == "range_high")]


def _key(group: dict[str, Any], name: str) -> _Key:
    if name == "range_low" and "range_high" in group:
        return group["range_low"], group["range_high"]
    key: _Key = group[name]
    return key


def _above_optimum(group: dict[str, Any]) -> str:
    """How many fits are above the optimum; of how many, if some have no known optimum."""
    if group["above_optimum"] is None:
        return "-"
    of = "" if group["with_optimum"] == group["fits"] else f" of {group['with_optimum']:,}"
    return f"{group['above_optimum']:,}{of}"


def _statuses(group: dict[str, Any], names: list[str]) -> dict[str, int]:
    return {name: group[name] for name in names if group[name]}


def _status_columns(groups: "pl.DataFrame") -> list[str]:
    return groups.columns[groups.columns.index("above_optimum") + 1 :]
