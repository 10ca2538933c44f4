"""One fit over its target, and its residual on a scale of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from polyfit.charts.marks import NUMBERS, AnyChart, data, size

__all__ = ["FitCurve", "fit_chart", "fit_view", "residual_view"]


@dataclass(frozen=True, slots=True)
class FitCurve:
    """A fit to be drawn.

    ``points`` have ``x``, ``data`` (what was fitted), ``target`` (without noise), ``polynomial``
    and ``residual``, the data less the polynomial. None where a number is not finite.
    """

    title: str
    subtitle: str
    noisy: bool
    points: Sequence[dict[str, Any]]


def fit_view(found: FitCurve, width: int | str | None = None, titled: bool = True) -> AnyChart:
    """The data and the polynomial."""
    kinds = _kinds(found)
    records = [
        {"x": point["x"], "y": point[kind], "kind": kind}
        for kind in kinds[:-1]
        for point in found.points
    ]
    dashes = {"data": [1, 0], "target": [1, 0], "polynomial": [6, 3], "residual": [1, 0]}
    legend = alt.Legend(title=None, symbolType="stroke", symbolSize=200, orient="top")
    base = alt.Chart(data(records)).encode(
        x=_x(),
        y=alt.Y("y:Q", title="y", scale=alt.Scale(zero=False), axis=alt.Axis(labelExpr=NUMBERS)),
        color=alt.Color("kind:N", legend=legend, scale=alt.Scale(domain=kinds)),
        tooltip=[
            alt.Tooltip("kind:N", title="curve"),
            alt.Tooltip("x:Q", format=".4~g"),
            alt.Tooltip("y:Q", format=".6~g"),
        ],
    )
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash(
            "kind:N", legend=legend, scale=alt.Scale(domain=kinds, range=[dashes[k] for k in kinds])
        )
    )
    layers: Any = lines
    if found.noisy:
        dots = base.transform_filter(alt.datum.kind == "data").mark_point(size=8, opacity=0.45)
        layers = alt.layer(dots, lines.transform_filter(alt.datum.kind != "data"))
    title = {"title": alt.Title(found.title, subtitle=found.subtitle)} if titled else {}
    chart: AnyChart = layers.properties(
        **size(width, 220), **title, description=f"{found.title}: polynomial and target over x"
    )
    return chart


def residual_view(found: FitCurve, width: int | str | None = None) -> AnyChart:
    """The data less the polynomial."""
    records = [
        {"x": point["x"], "residual": point["residual"], "kind": "residual"}
        for point in found.points
    ]
    base = alt.Chart(data(records)).encode(
        x=_x(),
        y=alt.Y("residual:Q", title="residual", axis=alt.Axis(tickCount=4, labelExpr=NUMBERS)),
        color=alt.Color("kind:N", legend=None, scale=alt.Scale(domain=_kinds(found))),
        tooltip=[
            alt.Tooltip("x:Q", format=".4~g"),
            alt.Tooltip("residual:Q", format=".4~g"),
        ],
    )
    mark = base.mark_point(size=8) if found.noisy else base.mark_line(strokeWidth=1.5)
    zero = alt.Chart(data([{"zero": 0}])).mark_rule().encode(y=alt.Y("zero:Q"))
    chart: AnyChart = alt.layer(zero, mark).properties(
        **size(width, 110), description=f"{found.title}: residual over x"
    )
    return chart


def _kinds(found: FitCurve) -> list[str]:
    """What is drawn, in the order of the colours; the residual has a view of its own."""
    return [*(["data"] if found.noisy else []), "target", "polynomial", "residual"]


def _x() -> alt.X:
    axis = alt.Axis(tickCount=8, labelExpr=NUMBERS)
    return alt.X("x:Q", title="x", scale=alt.Scale(nice=False, zero=False), axis=axis)


def fit_chart(found: FitCurve, width: int | str | None = None) -> AnyChart:
    """Both, one above the other."""
    chart: AnyChart = alt.vconcat(
        fit_view(found, width), residual_view(found, width)
    ).resolve_scale(color="independent", strokeDash="independent")
    return chart
