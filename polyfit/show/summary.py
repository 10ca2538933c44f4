"""A finished run, for ``polyfit run``: its groups, or its only fit."""

from typing import Any, Final

from polyfit.run.reader import Run
from polyfit.run.sealed import SealedRun
from polyfit.show.data import run_identity
from polyfit.show.equation import equations
from polyfit.show.groups import groups_facts, groups_table
from polyfit.show.table import format_table
from polyfit.show.text import format_count, format_statuses

__all__ = ["sealed_facts", "summary_facts", "summary_text"]

MAX_GROUPS_SHOWN: Final = 100


def summary_facts(run: Run) -> dict[str, Any]:
    """A complete run as JSON; a run of one fit has its row too."""
    assert run.manifest is not None
    facts = {
        **run_identity(run),
        "fits": run.plan.fits,
        "shards": run.plan.shards,
        "statuses": run.manifest.statuses,
        "groups": groups_facts(run.groups()),
    }
    return facts | ({"fit": run.row(0)} if run.plan.fits == 1 else {})


def sealed_facts(sealed: SealedRun) -> dict[str, Any]:
    """A run that was complete before, as JSON: what its manifest says."""
    address, manifest = sealed.address, sealed.manifest
    return {
        "run": address.uri,
        "endpoint_url": address.endpoint_url,
        "plan_hash": manifest.plan,
        "fits": sum(receipt.rows for receipt in manifest.receipts),
        "shards": len(manifest.receipts),
        "statuses": manifest.statuses,
        "complete_already": True,
    }


def summary_text(run: Run) -> str:
    """The run in words; its last line says where the results are."""
    assert run.manifest is not None
    head = _single_fit_text(run) if run.plan.fits == 1 else _groups_text(run)
    statuses = format_statuses(run.manifest.statuses)
    return f"{head}{format_count(run.plan.fits, 'fit')}: {statuses}\nresults: {run.address}"


def _groups_text(run: Run) -> str:
    """The first groups, and how many there are."""
    groups = run.groups()
    table = groups_table(groups.head(MAX_GROUPS_SHOWN), format_table, short=True)
    left = len(groups) - MAX_GROUPS_SHOWN
    more = f"... and {format_count(left, 'group')} more: polyfit results {run.label} --by swept\n"
    return table + (more if left > 0 else "")


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
