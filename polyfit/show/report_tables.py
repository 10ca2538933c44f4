"""The tables of a report: groups, and the best and worst fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from polyfit.run.compare import Comparison
from polyfit.run.digest import Digest
from polyfit.show.groups import change_factor, group_heads, group_keys
from polyfit.show.text import format_change, format_count

__all__ = ["Table", "TableColumn", "fits_table", "groups_table", "versus_table", "versus_words"]

MAX_ROWS: Final = 1_000
"""Groups that are listed: a page with all of a large sweep would be too large."""

WHOLE_ROWS: Final = 40
"""A table with more of them is scrolled."""

LISTED: Final = 7
"""Of the best fits, and of the worst: both are seen without scrolling."""


def _plain(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"


def _count(value: Any) -> str:
    return "-" if value is None else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: its head, whether it holds numbers, and how a cell is shown."""

    title: str
    number: bool = False
    show: Callable[[Any], str] = _plain


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted and filtered; ``note`` stands below it."""

    key: str
    title: str
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    @property
    def is_long(self) -> bool:
        """Whether it is scrolled rather than shown whole."""
        return len(self.rows) > WHOLE_ROWS


def _numbers(*titles: str) -> list[TableColumn]:
    return [TableColumn(title, number=True, show=_number) for title in titles]


def _counts(*titles: str) -> list[TableColumn]:
    return [TableColumn(title, number=True, show=_count) for title in titles]


def groups_table(found: Digest) -> Table:
    """A row for each group; the largest medians where there are too many."""
    fields = found.grouping.fields
    table = found.by_group
    note = (
        "Losses are those of the fits that did not diverge; the error is the largest distance to "
        "the target; above optimum: ended more than 1% above the least-squares optimum, diverged "
        "ones among them. "
    )
    if found.is_sampled:
        note += f"Quantiles are those of {len(found.sample):,} fits. "
    if len(table) > MAX_ROWS:
        note += f"Of {len(table):,} groups those with the largest median loss are listed."
        table = table.sort("median", descending=True, nulls_last=True).head(MAX_ROWS).sort("group")
    steps = {
        "steps_taken": (
            "median updates",
            found.by_group["steps_taken"].drop_nulls().n_unique() > 1,
        ),
        "steps_to_1pct": ("median updates to 1%", found.knows_steps_to_optimum),
    }
    taken = {name: title for name, (title, tells) in steps.items() if tells}
    if "steps_to_1pct" in taken:
        note += "Updates to 1% are the first recorded ones, of the fits that came there. "
    names = ("median", "max_error", "least_loss", "q95", "largest_loss", *taken, "above_optimum",
             "diverged", "fits")  # fmt: skip
    rows = [
        [*found.grouping.labels(row["group"]).values(), *(row[name] for name in names)]
        for row in table.to_dicts()
    ]
    columns = [
        *(TableColumn(field.title) for field in fields),
        *_numbers("median loss", "median error", "best loss", "95% loss", "worst loss"),
        *_counts(*taken.values(), "above optimum", "diverged", "fits"),
    ]
    return Table("groups", f"Groups ({len(found.by_group):,})", columns, rows, note)


def fits_table(found: Digest) -> Table:
    """The fits of the least and of the largest losses."""
    best, worst = found.best.head(LISTED), found.worst.head(LISTED)
    both = pl.concat([best, worst.filter(~pl.col("fit").is_in(best["fit"].to_list()))])
    count = len(best)
    columns = [
        TableColumn("which"),
        *_counts("fit"),
        *(TableColumn(field.title) for field in found.grouping.fields),
        *_numbers("loss", "optimum", "largest error"),
        *_counts("updates"),
        TableColumn("status"),
    ]
    rows = [
        ["best" if place < count else "worst", row["fit"],
         *found.grouping.labels(row["group"]).values(), row["loss"], row["optimum_loss"],
         row["max_error"], row["steps_taken"], row["status"]]
        for place, row in enumerate(both.to_dicts())
    ]  # fmt: skip
    title = "Best fits, and the worst that did not diverge" if found.total("diverged") else (
        "Best and worst fits")  # fmt: skip
    return Table("extremes", f"{title} ({len(rows):,})", columns, rows)


def versus_table(found: Comparison) -> Table:
    """The groups of two runs side by side; those that only one has stand in the note."""
    groups = found.groups.to_dicts()
    by = found.groups.columns[: found.groups.columns.index("fits")] if groups else []
    rows = [
        [*keys, *(group[name] for name in _MEDIANS), change_factor(group),
         *(group[name] for name in _VERSUS)]
        for keys, group in zip(group_keys(groups, by), groups, strict=True)
    ]  # fmt: skip
    columns = [
        *(TableColumn(head.replace("_", " ")) for head in group_heads(by)),
        *_numbers("median loss before", "median loss now"),
        TableColumn("change", True, format_change),
        *_counts("fits before", "fits now", "diverged before", "diverged now"),
    ]
    left = _only_in_one(found)
    note = "The fits in common, if a group has any, else all; medians without those that diverged."
    note += f" Left out: {', '.join(left)}." if left else ""
    return Table("versus", f"Common groups ({len(rows):,})", columns, rows[:MAX_ROWS], note)


_MEDIANS: Final = ("median_loss_before", "median_loss")
_VERSUS: Final = ("compared_before", "compared", "diverged_before", "diverged")


def versus_words(found: Comparison, name: str) -> list[str]:
    """What became of the groups that two runs have in common, as ``polyfit compare`` says it.

    Args:
        found: the comparison.
        name: of the other run.
    """
    common, left = len(found.groups), _only_in_one(found)
    if not common:
        return [f"Nothing is compared with {name}: no group is in both runs."]
    text = f"Against {name}: {format_count(common, 'group')} {_are(common)} in both runs"
    first = f"{text}, and {', '.join(left)}." if left else f"{text}."
    return [first, *found.groups_in_words(found.tolerance)]


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _only_in_one(found: Comparison) -> list[str]:
    counts = ((found.groups_only_here, "now"), (found.groups_only_before, "before"))
    return [f"{format_count(number, 'group')} only {where}" for number, where in counts if number]
