"""A run of 48 fits in five shards that all tests of reading share: its spec and its parts."""

from pathlib import Path

import pyarrow as pa

from polyfit.run.keys import shard_key
from polyfit.run.reader import Run

TEXT = """\
name: small
shard: 10
fit: {steps: 20, points: 30, noise: 0.1, noise_seed: 7, stop: {gradient: 0.001}}
sweep:
  degree: [1, 3]
  basis: [chebyshev, legendre, power]
  range: [[-1, 1], [0, 2]]
  lr: [auto, 1.0e+30]
  seed: {count: 2}
record: {every: 10, of: [loss]}
"""


FITS = 48


SHARDS = 5


def ids(rows: pa.Table) -> list[int]:
    fits: list[int] = rows["fit"].to_pylist()
    return fits


def file(run: Run, key: str) -> Path:
    return Path(run.uri) / key


def shard(run: Run, number: int) -> Path:
    return file(run, shard_key(run.plan, number))


def place(run: Run, number: int) -> str:
    """How a problem names a shard."""
    first, last = 10 * number, min(10 * number + 9, FITS - 1)
    return f"{shard_key(run.plan, number)} (fits {first} to {last}): "
