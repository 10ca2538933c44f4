"""One fit in full, for ``polyfit show``: its row, its equations, its curve, its recomputation."""

from itertools import zip_longest
from typing import Any, Final

from polyfit.run.parquet import REFIT_HINT
from polyfit.run.reader import Run
from polyfit.run.schema import HISTORIES, HISTORY_STEPS
from polyfit.run.stored_fit import StoredFit
from polyfit.show.curve import curve
from polyfit.show.data import run_identity, without_non_finite
from polyfit.show.equation import equation_lines, equations
from polyfit.show.text import format_cell, format_pairs
from polyfit.work.recompute import Recomputed

__all__ = ["damage_text", "fit_facts", "fit_text", "recomputed_text"]

SHOWN_AT_EACH_END: Final = 3
"""Recorded values that are shown from the start and from the end of a history."""


def fit_text(run: Run, stored: StoredFit) -> str:
    """Where one fit is stored, its row, its equations and its curve."""
    lines = [format_pairs(_fit_pairs(run, stored), width=21), "", *equation_lines(stored.row)]
    return "\n".join([*lines, "", *curve(stored.row)])


def _fit_pairs(run: Run, stored: StoredFit) -> list[tuple[str, str]]:
    footer, shard = stored.footer, stored.shard
    device, cpu = footer.get("device"), footer.get("cpu")
    place = (
        "with the bits of any CPU" if (device, cpu) == ("cpu", "any") else f"on {device} ({cpu})"
    )
    made_by = f"engine {footer.get('engine')}, torch {footer.get('torch')}, {place}"
    pairs = [
        ("run", str(run.address)),
        ("shard", f"{stored.key}: fits {shard.start} to {shard.stop - 1}"),
        ("made by", made_by),
    ]
    updates = stored.row.get(HISTORY_STEPS) or []
    for name, value in stored.row.items():
        if name in HISTORIES.values():
            pairs.append((name, _history(updates, value)))
        elif name not in ("coefficients", "power_coefficients", HISTORY_STEPS):  # shown elsewhere
            pairs.append((name, "-" if value is None else str(value)))
    return pairs


def _history(updates: list[int], values: list[Any]) -> str:
    """The first and the last recorded values, each after the number of its update."""
    # A damaged row may hold lists of unequal length.
    shown = [f"{u}: {format_cell(value)}" for u, value in zip(updates, values, strict=False)]
    if len(shown) > 2 * SHOWN_AT_EACH_END:
        shown[SHOWN_AT_EACH_END:-SHOWN_AT_EACH_END] = ["..."]
    return f"{len(values):,} recorded" + (f"; {', '.join(shown)}" if shown else "")


def fit_facts(run: Run, stored: StoredFit, recomputed: Recomputed | None) -> dict[str, Any]:
    """The same as JSON; null for a number that is not finite, which a damaged row may hold."""
    own, in_x = equations(stored.row)
    facts = {
        **run_identity(run),
        "fit": stored.fit,
        "shard": {
            "number": stored.shard.number,
            "key": stored.key,
            "fits": [stored.shard.start, stored.shard.stop],
            "footer": stored.footer,
        },
        "row": stored.row,
        "equation": own,
        "equation_in_x": in_x,
        "recomputed": None if recomputed is None else _recomputed_facts(recomputed),
    }
    finite: dict[str, Any] = without_non_finite(facts)
    return finite


def _recomputed_facts(recomputed: Recomputed) -> dict[str, Any]:
    return {
        "same_bits": not recomputed.differing,
        "differing": recomputed.differing,
        "damaged": recomputed.damaged,
        "here": recomputed.here,
        "there": recomputed.there,
        "torch": recomputed.torch,
        "tolerance": recomputed.tolerance,
        "within": recomputed.within,
        "loss_off": recomputed.loss_off,
        "coefficients_off": recomputed.coefficients_off,
        "row": recomputed.row,
    }


def recomputed_text(recomputed: Recomputed) -> str:
    """In one line, how the recomputed row compares with the stored one."""
    if not recomputed.differing:
        return "the same bits as stored"
    if recomputed.here == recomputed.there:
        return f"other bits than stored in {', '.join(recomputed.differing)}"
    head = f"the shard was made on another kind of CPU or device ({recomputed.there}): "
    stored, here = recomputed.stored["status"], recomputed.row["status"]
    if stored != here:
        return f"{head}status {stored} stored, {here} recomputed"
    within = "within" if recomputed.within else "beyond"
    return (
        f"{head}the loss differs by {recomputed.loss_off:.2g} of its value, the coefficients by "
        f"{recomputed.coefficients_off:.2g} of the largest: {within} the tolerance "
        f"{recomputed.tolerance:g}"
    )


def damage_text(run: Run, stored: StoredFit, recomputed: Recomputed) -> str:
    """Which columns differ that must be the same, a line each, and what to do."""
    lines = [
        f"{run.uri}/{stored.key}: fit {stored.fit} differs from what its plan gives "
        f"in {', '.join(recomputed.damaged)}; {REFIT_HINT}"
    ]
    made_with = stored.footer.get("torch")
    if made_with != recomputed.torch:
        lines.append(
            f"(the shard was made with torch {made_with}, recomputed with {recomputed.torch})"
        )
    return "\n".join(lines + [_column_damage(name, recomputed) for name in recomputed.damaged])


def _column_damage(name: str, recomputed: Recomputed) -> str:
    stored, again = recomputed.stored.get(name), recomputed.row.get(name)
    if isinstance(stored, list) and isinstance(again, list):
        # repr tells -0.0 from 0.0.
        differing = sum(repr(a) != repr(b) for a, b in zip_longest(stored, again))
        return f"{name}: {differing} of {len(again)} differ"
    return f"{name}: {stored} stored, {again} recomputed"
