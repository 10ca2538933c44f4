"""Fits that differ from one fit in their seeds alone: their coefficients, and their ways."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from polyfit.charts.coefficients import Paths
from polyfit.numerics.arrays import Array
from polyfit.numerics.basis import functions_on
from polyfit.run.fit_curves import data_of_row
from polyfit.run.stored_fit import grid_of_row

__all__ = ["SAME_COLUMNS", "coefficient_paths", "coefficient_spread"]

SAME_COLUMNS: Final = (
    "degree", "points", "basis", "range_low", "range_high", "objective", "dtype", "target", "noise",
    "steps", "stop", "optimizer", "lr",
)  # fmt: skip
"""The columns in which siblings agree."""

SHOWN_PATHS: Final = 8
SHOWN_STEPS: Final = 60
CELLS: Final = 44
"""Cells of the loss along each of the two coefficients."""


def coefficient_spread(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Extremes and quantiles of each coefficient over ``rows``; empty if there is but one row."""
    kept = [row["coefficients"] for row in rows if row["status"] != "diverged"]
    table = np.array(kept, dtype=np.float64)
    if len(table) < 2 or not np.isfinite(table).all():
        return []
    names = ("least", "q05", "median", "q95", "largest")
    quantiles = np.quantile(table, [0.0, 0.05, 0.5, 0.95, 1.0], axis=0)
    return [
        {"number": number, **dict(zip(names, map(float, column), strict=True))}
        for number, column in enumerate(quantiles.T)
    ]


def coefficient_paths(
    rows: Sequence[dict[str, Any]], updates: Sequence[int]
) -> Paths | None:  # fmt: skip
    """The ways of at most ``SHOWN_PATHS`` of ``rows``, the first of which ended best, in the plane
    of the two coefficients that moved most; None where they are not recorded.

    The other coefficients are, for the loss on the plane, those at the end of the first row.
    """
    kept = [row for row in rows if row["status"] != "diverged" and row.get("coefficients_history")]
    if not kept or kept[0]["degree"] < 1:
        return None
    ways = [_way(row) for row in kept[:SHOWN_PATHS]]
    span = np.ptp(np.concatenate(ways), axis=0)
    first, second = sorted(int(place) for place in np.argsort(-span, kind="stable")[:2])
    steps = [
        step
        for row, way in zip(kept, ways, strict=False)
        for step in _steps(row, way[:, [first, second]], updates)
    ]
    every = np.concatenate(ways)[:, [first, second]]
    others = len(kept[0]["coefficients"]) - 2
    count = "1 fit" if len(ways) == 1 else f"{len(ways)} fits"
    note = f"{count}; the loss where the other {others} coefficients are at their ends"
    return Paths(
        first, second, _cells(kept[0], (first, second), every), steps,
        note if others else f"{count} over the loss",
    )  # fmt: skip


def _way(row: dict[str, Any]) -> Array:
    """The recorded coefficients, shape (records, M), and the last ones."""
    recorded = [one for one in row["coefficients_history"] if None not in one]
    return np.array([*recorded, row["coefficients"]], dtype=np.float64)


def _steps(row: dict[str, Any], way: Array, updates: Sequence[int]) -> list[dict[str, Any]]:
    numbers = [*updates[: len(way) - 1], row["steps_taken"]]
    losses = [*(row.get("loss_history") or [])[: len(way) - 1]]
    losses = losses + [None] * (len(way) - 1 - len(losses)) + [row["loss"]]
    places = np.unique(np.geomspace(1, len(way), min(SHOWN_STEPS, len(way))).astype(int)) - 1
    return [
        {"fit": row["fit"], "update": numbers[place], "a": float(way[place, 0]),
         "b": float(way[place, 1]), "loss": losses[place], "start": bool(place == 0)}
        for place in places
    ]  # fmt: skip


def _cells(row: dict[str, Any], pair: tuple[int, int], ways: Array) -> list[dict[str, Any]]:
    """log10 of the loss in the middles of CELLS x CELLS cells around ``ways``, shape (n, 2)."""
    edges = [_edges(ways[:, place]) for place in (0, 1)]
    with np.errstate(all="ignore"):
        basis = functions_on(grid_of_row(row))
        data, _ = data_of_row(row)
        at_end = np.array(row["coefficients"], dtype=np.float64)
        at_end[list(pair)] = 0.0
        rest = at_end @ basis - data
        middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
        level = np.array([
            [_loss(row["objective"], rest + a * basis[pair[0]] + b * basis[pair[1]])
             for b in middles[1]] for a in middles[0]
        ])  # fmt: skip
        level = np.log10(np.maximum(level, np.finfo(np.float64).tiny))
    overlap = [0.03 * float(edge[1] - edge[0]) for edge in edges]  # no seams between cells
    return [
        {"a": float(edges[0][i]), "a2": float(edges[0][i + 1]) + overlap[0],
         "b": float(edges[1][j]), "b2": float(edges[1][j + 1]) + overlap[1],
         "level": float(level[i, j])}
        for i in range(CELLS) for j in range(CELLS)
    ]  # fmt: skip


def _edges(values: Array) -> Array:
    low, high = float(values.min()), float(values.max())
    margin = 0.12 * (high - low) or abs(low) * 0.1 or 1.0
    return np.linspace(low - margin, high + margin, CELLS + 1)


def _loss(objective: str, residual: Array) -> float:
    size = np.abs(residual)
    match objective:
        case "l1":
            terms = size
        case "huber":
            terms = np.where(size <= 1.0, residual * residual / 2, size - 0.5)
        case "log_cosh":
            terms = size + np.log1p(np.exp(-2 * size)) - np.log(2.0)
        case _:
            terms = residual * residual
    return float(terms.mean() if objective == "mse" else terms.sum())
