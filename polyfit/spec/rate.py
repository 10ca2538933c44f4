"""Learning rates: the curvature of an objective, the stability limit, the rate of each fit.

Shapes: ``B`` fits. Arithmetic is elementwise over the fits.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from polyfit.numerics.arrays import Array, Index
from polyfit.spec.fit import Rate
from polyfit.spec.optimizer import Optimizer

__all__ = ["curvature", "learning_rate", "stability_limit"]

ADAM_RATE: Final = 0.01
NEWTON_RATE: Final = 1.0


def curvature(objective: str, sigma: Array, points: int) -> Array:
    """Lambda, an upper bound of the objective's Hessian; NaN for l1, which has none."""
    with np.errstate(all="ignore"):
        match objective:
            case "sse":
                return 2.0 * sigma * sigma
            case "mse":
                return 2.0 * sigma * sigma / points
            case "huber" | "log_cosh":
                return sigma * sigma
    return np.full_like(sigma, np.nan)


def stability_limit(optimizer: Optimizer, bound: Array) -> Array:
    """The rates from which on gd or momentum diverges on quadratics of curvature ``bound``."""
    with np.errstate(all="ignore"):
        return 2.0 * (1.0 + optimizer.beta) / bound


def learning_rate(
    rates: Sequence[Rate], of_B: Index, optimizer: Optimizer, bound_B: Array
) -> Array:
    """The rate used by each fit, shape (B,): fit b asks for ``rates[of_B[b]]``.

    It may be 0 or not finite, which its fit's status tells.
    """
    numbers = np.array([rate.kind == "number" for rate in rates])
    values = np.array([0.5 if rate.kind == "auto" else rate.value for rate in rates])
    with np.errstate(all="ignore"):
        match optimizer.name:
            case "adam":
                own: float | Array = ADAM_RATE
            case "newton":
                own = NEWTON_RATE
            case _:
                own = values[of_B] * stability_limit(optimizer, bound_B)
    return np.where(numbers[of_B], values[of_B], own)
