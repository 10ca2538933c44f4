"""A number of each fit by what was swept: median, the middle 90%, best and worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import altair as alt

from polyfit.charts.marks import AnyChart, data, lines, log_axis, numbers, positive, series, size

__all__ = ["ByGroup", "Metric", "group_chart", "quantile_chart"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A column as a chart names it; ``unit`` belongs to the axis."""

    column: str
    title: str
    unit: str
    log: bool = True


METRICS: Final = {
    "loss": Metric("loss", "Final loss", "loss"),
    "max_error": Metric("max_error", "Largest error", "largest distance to the target"),
    "steps": Metric("steps_taken", "Updates done", "updates", log=False),
}


@dataclass(frozen=True, slots=True)
class ByGroup:
    """A metric by one or two swept fields.

    Attributes:
        metric: what is shown.
        x_title: of the field along x.
        x_kind: whether its values are numbers on a scale, or labels in order.
        x_labels: the labels in order; of no use for numbers.
        series_title: of the second field, "" where there is none.
        series_labels: its values in order, eight at most.
        records: ``x``, ``series``, ``fits``, ``diverged``, ``counted`` (the fits with a number),
            and ``best``, ``q05``, ``median``, ``q95``, ``worst`` of the fits that did not diverge,
            None where there are none.
        note: what is pooled, below the title.
    """

    metric: Metric
    x_title: str
    x_kind: Literal["number", "label"]
    x_labels: Sequence[str]
    series_title: str
    series_labels: Sequence[str]
    records: Sequence[dict[str, Any]]
    note: str = ""

    @property
    def title(self) -> str:
        """Of the chart: the metric by one field, or by two."""
        by = f"{self.x_title} and {self.series_title}" if self.series_title else self.x_title
        return f"{self.metric.title} by {by}"


def group_chart(found: ByGroup, width: int | str | None = None, titled: bool = True) -> AnyChart:
    """Medians as points and lines, the middle 90% of the fits as bars behind them.

    A point is open where some of its fits have no number; of a place where none has, a mark at the
    upper edge says why.
    """
    metric = found.metric
    shown = [record for record in found.records if record["median"] is not None]
    gone = [record for record in found.records if record["median"] is None]
    floored = _floored(shown) if _is_log(metric, shown) else shown
    base = alt.Chart(data(floored)).encode(x=_x(found))
    tips, middle = _tooltips(found), alt.Y("median:Q")
    color, shape = series("series", found.series_title, found.series_labels)
    colored: dict[str, Any] = {"color": color} if found.series_title else {}
    shaped: dict[str, Any] = {**colored, "shape": shape} if found.series_title else {}
    spread = base.mark_rule(strokeWidth=5, opacity=0.28, strokeCap="round").encode(
        y=_y(metric, floored), y2="q95:Q", **colored, tooltip=tips
    )
    drawn = [base.mark_line().encode(y=middle)]
    if found.series_title:
        drawn = lines(base, middle, color, found.series_labels, floored)
    if found.x_kind == "label" and not _ordered(found):
        drawn = []
    layers = [spread, *drawn]
    for filled in (True, False):
        some = [r for r in floored if (r["counted"] == r["fits"]) is filled]
        if some:
            points = alt.Chart(data(some)).mark_point(
                size=46, filled=filled, opacity=1, strokeWidth=0 if filled else 1.8
            )
            layers.append(points.encode(x=_x(found), y=middle, **shaped, tooltip=tips))
    chart: AnyChart = alt.layer(*layers)
    if gone:
        chart = alt.layer(chart, _absent(found, gone)).resolve_scale(
            color="independent", shape="independent"
        )
    chart = chart.properties(
        **size(width),
        **({"title": _title(found)} if titled else {}),
        description=f"{found.title}: median and middle 90% of the fits",
    )
    return chart


LOST: Final = "all fits diverged"
SLOW: Final = "none came there"
MARKS: Final = {
    LOST: "M-1,-.7L-.7,-1L0,-.3L.7,-1L1,-.7L.3,0L1,.7L.7,1L0,.3L-.7,1L-1,.7L-.3,0Z",  # a cross
    SLOW: "arrow",
}
"""Shapes that no series has."""


def _absent(found: ByGroup, records: Sequence[dict[str, Any]]) -> AnyChart:
    """Marks at the upper edge where no fit has a number, with a legend that says why."""
    shown = [{**r, "why": LOST if r["diverged"] == r["fits"] else SLOW} for r in records]
    whys = [why for why in (LOST, SLOW) if any(record["why"] == why for record in shown)]
    scale = alt.Scale(domain=whys, range=[MARKS[why] for why in whys])
    color = series("series", found.series_title, found.series_labels, legend=False)[0]
    return (
        alt.Chart(data(shown))
        .mark_point(size=60, filled=True, opacity=0.8)
        .encode(
            x=_x(found),
            y=alt.value(6),
            shape=alt.Shape("why:N", legend=alt.Legend(title=None, orient="top"), scale=scale),
            tooltip=_tooltips(found),
            **({"color": color} if found.series_title else {}),
        )
    )


def _title(found: ByGroup) -> Any:
    text = "median; the bar holds the middle 90% of the fits"
    if any(0 < record["counted"] < record["fits"] for record in found.records):
        text += "; open: some fits are left out"
    return alt.Title(
        found.title,
        subtitle=f"{text}; {found.note}" if found.note else text,
    )


def _ordered(found: ByGroup) -> bool:
    """Whether labels are numbers in order, so that a line between them has a meaning."""
    return all(label.lstrip("-").replace(".", "", 1).isdigit() for label in found.x_labels)


def _floored(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Zeros moved to a tenth of the least number above 0: a logarithm has none."""
    names = ("best", "q05", "median", "q95", "worst")
    known = positive(record[name] for record in records for name in names)
    least = min(known, default=1.0) / 10
    return [{**r, **{name: max(r[name], least) for name in names}} for r in records]


def _x(found: ByGroup) -> alt.X:
    if found.x_kind == "number":
        return numbers("x", found.x_title, [record["x"] for record in found.records])
    return alt.X("x:O", title=found.x_title, sort=list(found.x_labels))


def _is_log(metric: Metric, records: Sequence[dict[str, Any]]) -> bool:
    """Of counts, where they span more than a power of ten and none is 0."""
    known = [r[name] for r in records for name in ("q05", "q95")]
    return metric.log or (bool(known) and min(known) > 0 and max(known) > 10 * min(known))


def _y(metric: Metric, records: Sequence[dict[str, Any]]) -> alt.Y:
    if _is_log(metric, records):
        return log_axis("q05", metric.unit, [r[n] for r in records for n in ("q05", "q95")])
    return alt.Y("q05:Q", title=metric.unit, scale=alt.Scale(zero=True))


def _tooltips(found: ByGroup) -> list[alt.Tooltip]:
    kind = "Q" if found.x_kind == "number" else "N"
    tips = [alt.Tooltip(f"x:{kind}", title=found.x_title)]
    if found.series_title:
        tips.append(alt.Tooltip("series:N", title=found.series_title))
    for name, title in (
        ("best", "least"), ("q05", "5%"), ("median", "median"), ("q95", "95%"), ("worst", "largest")
    ):  # fmt: skip
        tips.append(alt.Tooltip(f"{name}:Q", title=title, format=".4~g"))
    return [
        *tips,
        alt.Tooltip("counted:Q", title="fits counted", format=","),
        alt.Tooltip("fits:Q", title="of fits", format=","),
        alt.Tooltip("diverged:Q", title="diverged", format=","),
    ]


def quantile_chart(
    metric: Metric, points: Sequence[dict[str, Any]], note: str, width: int | str | None = None,
    titled: bool = True,
) -> AnyChart:  # fmt: skip
    """Fits in the order of the metric: ``points`` have ``share`` (0 to 1) and ``value``; ``note``
    says which fits."""
    known = positive(point["value"] for point in points)
    least = min(known, default=1.0) / 10
    shown = [{**point, "value": max(point["value"], least)} for point in points]
    y = (
        log_axis("value", metric.unit, [point["value"] for point in shown])
        if metric.log
        else alt.Y("value:Q", title=metric.unit, scale=alt.Scale(zero=False))
    )
    title = alt.Title(f"{metric.title}, from the best to the worst fit", subtitle=note)
    return (
        alt.Chart(data(shown))
        .mark_line(point=alt.OverlayMarkDef(size=18, filled=True))
        .encode(
            x=alt.X(
                "share:Q",
                title="share of these fits",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1], labelFlush=True),
            ),
            y=y,
            tooltip=[
                alt.Tooltip("share:Q", title="share of the fits", format=".0%"),
                alt.Tooltip("value:Q", title=metric.unit, format=".4~g"),
            ],
        )
        .properties(
            **size(width), **({"title": title} if titled else {}), description=title["text"]
        )
    )
