"""Batches of a shard: which fits are iterated together, and how many at a time.

Memory alone decides how many. A fit has the same bits in every batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from polyfit.engine.batch import BatchConfig
from polyfit.engine.batch_data import PROBLEM_FIELDS
from polyfit.numerics.arrays import Index
from polyfit.spec.column import Column
from polyfit.spec.fit import SQUARED, Fit
from polyfit.spec.plan import Plan

__all__ = ["BATCH_LIMITS", "MIN_BATCH_FITS", "Batch", "BatchLimits", "Batches"]

BATCH_FIELDS: Final = (
    "degree", "points", "basis", "objective", "dtype", "steps", "stop", "optimizer",
)  # fmt: skip
"""Fields that all fits of a batch have in common."""

PROBLEM_NUMBERS: Final = 1 << 21
"""Float64 numbers that one array of a batch's problems may hold."""

POINTWISE_NUMBERS: Final = 1 << 16
"""Residuals of a batch in eager mode: few enough to stay in the CPU's cache."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most fits of a batch on a CPU; where it iterates over all points, the most residuals."""

    fits: int
    residuals: int


BATCH_LIMITS: Final = {
    "eager": BatchLimits(8_192, POINTWISE_NUMBERS),
    "compiled": BatchLimits(32_768, 1 << 22),
    "affine": BatchLimits(131_072, 1),
}
_BYTES_PER_NUMBER: Final = 8

MAX_INDEX: Final = 2**31 - 1
"""The kernels of an accelerator count the numbers of an array in 32 bits."""

BATCHES_PER_THREAD: Final = 3
"""Batches for each of several threads that use an accelerator: one is iterated while others are
copied or evaluated. A thread alone cannot do that, and a large batch uses more of the device."""

MIN_BATCH_FITS: Final = 8_192
"""Fits of such a batch: with fewer, the fixed cost of a batch exceeds that of its fits."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Fits that have all ``BATCH_FIELDS`` in common.

    Attributes:
        at: positions in the shard, int64.
        problem_of: the number of each fit's problem, from 0, not decreasing, int64.
        first_of_config: whether no earlier batch of the shard has the same config. Decided before
            threads take batches in an order of their own.
    """

    at: Index
    problem_of: Index
    first_of_config: bool = False

    def halves(self) -> "tuple[Batch, Batch]":
        """The same fits as two batches."""
        cut = len(self.at) // 2
        first, second = self.problem_of[:cut], self.problem_of[cut:]
        return (
            Batch(self.at[:cut], first, self.first_of_config),
            Batch(self.at[cut:], second - second[0]),
        )


class Batches:
    """Divides the fits of a shard into batches.

    Args:
        plan: the shard's plan.
        columns: the parameters of all fits of the shard, by field.
        device: where the batches are iterated.
        threads: how many batches are iterated side by side.
    """

    def __init__(
        self, plan: Plan, columns: dict[str, Column], device: torch.device, threads: int
    ) -> None:
        self._plan, self._columns = plan, columns
        self._device, self._threads = device, threads

    def of(self, fits: Index) -> Iterator[Batch]:
        """Batches of the fits at these positions, sorted by problem."""
        configs = _combined([self._columns[name] for name in BATCH_FIELDS])
        problems = _combined([self._columns[name] for name in PROBLEM_FIELDS])
        order = fits
        if configs.any() or problems.any():
            order = order[np.lexsort((problems[order], configs[order]))]
        cuts = np.flatnonzero(np.diff(configs[order])) + 1
        seen: set[BatchConfig] = set()
        for group in np.split(order, cuts) if len(order) else ():
            for batch in self._cut(group, problems[group]):
                config = self.config(batch)
                yield replace(batch, first_of_config=config not in seen)
                seen.add(config)

    def config(self, batch: Batch) -> BatchConfig:
        """What the fits of ``batch`` have in common."""
        example = self.example(int(batch.at[0]))
        return BatchConfig(
            example.degree,
            example.points,
            example.objective,
            example.optimizer,
            example.steps,
            example.stop,
            torch.float64 if example.dtype == "float64" else torch.float32,
        )

    def example(self, position: int) -> Fit:
        """The fit at ``position`` of the shard."""
        return Fit(
            **{
                name: column.items[int(column.codes[position])]
                for name, column in self._columns.items()
            }
        )

    def _cut(self, group: Index, problems: Index) -> Iterator[Batch]:
        example = self.example(int(group[0]))
        max_problems = max(1, PROBLEM_NUMBERS // example.points)
        max_fits = max(1, self.max_fits(example, len(group)))
        new = np.concatenate([[True], np.diff(problems) != 0])
        ranks = np.cumsum(new) - 1
        start = 0
        while start < len(group):
            stop = min(start + max_fits, len(group))
            stop = min(stop, int(np.searchsorted(ranks, ranks[start] + max_problems)))
            yield Batch(group[start:stop], ranks[start:stop] - ranks[start])
            start = stop

    def max_fits(self, example: Fit, num_fits: int) -> int:
        """How many of ``num_fits`` fits like ``example`` a batch may hold.

        On an accelerator the batches of all threads together use at most half of its free memory.
        """
        points = 0 if example.objective in SQUARED else example.points
        if self._device.type == "cpu":
            limits = BATCH_LIMITS[self._plan.engine]
            return min(limits.fits, limits.residuals // points) if points else limits.fits
        size = example.degree + 1
        by_kernel = self._plan.engine != "eager" and not example.optimizer.traits.second_order
        vectors = (size + 1) * (size + 5)  # the state twice, the moments, R and q
        numbers = vectors + points * (1 if by_kernel else 16 + 2 * size)
        updates = len(self._plan.record.updates(example.steps))
        for name in self._plan.record.of:
            numbers += updates * (size if name == "coefficients" else 1)
        by_memory = self._free_bytes() // (2 * self._threads * _BYTES_PER_NUMBER * numbers)
        most = min(by_memory, MAX_INDEX // max(vectors, points * size))
        if not by_kernel:  # torch runs the same number of operations for few fits as for many
            return most
        parts = BATCHES_PER_THREAD * self._threads if self._threads > 1 else 1
        return min(most, max(MIN_BATCH_FITS, -(-num_fits // parts)))

    def _free_bytes(self) -> int:
        """Free memory of the accelerator, with what torch keeps for reuse."""
        memory = torch.accelerator.memory
        kept = memory.memory_reserved(self._device) - memory.memory_allocated(self._device)
        return int(memory.get_memory_info(self._device)[0] + kept)


def _combined(columns: list[Column]) -> Index:
    """One number per fit, equal exactly where all columns are."""
    combined = np.zeros(len(columns[0].codes), dtype=np.int64)
    for column in columns:
        if len(column.items) > 1:
            combined = combined * len(column.items) + column.codes
            combined = np.unique(combined, return_inverse=True)[1]
    return combined
