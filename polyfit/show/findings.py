"""A run in words: what was asked, what came out, what deserves a look."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from polyfit.run.digest import DIVERGED, Digest, above_limit, at_limit
from polyfit.run.grouping import MAX_LISTED, SweptField, field_values, in_pi, swept_fields
from polyfit.show.text import format_count, format_number
from polyfit.spec.fit import CANONICAL_ORDER, Rate
from polyfit.spec.plan import Plan

__all__ = ["asked", "headline", "outcome", "share_text", "some_labels", "to_look_at"]

SHOWN_GROUPS: Final = 3
SHOWN_VALUES: Final = 6

WIDE: Final = 10.0
"""The worst fit of a group stands out if its loss is so many times the median."""


def headline(plan: Plan) -> str:
    """The run in one sentence, with what was swept."""
    targets = field_values(plan, "target")
    of = targets[0] if len(targets) == 1 else f"{len(targets)} targets"
    degrees = field_values(plan, "degree")
    degree = (
        f"degree {degrees[0]}" if len(degrees) == 1 else f"degrees {degrees[0]} to {degrees[-1]}"
    )
    swept = [name for name in swept_fields(plan) if name not in ("target", "degree")]
    over = f", over {_and([_many(plan, name) for name in swept])}" if swept else ""
    return f"{format_count(plan.fits, 'polynomial fit')} of {of}, {degree}{over}"


def asked(plan: Plan) -> list[str]:
    """What was swept, and what all fits share."""
    swept = swept_fields(plan)
    lines = [f"Swept {_name(name)}: {_values(plan, name)}." for name in swept]
    shared = [
        _in_words(name, field_values(plan, name)[0])
        for name in _READING_ORDER
        if name not in swept and not _says_nothing(plan, name)
    ]
    same = "The same for all fits" if swept else "One fit"
    return [*lines, f"{same}: {', '.join(shared)}.", _recorded(plan.record.of)]


def outcome(found: Digest) -> list[str]:
    """How the fits ended, and the best and the worst of them."""
    if not found.rows:
        return ["No fit is stored yet."]
    if found.rows == 1 and len(found.best):
        return _one(found)
    counts = ", ".join(
        f"{count:,} {status} ({share_text(count, found.rows)})"
        for status, count in found.statuses.items()
    )
    lines = [f"{counts}."]
    if not len(found.best):
        return [*lines, "Every fit diverged: there is no result to compare."]
    best, worst = found.best.row(0, named=True), found.worst.row(0, named=True)
    of = " of those that did not diverge" if found.total("diverged") else ""
    lines.append(f"The least loss is {_loss(found, best)}, the largest{of} {_loss(found, worst)}.")
    known = found.total("with_optimum")
    if known:
        near = found.total("near_optimum")
        lines.append(
            f"{near:,} of {known:,} ({share_text(near, known)}) ended within 1% of the "
            "least-squares optimum."
        )
    steps = found.metric("steps")
    if steps.column == "steps_to_1pct":
        values = found.sample[steps.column].drop_nulls()
        lines.append(
            f"Half of the fits that came within 1% of it did so by update "
            f"{values.quantile(0.5):,g}, the first one recorded there, or before."
        )
    return lines


def _one(found: Digest) -> list[str]:
    """The outcome of a single fit."""
    row = found.best.row(0, named=True)
    status, steps = row["status"], format_count(row["steps_taken"], "update")
    lines = [f"Status {status} after {steps}, with a loss of {format_number(row['loss'])}."]
    if row["optimum_loss"] is not None:
        lines.append(f"The least-squares optimum is {format_number(row['optimum_loss'])}.")
    lines.append(f"Its largest distance to the target is {format_number(row['max_error'])}.")
    return lines


def to_look_at(found: Digest, notes: Sequence[str] = ()) -> list[str]:
    """What a reader should know before trusting the numbers; ``notes`` come first."""
    lines = [*notes, *_divergence(found), *_stalled(found), *_optimum(found), *_groups(found)]
    if not found.rows:
        return [*notes, "Nothing is known yet: no fit is stored."]
    if lines:
        return lines
    of = "no fit" if found.rows == found.grouping.plan.fits else "no fit that is stored so far"
    far = ", stalled or ended more than 1% above the optimum" if found.total("with_optimum") else ""
    return [f"Nothing: {of} diverged{far or ' or stalled'}."]


def _divergence(found: Digest) -> list[str]:
    diverged = found.total("diverged")
    lines = []
    if diverged == found.rows > 1:
        lines.append("Every fit diverged: a smaller rate (lr: auto) or another basis is needed.")
    elif diverged:
        lines.append(f"{format_count(diverged, 'fit')} diverged{_most(found, 'diverged')}.")
    if "lr_share" in found.sample.columns:
        lines += _at_and_above_limit(found)
        share = pl.col("lr_share")
        below = found.sample.filter(DIVERGED & ~at_limit(share) & ~above_limit(share))
        if len(below):
            lines.append(
                f"{_about(found, len(below))} diverged below the stability limit, for example fit "
                f"{below['fit'][0]:,}."
            )
    return lines


def _at_and_above_limit(found: Digest) -> list[str]:
    lines = []
    above, gone, at = map(found.total, ("above_limit", "above_diverged", "at_limit"))
    if above:
        of = "all" if gone == above else f"{gone:,}" if gone else "none"
        lines.append(
            f"{format_count(above, 'fit')} had a rate above the stability limit: {of} diverged"
            f"{'' if gone == above else ' in the updates done'}."
        )
    if at:
        lines.append(
            f"{format_count(at, 'fit')} had a rate at the stability limit, where a fit may neither "
            "diverge nor come near the optimum."
        )
    return lines


def _stalled(found: Digest) -> list[str]:
    stalled = found.total("stalled")
    if not stalled:
        return []
    return [
        f"{format_count(stalled, 'fit')} stalled: a stop rule was met far from the optimum"
        f"{_most(found, 'stalled')}."
    ]


def _optimum(found: Digest) -> list[str]:
    above = found.total("finished_above")
    if above <= 0:
        return []
    return [
        f"{format_count(above, 'fit')} ended more than 1% above the least-squares optimum without "
        f"diverging: more updates, another rate or another basis may help"
        f"{_most(found, 'finished_above')}."
    ]


def _groups(found: Digest) -> list[str]:
    table = found.by_group.filter(pl.col("median").is_not_null())
    lines = []
    if len(table) > 1:
        worst = table.sort("median", descending=True).row(0, named=True)
        middle = float(table["median"].median() or 0.0)  # type: ignore[arg-type]
        if middle > 0 and worst["median"] > WIDE * middle:
            lines.append(
                f"The largest median loss of a group is {format_number(worst['median'])} "
                f"({_group(found, worst['group'])}); half of the groups have "
                f"{format_number(middle)} or less."
            )
    wide = table.filter(
        (pl.col("median") > 0)
        & (pl.col("largest_loss") > WIDE * pl.col("median"))
        & (pl.col("fits") > 2)
    ).sort(pl.col("largest_loss") / pl.col("median"), descending=True)
    if len(wide):
        row = wide.row(0, named=True)
        place = f"In {_group(found, row['group'])}" if found.grouping.fields else "Here"
        lines.append(
            f"The start matters in {format_count(len(wide), 'group')}: the worst loss is more than "
            f"{WIDE:g} times the median. {place} it is {format_number(row['largest_loss'])} (fit "
            f"{row['worst_fit']:,}), the median {format_number(row['median'])}."
        )
    return lines


def _most(found: Digest, name: str) -> str:
    """The values of a swept field with the largest share of fits that ``name`` counts."""
    best: tuple[float, int, str] = (found.total(name) / found.rows, 0, "")
    for field in found.grouping.fields:
        table = found.groups.group_by(found.digit(field).alias("value")).agg(
            pl.col(name).sum(), pl.col("fits").sum()
        )
        top = table.with_columns(share=pl.col(name) / pl.col("fits"))
        most = float(top["share"].max() or 0.0)  # type: ignore[arg-type]
        top = top.filter(pl.col("share") == most).sort("value")
        count, fits = int(top[name].sum()), int(top["fits"].sum())
        names = some_labels(field, top["value"].to_list())
        text = f"; most of all with {field.title} {names}: {count:,} of {fits:,}"
        best = max(best, (most, count, text), key=lambda one: one[:2])
    return best[2]


def some_labels(field: SweptField, values: Sequence[int]) -> str:
    """The labels of a few values, or of the first and the last of many neighbours."""
    labels = [field.labels[value] for value in values]
    if len(labels) <= SHOWN_GROUPS:
        return _and(labels)
    if values[-1] - values[0] == len(values) - 1:
        return f"{labels[0]} to {labels[-1]}"
    return f"{', '.join(labels[:SHOWN_GROUPS])} and {len(labels) - SHOWN_GROUPS:,} more"


def _about(found: Digest, count: int) -> str:
    if not found.is_sampled:
        return format_count(count, "fit")
    return f"About {share_text(count, len(found.sample))} of all fits"


def _loss(found: Digest, row: dict[str, Any]) -> str:
    """A fit's loss, with its number and group."""
    group = f", {_group(found, row['group'])}" if found.grouping.fields else ""
    return f"{format_number(row['loss'])} (fit {row['fit']:,}{group})"


def _group(found: Digest, code: int) -> str:
    labels = found.grouping.labels(code)
    return ", ".join(f"{title} {label}" for title, label in labels.items()) or "all fits"


def share_text(part: int, whole: int) -> str:
    """A percentage that is 0% and 100% only where that is exact."""
    if part in (0, whole):
        return "100%" if part and whole else "0%"
    share = 100 * part / whole
    if share < 0.1:
        return "below 0.1%"
    return f"{share:.1f}%" if share < 99.95 else "above 99.9%"


# --- fields ---------------------------------------------------------------------------------------


def _values(plan: Plan, name: str) -> str:
    values = field_values(plan, name)
    if len(values) <= SHOWN_VALUES:
        return ", ".join(_text(name, value) for value in values)
    return f"{_how_many(values)} values, {_text(name, values[0])} to {_text(name, values[-1])}"


def _text(name: str, value: Any) -> str:
    if name == "range":
        return f"[{in_pi(value[0])}, {in_pi(value[1])}]"
    if value is None:
        return "none"
    if isinstance(value, Rate) and value.kind == "of_limit":
        return f"{value.value:.4g} of the stability limit"
    return f"{value:g}" if isinstance(value, float) else str(value)


_READING_ORDER: Final = (
    "target", "range", "points", "noise", "noise_seed", "degree", "basis", "objective", "optimizer",
    "lr", "steps", "stop", "dtype", "seed",
)  # fmt: skip
assert set(_READING_ORDER) == set(CANONICAL_ORDER)

_WORDS: Final = {
    "chebyshev": "basis of Chebyshev polynomials",
    "legendre": "basis of Legendre polynomials",
    "power": "basis of powers of x",
    "sse": "sum of squared errors",
    "mse": "mean squared error",
    "huber": "Huber loss",
    "log_cosh": "sum of log cosh of the errors",
    "l1": "sum of absolute errors",
    "gd": "gradient descent",
    "adam": "Adam",
    "newton": "Newton's method",
}


def _in_words(name: str, value: Any) -> str:
    """A field with its value, as one says it."""
    text = _text(name, value)
    match name:
        case "points":
            return f"{value:,} points"
        case "steps":
            return f"{value:,} updates at most"
        case "basis" | "objective" | "optimizer":
            return _WORDS.get(text, text)
        case "dtype":
            return f"computed in {text}"
        case "noise":
            return f"noise of standard deviation {text}"
    return f"{_name(name)} {text}"


def _name(name: str) -> str:
    return {"lr": "learning rate", "noise_seed": "noise seed"}.get(name, name)


def _many(plan: Plan, name: str) -> str:
    """How many values of a field there are: ``17 learning rates``."""
    names = {"basis": "bases", "noise": "values of noise", "points": "numbers of points",
             "steps": "numbers of updates", "stop": "stop rules"}  # fmt: skip
    return f"{_how_many(field_values(plan, name))} {names.get(name, f'{_name(name)}s')}"


def _how_many(values: Sequence[Any]) -> str:
    more = " or more" if len(values) == MAX_LISTED and isinstance(values, list) else ""
    return f"{len(values):,}{more}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _says_nothing(plan: Plan, name: str) -> bool:
    """Whether a field is at a value that means that there is nothing."""
    clean = all(value == 0 for value in field_values(plan, "noise"))
    value = field_values(plan, name)[0]
    return (name == "stop" and value is None) or (name in ("noise", "noise_seed") and clean)


def _recorded(names: Sequence[str]) -> str:
    if not names:
        return "Nothing of their course was recorded."
    return f"Recorded over the updates: {_and([name.replace('_', ' ') for name in names])}."
