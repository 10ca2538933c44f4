"""The data and the polynomial of one fit, drawn with characters.

Ours, in about 70 lines, because it stays readable in a log and through a pipe (plain ASCII), and
draws a target at any scale: values near the largest double, not finite, or all the same.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Array
from polyfit.run.fit_curves import data_of_row
from polyfit.run.stored_fit import grid_of_row, predict

__all__ = ["HEIGHT", "WIDTH", "curve"]

WIDTH: Final = 60
HEIGHT: Final = 15
SAMPLES_PER_COLUMN: Final = 8
"""The polynomial's points per column: with fewer, a steep one would have gaps."""

LABEL_WIDTH: Final = 11

# A cell is a sum of two bits: 1 for the data, 2 for the polynomial.
_MARKS: Final = np.array([" ", "o", "*", "#"])


def curve(row: dict[str, Any]) -> list[str]:
    """The data and the polynomial as lines of text; one line with the reason if there is none."""
    if row["status"] == "diverged":
        return ["no curve: the fit diverged"]
    finite = np.isfinite(np.array(row["coefficients"], dtype=np.float64))
    if len(finite) != row["degree"] + 1 or not finite.all():
        return ["no curve: the row does not hold all coefficients"]
    low, high = row["range_low"], row["range_high"]
    x = np.linspace(low, high, SAMPLES_PER_COLUMN * WIDTH)
    with np.errstate(all="ignore"):
        data = (grid_of_row(row).x(), data_of_row(row)[0])
        polynomial = (x, predict(row, x))
        bottom, top = _y_limits(np.concatenate([data[1], polynomial[1]]))
        cells = _cells([data, polynomial], (low, high), (bottom, top))
    return [
        *_plot_lines(cells, f"{bottom:.4g}", f"{top:.4g}"),
        *_axis_lines(f"{low:.4g}", f"{high:.4g}"),
        f"{'':{LABEL_WIDTH + 2}}o {'target with noise' if row['noise'] else 'target'}"
        "   * polynomial   # both",
    ]


def _y_limits(values: Array) -> tuple[float, float]:
    """The least and the largest finite value, moved apart if they are too close to draw."""
    finite = values[np.isfinite(values)]
    bottom, top = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if top / 2 > bottom / 2:
        return bottom, top
    pad = abs(top) / 2 or 1.0
    return bottom - pad, top + pad


def _cells(
    curves: list[tuple[Array, Array]],
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> npt.NDArray[np.int64]:
    """The plot's cells, HEIGHT x WIDTH: which of the curves pass through each, as bits."""
    cells = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    for number, (x, y) in enumerate(curves):
        finite = np.isfinite(y)
        columns = _cell_indices(x[finite], *x_limits, WIDTH)
        rows = HEIGHT - 1 - _cell_indices(y[finite], *y_limits, HEIGHT)
        cells[rows, columns] |= 1 << number
    return cells


def _cell_indices(values: Array, low: float, high: float, count: int) -> npt.NDArray[np.int64]:
    """In which of ``count`` equal cells from ``low`` to ``high`` each value lies."""
    # Halves, because high - low may overflow.
    share = (values / 2 - low / 2) / (high / 2 - low / 2)
    return np.clip(share * count, 0, count - 1).astype(np.int64)


def _plot_lines(cells: npt.NDArray[np.int64], bottom: str, top: str) -> list[str]:
    labels = [top, *[""] * (HEIGHT - 2), bottom]
    return [
        f"{label:>{LABEL_WIDTH}} |{''.join(_MARKS[row])}".rstrip()
        for label, row in zip(labels, cells, strict=True)
    ]


def _axis_lines(low: str, high: str) -> list[str]:
    return [
        f"{'':{LABEL_WIDTH}} +{'-' * WIDTH}",
        f"{'':{LABEL_WIDTH + 2}}{low}{high:>{WIDTH - len(low)}}",
    ]
