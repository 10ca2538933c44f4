"""The stability edge: the rate as a share of its limit, against the final loss."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from polyfit.charts.marks import AnyChart, data, log_axis, positive, size

__all__ = ["edge_chart"]

STATUSES = ("completed", "converged", "stalled", "diverged")


def edge_chart(
    fits: Sequence[dict[str, Any]], width: int | str | None = None, titled: bool = True
) -> AnyChart:
    """A point for each fit, with the predicted edge at 1; fits that diverged at the upper edge.

    Args:
        fits: ``fit``, ``share`` (above 0), ``loss`` (None where not finite), ``status``.
        width: of the view.
        titled: whether the chart names itself.
    """
    known = positive(fit["loss"] for fit in fits if fit["status"] != "diverged")
    least, most = min(known, default=1.0), max(known, default=1.0)
    lost = any(fit["status"] == "diverged" for fit in fits)
    top = 10.0 ** (math.floor(math.log10(most)) + 2) if lost else most  # a decade apart at least
    shown = [
        {**f, "y": top if f["status"] == "diverged" else max(f["loss"] or least, least)}
        for f in fits
    ]
    statuses = [name for name in STATUSES if any(f["status"] == name for f in fits)]
    shapes = {"completed": "circle", "converged": "square", "stalled": "diamond",
              "diverged": "cross"}  # fmt: skip
    lowest = min((fit["share"] for fit in fits), default=0.5)
    highest = max((fit["share"] for fit in fits), default=1.5)
    low, high = min(lowest, 0.5) * 0.9, max(highest, 1.5) * 1.1
    x = alt.X(
        "share:Q",
        title="learning rate, as a share of the stability limit",
        scale=alt.Scale(type="log", domain=[low, high]),
        axis=alt.Axis(format="~g", tickCount=6),
    )
    points = (
        alt.Chart(data(shown))
        .mark_point(size=34, opacity=0.7)
        .encode(
            x=x,
            y=log_axis("y", "final loss", [least, *(fit["y"] for fit in shown)]),
            color=alt.Color("status:N", title=None, scale=alt.Scale(domain=statuses)),
            shape=alt.Shape("status:N", title=None, scale=alt.Scale(
                domain=statuses, range=[shapes[name] for name in statuses])),
            tooltip=[
                alt.Tooltip("fit:Q", format=","),
                alt.Tooltip("share:Q", title="share of the limit", format=".4~g"),
                alt.Tooltip("loss:Q", title="final loss", format=".4~g"),
                "status:N",
            ],
        )
    )  # fmt: skip
    edge = alt.Chart(data([{"share": 1, "label": "predicted edge"}])).encode(x=x)
    rule = edge.mark_rule(strokeDash=[5, 4], strokeWidth=1.5)
    near_left = math.log(1 / low) < 0.3 * math.log(high / low)
    aligned = edge.mark_text(
        align="left" if near_left else "right", dx=6 if near_left else -6, baseline="top"
    )
    label = aligned.encode(y=alt.value(2), text="label:N")
    title = alt.Title(
        "The stability edge",
        subtitle="left of the line fits are predicted to be stable; fits that diverged are at the "
        "top, whatever their loss",
    )
    chart: AnyChart = alt.layer(rule, points, label).properties(
        **size(width),
        **({"title": title} if titled else {}),
        description="Final loss by the share of the stability limit; the predicted edge is at 1",
    )
    return chart
