"""Two runs compared: the fits that both have, one by one, and the groups that both have.

Rows are read part by part; memory holds a few shards of each run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from polyfit.numerics.arrays import Index
from polyfit.run.columns import check_names, default_groups, expand
from polyfit.run.overlap import Overlap
from polyfit.run.reuse import difference
from polyfit.run.scan import to_polars
from polyfit.spec.plan import Plan

__all__ = ["Comparison", "compare"]

LARGEST: Final = 10
"""Differences of single fits that are kept."""

_COLUMNS: Final = ("fit", "status", "loss")
_CACHED_SHARDS: Final = 8


class Rows(Protocol):
    """A run, as far as it is compared: ``polyfit.run.reader.Run``."""

    plan: Plan
    schema: pa.Schema

    def shard_numbers(self) -> Sequence[int]: ...

    def shard_rows(self, number: int, columns: Sequence[str]) -> pa.Table: ...

    def groups(self, by: Sequence[str]) -> pl.DataFrame: ...


@dataclass(slots=True)
class Comparison:
    """How a run differs from the one that it is compared with, ``before``.

    Attributes:
        other_bits: why equal fits need not have the same bits; None where they must.
        common: fits that both runs have stored.
        only_here, only_before: fits that one of them has stored.
        identical: common fits with the same status and the same bits of the loss.
        statuses: common fits by their status before and here, where it has changed.
        beyond: common fits whose losses differ by more than ``tolerance`` of the larger one.
        tolerance: a share.
        largest: the common fits whose losses differ most: ``fit``, ``fit_before``, ``status``,
            ``status_before``, ``loss``, ``loss_before``, ``change`` (a share of the larger loss).
        groups: a row per group that both have: its columns, ``fits``, ``fits_before``,
            ``median_loss``, ``median_loss_before``, ``change`` (a share of the loss before).
    """

    other_bits: str | None
    tolerance: float
    common: int = 0
    only_here: int = 0
    only_before: int = 0
    identical: int = 0
    beyond: int = 0
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    largest: pl.DataFrame = field(default_factory=pl.DataFrame)
    groups: pl.DataFrame = field(default_factory=pl.DataFrame)

    def worse(self, share: float) -> pl.DataFrame:
        """The groups whose median loss is larger by more than ``share`` than before, or that have
        no finite loss any more."""
        return self.groups.filter(
            (pl.col("change") > share)
            | (pl.col("median_loss").is_null() & pl.col("median_loss_before").is_not_null())
        )

    def better(self, share: float) -> pl.DataFrame:
        """The groups whose median loss is smaller by more than ``share`` of it, or that have a
        finite loss only now."""
        return self.groups.filter(
            (pl.col("change") < -share)
            | (pl.col("median_loss").is_not_null() & pl.col("median_loss_before").is_null())
        )


def compare(
    run: Rows, before: Rows, by: Sequence[str] | None = None, tolerance: float = 1e-6
) -> Comparison:
    """Compare ``run`` with ``before``.

    Args:
        run: the one that may be better or worse.
        before: the one that it is compared with.
        by: the columns whose values make a group; if None those of the swept fields.
        tolerance: losses that differ by this share of the larger one at most count as equal.

    Raises:
        UsageError: there is no such column.
        DamagedRun: a shard cannot be read.
    """
    columns = default_groups(run.plan) if by is None else expand(by)
    check_names(columns, run.schema.names)
    found = Comparison(difference(run.plan, before.plan), tolerance)
    for pairs in _pairs(run, before):
        _count(found, pairs)
    found.only_here, found.only_before = (
        sum(one.plan.shard(number).fits for number in one.shard_numbers()) - found.common
        for one in (run, before)
    )
    found.groups = _groups(run, before, columns)
    return found


def _pairs(run: Rows, before: Rows) -> Iterator[pl.DataFrame]:
    """The rows of the fits that both runs have stored, shard by shard."""
    overlap = Overlap(run.plan.sweep, before.plan.sweep)
    there = set(before.shard_numbers())

    @lru_cache(_CACHED_SHARDS)
    def shard_before(number: int) -> pl.DataFrame:
        return to_polars(before.shard_rows(number, _COLUMNS))

    for own in run.shard_numbers():
        rows = to_polars(run.shard_rows(own, _COLUMNS))
        old = overlap.indices(rows["fit"].to_numpy())
        shards = old // before.plan.shard_fits
        for number in np.unique(shards[old >= 0]).tolist():
            if number in there:
                places = np.flatnonzero(shards == number)
                yield _side_by_side(rows, shard_before(number), places, old)


def _side_by_side(
    rows: pl.DataFrame, before: pl.DataFrame, places: Index, old: Index
) -> pl.DataFrame:
    here = rows[places].with_columns(pl.Series("fit_before", old[places]))
    return here.join(before, left_on="fit_before", right_on="fit", suffix="_before")


_LARGER: Final = pl.max_horizontal(pl.col("loss").abs(), pl.col("loss_before").abs())
_CHANGE: Final = (
    pl.when(pl.col("loss") == pl.col("loss_before"))
    .then(0.0)
    .otherwise((pl.col("loss") - pl.col("loss_before")) / _LARGER)
)


def _count(found: Comparison, pairs: pl.DataFrame) -> None:
    """Add fits that both runs have."""
    text = pl.col("status", "status_before").cast(pl.String)
    pairs = pairs.with_columns(text, _CHANGE.alias("change"))
    found.common += len(pairs)
    same = pl.col("status") == pl.col("status_before")
    bits = pl.col("loss").eq_missing(pl.col("loss_before"))
    found.identical += len(pairs.filter(same & bits))
    changed = pairs.filter(~same).group_by("status_before", "status").len()
    for was, is_now, number in changed.rows():
        found.statuses[was, is_now] += number
    beyond = pairs.filter(pl.col("change").abs() > found.tolerance)
    found.beyond += len(beyond)
    largest = pl.concat([found.largest, beyond]) if len(found.largest) else beyond
    found.largest = largest.sort(pl.col("change").abs(), "fit", descending=[True, False]).head(
        LARGEST
    )


def _groups(run: Rows, before: Rows, columns: list[str]) -> pl.DataFrame:
    """The groups that both runs have, the one that grew worst first."""
    wanted = [*columns, "fits", "median_loss"]
    here, old = (one.groups(columns).select(wanted) for one in (run, before))
    if columns:
        both = here.join(old, columns, suffix="_before", nulls_equal=True)
    else:
        both = here.join(old, how="cross", suffix="_before")
    was = pl.col("median_loss_before")
    change = (
        pl.when(pl.col("median_loss") == was)
        .then(0.0)
        .otherwise((pl.col("median_loss") - was) / was)
    )
    return both.with_columns(change.alias("change")).sort(
        "change", *columns, descending=[True] + [False] * len(columns), nulls_last=True
    )
