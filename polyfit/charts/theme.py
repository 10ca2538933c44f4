"""Colours and type of all charts, for light and dark pages and for a page that sets its own.

Series differ in lightness, dashes and shapes too, so that a print in grey can be read.
"""

from dataclasses import dataclass
from typing import Any, Final

import altair as alt

__all__ = ["DARK", "DASHES", "LIGHT", "PAGE", "SHAPES", "THEMES", "Theme", "themed"]

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
FONT_SIZE: Final = 12

DASHES: Final = ([1, 0], [6, 3], [2, 2], [9, 3, 2, 3], [12, 4], [4, 1], [1, 3], [6, 2, 2, 2])
SHAPES: Final = (
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right",
    "triangle-left",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Theme:
    """``ink`` for text, ``muted`` for labels, ``grid`` for lines behind the data; ``series`` are
    eight colours, ``warning`` is the colour of what went wrong, ``background`` of the ground."""

    background: str
    ink: str
    muted: str
    grid: str
    warning: str
    series: tuple[str, ...]


LIGHT: Final = Theme(
    "#ffffff", "#1c2024", "#5b6470", "#e4e7eb", "#b42318",
    ("#0b5394", "#b45309", "#5f8f1f", "#7a2e8e", "#1b998b", "#8a6d3b", "#3b3f46", "#d1577f"),
)  # fmt: skip
DARK: Final = Theme(
    "#14171a", "#eceff2", "#a3adb8", "#2c3238", "#ff8b7e",
    ("#6db3f2", "#f2a65a", "#a6d36b", "#d29be0", "#5fd6c8", "#d8bf8a", "#c3c9d0", "#f59ab8"),
)  # fmt: skip
PAGE: Final = Theme(
    "transparent", "var(--ink)", "var(--muted)", "var(--grid)", "var(--warning)",
    tuple(f"var(--series-{number})" for number in range(1, 9)),
)  # fmt: skip
"""Of a chart drawn as SVG within a page, whose style sheet decides."""

THEMES: Final = {"light": LIGHT, "dark": DARK}


def themed(chart: Any, theme: Theme = LIGHT) -> Any:
    """The chart in the colours of ``theme``."""
    return chart.configure(
        background=theme.background,
        font=FONT,
        padding=4,
        range=alt.RangeConfig(category=list(theme.series)),
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=theme.muted, titleColor=theme.ink, titleFontWeight="normal",
            labelFontSize=FONT_SIZE, titleFontSize=FONT_SIZE, titlePadding=8, labelPadding=6,
            gridColor=theme.grid, domainColor=theme.muted, tickColor=theme.muted, tickSize=4,
            labelAngle=0, labelOverlap="greedy",
        ),
        axisX=alt.AxisConfig(grid=False),
        axisY=alt.AxisConfig(domain=False, ticks=False, minExtent=46),
        legend=alt.LegendConfig(
            orient="bottom", labelColor=theme.ink, titleColor=theme.muted, labelLimit=260,
            titleFontWeight="normal", labelFontSize=FONT_SIZE, titleFontSize=FONT_SIZE,
            symbolStrokeWidth=2, symbolOpacity=1, columns=4, symbolBaseFillColor=theme.muted,
            symbolBaseStrokeColor=theme.muted,
        ),
        title=alt.TitleConfig(
            anchor="start", color=theme.ink, subtitleColor=theme.muted, fontSize=14,
            subtitleFontSize=FONT_SIZE, fontWeight=600, offset=10, frame="group",
        ),
        header=alt.HeaderConfig(labelColor=theme.ink, titleColor=theme.ink),
        text=alt.MarkConfig(color=theme.ink, fontSize=FONT_SIZE),
        rule=alt.MarkConfig(color=theme.muted),
        bar=alt.BarConfig(color=theme.series[0]),
        line=alt.LineConfig(color=theme.series[0], strokeWidth=2),
        point=alt.MarkConfig(color=theme.series[0]),
        tick=alt.TickConfig(color=theme.series[0]),
        area=alt.AreaConfig(color=theme.series[0]),
    )  # fmt: skip
