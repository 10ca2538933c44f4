"""The update rules of gradient descent."""

from dataclasses import dataclass
from typing import Final

__all__ = ["GD", "Optimizer"]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An update rule; ``beta`` is momentum's and 0 for the others."""

    name: str
    beta: float = 0.0

    def __str__(self) -> str:
        return f"momentum(beta={self.beta!r})" if self.name == "momentum" else self.name


GD: Final = Optimizer("gd")
"""Full-batch gradient descent, the default."""
