"""One fit: its fields, their types and defaults, in canonical order."""

import math
from dataclasses import dataclass, fields
from typing import Final

from polyfit.spec.optimizer import GD, Optimizer

__all__ = [
    "BASES",
    "CANONICAL_ORDER",
    "DTYPES",
    "LOSS_GROWTH",
    "OBJECTIVES",
    "SQUARED",
    "Fit",
    "Rate",
    "Stop",
]

BASES: Final = ("chebyshev", "legendre", "power")
OBJECTIVES: Final = ("sse", "mse", "huber", "log_cosh", "l1")
SQUARED: Final = ("sse", "mse")
DTYPES: Final = ("float32", "float64")

LOSS_GROWTH: Final = 10.0
"""A fit has diverged if its loss ends above this many times its loss at the start."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A learning rate as asked for: ``auto``, a ``number``, or a share ``of_limit``."""

    kind: str
    value: float = 0.0

    def __str__(self) -> str:
        match self.kind:
            case "auto":
                return "auto"
            case "number":
                return repr(self.value)
        return f"{{of_limit: {self.value!r}}}"


@dataclass(frozen=True, slots=True)
class Stop:
    """End a fit early: ``gradient`` norm at most, or relative ``loss_change`` at most."""

    kind: str
    tolerance: float

    def __str__(self) -> str:
        return f"{self.kind}={self.tolerance!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One regression. The fields stand in canonical order, the slowest axis first."""

    degree: int = 3
    points: int = 2000
    basis: str = "chebyshev"
    range: tuple[float, float] = (-math.pi, math.pi)
    objective: str = "sse"
    dtype: str = "float32"
    target: str = "sin(x)"
    noise: float = 0.0
    noise_seed: int = 0
    steps: int = 2000
    stop: Stop | None = None
    optimizer: Optimizer = GD
    lr: Rate = Rate("auto")
    seed: int = 0


CANONICAL_ORDER: Final = tuple(field.name for field in fields(Fit))
