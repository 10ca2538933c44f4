"""Names of columns that a user writes, and the columns that a sweep varies."""

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from polyfit.errors import UsageError
from polyfit.spec.names import meant
from polyfit.spec.plan import Plan

__all__ = [
    "SWEPT",
    "By",
    "check_names",
    "default_groups",
    "expand",
    "group_columns",
    "sort_column",
    "split_names",
    "swept_columns",
]

_ORDERED: Final = re.compile(r"(\w+)[\s:,]+(asc|desc)\w*", re.IGNORECASE)

By = str | Iterable[str]
"""Columns: their names, or a text in which commas separate them."""

SWEPT: Final = "swept"
"""Stands for the fields that make groups if nothing else is asked for."""

MAX_GROUPS: Final = 1000
"""Groups into which a run is summed up if nothing else is asked for."""

_REPEATS = ("seed", "noise_seed")
"""Fields that repeat a fit: results are summed up over them."""


def check_names(names: Sequence[str], columns: Sequence[str]) -> None:
    """Check that each of ``names`` is one of ``columns``.

    Raises:
        UsageError: one is not; with all that are allowed.
    """
    for name in names:
        if name not in columns:
            near = _near(name, columns)
            some = f"did you mean {' or '.join(map(repr, near))}?"
            known = some if near else f"the columns are {', '.join(columns)}"
            raise UsageError(f"no column {name!r}; {known}")


def _near(name: str, columns: Sequence[str]) -> list[str]:
    """The columns that ``name`` probably means: those that it is a word of, or one spelt alike."""
    found = [column for column in columns if name in column.split("_")]
    return found or [near for near in (meant(name, columns),) if near]


def sort_column(text: str, columns: Sequence[str]) -> tuple[str, bool]:
    """The column by which rows are sorted, and whether the largest value comes first.

    Args:
        text: a column, or ``-`` and a column for the largest first.
        columns: those that there are.

    Raises:
        UsageError: it is none of them.
    """
    name = text.removeprefix("-")
    if (ordered := _ORDERED.fullmatch(name)) is not None and name not in columns:
        sign = "-" if ordered[2].lower().startswith("desc") else ""
        raise UsageError(
            f"--sort {text!r}: write --sort {sign}{ordered[1]} (-COLUMN is largest first)"
        )
    check_names([name], columns)
    return name, text.startswith("-")


def split_names(by: By) -> list[str]:
    """The names that a list, or a text with commas, holds.

    Raises:
        UsageError: a text holds none, or it is neither; a list may be empty.
    """
    if not isinstance(by, Iterable):
        raise UsageError(f"{by!r} names no column; allowed: 'degree, lr' or a list of names")
    names = by.split(",") if isinstance(by, str) else by
    found = [name.strip() for name in names if name.strip()]
    if isinstance(by, str) and not found:
        raise UsageError(f"{by!r} names no column")
    return found


def group_columns(by: By | None, plan: Plan) -> list[str]:
    """The columns that make groups: ``by``; those of the swept fields for None or "swept"."""
    return default_groups(plan) if by is None or by == SWEPT else expand(split_names(by))


def expand(names: Iterable[str]) -> list[str]:
    """The columns of fields, each once: the field ``range`` has two."""
    pairs = (("range_low", "range_high") if name == "range" else (name,) for name in names)
    return list(dict.fromkeys(column for pair in pairs for column in pair))


def swept_columns(plan: Plan, with_seeds: bool = True) -> list[str]:
    """The columns of the fields that the sweep varies, the slowest first."""
    return expand(name for name in plan.sweep.varied if with_seeds or name not in _REPEATS)


def default_groups(plan: Plan) -> list[str]:
    """The columns by which a run is summed up: those of the swept fields, but for the seeds.

    A field that would make more than ``MAX_GROUPS`` groups is left out.
    """
    chosen, groups = [], 1
    for name in plan.sweep.varied:
        values = set(islice(plan.sweep.values(name), MAX_GROUPS + 1))
        if name not in _REPEATS and groups * len(values) <= MAX_GROUPS:
            chosen.append(name)
            groups *= len(values)
    return expand(chosen)
