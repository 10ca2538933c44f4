"""The charts of a report: which there are, what stands above them, their Vega-Lite."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from polyfit.charts.coefficients import coefficient_views, paths_chart
from polyfit.charts.edge import edge_chart
from polyfit.charts.fits import FitCurve, fit_view, residual_view
from polyfit.charts.groups import ByGroup, group_chart, quantile_chart
from polyfit.charts.histories import history_chart
from polyfit.charts.theme import DASHES, PAGE, themed
from polyfit.charts.timeline import timeline_chart
from polyfit.run.digest import Digest
from polyfit.run.plot import Plots
from polyfit.run.timeline import timeline
from polyfit.show.report_tables import Table

__all__ = [
    "Section", "by_sweep", "courses", "ends", "rates", "time_line", "versus_section", "views_of",
]  # fmt: skip

WIDTH: Final = "container"


@dataclass(frozen=True, slots=True)
class Figure:
    """One or two charts under one title; ``charts`` are the keys of ``views``."""

    key: str
    title: str
    text: str
    views: Sequence[Any]

    @property
    def charts(self) -> list[str]:
        return [f"{self.key}-{number}" for number in range(len(self.views))]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. ``layout`` is "", "one" or "three" columns."""

    key: str
    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = field(default=())
    layout: str = ""
    legend_title: str = ""
    legend_labels: Sequence[str] = ()

    @property
    def legend(self) -> list[tuple[str, str]]:
        """The series that all charts of the section share: labels, and dashes as SVG's."""
        dashes = (" ".join(map(str, dash)) for dash in DASHES)
        return list(zip(self.legend_labels, dashes, strict=False))


def views_of(sections: Sequence[Section]) -> dict[str, dict[str, Any]]:
    """The Vega-Lite of every chart, by its key."""
    return {
        key: themed(view, PAGE).to_dict()
        for section in sections
        for figure in section.figures
        for key, view in zip(figure.charts, figure.views, strict=True)
    }


def by_sweep(plots: Plots, tables: Sequence[Table]) -> Section | None:
    """What the sweep changed."""
    found = plots.digest
    if not len(found.best):
        return Section("sweep", "By what was swept", tables=tables) if found.rows > 1 else None
    if found.rows < 2:
        return None
    figures = []
    if found.grouping.fields:
        figures = [_group_figure(found, kind) for kind in ("loss", "max_error")]
        if found.sample[found.metric("steps").column].n_unique() > 1:
            figures.append(_group_figure(found, "steps"))
    figures.append(_distribution(plots))
    text = "Points are medians, the bars behind them hold the middle 90% of the fits."
    if found.total("diverged"):
        text += (
            " Fits that diverged are left out: a point is open where some of its fits did, and a "
            "cross stands at the upper edge where all did."
        )
    if found.knows_steps_to_optimum:
        text += (
            " Updates until within 1% of the optimum are the first recorded ones, of the fits that "
            "came there: a point is open where some did not, and an arrow stands at the upper "
            "edge where none did but not all diverged."
        )
    if found.is_sampled:
        text += f" Quantiles are those of {len(found.sample):,} fits."
    return Section("sweep", "By what was swept", text, figures, tables)


def _group_figure(found: Digest, kind: str) -> Figure:
    group = found.by_field(found.metric(kind))
    return Figure(kind, group.title, group.note, [group_chart(group, WIDTH, titled=False)])


def _distribution(plots: Plots) -> Figure:
    note = plots.quantile_note
    view = quantile_chart(plots.digest.metric("loss"), plots.quantiles, note, WIDTH, titled=False)
    return Figure("distribution", "Final losses, from the best to the worst fit", note, [view])


def courses(plots: Plots) -> Section | None:
    """The loss over the updates."""
    found = plots.histories
    if not found or not any(one.records for one in found):
        return None
    few = len(found) in (1, 2, 4)
    figures = [
        Figure(f"history-{number}", one.title, "", [
            history_chart(one, found, WIDTH, 260 if few else 190, titled=False, legend=False)])
        for number, one in enumerate(found)
    ]  # fmt: skip
    kinds = "the line is the median, the band holds the middle 90% of the fits"
    if not found[0].series_labels:
        kinds = (
            "the line is the median, the bands hold the middle half and the middle 90% of the "
            "fits; dashes are the best, dots the worst loss at that update"
        )
    text = (
        f"The loss before each recorded update: {kinds}. A fit that ended keeps its last loss; one "
        "that diverged is left out from its end on."
    )
    if plots.digest.rows == 1:
        text = "The loss before each recorded update."
    if plots.history_note:
        text += (
            f" Shown are {plots.history_note}."
            if len(found) < _panels(plots)
            else (f" {plots.history_note.capitalize()}.")
        )
    layout = "one" if len(found) == 1 else "" if few else "three"
    return Section(
        "course", "The course of the loss", text, figures, (), layout, found[0].series_title,
        found[0].series_labels,
    )  # fmt: skip


def _panels(plots: Plots) -> int:
    """How many panels the courses would have, if all were shown."""
    field = plots.digest.axes()[0]
    return 1 if field is None else len(field.labels)


def ends(plots: Plots) -> Section | None:
    """The best and the worst fit over their targets, and the coefficients over the seeds."""
    found = plots.digest
    if not len(found.best):
        return None
    best, worst = int(found.best["fit"][0]), int(found.worst["fit"][0])
    chosen = [("Best fit", best)] if best == worst else [("Best fit", best), ("Worst fit", worst)]
    if found.total("diverged"):
        chosen[1:] = [("Worst fit that did not diverge", fit) for _, fit in chosen[1:]]
    figures = [
        _curve_figure(key, plots.curve(fit, title if found.rows > 1 else ""))
        for key, (title, fit) in zip(("best-fit", "worst-fit"), chosen, strict=False)
    ]
    spread, ways = plots.spread, plots.ways
    if spread:
        views = list(coefficient_views(spread, WIDTH))
        note = plots.sibling_note
        figures.append(Figure("coefficients", "Coefficients over the seeds", note, views))
    if ways is not None:
        view = paths_chart(ways, WIDTH, titled=False)
        figures.append(Figure("paths", "The way of two coefficients", ways.note, [view]))
    text = "Below each fit its residual, what was fitted less the polynomial, on its own scale."
    return Section("fits", "Fits" if found.rows > 1 else "The fit", text, figures,
                   layout="one" if len(figures) == 1 else "")  # fmt: skip


def _curve_figure(key: str, curve: FitCurve) -> Figure:
    views = [fit_view(curve, WIDTH, titled=False), residual_view(curve, WIDTH)]
    return Figure(key, curve.title, curve.subtitle, views)


def rates(plots: Plots) -> Section | None:
    """The stability edge, where rates differ."""
    found = plots.shares
    if not plots.shares_differ:
        return None
    text = (
        "Left of the dashed line fits are predicted to be stable. Right of it a squared objective "
        "diverges; at the line itself it need not, nor come near the optimum."
    )
    if plots.digest.total("diverged"):
        text += " Fits that diverged are at the top, whatever their loss."
    title = "The rate as a share of the stability limit, and the final loss"
    note = f"a point for each fit; {_limits(plots.digest)}"
    figure = Figure("edge", title, note, [edge_chart(found, WIDTH, titled=False)])
    return Section("rates", "The stability edge", text, [figure], layout="one")


def _limits(found: Digest) -> str:
    """The stability limits of the fits."""
    limits = found.sample["lr_limit"].drop_nulls()
    least, most = (f"{float(limit):.4g}" for limit in (limits.min(), limits.max()))  # type: ignore[arg-type]
    if least == most:
        return f"the stability limit is {least}"
    return f"stability limits are from {least} to {most}"


def time_line(attempts: list[dict[str, Any]]) -> Section | None:
    """When the run did what."""
    spans = timeline(attempts)
    if not spans:
        return None
    chart = timeline_chart(spans, WIDTH, titled=False)
    figure = Figure("timeline", "Stages of the run, and shards of each actor",
                    "of the latest attempt that computed shards", [chart])  # fmt: skip
    return Section("time", "Time line", "", [figure], layout="one")


def versus_section(found: Digest, other: Digest, name: str, table: Table) -> Section:
    """This run beside another."""
    views: list[Figure] = []
    here, there = found.by_field(found.metric("loss")), other.by_field(other.metric("loss"))
    if found.grouping.fields and here.x_title == there.x_title and here.x_kind == there.x_kind:
        both = _joined(found, other)
        title = f"Final loss by {both.x_title}, of both runs"
        views = [Figure("versus-loss", title, both.note, [group_chart(both, WIDTH, titled=False)])]
    return Section("versus-run", "Beside another run", f"Before is {name}.", views, [table], "one")


def _joined(found: Digest, other: Digest) -> ByGroup:
    """The loss by the field along x, a series for each run."""
    x = found.axes()[0]
    assert x is not None
    parts = [one.by_field(one.metric("loss"), [x.name]) for one in (found, other)]
    names = ("now", "before")
    records = [
        {**record, "series": name}
        for name, part in zip(names, parts, strict=True)
        for record in part.records
    ]
    labels = list(dict.fromkeys([*parts[0].x_labels, *parts[1].x_labels]))
    one = parts[0]
    return ByGroup(one.metric, one.x_title, one.x_kind, labels, "run", names, records, one.note)
