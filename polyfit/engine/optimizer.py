"""Optimizers: the update of the coefficients, given a gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from torch import Tensor

from polyfit.engine.objective import Coefficients, root
from polyfit.numerics.arrays import Array
from polyfit.numerics.elementary import power

__all__ = ["Hyperparameters", "bias_corrections", "updated"]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What an update needs besides the gradient and the rate.

    Adam's corrections of the bias depend on the update; ``root`` is its square root.
    """

    name: str
    beta: Tensor | float
    correction_1: Tensor | float = 1.0
    correction_2: Tensor | float = 1.0
    root: Callable[[Tensor], Tensor] = root


def updated(
    hyper: Hyperparameters,
    c: Coefficients,
    moments: list[Coefficients],
    lr: Tensor,
    g: Coefficients,
) -> tuple[Coefficients, list[Coefficients]]:
    """Coefficients and moments after one update with gradient ``g``."""
    match hyper.name:
        case "gd":
            return [v - lr * d for v, d in zip(c, g, strict=True)], []
        case "momentum":
            velocity = [hyper.beta * v + d for v, d in zip(moments[0], g, strict=True)]
            return [v - lr * d for v, d in zip(c, velocity, strict=True)], [velocity]
        case "adam":
            return _adam(hyper, c, moments, lr, g)
    raise NotImplementedError(hyper.name)


ADAM_BETAS: Final = (0.9, 0.999)
ADAM_EPSILON: Final = 1e-8


def _adam(
    hyper: Hyperparameters,
    c: Coefficients,
    moments: list[Coefficients],
    lr: Tensor,
    g: Coefficients,
) -> tuple[Coefficients, list[Coefficients]]:
    """Kingma and Ba, Adam: a method for stochastic optimization (2015), algorithm 1."""
    (beta_1, beta_2), one, two = ADAM_BETAS, hyper.correction_1, hyper.correction_2
    first = [beta_1 * m + (1.0 - beta_1) * d for m, d in zip(moments[0], g, strict=True)]
    second = [beta_2 * v + (1.0 - beta_2) * (d * d) for v, d in zip(moments[1], g, strict=True)]
    return [
        value - lr * ((m / one) / (hyper.root(v / two) + ADAM_EPSILON))
        for value, m, v in zip(c, first, second, strict=True)
    ], [first, second]


def bias_corrections(update: int) -> tuple[float, float]:
    """Adam's divisors at ``update``, counted from 0."""
    block, place = divmod(update, _BLOCK)
    first, second = _corrections_of_block(block)[place].tolist()
    return first, second


_BLOCK: Final = 1024
"""Updates whose divisors are computed at a time."""


@lru_cache(maxsize=64)
def _corrections_of_block(block: int) -> Array:
    updates = np.arange(block * _BLOCK, (block + 1) * _BLOCK)
    return 1.0 - np.stack([power(beta, updates + 1.0) for beta in ADAM_BETAS], axis=1)
