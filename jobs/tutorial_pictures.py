"""Draw the pictures of TUTORIAL.md from the runs of its commands.

    python jobs/tutorial_pictures.py STORE

The pictures are written into the folder `tutorial` beside this file, one for light pages and one
for dark pages. All but one are charts of `polyfit plot`; what differs is the ground, which is
transparent, and the descriptions of marks, which the page says in words.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl

import polyfit

FOLDER = Path(__file__).parent / "tutorial"
CURVES = ("target", "sse", "huber", "l1")
DASHES = ([1, 3], [6, 3], [9, 3, 2, 3], [1, 0])


def first_of_degree_16(run: polyfit.Run) -> int:
    """The same fit, however many seeds the latest run of the name has."""
    return int(run.to_polars(["fit"], where="degree == 16 and seed == 0")["fit"][0])


def robust_fits(run: polyfit.Run) -> Any:
    """The fits of the three objectives over their target."""
    x = np.linspace(-3, 3, 201)
    names = run.to_polars(["objective"])["objective"].cast(str).to_list()
    target = np.sin(x) + 4 * np.exp(-200 * (x - 1.5) ** 2)
    curves = {"target": target, **dict(zip(names, run.predict(range(3), x), strict=True))}
    rows = pl.concat(pl.DataFrame({"curve": name, "x": x, "y": curves[name]}) for name in CURVES)
    chart = alt.Chart(alt.InlineData(values=rows.to_dicts()), width=560, height=260).mark_line()
    return chart.encode(
        x=alt.X("x:Q", scale=alt.Scale(nice=False)),
        y=alt.Y("y:Q", scale=alt.Scale(domain=[-1.5, 5])),
        color=alt.Color("curve:N", scale=alt.Scale(domain=CURVES), title=None),
        strokeDash=alt.StrokeDash(
            "curve:N", scale=alt.Scale(domain=CURVES, range=DASHES), title=None
        ),
    )


PICTURES: dict[str, Callable[[polyfit.Run], Any]] = {
    "sine": lambda run: run.plot.fit(0),
    "bases": lambda run: run.plot.history(),
    "edge": lambda run: run.plot.edge(),
    "outliers": robust_fits,
    "million": lambda run: run.plot.history(),
    "degrees": lambda run: run.plot.fit(first_of_degree_16(run)),
}
"""The picture of each run, which has its name."""


def looks(run: polyfit.Run) -> dict[str, alt.Config]:
    """The configuration of charts by theme."""
    found = {theme: run.charts(theme).fit(0).config for theme in ("light", "dark")}
    for config in found.values():
        config.background, config.aria = "transparent", False
    return found


def main(store: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    configs = looks(polyfit.Run.open("sine", store=store))
    for name, draw in PICTURES.items():
        chart = draw(polyfit.Run.open(name, store=store))
        for theme, config in configs.items():
            chart.config = config
            chart.save(FOLDER / f"{name}-{theme}.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
