"""What a row says of final coefficients: by torch and numpy, or by one kernel.

Shapes: B fits, M = degree + 1 coefficients, N points, P problems.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine import cpu
from polyfit.engine.batch import BatchConfig, Floats, Index, Problems
from polyfit.engine.batch_data import BatchData, too_few_to_compile
from polyfit.engine.eager import objective_of
from polyfit.engine.evaluation_kernel import EvaluationKernel
from polyfit.engine.loops import LANES
from polyfit.engine.objective import gradient, norm
from polyfit.engine.screening import SCREENED_POINTS, blocks_of
from polyfit.numerics.arrays import Array, chunks
from polyfit.numerics.basis import basis_functions, in_powers
from polyfit.numerics.grid import Grid
from polyfit.numerics.reduction import sum_of

__all__ = ["Evaluation", "evaluate"]

POWER_TOLERANCE: Final = 1e-6
"""Share of max |y|: a larger change of a prediction makes the power coefficients null."""

_CHUNK_NUMBERS: Final = 1 << 16
"""Residuals that are computed at a time without a kernel: few enough to stay in the cache."""

_CPU: Final = torch.device("cpu")

_FITS_TOGETHER: Final = 4
"""Fits of one problem that the kernel evaluates at a time, all at the same points."""

_MAX_SIZE_TOGETHER: Final = 8
"""Coefficients of so many fits stay in registers, or in the nearest cache."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Fits at their final coefficients, in float64; arrays of shape (B,), ``powers`` (B, M).

    ``excess`` over the optimum is NaN where the objective has no closed-form optimum.
    """

    loss: Array
    excess: Array
    gradient_norm: Array
    rmse: Array
    max_error: Array
    powers: Floats
    powers_known: npt.NDArray[np.bool_]


def evaluate(
    config: BatchConfig,
    data: BatchData,
    problems: Problems,
    final_BM: Array,
    stored: npt.DTypeLike,
) -> Evaluation:
    """The evaluation of ``final_BM`` (float64), power coefficients in the dtype ``stored``.

    The excess of a squared objective is the reduced sum of squares itself, which keeps its
    precision where the loss and the optimum agree to the last bit.

    Raises:
        ClusterError: no machine code can be made or run here.
    """
    powers = _powers(data, problems.of_B, final_BM, stored)
    # For a squared objective both ways have the same bits. torch adds over points in another
    # order.
    few = config.squared and too_few_to_compile(len(final_BM))
    by = _by_kernel if data.compiled and not few else _by_torch
    in_x = final_BM if data.basis == "power" else powers.astype(np.float64)
    found = by(config, data, problems, final_BM, in_x)
    loss, share = found["loss"], config.points if config.objective == "mse" else 1
    with np.errstate(all="ignore"):
        mean = loss * (share / config.points)
        if not config.squared:
            mean = found["squares"] / config.points
        known = np.asarray(np.isfinite(powers).all(axis=1))
        if data.basis != "power":
            scale = data.scale_D[data.data_of_P[problems.of_B]]
            known &= found["change"] <= POWER_TOLERANCE * scale
        rmse = np.sqrt(mean)
    excess, slope, error = found["excess"], found["gradient_norm"], found["max_error"]
    return Evaluation(loss, excess, slope, rmse, error, powers, known)


Results = dict[str, Array]
"""Arrays of shape (B,), named as the results of ``EvaluationKernel``."""


def _by_torch(
    config: BatchConfig, data: BatchData, problems: Problems, final_BM: Array, in_x_BM: Array
) -> Results:
    """One operation at a time; ``in_x_BM`` are the coefficients of the powers of x."""
    exact, num_fits = replace(config, dtype=torch.float64), len(final_BM)
    found = {name: np.full(num_fits, np.nan) for name in EvaluationKernel.results}
    fits, parts = np.arange(num_fits), [*chunks(num_fits, config.points, _CHUNK_NUMBERS)]
    for some in [slice(None)] if config.squared else parts:
        c = [torch.tensor(column) for column in final_BM[some].T]
        with torch.enable_grad():
            losses, g = gradient(objective_of(exact, problems, fits[some], _CPU), c)
        found["loss"][some], found["gradient_norm"][some] = losses.numpy(), norm(g).numpy()
        if config.squared:
            reduced = replace(problems, rest_P=np.zeros_like(problems.rest_P))
            found["excess"][some] = objective_of(exact, reduced, fits[some], _CPU)(c).numpy()
    with np.errstate(all="ignore"):
        for some in parts:
            of = problems.of_B[some]
            predicted, by_powers = _predicted(_grid(data, of), final_BM[some], in_x_BM[some])
            clean = data.clean_CN[data.clean_of_P[of]]
            found["max_error"][some] = np.abs(predicted - clean).max(axis=1)
            found["change"][some] = np.abs(by_powers - predicted).max(axis=1)
            if not config.squared:
                off = predicted - data.y_DN[data.data_of_P[of]]
                found["squares"][some] = sum_of(off * off)
    return found


def _by_kernel(
    config: BatchConfig, data: BatchData, problems: Problems, final_BM: Array, in_x_BM: Array
) -> Results:
    num_fits, size, upper = len(final_BM), config.size, np.triu_indices(config.size)
    one_R = len(data.design.R_MM) == 1
    R = problems.R_PMM[: 1 if one_R else None, upper[0], upper[1]]
    results = {name: np.full(num_fits, np.nan) for name in EvaluationKernel.results}
    zeros_P = np.zeros(len(data.low_P))
    arrays: dict[str, Any] = {
        "c": final_BM,
        "powers": in_x_BM,
        "R": R,
        "q": problems.q_PM,
        "rest": problems.rest_P,
        "t": data.grid.t(),
        "middle": data.grid.middle + zeros_P,
        "half": data.grid.half + zeros_P,
        "clean": data.clean_CN,
        "y": data.y_DN,
        "problem_of": problems.of_B,
        "clean_of": data.clean_of_P,
        "data_of": data.data_of_P,
    }
    in_x = data.basis == "power"
    if not in_x:
        functions = basis_functions(data.basis, data.degree, data.grid.t())
        arrays["functions"] = np.stack(list(functions))
    one_problem = config.squared and len(zeros_P) == 1
    screened = one_problem and in_x and config.points >= SCREENED_POINTS
    if screened:
        arrays |= blocks_of(arrays["t"], data.clean_CN[0])
    together = _FITS_TOGETHER if one_problem and size <= _MAX_SIZE_TOGETHER else 1
    kernel = EvaluationKernel(config.degree, config.objective, in_x, together, screened)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    sizes = {"points": config.points, "triangle": 0 if one_R else R.shape[1]}
    cpu.load(kernel, LANES).bind({**arrays, **results, **sizes})(begin=0, end=num_fits)
    return results


def _grid(data: BatchData, of: Index) -> Grid:
    """The grids of some problems; one serves where all are the same."""
    of = of[:1] if (of == of[0]).all() else of
    return replace(data.grid, low=data.low_P[of], high=data.high_P[of])


def _powers(data: BatchData, of: Index, final_BM: Array, stored: npt.DTypeLike) -> Floats:
    """Coefficients of the powers of x, as stored."""
    with np.errstate(all="ignore"):
        if data.basis == "power":
            return final_BM.astype(stored)
        K = in_powers(_grid(data, of))
        total = np.zeros_like(final_BM)
        for k in range(final_BM.shape[1]):
            total += final_BM[:, k, None] * K[:, k]
        return total.astype(stored)


def _predicted(grid: Grid, final_BM: Array, in_x_BM: Array) -> tuple[Array, Array]:
    """The polynomials at the points, in their basis and by the powers of x, shape (B, N)."""
    x = grid.x()
    by_powers = np.broadcast_to(in_x_BM[:, -1, None], (len(in_x_BM), grid.points))
    for k in range(in_x_BM.shape[1] - 2, -1, -1):
        by_powers = by_powers * x + in_x_BM[:, k, None]
    if grid.basis == "power":
        return by_powers, by_powers
    _, *functions = basis_functions(grid.basis, grid.degree, grid.t())
    predicted = np.broadcast_to(final_BM[:, 0, None], by_powers.shape)
    for k, function in enumerate(functions, start=1):
        predicted = predicted + final_BM[:, k, None] * function
    return predicted, by_powers
