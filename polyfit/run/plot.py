"""The charts of one run: what ``run.plot`` and ``polyfit plot`` show."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
import pyarrow as pa

from polyfit.charts.coefficients import Paths, coefficients_chart, paths_chart
from polyfit.charts.edge import edge_chart
from polyfit.charts.fits import FitCurve, fit_chart
from polyfit.charts.groups import group_chart, quantile_chart
from polyfit.charts.histories import History, histories_chart, leaves
from polyfit.charts.theme import THEMES, themed
from polyfit.charts.timeline import timeline_chart
from polyfit.errors import UsageError
from polyfit.run.columns import By, split_names
from polyfit.run.digest import FINISHED, Digest, digest, digest_columns, sampled
from polyfit.run.fit_curves import fit_curve
from polyfit.run.histories import HISTORY_COLUMNS, history_shards, loss_histories
from polyfit.run.schema import schema
from polyfit.run.siblings import SAME_COLUMNS, coefficient_paths, coefficient_spread
from polyfit.run.timeline import timeline
from polyfit.spec.plan import Plan

__all__ = ["KINDS", "Plots"]

KINDS: Final = (
    "loss", "max_error", "steps", "distribution", "history", "fit", "edge", "coefficients", "paths",
    "timeline",
)  # fmt: skip

SHOWN_FITS: Final = 2_000
"""Fits that have a point of their own on a chart."""

QUANTILE_POINTS: Final = 101
SIBLINGS: Final = 400
READ_SIDE_BY_SIDE: Final = 2


class Rows(Protocol):
    """What the charts need of a run."""

    plan: Plan

    def batches(
        self, columns: Sequence[str] | None = None, where: str | None = None, side_by_side: int = 1
    ) -> Iterator[pa.Table]: ...

    def shard_numbers(self) -> list[int]: ...

    def shard_rows(self, number: int, columns: Sequence[str]) -> pa.Table: ...

    def row(self, fit: int) -> dict[str, Any]: ...

    def attempts(self) -> list[dict[str, Any]]: ...


class Plots:
    """Charts of a run, made when they are asked for; each shows itself in a notebook.

    The run is read once, when the first chart needs its rows. ``theme`` is "light" or "dark".
    """

    def __init__(self, run: Rows, theme: str = "light") -> None:
        self._run, self._theme = run, THEMES[theme]
        self._names = schema(run.plan).names

    # --- charts -------------------------------------------------------------------------------

    def loss(self, *by: By) -> Any:
        """The final loss by one or two swept fields, chosen here if none are named.

        >>> run.plot.loss("degree")
        alt.LayerChart(...)
        """
        return self._metric("loss", by)

    def max_error(self, *by: By) -> Any:
        """The largest distance to the target by swept fields; see ``loss``.

        >>> run.plot.max_error("degree")
        alt.LayerChart(...)
        """
        return self._metric("max_error", by)

    def steps(self, *by: By) -> Any:
        """Updates until within 1% of the optimum, or updates done; see ``loss``.

        >>> run.plot.steps("degree")
        alt.LayerChart(...)
        """
        return self._metric("steps", by)

    def distribution(self) -> Any:
        """The final losses of all fits, in order.

        >>> run.plot.distribution()
        alt.Chart(...)
        """
        return themed(
            quantile_chart(self.digest.metric("loss"), self.quantiles, self.quantile_note),
            self._theme,
        )

    def history(self) -> Any:
        """The loss over the updates: median, quantiles, best and worst.

        >>> run.plot.history()
        alt.ConcatChart(...)
        """
        found = self.histories
        if not found:
            raise UsageError("this run recorded no loss; see `record` in the spec")
        return themed(histories_chart(found, self.history_note), self._theme)

    def fit(self, fit: int | None = None) -> Any:
        """One fit over its target, with its residual below; the best one if none is named.

        >>> run.plot.fit(3)
        alt.VConcatChart(...)
        """
        curve = self.curve(self.best(), "Best fit") if fit is None else self.curve(fit)
        return themed(fit_chart(curve), self._theme)

    def edge(self) -> Any:
        """The rate as a share of the stability limit against the final loss; of a run whose fits
        differ in that share.

        >>> rates = polyfit.sweep("sin(x)", lr=[0.001, 0.01], store=folder, executor="inline")
        >>> rates.plot.edge()
        alt.LayerChart(...)
        """
        found = self.shares
        if found and not self.shares_differ:
            raise UsageError(
                f"every fit has the same share of its stability limit, {found[0]['share']:.4g}: an "
                "edge shows where rates differ, as lr: {of_limit: {linspace: [0.1, 1.2, 12]}}"
            )
        if not found:
            raise UsageError(
                "no fit of this run has a stability limit: adam, newton and l1 have none"
            )
        return themed(edge_chart(found), self._theme)

    def coefficients(self) -> Any:
        """The coefficients of the best fit and of those that differ from it in their seeds.

        >>> run.plot.coefficients()
        alt.VConcatChart(...)
        """
        found = self.spread
        if not found:
            raise UsageError("no other fit of this run differs from the best one in its seed alone")
        return themed(coefficients_chart(found, self.sibling_note), self._theme)

    def paths(self) -> Any:
        """The way of two coefficients over the loss, where coefficients were recorded.

        >>> run.plot.paths()
        alt.LayerChart(...)
        """
        found = self.ways
        if found is None:
            raise UsageError(
                "this run recorded no coefficients: record: {every: 10, of: [loss, coefficients]}"
            )
        return themed(paths_chart(found), self._theme)

    def timeline(self) -> Any:
        """Stages of the run, and the shards of each actor, over time.

        >>> run.plot.timeline()
        alt.Chart(...)
        """
        found = timeline(self._run.attempts())
        if not found:
            raise UsageError("no attempt at this run has noted a time line yet")
        return themed(timeline_chart(found), self._theme)

    def chart(self, kind: str, fit: int | None = None, by: Sequence[str] = ()) -> Any:
        """The chart that ``kind``, one of KINDS, names.

        >>> run.plot.chart("loss", by=["degree"])
        alt.LayerChart(...)

        Raises:
            UsageError: no kind has this name, or the run has nothing to show there.
        """
        if kind not in KINDS:
            raise UsageError(f"no kind {kind!r}; the kinds are {', '.join(KINDS)}")
        if fit is not None and kind != "fit":
            raise UsageError(f"--fit belongs to --kind fit, not to {kind}")
        if by and kind not in ("loss", "max_error", "steps"):
            raise UsageError(f"--by belongs to the kinds loss, max_error and steps, not to {kind}")
        if kind == "fit":
            return self.fit(fit)
        return getattr(self, kind)(*by)

    def _metric(self, kind: str, fields: Iterable[By]) -> Any:
        by = [name for one in fields for name in split_names(one)]
        allowed = [field.name for field in self.digest.grouping.fields]
        if len(by) > 2 or any(name not in allowed for name in by):
            swept = ", ".join(allowed) or "none but seeds"
            pooled = {*by} & {"seed", "noise_seed"}
            why = "; a point is the median over the seeds" if pooled else ""
            raise UsageError(
                f"by {', '.join(by)}: allowed are one or two of what is swept: {swept}{why}"
            )
        found = self.digest.by_field(self.digest.metric(kind), by or None)
        return themed(group_chart(found), self._theme)

    # --- numbers behind them --------------------------------------------------------------------

    @cached_property
    def digest(self) -> Digest:
        """Counts, extremes and a sample; one pass over the rows."""
        columns = digest_columns(self._names)
        parts = self._run.batches(columns, side_by_side=READ_SIDE_BY_SIDE)
        return digest(self._run.plan, parts)

    @property
    def quantiles(self) -> list[dict[str, Any]]:
        """``share`` and ``value`` of the losses of the fits that did not diverge, in order."""
        losses = self.digest.sample.filter(FINISHED)["loss"].sort()
        count = min(QUANTILE_POINTS, len(losses))
        places = [round(k * (len(losses) - 1) / max(count - 1, 1)) for k in range(count)]
        return [
            {"share": (place + 1) / len(losses), "value": float(losses[place])} for place in places
        ]

    @property
    def quantile_note(self) -> str:
        """Which fits ``quantiles`` are of."""
        lost = self.digest.rows - self.digest.total("finished")
        kept = f"{self.digest.total('finished'):,} of {self.digest.rows:,} fits"
        return f"{kept}: those that did not diverge" if lost else "all fits"

    @cached_property
    def histories(self) -> list[History]:
        """See ``loss_histories``; a panel for each value along the charts' x axis."""
        if "loss_history" not in self._names:
            return []
        plan, numbers = self._run.plan, history_shards(self._run.shard_numbers())
        parts = (self._run.shard_rows(number, HISTORY_COLUMNS) for number in numbers)
        fits = min(plan.fits, len(numbers) * plan.shard_fits)
        return loss_histories(plan, parts, fits, *self.digest.axes(), self._edges())

    @property
    def history_note(self) -> str:
        """What the courses of the loss do not show; "" where they show all."""
        panels, notes = self.digest.axes()[0], []
        if panels is not None and len(self.histories) < len(panels.labels):
            count, of = len(self.histories), len(panels.labels)
            notes.append(f"{count} of the {of} values of {panels.title}")
        if leaves(self.histories):
            notes.append("losses that grow far above those at the start leave the picture")
        return "; ".join(notes)

    def _edges(self) -> list[int]:
        """The values of the first axis where all fits diverge, beside one where not all do."""
        panels = self.digest.axes()[0]
        if panels is None:
            return []
        sums = self.digest.groups.group_by(self.digest.digit(panels).alias("value")).agg(
            pl.col("fits").sum(), pl.col("diverged").sum()
        )
        ordered = sums.sort("value")
        gone = (ordered["fits"] == ordered["diverged"]).to_list()
        values = ordered["value"].to_list()
        turns = [at for at in range(1, len(gone)) if gone[at] != gone[at - 1]]
        return [values[place] for at in turns for place in (at - 1, at)]

    def curve(self, fit: int, name: str = "") -> FitCurve:
        """The curves of a fit; ``name``, if any, stands before its number.

        >>> run.plot.curve(3, "Best fit").title
        'Best fit: fit 3'
        """
        row, grouping = self._run.row(fit), self.digest.grouping
        labels = grouping.labels(int(grouping.codes(np.array([fit], dtype=np.int64))[0]))
        swept = ", ".join(f"{title} {label}" for title, label in labels.items())
        return fit_curve(row, f"{name}: fit {fit:,}" if name else f"Fit {fit:,}", swept)

    @property
    def shares(self) -> list[dict[str, Any]]:
        """``fit``, ``share``, ``loss``, ``status`` of fits whose rate has a limit."""
        sample = self.digest.sample
        if "lr_share" not in sample.columns:
            return []
        known = sample.filter(sample["lr_share"].is_not_null() & (sample["lr_share"] > 0))
        few = known.filter(sampled(known["fit"].to_numpy(), len(known), SHOWN_FITS))
        return few.select("fit", "loss", "status", share="lr_share").to_dicts()

    @property
    def shares_differ(self) -> bool:
        """Whether ``shares`` has more than one share."""
        return len({f"{fit['share']:.6g}" for fit in self.shares}) > 1

    @cached_property
    def siblings(self) -> list[dict[str, Any]]:
        """The best fit and those that differ from it in their seeds alone, of its shard; the best
        first. Empty where every fit diverged."""
        if not len(self.digest.best):
            return []
        best = self.best()
        names = ["fit", "status", "steps_taken", "loss", "coefficients", *SAME_COLUMNS]
        recorded = [n for n in ("loss_history", "coefficients_history") if n in self._names]
        seeds = ["noise_seed", "seed"]
        rows = self._run.shard_rows(best // self._run.plan.shard_fits, [*names, *seeds, *recorded])
        place = best - rows["fit"][0].as_py()
        near = rows.slice(max(0, place - SIBLINGS), 2 * SIBLINGS + 1).to_pylist()
        (own,) = (row for row in near if row["fit"] == best)
        same = [row for row in near if all(row[name] == own[name] for name in SAME_COLUMNS)]
        return sorted(same, key=lambda row: math.inf if row["loss"] is None else row["loss"])

    @property
    def spread(self) -> list[dict[str, Any]]:
        """The coefficients of ``siblings``."""
        return coefficient_spread(self.siblings)

    @property
    def sibling_note(self) -> str:
        """Which fits the siblings are."""
        count, best = len(self.siblings), self.siblings[0]
        return f"{count:,} fits like fit {best['fit']:,}, the best: degree {best['degree']}"

    @property
    def ways(self) -> Paths | None:
        """The way of ``siblings`` over the loss."""
        if not self.siblings:
            return None
        updates = self._run.plan.record.updates(self.siblings[0]["steps"])
        return coefficient_paths(self.siblings, updates)

    def best(self) -> int:
        """The fit of the least loss.

        >>> run.row(run.plot.best())["degree"]
        5

        Raises:
            UsageError: every fit diverged, or none is stored.
        """
        if len(self.digest.best):
            return int(self.digest.best["fit"][0])
        raise UsageError("no stored fit of this run has a result; name one with --fit")
