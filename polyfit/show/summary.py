"""A finished run, for ``polyfit run``: its groups, or its only fit."""

from dataclasses import asdict
from typing import Any

from polyfit.run.groups import Group
from polyfit.run.reader import Run
from polyfit.show.data import run_identity
from polyfit.show.equation import equations
from polyfit.show.table import format_table
from polyfit.show.text import format_count, format_number, format_statuses

__all__ = ["summary_facts", "summary_text"]


def summary_facts(name: str, run: Run) -> dict[str, Any]:
    """The run of the spec called ``name`` as JSON; a run of one fit has its row too."""
    assert run.manifest is not None
    facts = {
        "name": name,
        **run_identity(run),
        "fits": run.plan.fits,
        "shards": run.plan.shards,
        "statuses": run.manifest.statuses,
        "groups": [_group_facts(group) for group in run.groups()],
    }
    return facts | ({"fit": run.row(0)} if run.plan.fits == 1 else {})


def summary_text(run: Run) -> str:
    """The run in words; its last line says where the results are."""
    assert run.manifest is not None
    head = _single_fit_text(run) if run.plan.fits == 1 else _groups_table(run.groups())
    statuses = format_statuses(run.manifest.statuses)
    return f"{head}{format_count(run.plan.fits, 'fit')}: {statuses}\nresults: {run.address}"


def _group_facts(group: Group) -> dict[str, Any]:
    facts = asdict(group)
    degree, low, high = facts.pop("degree"), facts.pop("low"), facts.pop("high")
    return {"degree": degree, "range": [low, high], **facts}


def _groups_table(groups: list[Group]) -> str:
    heads = (
        "degree", "range", "fits", "best loss", "median loss", ">1% above\noptimum", "statuses",
    )  # fmt: skip
    rows = [
        (
            str(group.degree),
            f"[{group.low:.5g}, {group.high:.5g}]",
            f"{group.fits:,}",
            format_number(group.best_loss),
            format_number(group.median_loss),
            _above_optimum(group),
            format_statuses(group.statuses),
        )
        for group in groups
    ]
    return format_table(heads, rows)


def _above_optimum(group: Group) -> str:
    """How many fits are above the optimum; of how many, if some have no known optimum."""
    if group.above_optimum is None:
        return "-"
    all_known = group.with_optimum == group.fits
    return f"{group.above_optimum:,}" + ("" if all_known else f" of {group.with_optimum:,}")


def _single_fit_text(run: Run) -> str:
    """As PyTorch's tutorial prints it: updates with their losses, then the polynomial."""
    row = run.row(0)
    updates, losses = row.get("history_steps") or (), row.get("loss_history") or ()
    lines = [f"{update} {loss}" for update, loss in zip(updates, losses, strict=False)]
    if row["status"] == "diverged":
        taken = format_count(row["steps_taken"], "update")
        lines.append(f"No result: the fit diverged after {taken}")
    else:
        own, in_x = equations(row)
        lines.append(f"Result: {in_x or own}")
    return "\n".join(lines) + "\n"
