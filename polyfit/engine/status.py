"""How a fit ends, and when that is looked for."""

from typing import Final

__all__ = [
    "CHECK_EVERY",
    "COMPLETED",
    "CONVERGED",
    "DIVERGED",
    "LOSS_GROWTH",
    "STATUSES",
]

STATUSES: Final = ("completed", "converged", "diverged")
COMPLETED, CONVERGED, DIVERGED = range(3)
CHECK_EVERY: Final = 10
"""Updates between two tests of finiteness and of the stop rule."""

LOSS_GROWTH: Final = 10.0
"""A fit whose loss ends above this many times its loss at the start has diverged."""
