"""The time line of a run's last attempt that noted one, as spans of stages and of shards."""

from datetime import datetime
from typing import Any, Final

__all__ = ["timeline"]

SHORT: Final = 0.005
"""Of the whole: stages that took less are left out."""

MAX_ACTORS: Final = 30
"""Actors that have a lane of their own."""


def timeline(attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spans in seconds since the attempt began: the stages, then the shards of each actor."""
    noted = [facts for facts in attempts if facts.get("stages")]
    if not noted:
        return []
    facts = next((one for one in reversed(noted) if one.get("shards")), noted[-1])
    end = _seconds(facts)
    begins = [*(at for at, _ in facts["stages"][1:]), end]
    stages = [
        {"lane": stage, "what": stage, "start": at, "end": max(at, until), "kind": "stage"}
        for (at, stage), until in zip(facts["stages"], begins, strict=True)
        if stage and until - at > SHORT * end
    ]
    spans = facts.get("shards", ())
    shown = sorted({str(worker) for worker, *_ in spans})[:MAX_ACTORS]
    lanes = {worker: f"actor {number} ({worker})" for number, worker in enumerate(shown, 1)}
    shards = [
        {"lane": lanes[worker], "what": _shards(count), "start": at, "end": until, "kind": "shards"}
        for worker, at, until, count in sorted(spans)
        if worker in lanes
    ]
    return [*stages, *shards]


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count:,} shards"


def _seconds(facts: dict[str, Any]) -> float:
    """How long an attempt took; to its last stage where its end is not known."""
    last: float = facts["stages"][-1][0]
    try:
        begin, end = (datetime.fromisoformat(facts[name]) for name in ("started_at", "ended_at"))
    except (KeyError, ValueError):
        return last
    return max(last, (end - begin).total_seconds())
