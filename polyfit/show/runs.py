"""The runs in a store, for ``polyfit list``."""

import csv
from typing import Any, TextIO

from polyfit.run.listing import ListedRun
from polyfit.show.table import format_table
from polyfit.show.text import format_bytes, format_count, three_digits

__all__ = ["runs_facts", "runs_summary", "runs_table", "write_runs_csv"]

KEYS = (
    "run", "endpoint_url", "name", "run_id", "date", "state", "fits", "bytes", "core_seconds",
    "attempts_unknown", "changed",
)  # fmt: skip
HEADS = ("name", "run", "last written", "state", "fits", "size", "core-seconds", "changed")


def runs_facts(listed: list[ListedRun]) -> list[dict[str, Any]]:
    """Each run as JSON; with the first two values it is opened again."""
    return [dict(zip(KEYS, _facts(run), strict=True)) for run in listed]


def _facts(run: ListedRun) -> tuple[Any, ...]:
    changed = None if run.changed is None else list(run.changed)
    state = run.state
    return (
        run.address.uri,
        run.address.endpoint_url,
        run.name,
        run.run_id,
        run.date or None,
        state.state.value if state else None,
        state.fits if state else None,
        state.bytes if state else None,
        run.core_seconds,
        run.attempts_unknown,
        changed,
    )


def write_runs_csv(listed: list[ListedRun], file: TextIO) -> None:
    """A header and a line per run; null is empty."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(KEYS)
    for *facts, changed in map(_facts, listed):
        writer.writerow([*facts, " ".join(changed or ())])


def runs_table(listed: list[ListedRun]) -> str:
    """A line per run, and what its spec changed against the one above it of the same name."""
    return format_table(HEADS, [_cells(run) for run in listed])


def _cells(run: ListedRun) -> tuple[str, ...]:
    state = run.state
    if state is None:
        return (run.name, run.run_id, "-", "made by another version", "-", "-", "-", "-")
    size = "-" if state.bytes is None else format_bytes(state.bytes)
    changed = "-" if run.changed is None else ", ".join(run.changed) or "nothing"
    return (
        run.name,
        run.run_id,
        run.date or "-",
        state.state.value,
        f"{state.fits:,}",
        size,
        "-" if run.core_seconds is None else three_digits(run.core_seconds),
        changed,
    )


def runs_summary(listed: list[ListedRun]) -> str:
    """How many runs, and what they took together: ``3 runs, 1,200 core-seconds``."""
    taken = [run.core_seconds for run in listed if run.core_seconds is not None]
    unknown = sum(run.attempts_unknown or 0 for run in listed)
    parts = [format_count(len(listed), "run")]
    if taken:
        parts.append(f"{three_digits(sum(taken))} core-seconds")
    if unknown:
        parts.append(f"not counted: {format_count(unknown, 'attempt')} without a note")
    return ", ".join(parts)
