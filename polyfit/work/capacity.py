"""How many actors a cluster holds, and how many are wanted: plain arithmetic."""

import math
from collections.abc import Mapping
from typing import Final, Literal

__all__ = ["MAX_IN_FLIGHT", "actors_on_node", "pause_s", "wanted_actors"]

MAX_IN_FLIGHT: Final = 2
"""Calls per actor: one waits there while another runs."""

START_PAUSE_S: Final = 1.0
"""Seconds until an actor is started again where one failed; doubled with each failure."""

MAX_START_PAUSE_S: Final = 30.0

_ROUNDING: Final = 1e-9


def actors_on_node(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many actors a node with these resources holds, if each asks for ``cpus`` and ``gpus``.

    A share of a GPU never spans two GPUs.
    """
    actors = resources.get("CPU", 0) / cpus
    if gpus:
        there = resources.get("GPU", 0)
        by_gpu = there * math.floor(1 / gpus + _ROUNDING) if gpus <= 1 else there / gpus
        actors = min(actors, by_gpu)
    return int(actors + _ROUNDING)


def wanted_actors(tasks: int, room: int, least: int, most: int | Literal["auto"]) -> int:
    """How many actors to have: at most one per task and no more than there is room for, but at
    least ``least``, and one."""
    return max(1, min(tasks, max(room if most == "auto" else most, least)))


def pause_s(failures: int) -> float:
    """Seconds until the next start, after so many failed ones."""
    return float(min(START_PAUSE_S * 2 ** (failures - 1), MAX_START_PAUSE_S))
