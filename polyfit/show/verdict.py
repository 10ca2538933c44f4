"""What ``polyfit verify`` found."""

from dataclasses import asdict
from typing import Any, Final

from polyfit.run.reader import Run
from polyfit.run.verify import Verdict
from polyfit.show.data import run_identity
from polyfit.show.text import format_bytes, format_count, format_statuses

__all__ = ["intact_text", "problems_text", "verdict_facts"]

MAX_PROBLEMS: Final = 20


def verdict_facts(run: Run, verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON."""
    return {**run_identity(run), "intact": not verdict.problems, **asdict(verdict)}


def intact_text(verdict: Verdict) -> str:
    """One line about a run without problems."""
    return (
        f"intact: {format_count(verdict.fits, 'fit')}, each once, "
        f"in {format_count(verdict.shards, 'shard')} ({format_bytes(verdict.bytes)}); "
        f"{format_statuses(verdict.statuses)}"
    )


def problems_text(run: Run, problems: list[str]) -> str:
    """The first problems, a line each, and how many there are."""
    lines = [f"{run.uri}: {format_count(len(problems), 'problem')}", *problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"... and {len(problems) - MAX_PROBLEMS:,} more")
    return "\n".join(lines)
