"""How many fits a shard has, and which shards go first: from the sweep alone."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from polyfit.numerics.arrays import Array, Index
from polyfit.spec.cost import COST_FIELDS, cost_groups, nominal_seconds, row_bytes
from polyfit.spec.record import Record
from polyfit.spec.sweep import Sweep

__all__ = ["MAX_SHARDS", "automatic_size", "costly_first"]

MAX_SHARDS: Final = 1_000_000
"""Shard keys have six digits."""

SHARD_SECONDS: Final = 5.0
"""Nominal, of one core: the first results come within seconds. Storing one takes hundredths."""
SHARD_BYTES: Final = 64 << 20
SHARD_FITS: Final = 1 << 18
SPREAD_FROM: Final = 4_096
"""Fits of a sweep from which on it has SPREAD_SHARDS shards or more."""
SPREAD_SHARDS: Final = 16

_CHUNK: Final = 1 << 16
"""Shards whose costs are computed together: so a million of them take little memory."""


def automatic_size(sweep: Sweep, record: Record, engine: str) -> int:
    """Fits per shard: the largest power of two within time, bytes and spread.

    From the spec alone, never from the cluster: any cluster can resume any run.
    """
    costliest = max(nominal_seconds(*values, engine=engine) for values, _ in cost_groups(sweep))
    widest = max(row_bytes(sweep, record, *values) for values, _ in cost_groups(sweep))
    most = min(SHARD_SECONDS / costliest, SHARD_BYTES / widest, SHARD_FITS)
    if sweep.size >= SPREAD_FROM:
        most = min(most, (sweep.size - 1) // (SPREAD_SHARDS - 1))  # the last may have fewer
    least = min(-(-sweep.size // MAX_SHARDS), SHARD_FITS)
    size = 1
    while size * 2 <= most or size < least:
        size *= 2
    return size


def costly_first(sweep: Sweep, engine: str, numbers: Iterable[int], shard_fits: int) -> Index:
    """Shard numbers in the order of dispatch: by the nominal cost of a shard's first fit."""
    shards = np.fromiter(numbers, dtype=np.int64)
    costs = np.empty(len(shards))
    for at in range(0, len(shards), _CHUNK):
        costs[at : at + _CHUNK] = _costs(sweep, engine, shards[at : at + _CHUNK] * shard_fits)
    return shards[np.argsort(np.negative(costs, out=costs), kind="stable")]


def _costs(sweep: Sweep, engine: str, fits: Index) -> Array:
    """The nominal seconds of each of ``fits``."""
    columns = [sweep.column(name, fits).compact() for name in COST_FIELDS]
    mixed = np.zeros(len(fits), dtype=np.int64)
    for column in columns:
        mixed = mixed * len(column.items) + column.codes
    _, first, codes = np.unique(mixed, return_index=True, return_inverse=True)
    distinct = ([c.items[int(c.codes[k])] for c in columns] for k in first)
    costs = np.array([nominal_seconds(*values, engine=engine) for values in distinct])
    return costs[codes]
