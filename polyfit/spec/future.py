"""What may come of a kind of fits."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from polyfit.spec.fit import CANONICAL_ORDER

__all__ = ["KIND_FIELDS", "Future", "Kind", "two_digits"]

KIND_FIELDS: Final = tuple(name for name in CANONICAL_ORDER if name not in ("seed", "stop"))
"""The fields of a fit that tell its kind."""


class Future(StrEnum):
    """What is predicted of a kind of fits."""

    DIVERGES = "diverges"
    CONVERGES = "converges"
    """Within its steps."""
    TOO_SLOW = "not within its steps"
    ENDS = "ends by itself"
    """Newton's method."""
    STABLE = "not above the limit"
    """It does not grow without end; there is no prediction of how fast it is."""
    AT_LIMIT = "at the limit"
    """It swings for ever: neither comes near the optimum nor grows without end."""
    GROWS = "grows"
    """It is above the limit, and its steps are too few to diverge from any start."""
    UNSTABLE = "above the limit"
    """It may diverge, which its start decides; or its objective bends, and it may not."""
    UNKNOWN = "unknown"
    CANNOT_START = "cannot start"


@dataclass(frozen=True, slots=True)
class Kind:
    """Fits that differ in their seeds alone.

    ``limit`` and ``share`` are None where there is no stability limit, ``condition`` (of the
    Hessian or its bound) where it is beyond float64; ``updates`` until the loss is near the optimum
    is None where that is not predicted or never comes. ``remedy`` is a change that would help, with
    the updates that it would then take.
    """

    fit: int
    fits: int
    values: dict[str, Any]
    limit: float | None
    share: float | None
    condition: float | None
    future: Future
    updates: int | None
    remedy: str | None

    @property
    def steps(self) -> int:
        return int(self.values["steps"])


def two_digits(updates: int) -> int:
    """A number of updates with two digits: more would promise what no start keeps."""
    return int(float(f"{updates:.2g}"))
