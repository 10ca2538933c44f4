"""Optimizers: the update of a coefficient, given its gradient; and how eager updates a batch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from polyfit.engine.batch import BatchConfig
from polyfit.engine.objective import Coefficients, Objective, gradient, root
from polyfit.numerics.arrays import Array
from polyfit.numerics.elementary import power

__all__ = ["FirstOrder", "UpdateRule", "bias_corrections", "updated"]


def updated(
    optimizer: str,
    root: Callable[[Tensor], Tensor],
    g: Tensor,
    lr: Tensor,
    beta: Tensor | float,
    bias_1: Tensor | float,
    bias_2: Tensor | float,
    c: Tensor,
    *moments: Tensor,
) -> tuple[Tensor, ...]:
    """A coefficient and its moments after one update, vectors of shape (B,).

    Args:
        optimizer: its name.
        root: the square root that Adam takes.
        g, lr: the gradient and the rate.
        beta: momentum's.
        bias_1, bias_2: Adam's corrections of the bias at this update.
        c, moments: before the update.
    """
    match optimizer:
        case "gd":
            return (c - lr * g,)
        case "momentum":
            velocity = beta * moments[0] + g
            return c - lr * velocity, velocity
        case "adam":
            # Kingma and Ba, Adam: a method for stochastic optimization (2015), algorithm 1.
            first = ADAM_BETAS[0] * moments[0] + (1.0 - ADAM_BETAS[0]) * g
            second = ADAM_BETAS[1] * moments[1] + (1.0 - ADAM_BETAS[1]) * (g * g)
            step = (first / bias_1) / (root(second / bias_2) + ADAM_EPSILON)
            return c - lr * step, first, second
    raise NotImplementedError(optimizer)


ADAM_BETAS: Final = (0.9, 0.999)
ADAM_EPSILON: Final = 1e-8

_MOST_CORRECTIONS: Final = 2 + int(54.0 * math.log(2.0) / -math.log(max(ADAM_BETAS)))
"""Updates after which beta to their power is below 2^-54, and the correction 1."""


@lru_cache(maxsize=8)
def bias_corrections(optimizer: str, steps: int) -> Array:
    """Adam's divisors at updates 0, 1, ..., shape (L, 2); the last serve all later updates."""
    if optimizer != "adam":
        return np.ones((1, 2))
    updates = np.arange(1.0, min(steps, _MOST_CORRECTIONS) + 1.0)
    return 1.0 - np.stack([power(beta, updates) for beta in ADAM_BETAS], axis=1)


class UpdateRule(ABC):
    """The state of the fits that a batch still iterates, and one update of it.

    Attributes:
        c: the coefficients, M vectors of shape (B,).
        lr: the rates, shape (B,).
    """

    c: Coefficients
    lr: Tensor

    @abstractmethod
    def gradient(self, objective: Objective) -> tuple[Tensor, Coefficients]:
        """Losses, shape (B,), and the gradient, by autograd."""

    @abstractmethod
    def update(self, number: int, objective: Objective, losses: Tensor, g: Coefficients) -> None:
        """Update ``c``; ``number`` counts updates from 0."""

    def settled(self) -> Tensor:
        """Which fits cannot improve any more, shape (B,), bool."""
        return torch.zeros_like(self.lr, dtype=torch.bool)

    @abstractmethod
    def select(self, fits: Tensor) -> None:
        """Keep these fits alone."""


class FirstOrder(UpdateRule):
    """Gradient descent, momentum and Adam."""

    def __init__(self, config: BatchConfig, c: Coefficients, lr: Tensor) -> None:
        self.config, self.c, self.lr = config, c, lr * (2.0 if config.halved else 1.0)
        self.moments = [
            [torch.zeros_like(v) for v in c] for _ in range(config.optimizer.traits.num_moments)
        ]
        self.corrections = bias_corrections(config.optimizer.name, config.steps)

    def gradient(self, objective: Objective) -> tuple[Tensor, Coefficients]:
        """The gradient, or half of it where ``config.halved``."""
        return gradient(objective, self.c)

    def update(self, number: int, objective: Objective, losses: Tensor, g: Coefficients) -> None:
        optimizer = self.config.optimizer
        bias = self.corrections[min(number, len(self.corrections) - 1)].tolist()
        hyper = (self.lr, optimizer.beta, *bias)
        rows = zip(g, self.c, *self.moments, strict=True)
        new = [updated(optimizer.name, root, d, *hyper, *row) for d, *row in rows]
        self.c, *self.moments = ([*vectors] for vectors in zip(*new, strict=True))

    def select(self, fits: Tensor) -> None:
        self.lr = self.lr.index_select(0, fits)
        self.c, *self.moments = (
            [vector.index_select(0, fits) for vector in vectors]
            for vectors in (self.c, *self.moments)
        )
