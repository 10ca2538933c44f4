"""One fit as curves: what was fitted, the target, the polynomial, the residual."""

from typing import Any, Final

import numpy as np

from polyfit.charts.fits import FitCurve
from polyfit.numerics.arrays import Array
from polyfit.numerics.observations import noisy, target_values
from polyfit.run.stored_fit import grid_of_row, predict

__all__ = ["data_of_row", "fit_curve"]

SHOWN_POINTS: Final = 400


def data_of_row(row: dict[str, Any]) -> tuple[Array, Array]:
    """What was fitted, with its noise, and the target without it; each of shape (points,)."""
    with np.errstate(all="ignore"):
        target = target_values(row["target"], grid_of_row(row))
        seeds = np.array([row["noise_seed"]], dtype=np.uint64)
        data = noisy(target[None], np.zeros(1, dtype=np.int64), np.array([row["noise"]]), seeds)
    return data.reshape(-1), target


def fit_curve(row: dict[str, Any], name: str, swept: str = "") -> FitCurve:
    """The curves of a fit that is called ``name``, at ``SHOWN_POINTS`` of its points at most.

    Args:
        row: the fit's.
        name: of the chart.
        swept: the values of swept fields, for the line below the name.
    """
    data, target = data_of_row(row)
    places = np.unique(np.linspace(0, len(data) - 1, SHOWN_POINTS).astype(np.int64))
    x = grid_of_row(row).x()[places]
    fitted = _polynomial(row, x)
    points = [
        {"x": float(a), "data": _finite(b), "target": _finite(c), "polynomial": _finite(d),
         "residual": _finite(b - d)}
        for a, b, c, d in zip(x, data[places], target[places], fitted, strict=True)
    ]  # fmt: skip
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.4g}"
    error = "not finite" if row["max_error"] is None else f"{row['max_error']:.4g}"
    what = swept or f"degree {row['degree']}, {row['basis']}"
    facts = f"{row['target']}, {what}; loss {loss}, largest error {error}"
    if row["status"] == "diverged":
        facts += "; it diverged"
    return FitCurve(name, facts, bool(row["noise"]), points)


def _polynomial(row: dict[str, Any], x: Array) -> Array:
    coefficients = np.array(row["coefficients"], dtype=np.float64)
    if len(coefficients) != row["degree"] + 1 or not np.isfinite(coefficients).all():
        return np.full(len(x), np.nan)
    with np.errstate(all="ignore"):
        return predict(row, x)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
