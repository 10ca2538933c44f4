"""Types of arrays, and rows of numbers worked through a piece at a time."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Index", "Mask", "chunks", "column"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def chunks(num_rows: int, width: int, most: int) -> Iterator[slice]:
    """Slices of ``num_rows`` rows of ``width`` numbers: at most ``most`` numbers, or one row."""
    rows = max(1, most // width)
    return (slice(low, min(low + rows, num_rows)) for low in range(0, num_rows, rows))


def column(values: float | Array) -> Array:
    """Numbers with a new last axis of length 1: (P,) gives (P, 1), to go with rows of numbers."""
    return np.asarray(values)[..., None]
