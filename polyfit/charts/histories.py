"""The loss over the updates: of all fits of a group, as quantiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

from polyfit.charts.marks import AnyChart, data, lines, log_axis, positive, series, size

__all__ = ["History", "histories_chart", "history_chart", "leaves"]

LEAVES: Final = 100.0
"""A loss so many times those at the start is above the picture."""

LEVELS: Final = ("best", "q05", "q25", "median", "q75", "q95", "worst")


@dataclass(frozen=True, slots=True)
class History:
    """Recorded losses of the fits of one panel.

    ``records`` have ``series``, ``update`` (counted from 0; the loss is the one before it), and
    over the fits ``best``, ``q05``, ``q25``, ``median``, ``q75``, ``q95``, ``worst`` and ``fits``.
    A fit that ended early keeps its last loss; one that diverged is left out from its end on.
    ``series_labels`` is empty where all are one series.
    """

    title: str
    series_title: str
    series_labels: Sequence[str]
    records: Sequence[dict[str, Any]]


def history_chart(
    found: History,
    shared: Sequence[History] = (),
    width: int | str | None = None,
    height: int = 260,
    titled: bool = True,
    legend: bool = True,
) -> AnyChart:
    """Median and the middle 90% of each series; of a single one the middle half, best and worst
    too. Axes are those of all of ``shared``."""
    every = [record for one in (shared or [found]) for record in one.records]
    clip = leaves(shared or [found])
    least = min(positive(record[name] for record in every for name in LEVELS), default=1.0)
    shown = [
        {**record, **{name: max(record[name], least) for name in LEVELS}}
        | {"done": max(record["update"], 0.5)}
        for record in found.records
    ]
    base = alt.Chart(data(shown)).encode(x=_x(every))
    y = log_axis("q05", "loss", _shown(every), clamp=not clip)
    median, tips = alt.Y("median:Q"), _tooltips(found)
    if found.series_labels:
        color, shape = series("series", found.series_title, found.series_labels, legend)
        layers = [
            base.mark_area(opacity=0.16, clip=clip).encode(y=y, y2="q95:Q", color=color),
            *lines(base, median, color, found.series_labels, shown, clip),
            base.mark_point(size=24, filled=True, opacity=1, clip=clip).encode(
                y=median, color=color, shape=shape, tooltip=tips
            ),
        ]
    else:
        layers = [
            base.mark_area(opacity=0.16, clip=clip).encode(y=y, y2="q95:Q"),
            base.mark_area(opacity=0.3, clip=clip).encode(y=alt.Y("q25:Q"), y2="q75:Q"),
            base.mark_line(strokeWidth=1, strokeDash=[5, 3], clip=clip).encode(y=alt.Y("best:Q")),
            base.mark_line(strokeWidth=1, strokeDash=[1, 3], clip=clip).encode(y=alt.Y("worst:Q")),
            base.mark_line(clip=clip).encode(y=median),
            base.mark_point(size=24, filled=True, opacity=1, clip=clip).encode(
                y=median, tooltip=tips
            ),
        ]
    chart: AnyChart = alt.layer(*layers).properties(
        **size(width, height),
        **({"title": alt.Title(found.title, fontSize=12, offset=6)} if titled else {}),
        description=f"Loss over the updates, {found.title}: medians and quantiles",
    )
    return chart


def _shown(records: Sequence[dict[str, Any]]) -> list[float]:
    """The losses that the axis goes around: those of a fit that diverges leave the picture."""
    losses = [record[name] for record in records for name in LEVELS]
    first = min((record["update"] for record in records), default=0)
    start = max(positive(r["worst"] for r in records if r["update"] == first), default=math.inf)
    return [loss for loss in losses if loss <= LEAVES * start] or losses


def leaves(found: Sequence[History]) -> bool:
    """Whether some losses are above the picture of ``found``."""
    records = [record for one in found for record in one.records]
    return max(_shown(records), default=0.0) < max((r["worst"] for r in records), default=0.0)


def _x(records: Sequence[dict[str, Any]]) -> alt.X:
    updates = [max(record["update"], 0.5) for record in records] or [0.5]
    first, last = min(updates), max(*updates, 2)
    return alt.X(
        "done:Q",
        title="updates done (0 at the left edge)" if first < 1 else "updates done",
        scale=alt.Scale(type="log", domain=[first, last]),
        axis=alt.Axis(tickCount=5, format="~s", labelExpr="datum.value < 1 ? '' : datum.label"),
    )


def _tooltips(found: History) -> list[alt.Tooltip]:
    tips = [alt.Tooltip("update:Q", title="before update", format=",")]
    if found.series_labels:
        tips.insert(0, alt.Tooltip("series:N", title=found.series_title))
    titles = ("best", "5%", "25%", "median", "75%", "95%", "worst")
    for name, title in zip(LEVELS, titles, strict=True):
        tips.append(alt.Tooltip(f"{name}:Q", title=title, format=".4~g"))
    return [*tips, alt.Tooltip("fits:Q", title="fits", format=",")]


def histories_chart(found: Sequence[History], note: str = "") -> AnyChart:
    """A panel for each group, three side by side; ``note`` says what is not in the picture."""
    if len(found) == 1 and not note:
        return history_chart(found[0])
    if len(found) == 1:
        title = alt.Title(found[0].title, subtitle=note)
        return history_chart(found[0], titled=False).properties(title=title)
    panels = [history_chart(one, found, width=220, height=170) for one in found]
    titled = {"title": alt.Title("The course of the loss", subtitle=note)} if note else {}
    chart: AnyChart = alt.concat(*panels, columns=3, **titled)
    return chart
