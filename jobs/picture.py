"""Draw the picture of README.md: the loss of jobs/sweep.yaml by degree and range.

    python jobs/picture.py STORE

STORE is where the run is, or is to be; a complete run is only read. The pictures are written
beside this file, one for light pages and one for dark pages. `make picture` calls this.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import altair as alt
import pandas as pd

import polyfit
from polyfit.run.grouping import in_pi

HERE = Path(__file__).parent
FONT_SIZE = 17  # legible where a page of 400 pixels shrinks the picture

# Fixed sizes: a layout that measures its text would depend on the fonts of this machine.
WIDTH, HEIGHT = 380, 330
MARGINS = {"left": 60, "right": 115, "top": 75, "bottom": 55}


TITLE = "Fits of sin(x): loss by degree and range of x"
SUBTITLE = "sum of squared errors, worst of 500 starts"
POWER = "datum.value == 1 ? '1' : replace(format(datum.value, '.0e'), '+', '')"  # of Vega


class Theme(NamedTuple):
    """Colours on a transparent ground. Series differ in lightness too, for colour-blind readers."""

    text: str
    grid: str
    series: list[str]


THEMES = {
    "light": Theme(
        "#1f2328", "#d8dee4", ["#6e7781", "#0550ae", "#b35900", "#00735c", "#a3327a"]
    ),
    "dark": Theme(
        "#e6edf3", "#30363d", ["#c9d1d9", "#58a6ff", "#f0a04b", "#3ddbb0", "#f58fcb"]
    ),
}  # fmt: skip


def main(store: str) -> None:
    run = polyfit.execute(polyfit.Spec.load(HERE / "sweep.yaml"), store=store)
    losses = worst_losses(run)
    for name, theme in THEMES.items():
        chart(losses, theme).save(HERE / f"sweep-{name}.svg")


def worst_losses(run: polyfit.Run) -> pd.DataFrame:
    """The largest loss over all seeds, for every degree and range."""
    rows = run.to_pandas(columns=["degree", "range_low", "range_high", "loss"])
    bounds = zip(rows.pop("range_low"), rows.pop("range_high"), strict=True)
    rows["range"] = [f"[{in_pi(low)}, {in_pi(high)}]" for low, high in bounds]
    return rows.groupby(["degree", "range"])["loss"].max().reset_index()


def chart(losses: pd.DataFrame, theme: Theme) -> alt.LayerChart:
    """One line per range, labelled at its right end; the loss on a logarithmic axis."""
    degree = losses["degree"].max()
    last = losses[losses["degree"] == degree].sort_values("loss", ascending=False)
    colours = alt.Scale(domain=list(last["range"]), range=theme.series)
    base = alt.Chart(losses, width=WIDTH, height=HEIGHT).encode(
        x=alt.X("degree:O", title="degree of the polynomial", axis=alt.Axis(labelAngle=0)),
        y=alt.Y(
            "loss:Q",
            title=None,
            scale=alt.Scale(type="log", domain=[1e-20, 1e4]),
            axis=alt.Axis(values=[10.0**power for power in range(-20, 5, 4)], labelExpr=POWER),
        ),
        color=alt.Color("range:N", legend=None, scale=colours),
    )
    lines = base.mark_line(strokeWidth=2.5, point=alt.OverlayMarkDef(size=60, filled=True))
    labels = base.mark_text(align="left", dx=10, fontSize=FONT_SIZE, fontWeight="bold")
    layers: alt.LayerChart = (
        alt.layer(lines, labels.encode(text="range:N").transform_filter(alt.datum.degree == degree))
        .properties(title=alt.Title(TITLE, subtitle=SUBTITLE))
        .configure(background="transparent", font="sans-serif", padding=MARGINS, autosize="none")
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=FONT_SIZE, titleFontSize=FONT_SIZE, titleFontWeight="normal",
            labelColor=theme.text, titleColor=theme.text, titlePadding=8,
            gridColor=theme.grid, domainColor=theme.grid, tickColor=theme.grid,
        )
        .configure_title(
            frame="group", anchor="start", dx=-50, offset=12,
            fontSize=FONT_SIZE + 2, color=theme.text,
            subtitleFontSize=FONT_SIZE, subtitleColor=theme.text,
        )
    )  # fmt: skip
    return layers


if __name__ == "__main__":
    main(*sys.argv[1:])
