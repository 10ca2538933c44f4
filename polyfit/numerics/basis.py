"""Chebyshev, Legendre and power bases: their values, and conversions between them.

Shapes: ``N`` points, ``M`` = degree + 1 coefficients, ``P`` grids. Matrices have the points along
the last axis (``MN``: one row per basis function). Conversions are elementwise over the grids: a
grid has the same bits alone and among others.
"""

from collections.abc import Iterator

import numpy as np

from polyfit.numerics.arrays import Array, column
from polyfit.numerics.grid import Grid

__all__ = [
    "basis_functions",
    "chebyshev_series",
    "functions_at",
    "functions_on",
    "in_powers",
    "zero_matrices",
]


def basis_functions(basis: str, degree: int, argument: Array) -> Iterator[Array]:
    """The basis functions at ``argument`` (any shape), one after the other, by their recurrences.

    ``argument`` is t for Chebyshev and Legendre polynomials, x for powers. Yields degree + 1
    arrays of its shape, not to be written to; a value beyond float64 is infinite or NaN.
    """
    before = now = np.ones_like(argument)
    for k in range(degree):
        yield now
        with np.errstate(all="ignore"):
            if k == 0 or basis == "power":
                before, now = now, now * argument
            elif basis == "chebyshev":
                before, now = now, 2.0 * argument * now - before
            else:
                before, now = now, ((2 * k + 1) * argument * now - k * before) / (k + 1)
    yield now


def functions_at(grid: Grid, x: Array) -> Array:
    """The basis functions of ``grid`` at any ``x``: (n,) gives (M, n), (P, n) gives (P, M, n)."""
    if grid.basis == "power":
        return _functions(grid, x)
    with np.errstate(all="ignore"):
        return _functions(grid, (x - column(grid.middle)) / column(grid.half))


def functions_on(grid: Grid) -> Array:
    """The basis functions at the points: (M, N), or (P, M, N) for powers on P ranges."""
    return _functions(grid, grid.x() if grid.basis == "power" else grid.t())


def _functions(grid: Grid, argument: Array) -> Array:
    rows = np.empty((grid.degree + 1, *argument.shape))
    functions = basis_functions(grid.basis, grid.degree, argument)
    for row, function in zip(rows, functions, strict=True):
        row[...] = function
    return np.moveaxis(rows, 0, -2)


def zero_matrices(grid: Grid) -> Array:
    """Zeros, shape (M, M) or (P, M, M), stored with the grids along the last axis."""
    size = grid.degree + 1
    return np.moveaxis(np.zeros((size, size, *np.shape(grid.low))), (0, 1), (-2, -1))


def in_powers(grid: Grid) -> Array:
    """The basis functions as polynomials in x: row k holds function k, shape (M, M) or (P, M, M).

    A fit's coefficients c give x^j the coefficient sum(c[k] * row[k][j]).
    """
    rows = zero_matrices(grid)
    rows[..., 0, 0] = 1.0
    half, middle = column(grid.half), column(grid.middle)
    with np.errstate(all="ignore"):
        slope, offset = 1.0 / half, -middle / half
        for k in range(grid.degree):
            shifted = offset * rows[..., k, :]
            shifted[..., 1:] += slope * rows[..., k, :-1]
            if grid.basis == "power":
                rows[..., k + 1, k + 1] = 1.0
            elif k == 0:
                rows[..., 1, :] = shifted
            elif grid.basis == "chebyshev":
                rows[..., k + 1, :] = 2.0 * shifted - rows[..., k - 1, :]
            else:
                rows[..., k + 1, :] = ((2 * k + 1) * shifted - k * rows[..., k - 1, :]) / (k + 1)
    return rows


def chebyshev_series(grid: Grid) -> Array:
    """The basis functions as Chebyshev series in t: column k holds function k, as ``in_powers``."""
    columns = zero_matrices(grid)
    columns[..., 0, 0] = 1.0
    half, middle = column(grid.half), column(grid.middle)
    for k in range(grid.degree):
        if grid.basis == "chebyshev":
            columns[..., k + 1, k + 1] = 1.0
            continue
        by_t = _times_t(columns[..., k])
        if grid.basis == "power":
            columns[..., k + 1] = middle * columns[..., k] + half * by_t
        else:
            columns[..., k + 1] = ((2 * k + 1) * by_t - k * columns[..., k - 1]) / (k + 1)
    return columns


def _times_t(series: Array) -> Array:
    """A Chebyshev series times t, shape (..., M): t T_j is the mean of T_(j+1) and T_|j-1|."""
    product = np.zeros_like(series)
    product[..., 1:] = 0.5 * series[..., :-1]
    product[..., 1] += 0.5 * series[..., 0]
    product[..., :-1] += 0.5 * series[..., 1:]
    return product
