"""Which fits two sweeps have in common."""

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.spec.grid_overlap import GridOverlap
from polyfit.spec.sweep import Sweep

__all__ = ["Overlap"]


class Overlap:
    """The indices that the fits of one sweep have in another.

    A fit is its fields, not its index. An index in one becomes an index in the other by formula,
    whatever their sizes.

    Args:
        new: the sweep whose fits are looked for.
        old: the sweep that they are looked for in.
    """

    def __init__(self, new: Sweep, old: Sweep) -> None:
        self._new, self._old = new, old
        self._pairs = {
            id(grid): [GridOverlap(grid, other) for other in old.grids] for grid in new.grids
        }

    def indices(self, fits: Index) -> Index:
        """The indices in the old sweep of the new one's ``fits``; -1 where it has no such fit.

        Of a fit that the old sweep has twice, the first.
        """
        result = np.full(len(fits), -1, dtype=np.int64)
        for grid, places, own in self._new.parts(fits):
            for start, pair in zip(self._old.starts, self._pairs[id(grid)], strict=True):
                found = pair.indices(own)
                missing = result[places] < 0
                result[places] = np.where(missing & (found >= 0), start + found, result[places])
        return result
