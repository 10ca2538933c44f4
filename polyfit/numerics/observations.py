"""The observations y of problems: a target at the points of a grid, and noise.

Shapes: ``N`` points, ``P`` problems, ``C`` targets without noise.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Array, Index, chunks, column
from polyfit.numerics.formula import Formula
from polyfit.numerics.grid import Grid

__all__ = ["noise", "noisy", "target_values"]

_CHUNK: Final = 12_288
"""Numbers of a temporary array: from 128 KB on, malloc maps fresh pages for each."""


def target_values(target: str, grid: Grid) -> Array:
    """The noise-free target, a checked formula, at the points: shape (N,) or (P, N)."""
    formula, t = Formula(target), grid.t()
    middle, half = (column(np.ravel(value)) for value in (grid.middle, grid.half))
    values = np.empty((len(half), grid.points))
    for rows in chunks(len(values), len(t), _CHUNK):
        x = half[rows] * t
        x += middle[rows]
        values[rows] = formula(x)
    return values.reshape(*np.shape(grid.low), grid.points)


def noise(noise_seeds: npt.NDArray[np.uint64], points: int) -> Array:
    """Standard normal noise, shape (P, points): a row per seed, shape (P,).

    A row is ``Generator(Philox(key=seed)).standard_normal(points)``, the same for every degree,
    basis and range; fewer points have a prefix of it. A seed that occurs twice is drawn once.
    """
    _, first, of = np.unique(noise_seeds, return_index=True, return_inverse=True)
    rows = np.empty((len(noise_seeds), points))
    # One generator for all: each new one would first draw a seed from the system.
    bits = np.random.Philox(key=0)
    generator, state = np.random.Generator(bits), bits.state
    for row in first:
        state["state"]["key"][0] = noise_seeds[row]
        bits.state = state
        generator.standard_normal(out=rows[row])
    again = np.flatnonzero(first[of] != np.arange(len(rows)))
    rows[again] = rows[first[of[again]]]
    return rows


def noisy(
    clean_CN: Array, clean_of_P: Index, scale_P: Array, noise_seed_P: npt.NDArray[np.uint64]
) -> Array:
    """The observations of P problems, shape (P, N): problem p has the noise-free target
    ``clean_CN[clean_of_P[p]]`` and ``scale_P[p]`` times the noise of its seed."""
    y = noise(noise_seed_P, clean_CN.shape[1])
    with np.errstate(all="ignore"):
        for rows in chunks(len(y), y.shape[1], _CHUNK):
            clean, scale = clean_CN[clean_of_P[rows]], column(scale_P[rows])
            y[rows] = np.where(scale == 0.0, clean, clean + scale * y[rows])
    return y
