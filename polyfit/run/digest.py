"""A run in numbers that fit on a page: exact counts and extremes per group, and a sample.

Made in one pass, shard by shard; memory holds two shards, the groups and ``SAMPLE_FITS`` fits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from polyfit.charts.groups import METRICS, ByGroup, Metric
from polyfit.numerics.arrays import Index
from polyfit.run.grouping import Grouping, SweptField
from polyfit.spec.plan import Plan

__all__ = ["Digest", "above_limit", "at_limit", "digest", "digest_columns", "sampled"]

SAMPLE_FITS: Final = 400_000
"""Fits that quantiles are taken of; all of a smaller run."""

LISTED_FITS: Final = 25
"""Of the best, and of the worst."""

MAX_SERIES: Final = 8
ABOVE_OPTIMUM: Final = 0.01

QUANTILES: Final = {"q05": 0.05, "median": 0.5, "q95": 0.95}

MEASURED: Final = ("loss", "max_error", "steps_taken", "steps_to_1pct")
"""Columns that have extremes."""

_NEEDED: Final = ("fit", "loss", "optimum_loss", "max_error", "steps_taken", "status")
_WHERE_THERE: Final = ("lr_limit", "lr_share", "steps_to_1pct")

DIVERGED: Final = pl.col("status") == "diverged"
FINISHED: Final = ~DIVERGED & pl.col("loss").is_not_null()

AT: Final = 1e-9
"""Shares of the stability limit so close to 1 are rates at the limit: they differ by rounding."""


def at_limit(share: pl.Expr) -> pl.Expr:
    """Which rates are at the stability limit, by their shares of it."""
    return (share - 1).abs() <= AT


def above_limit(share: pl.Expr) -> pl.Expr:
    """Which rates are above the stability limit, by their shares of it."""
    return share > 1 + AT


def digest_columns(names: Sequence[str]) -> list[str]:
    """The columns that a digest is made of, of those that a run has."""
    return [*_NEEDED, *(name for name in _WHERE_THERE if name in names)]


def sampled(fits: Index, total: int, wanted: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which fits of a run of ``total`` are in a sample of about ``wanted``; the same ones always.

    By a hash: every second or third fit would be in step with the seeds.
    """
    if total <= wanted:
        return np.ones(len(fits), dtype=np.bool_)
    mixed = fits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    kept: np.ndarray[Any, np.dtype[np.bool_]] = (mixed >> np.uint64(32)) < np.uint64(
        2**32 * wanted // total
    )
    return kept


@dataclass(frozen=True)
class Digest:
    """See ``digest``.

    Attributes:
        grouping: what the groups are.
        rows: how many rows were read.
        groups: a row per group with fits: ``group``, ``fits``, ``diverged``, ``finished`` (with a
            loss, and not diverged), ``stalled``, ``with_optimum``, of these ``near_optimum``
            (within 1%) and ``above_optimum`` (all others), of these ``finished_above`` (did not
            diverge), ``at_limit`` and ``above_limit`` (rates), of these ``above_diverged``; and of
            the fits that did not diverge ``arrived`` (those with a ``steps_to_1pct``),
            ``best_fit``, ``worst_fit``, and ``least_`` and ``largest_`` with the name of each
            column of ``MEASURED`` that is there.
        sample: the columns read, and ``group``, of sampled fits.
        best, worst: the fits of the least and the largest loss, as ``sample`` has them.
        statuses: fits per status.
    """

    grouping: Grouping
    rows: int
    groups: pl.DataFrame
    sample: pl.DataFrame
    best: pl.DataFrame
    worst: pl.DataFrame
    statuses: dict[str, int]

    @property
    def is_sampled(self) -> bool:
        """Whether quantiles are those of a sample."""
        return len(self.sample) < self.rows

    def total(self, name: str) -> int:
        """The sum of a count over all groups."""
        return int(self.groups[name].sum()) if len(self.groups) else 0

    @cached_property
    def by_group(self) -> pl.DataFrame:
        """``groups`` with ``q05``, ``median``, ``q95`` of the loss, and medians of ``max_error``,
        ``steps_taken`` and, where it is known, ``steps_to_1pct``, sorted by the group."""
        known = [pl.col("steps_to_1pct").median()] if self.knows_steps_to_optimum else []
        found = self.sample.filter(FINISHED).group_by("group").agg(
            *(pl.col("loss").quantile(q, "linear").alias(name) for name, q in QUANTILES.items()),
            pl.col("max_error").median(),
            pl.col("steps_taken").median(),
            *known,
        )  # fmt: skip
        return self.groups.join(found, on="group", how="left").sort("group")

    def metric(self, kind: str) -> Metric:
        """The metric that ``kind``, a key of METRICS, stands for in this run."""
        if kind == "steps" and self.knows_steps_to_optimum:
            title = "Updates until within 1% of the optimum"
            return Metric("steps_to_1pct", title, "first recorded update there", log=False)
        return METRICS[kind]

    @property
    def knows_steps_to_optimum(self) -> bool:
        """Whether some fit is known to have come near the optimum."""
        name = "steps_to_1pct"
        return name in self.sample.columns and self.sample[name].null_count() < len(self.sample)

    def axes(self, by: Sequence[str] | None = None) -> tuple[SweptField | None, SweptField | None]:
        """The fields of a chart: along x, and as series.

        Args:
            by: their names; chosen here if None.
        """
        fields = {field.name: field for field in self.grouping.fields}
        if by is not None:
            chosen = [fields[name] for name in by]
            return (*chosen, None, None)[:2]  # type: ignore[return-value]
        if not fields:
            return None, None
        numeric = [field for field in fields.values() if field.numbers is not None]
        x = max(numeric or fields.values(), key=lambda field: len(field.labels))
        others = [f for f in fields.values() if f is not x and len(f.labels) <= MAX_SERIES]
        return x, max(others, key=lambda field: len(field.labels), default=None)

    def by_field(self, metric: Metric, by: Sequence[str] | None = None) -> ByGroup:
        """A metric by one or two fields; the others are pooled."""
        x, series = self.axes(by)
        places = [self.digit(x).alias("x"), self.digit(series).alias("series")]
        column, counted = metric.column, _counted(metric)
        table = self.groups.with_columns(places).group_by("x", "series").agg(
            pl.col("fits", "diverged").sum(), pl.col(counted).sum().alias("counted"),
            pl.col(f"least_{column}").min().alias("best"),
            pl.col(f"largest_{column}").max().alias("worst"),
        ).join(self._quantiles(metric, places), on=["x", "series"], how="left")  # fmt: skip
        records = [_named(record, x, series) for record in table.sort("x", "series").to_dicts()]
        return ByGroup(
            metric,
            x.title if x else "all fits",
            "number" if x is not None and _is_scale(x) else "label",
            x.labels if x else ("all fits",),
            series.title if series else "",
            series.labels if series else (),
            records,
            self._pooled(x, series),
        )

    def _quantiles(self, metric: Metric, places: Sequence[pl.Expr]) -> pl.DataFrame:
        """``QUANTILES`` of a metric by ``places``, each group weighing as much as it has fits.

        Of pooled groups that differ much, a median may lie between two of them: without the weights
        a sample would have it in one or the other, by chance.
        """
        known = self.sample.filter(FINISHED & pl.col(metric.column).is_not_null())
        weights = known.group_by("group").len().join(self.groups, on="group").select(
            "group", weight=pl.col(_counted(metric)) / pl.col("len")
        )  # fmt: skip
        values, below = pl.col(metric.column), pl.col("weight").cum_sum() / pl.col("weight").sum()
        middles = {
            name: values.filter(below > q - AT).first() / 2
            + values.filter(below > q + AT).first() / 2
            for name, q in QUANTILES.items()
        }
        ordered = known.join(weights, on="group").sort(metric.column).with_columns(places)
        return ordered.group_by("x", "series", maintain_order=True).agg(**middles)

    def digit(self, field: SweptField | None) -> pl.Expr:
        """The value that a group has of ``field``."""
        if field is None:
            return pl.lit(0)
        at = self.grouping.fields.index(field)
        below = int(np.prod(self.grouping.sizes[at + 1 :], dtype=np.int64))
        return pl.col("group") // below % self.grouping.sizes[at]

    def _pooled(self, *shown: SweptField | None) -> str:
        names = [field.title for field in self.grouping.fields if field not in shown]
        return f"over all values of {', '.join(names)}" if names else ""


def _counted(metric: Metric) -> str:
    """The column of ``groups`` that counts the fits with a number."""
    return "arrived" if metric.column == "steps_to_1pct" else "finished"


def _is_scale(field: SweptField) -> bool:
    """Whether values are places on a scale rather than a few whole numbers."""
    numbers = field.numbers
    return numbers is not None and (
        len(numbers) > 20 or any(number != int(number) for number in numbers)
    )


def _named(
    record: dict[str, Any], x: SweptField | None, series: SweptField | None
) -> dict[str, Any]:
    at, number = record["x"], record["series"]
    place: Any = "all fits"
    if x is not None:
        place = x.numbers[at] if x.numbers is not None and _is_scale(x) else x.labels[at]
    return {**record, "x": place, "series": series.labels[number] if series else ""}


def digest(plan: Plan, parts: Iterable[pa.Table]) -> Digest:
    """The digest of a run.

    Args:
        plan: the run's.
        parts: its rows, with ``digest_columns``.
    """
    grouping = Grouping.of(plan)
    tallies, samples, rows = [], [], 0
    best = worst = statuses = None
    for part in parts:
        frame = _frame(part, grouping)
        rows += len(frame)
        tallies.append(_tally(frame))
        samples.append(frame.filter(sampled(frame["fit"].to_numpy(), plan.fits, SAMPLE_FITS)))
        finished = frame.filter(FINISHED)
        best = _extreme(best, finished, descending=False)
        worst = _extreme(worst, finished, descending=True)
        counted = frame.group_by("status").len()
        statuses = counted if statuses is None else pl.concat([statuses, counted])
        if len(tallies) > 256:  # of very many shards
            tallies = [_merge(tallies)]
    if best is None or worst is None or statuses is None:
        empty = _empty(grouping, plan)
        return Digest(grouping, 0, _merge([_tally(empty)]), empty, empty, empty, {})
    counts = statuses.group_by("status").agg(pl.col("len").sum()).sort("status")
    return Digest(
        grouping, rows, _merge(tallies), pl.concat(samples), best, worst,
        dict(counts.iter_rows()),
    )  # fmt: skip


def _frame(part: pa.Table, grouping: Grouping) -> pl.DataFrame:
    frame = pl.from_arrow(part)
    assert isinstance(frame, pl.DataFrame)
    codes = grouping.codes(frame["fit"].to_numpy())
    return frame.with_columns(pl.col("status").cast(pl.String), pl.Series("group", codes))


def _empty(grouping: Grouping, plan: Plan) -> pl.DataFrame:
    types = {"fit": pl.Int64, "status": pl.String, "group": pl.Int64}
    names = ["fit", "loss", "optimum_loss", "max_error", "steps_taken", "status", "group"]
    return pl.DataFrame(schema={name: types.get(name, pl.Float64) for name in names})


def _extreme(found: pl.DataFrame | None, part: pl.DataFrame, descending: bool) -> pl.DataFrame:
    rows = part if found is None else pl.concat([found, part])
    return rows.sort("loss", "fit", descending=[descending, False]).head(LISTED_FITS)


def _tally(frame: pl.DataFrame) -> pl.DataFrame:
    near = pl.col("loss") <= pl.col("optimum_loss") * (1 + ABOVE_OPTIMUM)
    known = pl.col("optimum_loss").is_not_null()
    finished = frame.with_columns(pl.when(FINISHED).then(pl.col("loss")).alias("kept"))
    share = pl.col("lr_share") if "lr_share" in frame.columns else pl.lit(None, pl.Float64)
    arrived = pl.col("steps_to_1pct") if "steps_to_1pct" in frame.columns else pl.lit(None)
    measured = [name for name in MEASURED if name in frame.columns]
    return finished.group_by("group").agg(
        pl.len().alias("fits").cast(pl.Int64),
        DIVERGED.sum().alias("diverged").cast(pl.Int64),
        FINISHED.sum().alias("finished").cast(pl.Int64),
        (pl.col("status") == "stalled").sum().alias("stalled").cast(pl.Int64),
        known.sum().alias("with_optimum").cast(pl.Int64),
        (known & near & FINISHED).sum().alias("near_optimum").cast(pl.Int64),
        (known & ~(near & FINISHED).fill_null(False)).sum().alias("above_optimum").cast(pl.Int64),
        (known & ~near & FINISHED).sum().alias("finished_above").cast(pl.Int64),
        at_limit(share).sum().alias("at_limit").cast(pl.Int64),
        above_limit(share).sum().alias("above_limit").cast(pl.Int64),
        (above_limit(share) & DIVERGED).sum().alias("above_diverged").cast(pl.Int64),
        (arrived.is_not_null() & FINISHED).sum().alias("arrived").cast(pl.Int64),
        *(pl.col(name).filter(FINISHED).min().alias(f"least_{name}") for name in measured),
        *(pl.col(name).filter(FINISHED).max().alias(f"largest_{name}") for name in measured),
        pl.col("fit").sort_by("kept", nulls_last=True).first().alias("best_fit"),
        pl.col("fit").sort_by("kept", descending=True, nulls_last=True).first().alias("worst_fit"),
    )


def _merge(tallies: Sequence[pl.DataFrame]) -> pl.DataFrame:
    sums = (
        "fits",
        "diverged",
        "finished",
        "stalled",
        "with_optimum",
        "near_optimum",
        "above_optimum",
        "finished_above",
        "at_limit",
        "above_limit",
        "above_diverged",
        "arrived",
    )
    best = pl.col("best_fit").sort_by("least_loss", nulls_last=True).first()
    worst = pl.col("worst_fit").sort_by("largest_loss", descending=True, nulls_last=True).first()
    return (
        pl.concat(tallies)
        .group_by("group")
        .agg(*(pl.col(name).sum() for name in sums), best, worst,
              pl.col("^least_.*$").min(), pl.col("^largest_.*$").max())
        .sort("group")
    )  # fmt: skip
