"""The points that a polynomial is fitted on.

Shapes: ``N`` points, ``P`` grids.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from polyfit.numerics.arrays import Array, column

__all__ = ["Grid"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A range with its points, and the basis functions that are taken there.

    ``low`` and ``high`` are two numbers, or float64 arrays of shape (P,) for P grids that differ
    in their range alone; arrays made from those have a first axis P.
    """

    low: float | Array
    high: float | Array
    points: int
    degree: int
    basis: str

    @property
    def middle(self) -> float | Array:
        return self.low + (self.high - self.low) / 2

    @property
    def half(self) -> float | Array:
        """Half the width, reduced where rounding would put an end point outside the range.

        The target may not be defined outside.
        """
        half, middle = (self.high - self.low) / 2, self.middle
        within = np.minimum(half, np.minimum(middle - self.low, self.high - middle))
        outside = (middle - within < self.low) | (middle + within > self.high)
        within = np.where(outside, np.nextafter(within, 0.0), within)
        return np.where(within > 0.0, within, half)[()]  # 0: low and high are neighbours

    def t(self) -> Array:
        """The points on [-1, 1], shape (N,), shared and read-only."""
        return _unit_points(self.points)

    def x(self) -> Array:
        """The points on [low, high], shape (N,) or (P, N)."""
        return column(self.middle) + column(self.half) * self.t()


@lru_cache(maxsize=16)
def _unit_points(points: int) -> Array:
    t = np.linspace(-1.0, 1.0, points)
    t.flags.writeable = False
    return t
