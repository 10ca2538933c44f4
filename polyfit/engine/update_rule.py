"""How the eager engine updates a batch: the interface, and the first-order optimizers."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from polyfit.engine.batch import BatchConfig
from polyfit.engine.objective import Coefficients, Objective, gradient, root
from polyfit.engine.optimizer import bias_corrections, updated

__all__ = ["FirstOrder", "UpdateRule"]


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
