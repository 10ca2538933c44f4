"""What a row says of final coefficients: by torch and numpy, or by one kernel.

Shapes: B fits, M = degree + 1 coefficients, N points, P problems.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine import cpu
from polyfit.engine.eager import objective_of
from polyfit.engine.evaluation import Evaluation
from polyfit.engine.model import Array, BatchConfig, Problems, gradient, norm
from polyfit.engine.outcome import Index
from polyfit.engine.points import LANES
from polyfit.engine.screening import FROM_POINTS, blocks_of
from polyfit.engine.setup import Setup
from polyfit.numerics.basis import basis_functions, in_powers
from polyfit.numerics.grid import Grid
from polyfit.numerics.reduction import sum_of

__all__ = ["Evaluated", "evaluate_compiled", "evaluate_eager"]

POWER_TOLERANCE: Final = 1e-6
"""Of max |y|: a larger change of a prediction makes the power coefficients null."""

_NUMBERS: Final = 1 << 16
"""Residuals that eager writes out at a time: few enough to stay in the cache."""

_CPU: Final = torch.device("cpu")

_TOGETHER: Final = 4
"""Fits of one problem that are evaluated at a time, each at the same points."""

_LOW: Final = 8
"""Coefficients of so many fits that registers, or the nearest cache, hold."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Fits at their final coefficients, in float64; arrays of shape (B,), ``powers`` (B, M).

    ``excess`` over the optimum is NaN where the objective has no closed-form optimum.
    """

    loss: Array
    excess: Array
    gradient_norm: Array
    rmse: Array
    max_error: Array
    powers: npt.NDArray[np.floating]
    powers_known: npt.NDArray[np.bool_]


def evaluate_eager(
    kind: BatchConfig, setup: Setup, problems: Problems, final_BM: Array, stored: npt.DTypeLike
) -> Evaluated:
    """The evaluation of ``final_BM`` (float64), power coefficients in the dtype ``stored``.

    The excess of a squared objective is the reduced sum of squares itself, which keeps its
    precision where the loss and the optimum agree to the last bit.
    """
    exact, count = replace(kind, dtype=torch.float64), len(final_BM)
    loss, excess, slope = (np.full(count, np.nan) for _ in range(3))
    max_error, squares, change = (np.empty(count) for _ in range(3))
    powers, converted = _powers(setup, problems.of_B, final_BM, stored)
    most = count if kind.squared else max(1, _NUMBERS // kind.points)
    for some in _slices(count, most):
        c = [torch.tensor(column) for column in final_BM[some].T]
        fits = np.arange(count)[some]
        with torch.enable_grad():
            losses, g = gradient(objective_of(exact, problems, fits, _CPU), c)
        loss[some], slope[some] = losses.numpy(), norm(g).numpy()
        if kind.squared:
            whole = replace(problems, rest_P=np.zeros_like(problems.rest_P))
            excess[some] = objective_of(exact, whole, fits, _CPU)(c).numpy()
    with np.errstate(all="ignore"):
        for some in _slices(count, max(1, _NUMBERS // kind.points)):
            of = problems.of_B[some]
            grid = _grid(setup, of)
            predicted, in_x = _predicted(grid, final_BM[some], converted[some])
            clean = setup.clean_CN[setup.clean_of_P[of]]
            max_error[some] = np.abs(predicted - clean).max(axis=1)
            change[some] = np.abs(in_x - predicted).max(axis=1)
            if not kind.squared:
                off = predicted - setup.y_DN[setup.data_of_P[of]]
                squares[some] = sum_of(off * off)
    return _evaluated(
        kind, setup, problems, loss, excess, slope, max_error, squares, change, powers
    )


def evaluate_compiled(
    kind: BatchConfig, setup: Setup, problems: Problems, final_BM: Array, stored: npt.DTypeLike
) -> Evaluated:
    """The same by one kernel.

    Raises:
        ClusterError: no machine code can be made or run here.
    """
    count, of, size = len(final_BM), problems.of_B, kind.size
    powers, converted = _powers(setup, of, final_BM, stored)
    upper = np.triu_indices(size)
    one_R = len(setup.design.R_MM) == 1
    R = problems.R_PMM[: 1 if one_R else None, upper[0], upper[1]]
    spread = np.zeros(len(setup.low_P))
    results = {name: np.empty(count) for name in ("loss", "gradient_norm", "max_error")}
    results |= {name: np.full(count, np.nan) for name in ("excess", "change", "squares")}
    arrays: dict[str, Any] = {
        "c": final_BM,
        "powers": converted,
        "R": R,
        "q": problems.q_PM,
        "rest": problems.rest_P,
        "t": setup.grid.t(),
        "middle": setup.grid.middle + spread,
        "half": setup.grid.half + spread,
        "clean": setup.clean_CN,
        "y": setup.y_DN,
        "problem_of": of,
        "clean_of": setup.clean_of_P,
        "data_of": setup.data_of_P,
    }
    if setup.basis != "power":
        functions = basis_functions(setup.basis, setup.degree, setup.grid.t())
        arrays["functions"] = np.stack(list(functions))
    in_x = setup.basis == "power"
    one_problem = kind.squared and len(spread) == 1
    screened = one_problem and in_x and kind.points >= FROM_POINTS
    if screened:
        arrays |= blocks_of(arrays["t"], setup.clean_CN[0])
    together = _TOGETHER if one_problem and size <= _LOW else 1
    kernel = Evaluation(kind.degree, kind.objective, in_x, together, screened)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    triangle = 0 if one_R else R.shape[1]
    cpu.load(kernel, LANES).bind(
        {**arrays, **results, "points": kind.points, "triangle": triangle}
    )(begin=0, end=count)
    if in_x:
        results["change"][:] = 0.0
    return _evaluated(
        kind, setup, problems, results["loss"], results["excess"], results["gradient_norm"],
        results["max_error"], results["squares"], results["change"], powers,
    )  # fmt: skip


def _evaluated(
    kind: BatchConfig,
    setup: Setup,
    problems: Problems,
    loss: Array,
    excess: Array,
    slope: Array,
    max_error: Array,
    squares: Array,
    change: Array,
    powers: npt.NDArray[np.floating],
) -> Evaluated:
    with np.errstate(all="ignore"):
        share = kind.points if kind.objective == "mse" else 1
        rmse = np.sqrt(loss * (share / kind.points) if kind.squared else squares / kind.points)
        known = np.isfinite(powers).all(axis=1)
        if setup.basis != "power":
            known &= change <= POWER_TOLERANCE * setup.scale_D[setup.data_of_P[problems.of_B]]
    return Evaluated(loss, excess, slope, rmse, max_error, powers, known)


def _slices(count: int, most: int) -> Iterator[slice]:
    return (slice(low, min(low + most, count)) for low in range(0, count, most))


def _grid(setup: Setup, of: Index) -> Grid:
    """The grids of some problems; one serves where all are the same."""
    of = of[:1] if (of == of[0]).all() else of
    return replace(setup.grid, low=setup.low_P[of], high=setup.high_P[of])


def _powers(
    setup: Setup, of: Index, final: Array, stored: npt.DTypeLike
) -> tuple[npt.NDArray[np.floating], Array]:
    """Coefficients of the powers of x, as stored, and these in float64."""
    with np.errstate(all="ignore"):
        if setup.basis == "power":
            return final.astype(stored), final
        K = in_powers(_grid(setup, of))
        total = np.zeros_like(final)
        for k in range(final.shape[1]):
            total += final[:, k, None] * K[:, k]
        powers = total.astype(stored)
        return powers, powers.astype(np.float64)


def _predicted(grid: Grid, final: Array, powers: Array) -> tuple[Array, Array]:
    """The polynomials at the points, in their basis and by the powers of x, shape (B, N)."""
    x = grid.x()
    in_x = np.broadcast_to(powers[:, -1, None], (len(powers), grid.points))
    for k in range(powers.shape[1] - 2, -1, -1):
        in_x = in_x * x + powers[:, k, None]
    if grid.basis == "power":
        return in_x, in_x
    functions = basis_functions(grid.basis, grid.degree, grid.t())
    predicted = np.broadcast_to(final[:, 0, None], (len(final), grid.points))
    for k, function in enumerate(functions):
        if k:
            predicted = predicted + final[:, k, None] * function
    return predicted, in_x
