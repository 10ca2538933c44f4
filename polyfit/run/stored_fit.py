"""One stored fit, and its polynomial."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyfit.numerics.basis import functions_at
from polyfit.numerics.grid import Grid
from polyfit.spec.plan import Shard

__all__ = ["StoredFit", "grid_of_row", "predict", "warn_if_outside"]


@dataclass(frozen=True, slots=True)
class StoredFit:
    """One fit: its row, and the shard, the key and the footer of the object that holds it."""

    fit: int
    row: dict[str, Any]
    shard: Shard
    key: str
    footer: dict[str, Any]


def warn_if_outside(rows: Sequence[dict[str, Any]], x: npt.ArrayLike) -> None:
    """Warn if some of ``x`` lie outside the range of a fit: a polynomial is soon far off there."""
    points = np.asarray(x, dtype=np.float64)
    for row in rows:
        low, high = row["range_low"], row["range_high"]
        outside = int(((points < low) | (points > high)).sum())
        if outside:
            text = f"fit {row['fit']}: {outside} of {points.size} x are outside its range "
            warnings.warn(f"{text}[{low:g}, {high:g}]", stacklevel=3)
            return


def grid_of_row(row: dict[str, Any]) -> Grid:
    """The grid of a fit, from the columns of its row."""
    return Grid(row["range_low"], row["range_high"], row["points"], row["degree"], row["basis"])


def predict(row: dict[str, Any], x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The polynomial of a row at ``x`` (any shape): same shape, float64."""
    points = np.asarray(x, dtype=np.float64)
    grid = grid_of_row(row)
    coefficients = np.array(row["coefficients"], dtype=np.float64)
    total = np.zeros(points.size)
    for value, function in zip(coefficients, functions_at(grid, points.ravel()), strict=True):
        total = total + value * function
    return total.reshape(points.shape)
