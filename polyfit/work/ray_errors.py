"""Errors of Ray in words: where an actor died, why, and whether that will last.

Ray says where and why only in the text of its errors; tests kill real actors and nodes.
"""

import re

from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, RuntimeEnvSetupError

__all__ = [
    "death_cause",
    "is_lasting",
    "is_preempted",
    "is_short_of_memory",
    "last_line",
    "node_address",
]


def is_lasting(error: Exception) -> bool:
    """Whether an actor that died at its start would die again: it raised, or has no environment."""
    return isinstance(error, RayTaskError | RuntimeEnvSetupError) or (
        isinstance(error, RayActorError) and error.actor_init_failed
    )


def is_preempted(error: Exception) -> bool:
    """Whether the actor's node was taken back."""
    return isinstance(error, RayActorError) and error.preempted


def is_short_of_memory(error: Exception) -> bool:
    """Whether Ray killed the actor because its node was short of memory."""
    return isinstance(error, OutOfMemoryError)


def node_address(error: Exception) -> str:
    """The address of the node that an error is about; empty if it names none."""
    match = re.search(r"\bip[=:]\s*([0-9A-Fa-f.:]*[0-9A-Fa-f])", str(error), re.IGNORECASE)
    return match[1] if match else ""


def death_cause(error: Exception) -> str:
    """Why an actor died, in Ray's words, without its advice."""
    lines = _lines(error)
    if is_short_of_memory(error) and lines:
        return f"killed for memory: {lines[0].partition('. ')[2] or lines[0]}"
    return last_line(error).partition(" Some common causes include")[0]


def last_line(error: Exception) -> str:
    """The last line of an error's text, or the name of its class."""
    lines = _lines(error)
    return lines[-1] if lines else type(error).__name__


def _lines(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()]
