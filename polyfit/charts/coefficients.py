"""Coefficients: over the seeds, and their way over the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

from polyfit.charts.marks import AnyChart, data, log_axis, positive, size

__all__ = ["Paths", "coefficient_views", "coefficients_chart", "paths_chart"]


def coefficients_chart(records: Sequence[dict[str, Any]], subtitle: str) -> AnyChart:
    """Each coefficient over fits that differ in their seeds alone: its value, and how far the
    fits differ.

    Args:
        records: ``number`` (from 0), ``least``, ``q05``, ``median``, ``q95``, ``largest``.
        subtitle: which fits.
    """
    title = alt.Title("Coefficients over the seeds", subtitle=subtitle)
    chart: AnyChart = alt.vconcat(*coefficient_views(records), title=title)
    return chart


def coefficient_views(
    records: Sequence[dict[str, Any]], width: int | str | None = None
) -> tuple[AnyChart, AnyChart]:
    """The values, and below them how far they differ; see ``coefficients_chart``."""
    base = alt.Chart(data(records)).encode(x=alt.X("number:O", title="coefficient"))
    tips = [
        alt.Tooltip("number:O", title="coefficient"),
        *(alt.Tooltip(f"{name}:Q", title=title, format=".6~g") for name, title in (
            ("least", "least"), ("q05", "5%"), ("median", "median"), ("q95", "95%"),
            ("largest", "largest"))),
    ]  # fmt: skip
    whole = base.mark_rule(strokeWidth=1).encode(
        y=alt.Y("least:Q", title="value"), y2="largest:Q", tooltip=tips
    )
    most = base.mark_rule(strokeWidth=6, opacity=0.35, strokeCap="round").encode(
        y=alt.Y("q05:Q"), y2="q95:Q", tooltip=tips
    )
    middle = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=alt.Y("median:Q"), tooltip=tips
    )
    values: AnyChart = alt.layer(whole, most, middle).properties(
        **size(width, 180), description="Coefficients: median, middle 90% and extremes"
    )
    apart = [{**one, "apart": one["largest"] - one["least"]} for one in records]
    least = min(positive(one["apart"] for one in apart), default=1e-16)
    apart = [{**one, "apart": max(one["apart"], least)} for one in apart]
    y = log_axis("apart", "largest - least", [one["apart"] for one in apart], 3)
    spread = (
        alt.Chart(data(apart))
        .mark_point(size=50, shape="diamond", filled=True, opacity=1)
        .encode(x=alt.X("number:O", title="coefficient"), y=y, tooltip=[
            tips[0], alt.Tooltip("apart:Q", title="largest - least", format=".4~g")])
        .properties(**size(width, 110), description="How far each coefficient differs")
    )  # fmt: skip
    return values, spread


GREYS: Final = alt.SchemeParams(name="greys", count=9, extent=[0.05, 0.6])
WAY: Final = "#0b3c6f"
"""Dark on dark pages, too: the bands below are light on both."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The ways of fits in the plane of two coefficients, and the loss on that plane.

    ``cells`` have ``a``, ``a2``, ``b``, ``b2`` (a cell's edges) and ``level`` (log10 of the loss);
    ``steps`` have ``fit``, ``update``, ``a``, ``b`` and ``loss``. ``first`` and ``second`` are the
    numbers of the coefficients.
    """

    first: int
    second: int
    cells: Sequence[dict[str, Any]]
    steps: Sequence[dict[str, Any]]
    note: str


def paths_chart(found: Paths, width: int | str | None = None, titled: bool = True) -> AnyChart:
    """The ways as lines from an open circle (the start) over bands of equal loss."""
    first, second = f"coefficient {found.first}", f"coefficient {found.second}"
    x = alt.X("a:Q", title=first, scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("b:Q", title=second, scale=alt.Scale(zero=False, nice=False))
    ground = (
        alt.Chart(data(found.cells))
        .mark_rect(strokeWidth=0, opacity=1)
        .encode(
            x=x, x2="a2:Q", y=y, y2="b2:Q",
            color=alt.Color(
                "level:Q", title="log10 of the loss",
                scale=alt.Scale(type="quantize", scheme=GREYS),
                legend=alt.Legend(orient="right", gradientLength=140),
            ),
        )
    )  # fmt: skip
    lines = alt.Chart(data(found.steps)).encode(x=x, y=y, detail="fit:N")
    ways = lines.mark_line(strokeWidth=1.6, color=WAY).encode(order="update:Q")
    dots = lines.mark_point(size=14, filled=True, opacity=1, color=WAY).encode(
        tooltip=[
            alt.Tooltip("fit:Q", format=","),
            alt.Tooltip("update:Q", title="before update", format=","),
            alt.Tooltip("a:Q", title=first, format=".5~g"),
            alt.Tooltip("b:Q", title=second, format=".5~g"),
            alt.Tooltip("loss:Q", format=".4~g"),
        ]
    )
    starts = lines.transform_filter(alt.datum.start).mark_point(size=70, strokeWidth=2, color=WAY)
    title = alt.Title("The way of the coefficients", subtitle=found.note)
    chart: AnyChart = alt.layer(ground, ways, dots, starts).properties(
        **size(width, 320),
        **({"title": title} if titled else {}),
        description=f"Ways of {first} and {second} over bands of equal loss",
    )
    return chart
