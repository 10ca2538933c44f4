"""Grids: random ones, as Hypothesis strategies, and one or some of many."""

from decimal import Decimal

import numpy as np
from hypothesis import strategies as st

from polyfit.numerics.arrays import Array
from polyfit.numerics.grid import Grid
from polyfit.spec.fit import BASES

__all__ = [
    "GRIDS", "MANY", "exact_functions", "exact_qr", "number", "random", "random_ranges", "ranges",
    "some",
]  # fmt: skip

GRIDS = st.builds(
    lambda low, width, points, degree, basis: Grid(low, low + width, points, degree, basis),
    low=st.floats(-4, 2),
    width=st.floats(0.5, 4),
    points=st.integers(11, 200),
    degree=st.integers(0, 10),
    basis=st.sampled_from(BASES),
)
MANY = st.builds(
    lambda seed, count, points, degree, basis: Grid(
        *random_ranges(seed, count), points, degree, basis
    ),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 40),
    points=st.integers(11, 3000),
    degree=st.integers(0, 10),
    basis=st.sampled_from(BASES),
)


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def random_ranges(seed: int, count: int) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    low = draw.uniform(-4, 2, count)
    return low, low + draw.uniform(0.5, 4, count)


def ranges(grid: Grid) -> tuple[Array, Array]:
    return np.asarray(grid.low), np.asarray(grid.high)


def some(grid: Grid, places: list[int] | slice) -> Grid:
    """The named ones of many grids."""
    low, high = ranges(grid)
    return Grid(low[places], high[places], grid.points, grid.degree, grid.basis)


def number(grid: Grid, place: int) -> Grid:
    """One of many grids, its range as two numbers."""
    low, high = ranges(grid)
    return Grid(float(low[place]), float(high[place]), grid.points, grid.degree, grid.basis)


def exact_qr(rows: list[list[Decimal]]) -> tuple[list[list[Decimal]], list[list[Decimal]]]:
    """Gram-Schmidt in the current decimal context: orthonormal rows, and R row by row."""
    frame: list[list[Decimal]] = []
    R = [[Decimal(0)] * len(rows) for _ in rows]
    for k, row in enumerate(rows):
        for j, q in enumerate(frame):
            R[j][k] = sum((a * b for a, b in zip(q, row, strict=True)), Decimal(0))
            row = [a - R[j][k] * b for a, b in zip(row, q, strict=True)]
        R[k][k] = sum((a * a for a in row), Decimal(0)).sqrt()
        frame.append([a / R[k][k] for a in row])
    return frame, R


def exact_functions(grid: Grid) -> list[list[Decimal]]:
    """The basis functions at the points; t, the middle and half the width as float64 has them."""
    t = [Decimal(float(value)) for value in grid.t()]
    middle, half = Decimal(float(grid.middle)), Decimal(float(grid.half))
    x = t if grid.basis != "power" else [middle + half * value for value in t]
    rows = [[Decimal(1)] * len(t), x]
    for k in range(1, grid.degree):
        if grid.basis == "power":
            rows.append([a * b for a, b in zip(rows[k], x, strict=True)])
            continue
        a, b, c = (2, 1, 1) if grid.basis == "chebyshev" else (2 * k + 1, k, k + 1)
        rows.append(
            [(a * u * v - b * w) / c for u, v, w in zip(x, rows[k], rows[k - 1], strict=True)]
        )
    return rows
