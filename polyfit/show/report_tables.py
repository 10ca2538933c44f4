"""The tables of a report: groups, and the best and worst fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from polyfit.run.digest import Digest
from polyfit.show.text import format_count

__all__ = ["Table", "TableColumn", "fits_table", "groups_table", "versus_table", "versus_words"]

MAX_ROWS: Final = 1_000
"""Groups that are listed: a page with all of a large sweep would be too large."""

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
        "the target; above optimum: more than 1% above the least-squares optimum. "
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
    names = ("fits", "best", "median", "q95", "worst", "max_error", *taken, "above_optimum",
             "diverged")  # fmt: skip
    rows = [
        [*found.grouping.labels(row["group"]).values(), *(row[name] for name in names)]
        for row in table.to_dicts()
    ]
    columns = [
        *(TableColumn(field.title) for field in fields),
        *_counts("fits"),
        *_numbers("best loss", "median loss", "95% loss", "worst loss", "median error"),
        *_counts(*taken.values(), "above optimum", "diverged"),
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
    return Table("fits", f"{title} ({len(rows):,})", columns, rows)


def versus_table(found: Digest, other: Digest) -> Table:
    """The groups of two runs side by side; those that only one has stand in the note."""
    here, there = _by_labels(found), _by_labels(other)
    titles = [field.title for field in found.grouping.fields]
    rows = []
    for labels, row in here.items():
        if labels in there:
            before, now = there[labels]["median"], row["median"]
            ratio = now / before if now is not None and before else None
            rows.append([*labels, row["fits"], there[labels]["fits"], now, before, ratio])
    columns = [
        *(TableColumn(title) for title in titles),
        *_counts("fits here", "fits there"),
        *_numbers("median loss here", "median loss there", "ratio"),
    ]
    left = _only_in_one(here, there)
    note = f"Left out: {', '.join(left)}." if left else ""
    return Table("versus", f"Common groups ({len(rows):,})", columns, rows[:MAX_ROWS], note)


def versus_words(found: Digest, other: Digest, name: str) -> list[str]:
    """How many groups two runs have in common, how many are compared, and why others are not.

    Args:
        found, other: the two runs.
        name: of the other one.
    """
    here, there = _by_labels(found), _by_labels(other)
    common, left = len(here.keys() & there.keys()), _only_in_one(here, there)
    if not common:
        return [f"Nothing is compared with {name}: no group is in both runs."]
    text = f"Against {name}: {_are(common, 'group')} in both runs"
    lines = [f"{text}, and {', '.join(left)}." if left else f"{text}."]
    pairs = [(here[labels]["median"], there[labels]["median"]) for labels in here.keys() & there]
    known = [(now, before) for now, before in pairs if now is not None and before is not None]
    lower = sum(now < 0.99 * before for now, before in known)
    higher = sum(now > 1.01 * before for now, before in known)
    if known:
        lines.append(
            f"The median loss of {format_count(lower, 'group')} is more than 1% lower here, of "
            f"{higher:,} more than 1% higher, of {len(known) - lower - higher:,} within 1%."
        )
    if len(known) < common:
        rest = common - len(known)
        lines.append(
            f"{format_count(rest, 'group')} in both {'is' if rest == 1 else 'are'} not compared: "
            "all fits of one run or of both diverged."
        )
    return lines


def _are(number: int, noun: str) -> str:
    return f"{format_count(number, noun)} {'is' if number == 1 else 'are'}"


def _only_in_one(here: dict[tuple[str, ...], Any], there: dict[tuple[str, ...], Any]) -> list[str]:
    return [
        f"{format_count(len(own.keys() - others.keys()), 'group')} only {where}"
        for own, others, where in ((here, there, "here"), (there, here, "there"))
        if own.keys() - others.keys()
    ]


def _by_labels(found: Digest) -> dict[tuple[str, ...], dict[str, Any]]:
    return {
        tuple(found.grouping.labels(row["group"]).values()): row
        for row in found.by_group.to_dicts()
    }
