"""Learning rates: the curvature of an objective, the stability limit, the rate of each fit.

Shapes: ``B`` fits. Arithmetic is elementwise over the fits.
"""

from collections.abc import Sequence

import numpy as np

from polyfit.numerics.arrays import Array, Index
from polyfit.spec.fit import Rate
from polyfit.spec.optimizer import Optimizer

__all__ = ["curvature", "learning_rate", "limit_share", "stability_limit"]


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
    """The rates from which on a linear optimizer diverges on quadratics of curvature ``bound``."""
    with np.errstate(all="ignore"):
        return 2.0 * (1.0 + optimizer.beta) / bound


def _asked_share(rate: Rate) -> float:
    """The share of the stability limit that a rate asks for; NaN where it is a number."""
    return {"auto": 0.5, "of_limit": rate.value}.get(rate.kind, float("nan"))


def limit_share(rates: Sequence[Rate], of_B: Index, lr_B: Array, limit_B: Array) -> Array:
    """The share of the stability limit of each fit's rate, shape (B,): where a share was asked
    for this share, not one that rounding has changed."""
    asked = np.array([_asked_share(rate) for rate in rates])[of_B]
    with np.errstate(all="ignore"):
        shares = lr_B / limit_B
        rounded = np.abs(shares - asked) <= 1e-12 * asked
    return np.where(rounded, asked, shares)


def learning_rate(
    rates: Sequence[Rate], of_B: Index, optimizer: Optimizer, bound_B: Array
) -> Array:
    """The rate used by each fit, shape (B,): fit b asks for ``rates[of_B[b]]``.

    It may be 0 or not finite: the fit then has the status diverged.
    """
    stated = np.array([rate.kind == "number" for rate in rates])
    values = np.array([
        rate.value if rate.kind == "number" else _asked_share(rate) for rate in rates
    ])  # fmt: skip
    automatic: float | Array | None = optimizer.traits.automatic_rate
    if automatic is None:
        with np.errstate(all="ignore"):
            automatic = values[of_B] * stability_limit(optimizer, bound_B)
    return np.where(stated[of_B], values[of_B], automatic)
