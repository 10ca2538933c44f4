"""The optimizers, and what the rest of the code needs to know of each."""

from dataclasses import dataclass
from typing import Final

__all__ = ["GD", "TRAITS", "Optimizer", "OptimizerTraits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerTraits:
    """What planning, checking and running need to know of an optimizer.

    Attributes:
        linear: whether an update is linear in the gradient and the state. Such an optimizer has a
            stability limit on quadratics, and is one affine map there.
        second_order: whether it takes the Hessian. The objective must have one.
        num_moments: vectors of M numbers that it carries from update to update.
        automatic_rate: the rate of ``lr: auto``; None is half the stability limit.
        default_beta: where the spec gives the name alone.
        eager_cost: operations on a coefficient per update, relative to ``gd``.
        compiled_cost: nominal instructions on a coefficient per update.
    """

    linear: bool = False
    second_order: bool = False
    num_moments: int = 0
    automatic_rate: float | None = None
    default_beta: float = 0.0
    eager_cost: int = 1
    compiled_cost: int = 2


TRAITS: Final = {
    "gd": OptimizerTraits(linear=True),
    "momentum": OptimizerTraits(linear=True, num_moments=1, default_beta=0.9, compiled_cost=4),
    "adam": OptimizerTraits(num_moments=2, automatic_rate=0.01, eager_cost=3, compiled_cost=50),
    "newton": OptimizerTraits(second_order=True, automatic_rate=1.0),
}


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer by its name in TRAITS; ``beta`` is momentum's and 0 for the others."""

    name: str
    beta: float = 0.0

    @property
    def traits(self) -> OptimizerTraits:
        return TRAITS[self.name]

    def __str__(self) -> str:
        return f"momentum(beta={self.beta!r})" if self.name == "momentum" else self.name


GD: Final = Optimizer("gd")
"""Full-batch gradient descent, the default."""
