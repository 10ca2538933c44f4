"""The design matrix of a grid by its QR factors, and its largest singular value.

Shapes: ``N`` points, ``M`` = degree + 1 coefficients, ``P`` grids. A grid has the same bits alone
and among others: arithmetic on grids is elementwise, or a sum along one contiguous row, which
numpy and the BLAS add in an order that depends on its length alone, as long as the BLAS stays on
one thread.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from polyfit.numerics.arrays import Array
from polyfit.numerics.basis import chebyshev_series, functions_on, zero_matrices
from polyfit.numerics.grid import Grid

__all__ = ["Design", "Frame", "design", "frame"]

_SMALL_FRAME: Final = 1 << 16
"""Numbers in a frame of which many are cached, half a megabyte each."""

_SQUARINGS: Final = 45
"""Eigenvalues nearer to the largest than 2^-45 of its size count as the largest."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Orthonormal rows ``Q_MN`` that span the polynomials on the points.

    ``R_MM`` is upper triangular: the Chebyshev polynomials at the points are R'Q.
    """

    Q_MN: Array
    R_MM: Array


def frame(points: int, degree: int) -> Frame:
    """The frame of all grids with this number of points and degree: of any basis and range.

    Householder QR: Golub and Van Loan, Matrix Computations, 4th ed., algorithms 5.1.1 and 5.2.1,
    and Q by backward accumulation, section 5.1.6. The arrays are shared and read-only.
    """
    small = points * (degree + 1) <= _SMALL_FRAME
    return (_small_frame if small else _large_frame)(points, degree)


def _householder(points: int, degree: int) -> Frame:
    grid = Grid(-1.0, 1.0, points, degree, "chebyshev")
    work = functions_on(grid)
    triangle = zero_matrices(grid)
    for k in range(degree + 1):
        v = work[k, k:]
        pivot = -np.copysign(np.sqrt((v * v).sum()), v[0])
        triangle[:k, k], triangle[k, k] = work[k, :k], pivot
        v[0] -= pivot
        v /= np.sqrt((v * v).sum())
        _reflect(work[k + 1 :, k:], v)
    for k in reversed(range(degree + 1)):
        v = work[k, k:].copy()
        work[k] = 0.0
        work[k, k] = 1.0
        _reflect(work[k:, k:], v)
    work.flags.writeable = triangle.flags.writeable = False
    return Frame(work, triangle)


def _reflect(rows: Array, v: Array) -> None:
    for row in rows:  # one at a time: the largest design fills a quarter of a gigabyte
        row -= (2.0 * (row * v).sum()) * v


_small_frame = lru_cache(maxsize=64)(_householder)
_large_frame = lru_cache(maxsize=1)(_householder)


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """The design matrix of a grid, or of each of P grids.

    ``R_MM``, shape (M, M) or (P, M, M), is upper triangular: the functions at the points are R'Q,
    with Q the grid's frame. ``sigma``, shape () or (P,), is its largest singular value, NaN where
    the square of that is beyond float64.
    """

    grid: Grid
    R_MM: Array
    sigma: Array

    @property
    def functions_MN(self) -> Array:
        """The basis functions at the points, shape (M, N) or (P, M, N).

        Computed at each access: they are large, and the reduction does not need them.
        """
        functions, shape = functions_on(self.grid), np.shape(self.grid.low)
        if self.grid.basis == "power":
            return functions
        return np.broadcast_to(functions, (*shape, *functions.shape))


def design(grid: Grid) -> Design:
    """The design of ``grid``: R is the frame's triangle times the basis as Chebyshev series.

    Chebyshev and Legendre polynomials do not depend on the range: one triangle serves all. Where a
    power is beyond float64 at the points, R is not finite.
    """
    one = grid if grid.basis == "power" else Grid(-1.0, 1.0, grid.points, grid.degree, grid.basis)
    with np.errstate(all="ignore"):
        series = chebyshev_series(one)
        triangle = frame(grid.points, grid.degree).R_MM
        R = np.zeros_like(series)
        for j in range(grid.degree + 1):
            R[..., : j + 1, j:] += triangle[: j + 1, j, None] * series[..., j, None, j:]
        sigma = _largest_singular_value(R)
    shape = np.shape(grid.low)
    return Design(grid, np.broadcast_to(R, (*shape, *R.shape[-2:])), np.broadcast_to(sigma, shape))


def _largest_singular_value(R_MM: Array) -> Array:
    """Of each triangle: the root of the largest eigenvalue of R'R, by repeated squaring.

    R'R, squared again and again, becomes the projector on its largest eigenvalues; eigenvalues
    that differ by less than rounding count as one. LAPACK's bits depend on the kind of CPU.
    """
    gram = np.zeros_like(R_MM)
    for i in range(R_MM.shape[-1]):
        gram[..., i:, i:] += R_MM[..., i, i:, None] * R_MM[..., i, None, i:]
    finite = np.isfinite(gram).all(axis=(-2, -1))
    sigma = np.full(finite.shape, np.nan)
    # Grids along the last axis: arithmetic is elementwise over them.
    grams = np.ascontiguousarray(np.moveaxis(gram[finite], 0, -1))
    power = grams / _trace(grams)
    for _ in range(_SQUARINGS):
        squared = np.zeros_like(power)
        for k in range(len(power)):
            squared += power[:, k, None] * power[None, k]
        power = squared / _trace(squared)
    total = np.zeros(grams.shape[-1])
    for row in (grams * power).reshape(len(power) ** 2, -1):
        total += row
    sigma[finite] = np.sqrt(total)  # the trace of power is 1
    return sigma


def _trace(matrices: Array) -> Array:
    total = np.zeros(matrices.shape[-1])
    for k in range(len(matrices)):
        total += matrices[k, k]
    return total
