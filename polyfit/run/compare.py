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
from polyfit.run.columns import By, check_names, group_columns
from polyfit.run.groups import by_or_all, is_sampled, key_columns
from polyfit.run.overlap import Overlap
from polyfit.run.reuse import difference
from polyfit.run.scan import to_polars
from polyfit.run.schema import empty_table
from polyfit.spec.plan import Plan

__all__ = ["Comparison", "compare"]

LARGEST: Final = 10
"""Differences of single fits that are kept."""

READ_SIDE_BY_SIDE: Final = 4

_COLUMNS: Final = ("fit", "status", "loss")
_FIELD_COLUMNS: Final = (
    "degree", "points", "basis", "range_low", "range_high", "objective", "dtype", "target", "noise",
    "noise_seed", "steps", "stop", "optimizer", "lr", "lr_limit", "lr_share", "seed",
)  # fmt: skip
"""What is known of a fit before it is run: the same fit has the same in both runs."""

_Tally = tuple[pl.DataFrame, pl.DataFrame]
"""Counts per group, and losses with the columns of their groups."""

_CACHED_SHARDS: Final = 8


class Rows(Protocol):
    """A run, as far as it is compared: ``polyfit.run.reader.Run``."""

    plan: Plan
    schema: pa.Schema

    def shard_numbers(self) -> Sequence[int]: ...

    def shard_rows(self, number: int, columns: Sequence[str]) -> pa.Table: ...

    def batches(self, columns: Sequence[str], *, side_by_side: int) -> Iterator[pa.Table]: ...


@dataclass(slots=True, repr=False)
class Comparison:
    """How a run differs from the one that it is compared with, ``before``.

    Attributes:
        other_bits: why equal fits need not have the same bits; None where they must.
        tolerance: a share.
        common: fits that both runs have stored.
        only_here, only_before: fits that one of them has stored.
        identical: common fits with the same status and the same bits of the loss.
        statuses: common fits by their status before and here, where it has changed.
        beyond: common fits whose losses differ by more than ``tolerance`` of the larger one; fits
            that diverge in both do not count.
        largest: the ones of these whose losses differ most: ``fit``, ``fit_before``, ``status``,
            ``status_before``, ``loss``, ``loss_before``, ``change`` (a share of the larger loss).
        groups: a row per group that both have; see ``compare``.
        groups_only_here, groups_only_before: groups that one of them has.
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
    groups_only_here: int = 0
    groups_only_before: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the runs have neither a fit nor a group in common."""
        return not self.common and not len(self.groups)

    def worse(self, share: float) -> pl.DataFrame:
        """The groups whose median loss is larger by more than ``share`` than before, of whose
        fits more diverge by more than that share of them, or of which all diverge only now."""
        return self.groups.filter(_worse(share))

    def better(self, share: float) -> pl.DataFrame:
        """The groups that are better by the same measure, and not worse."""
        return self.groups.filter(_better(share) & ~_worse(share))

    def all_diverged(self) -> pl.DataFrame:
        """The groups of which every fit diverges in both runs: they are not compared."""
        return self.groups.filter(_ALL_DIVERGED)

    def with_other_fits(self) -> pl.DataFrame:
        """The groups that are compared by their common fits, and in which a run has others."""
        other = (pl.col("fits") > pl.col("common")) | (pl.col("fits_before") > pl.col("common"))
        return self.groups.filter((pl.col("common") > 0) & other)

    def without_common_fits(self) -> pl.DataFrame:
        """The groups that are compared by all of their fits, because none is in both runs."""
        return self.groups.filter((pl.col("common") == 0) & ~_ALL_DIVERGED)

    def groups_in_words(self, share: float) -> list[str]:
        """What became of the groups, in a few sentences, for a page or a terminal."""
        if self.is_empty:
            return ["The runs have neither a fit nor a group in common: nothing to compare."]
        worse, better = len(self.worse(share)), len(self.better(share))
        diverged, others = len(self.all_diverged()), len(self.with_other_fits())
        unpaired, compared = len(self.without_common_fits()), len(self.groups) - diverged
        said = [
            f"Of {_groups(compared)} compared, {_some(worse)} worse and {_some(better)} better "
            f"by more than {100 * share:.3g}%."
        ]
        if unpaired:
            said.append(
                f"{_groups(unpaired)} {_has(unpaired)} no fit in common: the medians of all their "
                "fits are compared."
            )
        if others:
            said.append(
                f"In {_groups(others)} a run has fits that the other has not: only the common ones "
                "are compared."
            )
        if diverged:
            said.append(f"Left out: {_groups(diverged)} in which every fit diverges in both runs.")
        return said

    def __str__(self) -> str:
        fits = (
            f"{self.common:,} fits in both, {self.only_here:,} only now, {self.only_before:,} "
            f"only before; {self.identical:,} have the same status and bits."
        )
        return "\n".join([fits, *self.groups_in_words(self.tolerance)])

    def __repr__(self) -> str:
        return f"<Comparison: {str(self).replace(chr(10), ' ')}>"


def _groups(number: int) -> str:
    return f"{number:,} group" if number == 1 else f"{number:,} groups"


def _some(number: int) -> str:
    return f"{number:,} {'are' if number > 1 else 'is'}" if number else "none is"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


_ALL_HERE: Final = pl.col("diverged") == pl.col("compared")
_ALL_BEFORE: Final = pl.col("diverged_before") == pl.col("compared_before")
_ALL_DIVERGED: Final = _ALL_HERE & _ALL_BEFORE
_SHARE_HERE: Final = pl.col("diverged") / pl.col("compared")
_SHARE_BEFORE: Final = pl.col("diverged_before") / pl.col("compared_before")


def _worse(share: float) -> pl.Expr:
    more = (_SHARE_HERE - _SHARE_BEFORE).gt(share)
    larger = (pl.col("change") > share).fill_null(False)
    return larger | more | (_ALL_HERE & ~_ALL_BEFORE)


def _better(share: float) -> pl.Expr:
    fewer = (_SHARE_HERE - _SHARE_BEFORE).lt(-share)
    smaller = (pl.col("change") < -share).fill_null(False)
    return smaller | fewer | (_ALL_BEFORE & ~_ALL_HERE)


def compare(run: Rows, before: Rows, by: By | None = None, tolerance: float = 1e-6) -> Comparison:
    """Compare ``run`` with ``before``.

    A group that has fits in common is compared by these alone, so that fits that were added or
    left out change nothing; another one by all of its fits. The row of a group has its columns,
    ``fits``, ``fits_before``, ``common``; of the fits that are compared their numbers
    ``compared``, ``compared_before``, ``diverged``, ``diverged_before``, and of those that did
    not diverge ``median_loss``, ``median_loss_before`` (of common fits: that diverge in neither
    run) and ``change``, a share of the median before. Above a million fits medians are those of a
    sample.

    Args:
        run: the one that may be better or worse.
        before: the one that it is compared with.
        by: the columns whose values make a group; if None those of the swept fields.
        tolerance: losses that differ by this share of the larger one at most count as equal.

    Raises:
        UsageError: there is no such column, or it is no field of a fit.
        DamagedRun: a shard cannot be read.
    """
    columns = group_columns(by, run.plan)
    check_names(columns, _FIELD_COLUMNS)
    found = Comparison(difference(run.plan, before.plan), tolerance)
    pairs = []
    for part in _pairs(run, before, columns):
        _count(found, part)
        pairs.append(_tally_pairs(part, columns, run.plan.fits))
    found.only_here, found.only_before = (
        sum(one.plan.shard(number).fits for number in one.shard_numbers()) - found.common
        for one in (run, before)
    )
    _compare_groups(found, columns, _own(run, columns), _own(before, columns), pairs)
    return found


def _pairs(run: Rows, before: Rows, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The rows of the fits that both runs have stored, shard by shard."""
    overlap = Overlap(run.plan.sweep, before.plan.sweep)
    there = set(before.shard_numbers())

    @lru_cache(_CACHED_SHARDS)
    def shard_before(number: int) -> pl.DataFrame:
        return to_polars(before.shard_rows(number, _COLUMNS))

    for own in run.shard_numbers():
        rows = to_polars(run.shard_rows(own, list(dict.fromkeys((*_COLUMNS, *columns)))))
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
    both = _diverged("status") & _diverged("status_before")
    beyond = pairs.filter((pl.col("change").abs() > found.tolerance) & ~both).select(
        *_COLUMNS, *(f"{name}_before" for name in _COLUMNS), "change"
    )
    found.beyond += len(beyond)
    largest = pl.concat([found.largest, beyond]) if len(found.largest) else beyond
    found.largest = largest.sort(pl.col("change").abs(), "fit", descending=[True, False]).head(
        LARGEST
    )


def _diverged(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String) == "diverged"


def _tally_pairs(pairs: pl.DataFrame, by: Sequence[str], num_fits: int) -> _Tally:
    """Counts of the fits in common per group, and the losses of those that diverge in neither."""
    here, old = _diverged("status"), _diverged("status_before")
    counts = pairs.group_by(by_or_all(by)).agg(
        compared=pl.len().cast(pl.Int64),
        diverged=here.sum().cast(pl.Int64),
        diverged_before=old.sum().cast(pl.Int64),
    )
    kept = pairs.filter(is_sampled(num_fits) & ~here & ~old)
    return counts, kept.select([*by_or_all(by), pl.col("loss"), pl.col("loss_before")])


def _own(run: Rows, by: Sequence[str]) -> pl.DataFrame:
    """The groups of one run: ``compared`` and ``diverged`` fits, and ``median_loss`` of the
    others."""
    tallies: list[_Tally] = []
    needed = list(dict.fromkeys((*by, *_COLUMNS)))
    for part in map(to_polars, run.batches(needed, side_by_side=READ_SIDE_BY_SIDE)):
        counts = part.group_by(by_or_all(by)).agg(
            compared=pl.len().cast(pl.Int64), diverged=_diverged("status").sum().cast(pl.Int64)
        )
        kept = part.filter(is_sampled(run.plan.fits) & ~_diverged("status"))
        tallies.append((counts, kept.select([*by_or_all(by), pl.col("loss")])))
    if not tallies:
        empty = to_polars(empty_table(run.schema).select(needed)).select(by_or_all(by))
        zero = pl.lit(0, pl.Int64)
        counts = empty.with_columns(compared=zero, diverged=zero)
        return counts.with_columns(median_loss=pl.lit(None, pl.Float64))
    return _summed(tallies, by)


def _summed(tallies: Sequence[_Tally], by: Sequence[str]) -> pl.DataFrame:
    """Sums of the counts per group, and medians of the losses, null where there are none."""
    keys = key_columns(by)
    counts = pl.concat([counts for counts, _ in tallies])
    losses = pl.concat([losses for _, losses in tallies])
    medians = losses.group_by(keys).agg(pl.exclude(keys).median().name.prefix("median_"))
    sums = counts.group_by(keys).agg(pl.exclude(keys).sum())
    return sums.join(medians, keys, "left", nulls_equal=True)


def _compare_groups(
    found: Comparison,
    by: Sequence[str],
    here: pl.DataFrame,
    before: pl.DataFrame,
    pairs: Sequence[_Tally],
) -> None:
    """Set the groups: those that both runs have, the one that grew worst first."""
    keys = key_columns(by)
    both = here.join(before, keys, suffix="_before", nulls_equal=True)
    found.groups_only_here = len(here) - len(both)
    found.groups_only_before = len(before) - len(both)
    both = both.with_columns(
        pl.col("compared").alias("fits"), pl.col("compared_before").alias("fits_before")
    )
    if pairs:
        paired = _summed(pairs, by).with_columns(compared_before=pl.col("compared"))
        both = both.join(paired, keys, "left", suffix="_paired", nulls_equal=True)
        is_paired = pl.col("compared_paired").is_not_null()
        both = both.with_columns(
            pl.col("compared_paired").fill_null(0).alias("common"),
            *(
                pl.when(is_paired).then(f"{name}_paired").otherwise(name).alias(name)
                for name in _COMPARED
            ),
        )
    else:
        both = both.with_columns(pl.lit(0, pl.Int64).alias("common"))
    was = pl.col("median_loss_before")
    change = (
        pl.when(pl.col("median_loss") == was)
        .then(0.0)
        .otherwise((pl.col("median_loss") - was) / was)
    )
    found.groups = (
        both.with_columns(change.alias("change"))
        .sort("change", *keys, descending=[True] + [False] * len(keys), nulls_last=True)
        .select(*by, "fits", "fits_before", "common", *_COMPARED, "change")
    )


_COMPARED: Final = (
    "compared", "compared_before", "diverged", "diverged_before", "median_loss",
    "median_loss_before",
)  # fmt: skip
