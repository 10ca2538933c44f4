"""A run summed up per degree and range.

Rows are counted part by part, as Arrow's ``group_by`` cannot: it needs all rows at once, and has
no exact median.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyfit.run.parquet import count_statuses, to_numpy

__all__ = ["GROUP_COLUMNS", "Group", "group_rows"]

ABOVE_OPTIMUM: Final = 0.01
"""A fit is far from the optimum if its loss is above it by more than this share."""

MEDIAN_FITS: Final = 1_000_000
"""Losses that are kept for medians; of a larger run every second, third, ... fit counts."""

GROUP_COLUMNS: Final = (
    "fit", "degree", "range_low", "range_high", "loss", "optimum_loss", "status",
)  # fmt: skip

_Key = tuple[int, float, float]


@dataclass(frozen=True, slots=True)
class Group:
    """The fits of one degree and range. Losses are None where no fit has a finite one.

    ``with_optimum`` counts the fits whose objective has a closed-form optimum, ``above_optimum``
    those of them that ended more than 1% above it (or without a loss); None where there are none.
    """

    degree: int
    low: float
    high: float
    fits: int
    best_loss: float | None
    median_loss: float | None
    statuses: dict[str, int]
    with_optimum: int
    above_optimum: int | None


def group_rows(parts: Iterable[pa.Table], num_fits: int) -> list[Group]:
    """The groups of a run of ``num_fits`` fits, sorted by degree and range.

    Args:
        parts: its rows, with ``GROUP_COLUMNS``.
        num_fits: of the whole run.
    """
    stride = -(-num_fits // MEDIAN_FITS)
    tallies: dict[_Key, _Tally] = {}
    for part in parts:
        _count(part, tallies, stride)
    return [tally.group(*key) for key, tally in sorted(tallies.items())]


@dataclass(slots=True)
class _Tally:
    """A group as far as its rows have been counted."""

    fits: int = 0
    best_loss: float = np.inf
    losses: list[npt.NDArray[np.float64]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    with_optimum: int = 0
    above_optimum: int = 0

    def group(self, degree: int, low: float, high: float) -> Group:
        losses = np.concatenate(self.losses)
        return Group(
            degree,
            low,
            high,
            self.fits,
            self.best_loss if np.isfinite(self.best_loss) else None,
            float(np.median(losses)) if len(losses) else None,
            dict(sorted(self.statuses.items())),
            self.with_optimum,
            self.above_optimum if self.with_optimum else None,
        )


def _count(part: pa.Table, tallies: dict[_Key, _Tally], stride: int) -> None:
    """Add rows to their groups. Neighbours mostly share one, so rows are cut where it changes."""
    if not len(part):
        return
    fit, loss, optimum = (to_numpy(part[name]) for name in ("fit", "loss", "optimum_loss"))
    degree, low, high = (to_numpy(part[name]) for name in ("degree", "range_low", "range_high"))
    changes = np.any([np.diff(values) != 0 for values in (degree, low, high)], axis=0)
    cuts = [0, *(int(cut) + 1 for cut in np.flatnonzero(changes)), len(fit)]
    for start, stop in pairwise(cuts):
        key = int(degree[start]), float(low[start]), float(high[start])
        tally = tallies.setdefault(key, _Tally())
        some = slice(start, stop)
        finite, has_optimum = np.isfinite(loss[some]), np.isfinite(optimum[some])
        near = loss[some] <= optimum[some] * (1 + ABOVE_OPTIMUM)
        tally.fits += stop - start
        tally.best_loss = min(tally.best_loss, float(loss[some][finite].min(initial=np.inf)))
        tally.losses.append(loss[some][finite & (fit[some] % stride == 0)])
        tally.statuses.update(count_statuses(part["status"].slice(start, stop - start)))
        tally.with_optimum += int(has_optimum.sum())
        tally.above_optimum += int((has_optimum & ~near).sum())
