"""A run summed up per group: the fits that have the same values in some columns.

Counts are added up part by part. Quantiles need their values at once, so of a large run they are
those of a sample of its fits; memory does not grow with the run.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl

from polyfit.errors import UsageError

__all__ = [
    "GROUP_COLUMNS",
    "by_or_all",
    "check_no_lists",
    "group_rows",
    "is_sampled",
    "key_columns",
]

ABOVE_OPTIMUM: Final = 0.01
"""A fit is far from the optimum if its loss is above it by more than this share."""

SAMPLED_FITS: Final = 1_000_000
"""Fits of a run, about, whose values are kept for quantiles."""

GROUP_COLUMNS: Final = (
    "fit",
    "loss",
    "optimum_loss",
    "max_error",
    "steps_taken",
    "steps_to_1pct",
    "status",
)
"""What is needed of a row beside the columns that make a group."""

_GOLDEN: Final = 11400714819323198485
"""2^64 times the golden ratio's fraction: its multiples modulo 2^64 are spread evenly."""


def group_rows(parts: Iterable[pl.DataFrame], by: Sequence[str], num_fits: int) -> pl.DataFrame:
    """A row per group, in the order of the columns ``by``; one row of all fits if ``by`` is empty.

    Beside ``by`` it has: ``fits``; ``best_loss``, and of the losses that are finite the quantiles
    ``p10_loss``, ``median_loss``, ``p90_loss``; ``median_max_error``; ``median_steps``;
    ``median_steps_to_1pct`` of the fits that came so near to the optimum;
    ``with_optimum``, fits whose objective has a closed-form optimum, and ``above_optimum``, those
    of them that ended more than 1% above it or without a loss (null if there are none); and for
    each status the number of fits that have it.

    Args:
        parts: rows, with the columns ``by`` and ``GROUP_COLUMNS``; at least one part, which may be
            empty.
        by: the columns whose values make a group.
        num_fits: of all parts, about: of more than ``SAMPLED_FITS`` a share is sampled.

    Raises:
        UsageError: a column of ``by`` holds lists.
    """
    counts, samples = [], []
    wanted = list(dict.fromkeys((*by, *_SAMPLED)))
    ended = pl.col("status").alias(_ENDED)
    for part in parts:
        check_no_lists(part, by)
        counts.append(part.group_by(*by_or_all(by), ended).agg(**_COUNTS))
        samples.append(part.filter(is_sampled(num_fits)).select(wanted))
        if len(counts) == _MERGED_PARTS:
            counts = [_merged(counts, [*key_columns(by), _ENDED])]
    return _joined(_merged(counts, [*key_columns(by), _ENDED]), pl.concat(samples), by)


_MERGED_PARTS: Final = 64

_SAMPLED: Final = ("loss", "max_error", "steps_taken", "steps_to_1pct")

_near = pl.col("loss") <= pl.col("optimum_loss") * (1 + ABOVE_OPTIMUM)
_has_optimum = pl.col("optimum_loss").is_not_null()
_COUNTS: Final = {
    "fits": pl.len().cast(pl.Int64),
    "best_loss": pl.col("loss").min(),
    "with_optimum": _has_optimum.sum().cast(pl.Int64),
    "above_optimum": (_has_optimum & ~_near.fill_null(False)).sum().cast(pl.Int64),
}


def check_no_lists(part: pl.DataFrame, by: Sequence[str]) -> None:
    """Check that the columns ``by`` can make groups.

    Raises:
        UsageError: one holds lists.
    """
    for name in by:
        if part.schema[name].is_nested():
            raise UsageError(f"{name}: fits are not grouped by lists; allowed: other columns")


def by_or_all(by: Sequence[str]) -> list[pl.Expr]:
    """The columns of a group, or a constant that puts all rows into one."""
    return [pl.col(name) for name in by] or [pl.lit(0).alias(_ALL)]


_ALL: Final = "all"
_ENDED: Final = "ended"  # a copy of the status, which may make groups too


def is_sampled(num_fits: int) -> pl.Expr:
    """Whether a fit is in the sample. Every second, third, ... one would be the same seed."""
    share = min(1.0, SAMPLED_FITS / max(num_fits, 1))
    if share == 1.0:
        return pl.lit(True)
    spread = pl.col("fit").cast(pl.UInt64) * pl.lit(_GOLDEN, dtype=pl.UInt64)
    return spread < pl.lit(int(share * 2**64), dtype=pl.UInt64)


def key_columns(by: Sequence[str]) -> list[str]:
    """The names of the columns of ``by_or_all``."""
    return list(by) or [_ALL]


def _merged(counts: list[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    sums = {name: pl.col(name).sum() for name in _COUNTS} | {"best_loss": pl.col("best_loss").min()}
    return pl.concat(counts).group_by(keys).agg(**sums)


def _joined(counts: pl.DataFrame, samples: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """The rows of ``group_rows``, from counts per group and status, and samples."""
    keys = key_columns(by)
    per_status = (
        counts.with_columns(pl.col(_ENDED).cast(pl.String))
        .sort(_ENDED)
        .pivot(_ENDED, index=keys, values="fits")
        .with_columns(pl.exclude(keys).fill_null(0))
    )
    finite = pl.col("loss").drop_nulls()
    quantiles = samples.group_by(by_or_all(by)).agg(
        finite.quantile(0.1, "linear").alias("p10_loss"),
        finite.quantile(0.5, "linear").alias("median_loss"),
        finite.quantile(0.9, "linear").alias("p90_loss"),
        pl.col("max_error").median().alias("median_max_error"),
        pl.col("steps_taken").median().alias("median_steps"),
        pl.col("steps_to_1pct").median().alias("median_steps_to_1pct"),
    )
    joined = _merged([counts], keys).join(quantiles, keys, "left", nulls_equal=True)
    joined = joined.join(per_status, keys, "left", nulls_equal=True).sort(keys, nulls_last=True)
    known = pl.when(pl.col("with_optimum") > 0).then("above_optimum")
    return joined.select(
        *by,
        "fits",
        "best_loss",
        *_QUANTILES,
        "with_optimum",
        known.alias("above_optimum"),
        pl.exclude(*keys, "fits", "best_loss", *_QUANTILES, "with_optimum", "above_optimum"),
    )


_QUANTILES: Final = (
    "p10_loss", "median_loss", "p90_loss", "median_max_error", "median_steps",
    "median_steps_to_1pct",
)  # fmt: skip
