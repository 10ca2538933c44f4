"""The conclusion of a report: what the sweep shows, in a sentence or two that the groups prove."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from polyfit.run.digest import Digest
from polyfit.run.grouping import SweptField
from polyfit.show.findings import some_labels
from polyfit.show.text import format_count

__all__ = ["conclusion"]

NEAR_ERROR: Final = 2.0
"""An error of at most so many times the least is near it."""

MAX_THRESHOLDS: Final = 6

Row = dict[str, Any]


def conclusion(found: Digest) -> list[str]:
    """What the sweep shows; nothing of a run that is not complete, or where nothing is sure."""
    if found.rows < found.grouping.plan.fits or not len(found.best):
        return []
    fields = {field.name: field for field in found.grouping.fields}
    if not fields:
        return _ungrouped(found)
    rate = fields.get("lr")
    if rate is not None and rate.numbers is not None:
        return _rates(found, rate) or _best_group(found)
    if list(fields) == ["degree"] and not found.total("diverged"):
        return _degrees(found, fields["degree"])
    return _best_group(found)


def _ungrouped(found: Digest) -> list[str]:
    """Of fits that differ in their seeds alone, or of a single one."""
    known = found.total("with_optimum")
    error = float(found.groups["largest_max_error"].max() or 0.0)  # type: ignore[arg-type]
    if found.rows != found.total("near_optimum") or known != found.rows:
        return []
    which = "The fit" if found.rows == 1 else "Every fit"
    return [
        f"{which} ended within 1% of the least-squares optimum. The largest distance to the "
        f"target is {_number(error)}{'' if found.rows == 1 else ' or less'}."
    ]


# --- rates ----------------------------------------------------------------------------------------


def _rates(found: Digest, field: SweptField) -> list[str]:
    """Which rates bring every fit to the optimum, which is fastest, from where on all diverge."""
    rows = _by_value(found, field)
    good = [at for at, row in enumerate(rows) if row["near_optimum"] == row["fits"]]
    lines = []
    if good and good == list(range(good[0], good[-1] + 1)):
        chosen = [rows[at] for at in good]
        lines.append(
            f"{_span(field, chosen)} brought every fit within 1% of the least-squares optimum"
            f"{_fastest(found, field, chosen)}."
        )
        if good[0] > 0:
            lines[0] += " Smaller ones did not bring every fit there in its updates."
    else:
        lines += _best_group(found)
    return lines + _divergence(found, field, rows)


def _divergence(found: Digest, field: SweptField, rows: Sequence[Row]) -> list[str]:
    """From where on all diverge, and up to where none does."""
    if not found.total("diverged"):
        return ["No fit diverged."]
    all_of = [row["diverged"] == row["fits"] for row in rows]
    none_of = [row["diverged"] == 0 for row in rows]
    first = next((at for at in range(len(rows)) if all(all_of[at:])), len(rows))
    clean = next((at for at in range(len(rows)) if not none_of[at]), len(rows))
    if first in (0, len(rows)):
        return []
    none = f"; up to {field.labels[rows[clean - 1]['value']]} none did" if clean else ""
    return [f"From {_rate(field, rows[first])} on every fit diverged{none}."]


def _span(field: SweptField, rows: Sequence[Row]) -> str:
    """The rates of ``rows``, which are neighbours."""
    first, last = (field.labels[row["value"]] for row in (rows[0], rows[-1]))
    of = " of the stability limit" if _is_share(field) else ""
    if len(rows) == 1:
        return f"Only {'a' if of else 'the'} learning rate {'of ' if of else ''}{first}{of}"
    return f"Learning rates from {first} to {last}{of}"


def _rate(field: SweptField, row: Row) -> str:
    label = field.labels[row["value"]]
    of = f"{label} of the stability limit"
    return of if _is_share(field) else f"a learning rate of {label}"


def _is_share(field: SweptField) -> bool:
    return field.title != "learning rate"


def _fastest(found: Digest, field: SweptField, rows: Sequence[Row]) -> str:
    """Said only where every fit of ``rows`` is known to have come there, and groups are rates."""
    steps = [row.get("steps_to_1pct") for row in rows]
    arrived = all(row["arrived"] == row["fits"] for row in rows)
    if len(rows) < 2 or not arrived or len(found.grouping.fields) > 1 or None in steps:
        return ""
    least = min(steps)  # type: ignore[type-var]
    fast = [row for row, taken in zip(rows, steps, strict=True) if taken == least]
    if len(fast) == len(rows):
        return ""
    names = " and ".join(field.labels[row["value"]] for row in fast[:2])
    if len(fast) > 2:
        names = f"{len(fast)} of them"
    verb = "was the fastest" if len(fast) == 1 else "were the fastest"
    return f"; {names} {verb}: median update {least:,g}, of those recorded"


# --- degrees --------------------------------------------------------------------------------------


def _degrees(found: Digest, field: SweptField) -> list[str]:
    """The best degree, and the smallest ones that are good enough."""
    rows = _by_value(found, field)
    best = min(rows, key=lambda row: row["median"])
    far = [row for row in rows if row["finished_above"] == row["fits"]]
    if far:
        values = [row["value"] for row in far]
        name = f"degree{'s' if len(far) > 1 else ''} {some_labels(field, values)}"
        return [
            f"No conclusion on the degree: all fits of {name} were still more than 1% above their "
            f"optimum after {_updates(found)}. As they ended, degree "
            f"{field.labels[best['value']]} has the least median loss, {_number(best['median'])}."
        ]
    same = [row for row in rows if row["median"] <= 1.01 * best["median"]]
    chosen = same[0]
    also = f" ({format_count(len(same) - 1, 'higher degree')} within 1% of it)" if same[1:] else ""
    lines = [
        f"Degree {field.labels[chosen['value']]} has the least median loss{also}, "
        f"{_number(chosen['median'])}; its largest error is {_number(chosen['largest_max_error'])}"
        f"{_unfinished(found)}."
    ]
    least = min(row["largest_max_error"] for row in rows)
    near = next(row for row in rows if row["largest_max_error"] <= NEAR_ERROR * least)
    if near["value"] < chosen["value"]:
        lines.append(
            f"Degree {field.labels[near['value']]} is the smallest whose largest error, "
            f"{_number(near['largest_max_error'])}, is at most twice the least."
        )
    return [*lines, *_thresholds(field, rows)]


def _thresholds(field: SweptField, rows: Sequence[Row]) -> list[str]:
    """The smallest degree with an error below each power of ten."""
    reached: dict[str, float] = {}  # of several powers that a degree is the first below, the least
    for power in range(3, -16, -1):
        below = next((row for row in rows if row["largest_max_error"] < 10.0**power), None)
        if below is not None and below["value"] != rows[0]["value"]:
            reached[field.labels[below["value"]]] = 10.0**power
    if not reached:
        return []
    every = -(-len(reached) // MAX_THRESHOLDS)
    parts = [f"below {size:g} is {label}" for label, size in list(reached.items())[::every]]
    return [f"The smallest degree with a largest error {', '.join(parts)}."]


# --- all else -------------------------------------------------------------------------------------


def _best_group(found: Digest) -> list[str]:
    """The group of the least median loss, and how many others are as good."""
    table = found.by_group.filter(pl.col("median").is_not_null())
    if len(table) < 2:
        return []
    best = table.sort("median").row(0, named=True)
    same = len(table.filter(pl.col("median") <= 1.01 * best["median"]))
    lines = []
    if same == len(table) == len(found.by_group):
        lines.append(
            f"All {same:,} groups have the same median loss, to within 1%{_unfinished(found)}."
        )
    else:
        labels = found.grouping.labels(best["group"])
        name = ", ".join(f"{title} {label}" for title, label in labels.items())
        others = f"; {format_count(same - 1, 'other group')} within 1% of it" if same > 1 else ""
        lines.append(
            f"The least median loss, {_number(best['median'])}: {name}{others}{_unfinished(found)}."
        )
    gone = len(found.groups.filter(pl.col("diverged") == pl.col("fits")))
    if gone:
        lines.append(
            f"In {gone:,} of {format_count(len(found.groups), 'group')} every fit diverged."
        )
    return lines


def _unfinished(found: Digest) -> str:
    """How many fits might have come lower: a median of theirs is no property of the group."""
    above = found.total("finished_above")
    if not above:
        return ""
    verb = "was" if above == 1 else "were"
    return (
        f"; but {above:,} of {format_count(found.rows, 'fit')} {verb} still more than 1% above "
        f"their optimum after {_updates(found)}"
    )


def _updates(found: Digest) -> str:
    """How many updates a fit had."""
    most = int(found.groups["largest_steps_taken"].max() or 0)  # type: ignore[arg-type]
    same = most == found.groups["least_steps_taken"].min()
    return f"{'' if same else 'up to '}{format_count(most, 'update')}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _by_value(found: Digest, field: SweptField) -> list[Row]:
    """A row for each value of a field, in the order of its numbers, with the sums over the other
    fields; and medians, where it is the only one."""
    counts = ("fits", "diverged", "near_optimum", "finished_above", "arrived")
    medians = [name for name in ("median", "steps_to_1pct") if name in found.by_group.columns]
    alone = len(found.grouping.fields) == 1
    table = found.by_group.group_by(found.digit(field).alias("value")).agg(
        *(pl.col(name).sum() for name in counts),
        pl.col("largest_max_error").max(),
        *(pl.col(name).first() for name in medians if alone),
    )
    numbers = field.numbers or ()
    return sorted(table.to_dicts(), key=lambda row: numbers[row["value"]])
