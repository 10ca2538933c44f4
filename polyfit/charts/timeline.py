"""When the run did what: its attempts, their stages, and the shards of each actor."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from polyfit.charts.marks import AnyChart, data, size

__all__ = ["timeline_chart"]


def timeline_chart(
    spans: Sequence[dict[str, Any]], width: int | str | None = None, titled: bool = True
) -> AnyChart:
    """A bar for each span.

    Args:
        spans: ``lane`` (a stage or an actor), ``what``, ``start`` and ``end`` in seconds
            since the attempt began, ``kind`` ("stage" or "shards").
        width: of the view.
        titled: whether the chart names itself.
    """
    lanes = list(dict.fromkeys(span["lane"] for span in spans))
    kinds = [kind for kind in ("stage", "shards") if any(s["kind"] == kind for s in spans)]
    title = alt.Title("Time line", subtitle="of the latest attempt that computed shards")
    return (
        alt.Chart(data(spans))
        .mark_bar(cornerRadius=1, stroke="transparent", strokeWidth=1)
        .encode(
            x=alt.X("start:Q", title="seconds since the attempt began", axis=alt.Axis(tickCount=8)),
            x2="end:Q",
            y=alt.Y("lane:N", title=None, sort=lanes, axis=alt.Axis(labelLimit=170, grid=True)),
            color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds)),
            tooltip=[
                alt.Tooltip("lane:N", title="who"),
                alt.Tooltip("what:N", title="what"),
                alt.Tooltip("start:Q", title="from, s", format=".2f"),
                alt.Tooltip("end:Q", title="to, s", format=".2f"),
            ],
        )
        .properties(
            **size(width, max(60, 22 * len(lanes))),
            **({"title": title} if titled else {}),
            description="Stages of the run and shards of each actor over time",
        )
    )
