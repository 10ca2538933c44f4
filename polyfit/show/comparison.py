"""Two runs compared, for ``polyfit compare``."""

from typing import TYPE_CHECKING, Any, Final

from polyfit.run.compare import Comparison
from polyfit.run.reader import Run
from polyfit.show.data import run_identity
from polyfit.show.groups import Layout, change_factor, group_heads, group_keys
from polyfit.show.text import format_cell, format_change, format_number, format_pairs

if TYPE_CHECKING:
    import polars as pl

__all__ = ["comparison_facts", "comparison_text", "nothing_common"]

MAX_GROUPS_SHOWN: Final = 20


def comparison_facts(
    run: Run, before: Run, found: Comparison, max_regression: float | None
) -> dict[str, Any]:
    """The comparison as JSON; ``worse`` counts groups, by ``max_regression`` or by any amount."""
    share = _share(found, max_regression)
    return {
        **run_identity(run),
        "before": run_identity(before),
        "common": found.common,
        "only_here": found.only_here,
        "only_before": found.only_before,
        "identical": found.identical,
        "other_bits": found.other_bits,
        "tolerance": found.tolerance,
        "beyond": found.beyond,
        "statuses": [
            {"before": was, "here": is_now, "fits": number}
            for (was, is_now), number in sorted(found.statuses.items())
        ],
        "largest": found.largest.to_dicts(),
        "groups": found.groups.to_dicts(),
        "groups_only_here": found.groups_only_here,
        "groups_only_before": found.groups_only_before,
        "max_regression": max_regression,
        "worse": len(found.worse(share)),
        "better": len(found.better(share)),
        "all_diverged": len(found.all_diverged()),
    }


def comparison_text(
    run: Run, before: Run, found: Comparison, max_regression: float | None, layout: Layout
) -> str:
    """The comparison in words, and as tables where there is something to show."""
    share = _share(found, max_regression)
    worse, better = found.worse(share), found.better(share)
    pairs = [
        ("before", _named(before)),
        ("now", _named(run)),
        ("fits", _in_both(found.common, found.only_here, found.only_before)),
        *(_common_pairs(found) if found.common else ()),
        ("groups", _in_both(len(found.groups), found.groups_only_here, found.groups_only_before)),
    ]
    parts = [format_pairs(pairs, width=10) + "\n\n"]
    parts += [f"{line}\n" for line in found.groups_in_words(share)]
    if len(found.largest):
        parts.append(f"\nLargest differences of the loss:\n{_fits_table(found.largest, layout)}")
    for title, chosen in (("Worse", worse), ("Better", better.reverse())):
        if len(chosen):
            parts.append(f"\n{title}:\n{_groups_table(chosen, layout)}")
    return "".join(parts)


def nothing_common(run: Run, before: Run) -> str:
    """Why two runs without a common fit or group have nothing to compare."""
    empty = [one for one in (before, run) if not one.shard_numbers()]
    if empty:
        return f"no fit of {empty[0].label} is stored yet"
    return (
        f"{run.label} and {before.label} have neither a fit in common nor a group with the same "
        "values in the swept columns; --by names other columns, such as --by objective"
    )


def _named(run: Run) -> str:
    return run.label if run.complete else f"{run.label} (not complete: its stored fits)"


def _in_both(both: int, here: int, before: int) -> str:
    return f"{both:,} in both, {here:,} only now, {before:,} only before"


def _common_pairs(found: Comparison) -> list[tuple[str, str]]:
    """What is said of the fits that both runs have."""
    changed = [f"{n:,} {was} -> {now}" for (was, now), n in sorted(found.statuses.items())]
    beyond = f"{found.beyond:,} differ by more than {found.tolerance:g} of the larger one"
    bits = f"{found.identical:,} of {found.common:,} in both"
    return [
        ("same bits", bits + (f"; {found.other_bits}" if found.other_bits else "")),
        ("status", ", ".join(changed) or "the same"),
        ("loss", beyond if found.beyond else "the same, to the tolerance"),
    ]


def _share(found: Comparison, max_regression: float | None) -> float:
    return found.tolerance if max_regression is None else max_regression


def _fits_table(fits: "pl.DataFrame", layout: Layout) -> str:
    names = ("fit_before", "fit", "status_before", "status", "loss_before", "loss", "change")
    heads = (
        "fit\nbefore", "fit\nnow", "status\nbefore", "status\nnow", "loss\nbefore", "loss\nnow",
        "change",
    )  # fmt: skip
    rows = [[format_cell(fit[name]) for name in names] for fit in fits.to_dicts()]
    return layout(heads, rows)


def _groups_table(groups: "pl.DataFrame", layout: Layout) -> str:
    by = groups.columns[: groups.columns.index("fits")]
    heads = [
        *group_heads(by), "fits\nbefore", "fits\nnow", "diverged\nbefore", "diverged\nnow",
        "median loss\nbefore", "median loss\nnow", "change",
    ]  # fmt: skip
    shown = groups.head(MAX_GROUPS_SHOWN).to_dicts()
    rows = [
        [
            *keys,
            *(f"{group[name]:,}" for name in _FITS),
            format_number(group["median_loss_before"]),
            format_number(group["median_loss"]),
            format_change(change_factor(group)),
        ]
        for keys, group in zip(group_keys(shown, by), shown, strict=True)
    ]
    left = len(groups) - MAX_GROUPS_SHOWN
    return layout(heads, rows) + (f"... and {left:,} more\n" if left > 0 else "")


_FITS: Final = ("compared_before", "compared", "diverged_before", "diverged")
