"""Draw the pictures of the pages from the latest runs of these names.

    python jobs/pictures.py STORE NAME...

They are written into the folder `pictures` beside this file, one for light pages and one for dark
pages. All but one are charts of the report and of `polyfit plot`; what differs is the ground, which
is transparent, and the descriptions of marks, which the page says in words. `make picture` draws
that of README.md, `sweep`; the others are TUTORIAL.md's.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl

import polyfit
from polyfit.charts.theme import THEMES, themed

FOLDER = Path(__file__).parent / "pictures"
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
    # Not wide: it has to be read on a page of 400 pixels too.
    "sweep": lambda run: run.plot.loss().properties(width=360),
    "sine": lambda run: run.plot.fit(0),
    "bases": lambda run: run.plot.history(),
    "edge": lambda run: run.plot.edge(),
    "outliers": robust_fits,
    "million": lambda run: run.plot.history(),
    "degrees": lambda run: run.plot.fit(first_of_degree_16(run)),
}
"""The picture of each run, which has its name."""


def main(store: str, *names: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        chart = PICTURES[name](polyfit.Run.open(name, store=store))
        for theme, look in THEMES.items():
            picture = themed(chart, replace(look, background="transparent"))
            picture.config.aria = False
            picture.save(FOLDER / f"{name}-{theme}.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
