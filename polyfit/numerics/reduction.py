"""A sum of squares over N points reduced to M = degree + 1 rows; sums in a stated order.

A problem has the same bits alone and among others: arithmetic on problems is elementwise, or a
sum along one problem's points.
"""

from typing import Final

import numpy as np

from polyfit.numerics.arrays import Array, chunks
from polyfit.numerics.design import frame

__all__ = ["reduce", "sum_of"]

_CHUNK: Final = 1 << 15
"""Numbers of a chunk of problems, a quarter megabyte: it stays in the cache."""

_LANES: Final = 16


def reduce(degree: int, y_PN: Array) -> tuple[Array, Array]:
    """Reduce sums of squares over N points to M rows, by QR.

    For every basis, range and c, sum((V'c - y)^2) = sum((R c - q)^2) + r: returns q, shape (P, M),
    and r, shape (P,), the least-squares optimum.

    The residual is orthogonalised once, not twice: the polynomial part that rounding leaves in it
    is no larger than the rounding of the residual itself.
    """
    y_PN = np.ascontiguousarray(y_PN)
    count, points = y_PN.shape
    Q = frame(points, degree).Q_MN
    q, rest = np.empty((count, degree + 1)), np.zeros(count)
    with np.errstate(all="ignore"):
        for rows in chunks(count, points, _CHUNK):
            residual = y_PN[rows].copy()
            for k, row in enumerate(Q):
                q[rows, k] = sum_of(y_PN[rows] * row)
            if points > degree + 1:  # else the residual is 0
                for k, row in enumerate(Q):
                    residual -= q[rows, k, None] * row
                rest[rows] = sum_of(residual * residual)
    return q, rest


def sum_of(terms: Array) -> Array:
    """Sums along the last axis in a stated order.

    Lane k below 16 adds the terms k, k + 16, k + 32, ... one after the other; then the upper half
    of the lanes is added to the lower, until one is left. Vectors of 16 numbers add so too.
    """
    points = terms.shape[-1]
    whole = points - points % _LANES
    rows = terms[..., :whole].reshape(*terms.shape[:-1], -1, _LANES)
    lanes = rows.sum(axis=-2) + 0.0  # row after row; no zero is negative
    lanes[..., : points - whole] += terms[..., whole:]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    total: Array = lanes[..., 0]
    return total
