"""Parts that charts share: axes of numbers, series, and inline data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import altair as alt

from polyfit.charts.theme import DASHES, SHAPES

__all__ = [
    "NUMBERS",
    "AnyChart",
    "data",
    "lines",
    "log_axis",
    "numbers",
    "positive",
    "series",
    "size",
]

WIDTH: Final = 560
HEIGHT: Final = 260

Shown = Sequence[Mapping[str, Any]]

AnyChart: TypeAlias = Any
"""A chart of altair, which has a class for each layout, and calls that return one of several."""

# Expressions of Vega, for labels:
_SCIENTIFIC: Final = "replace(format(datum.value, '.2~e'), '+', '')"
POWERS: Final = (
    "datum.value >= 1e-3 && datum.value <= 1e4 ? format(datum.value, '~r')"
    " : replace(format(datum.value, '.0e'), '+', '')"
)
"""1e-6, but 0.01, 1, 100."""

NUMBERS: Final = (
    "datum.value == 0 ? '0' : abs(datum.value) >= 1e5 || abs(datum.value) < 1e-3 ? "
    f"{_SCIENTIFIC} : datum.label"
)
"""Plain numbers where they are short: 0, 0.25, but 1.5e-7 and -1e33."""


def data(records: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Records within the chart, numbers to six digits: a picture shows no more."""
    return alt.InlineData(
        values=[{name: _short(value) for name, value in record.items()} for record in records]
    )


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def size(width: int | str | None, height: int = HEIGHT) -> dict[str, Any]:
    """The properties of a view's size; ``width`` may be "container"."""
    return {"width": WIDTH if width is None else width, "height": height}


def positive(values: Iterable[float | None], least: float = 1e-300) -> list[float]:
    """Those of ``values`` that a logarithmic axis can show."""
    return [value for value in values if value is not None and math.isfinite(value)
            and value > least]  # fmt: skip


def log_axis(
    name: str, title: str, values: Iterable[float | None], ticks: int = 6, clamp: bool = True
) -> alt.Y:
    """A logarithmic y axis around ``values``, from power to power of ten, with ``ticks`` or so.

    With ``clamp``, numbers beyond its ends are drawn there.
    """
    shown = positive(values) or [1.0]
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    low, high = max(low, -300), min(max(high, low + 1), 307)
    step = max(1, -(-(high - low) // ticks))
    places = [10.0**power for power in range(high, low - 1, -step)]
    return alt.Y(
        f"{name}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[10.0**low, 10.0**high], clamp=clamp),
        axis=alt.Axis(values=places, labelExpr=POWERS),
    )


def numbers(name: str, title: str, values: Iterable[float | None]) -> alt.X:
    """A quantitative x axis, logarithmic where the values span more than two powers of ten."""
    found = [value for value in values if value is not None]
    ends = [min(found, default=0.0), max(found, default=1.0)]
    wide = bool(found) and min(found) > 0 and max(found) / min(found) > 100
    scale = (
        alt.Scale(type="log", domain=ends, nice=False, padding=8)
        if wide
        else alt.Scale(domain=ends, nice=False, zero=False, padding=8)
    )
    axis = alt.Axis(labelExpr=POWERS, values=_powers(*ends)) if wide else alt.Axis(tickCount=6)
    return alt.X(f"{name}:Q", title=title, scale=scale, axis=axis)


def _powers(low: float, high: float) -> list[float]:
    """The powers of ten from ``low`` to ``high``, about six of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, -(-(last - first) // 6))
    return [10.0**power for power in range(first, last + 1, step)]


def series(
    name: str, title: str, labels: Sequence[str], legend: bool = True
) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of one field, with one legend for both, or none."""
    domain = list(labels)
    shown = alt.Legend(title=title or None, columns=_columns(domain)) if legend else None
    shapes = alt.Scale(domain=domain, range=list(SHAPES[: len(domain)]))
    color = alt.Color(f"{name}:N", legend=shown, scale=alt.Scale(domain=domain))
    return color, alt.Shape(f"{name}:N", legend=shown, scale=shapes)


def _columns(labels: Sequence[str]) -> int:
    """Of a legend: as many as a narrow page has room for, in rows of equal length."""
    widest = max(map(len, labels), default=1) + 5  # in letters, with the symbol and the gaps
    rows = max(1, -(-len(labels) * widest // 48))
    return -(-len(labels) // rows)


def lines(
    base: alt.Chart,
    y: alt.Y,
    color: alt.Color,
    labels: Sequence[str],
    records: Shown,
    clip: bool = False,
) -> list[alt.Chart]:
    """A line for each series that ``records`` have, with dashes of its own.

    A layer for each, because an encoding of dashes would dash the legend's symbols too.
    """
    there = {record["series"] for record in records}
    return [
        base.transform_filter(alt.datum.series == label)
        .mark_line(strokeDash=list(dash), clip=clip)
        .encode(y=y, color=color)
        for label, dash in zip(labels, DASHES, strict=False)
        if label in there
    ]
