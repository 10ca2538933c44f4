"""The arguments of the iteration's kernel for a batch.

Shapes: B fits, filled up to whole vectors; the others are those of ``IterationKernel``.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.engine.batch import DIVERGED, BatchInputs, Problems, blank_records, startable
from polyfit.engine.iteration_kernel import GOING, IterationKernel
from polyfit.engine.optimizer import bias_corrections
from polyfit.engine.point_terms import row_numbers
from polyfit.numerics.arrays import Array
from polyfit.numerics.basis import basis_functions
from polyfit.numerics.grid import Grid

__all__ = ["Arguments", "kernel_of", "layout", "reduced", "rows_of"]

Arguments = dict[str, Any]
"""Arrays and integers, by their names in a kernel."""

_NEVER: Final = 1 << 62
"""The update of the record after the last."""


def kernel_of(inputs: BatchInputs) -> IterationKernel:
    """The kernel that the fits of a batch need."""
    config, problems = inputs.config, inputs.problems
    if config.squared:
        one_design, one_data = problems.one_R, False
    else:
        grid = problems.grid
        one_design = grid.basis != "power" or np.size(grid.low) == 1 or config.degree == 0
        one_data = len(problems.y_PN) == 1
    return IterationKernel(config, one_design, one_data, tuple(inputs.record))


def rows_of(values_BK: npt.NDArray[Any], width: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """One row per column, shape (K, ``width``), filled up with zeros."""
    rows = np.zeros((values_BK.shape[1], width), dtype=dtype)
    rows[:, : len(values_BK)] = values_BK.T
    return rows


@np.errstate(over="ignore")  # numbers of fits that cannot be started
def layout(kernel: IterationKernel, inputs: BatchInputs, width: int) -> Arguments:
    """The arguments of ``kernel`` that are the same in every call, for a batch.

    Vectors are filled up to a multiple of ``width``. Fits that cannot be started have ended where
    they start, and so have those that fill up.
    """
    config, stop, dtype = kernel.config, kernel.config.stop, kernel.config.numpy_dtype
    num_fits, updates, problems = len(inputs.lr_B), inputs.updates, inputs.problems
    batch = -(-num_fits // width) * width
    start = rows_of(inputs.start_BM, batch, dtype)
    moments = np.zeros((config.num_states - config.size, batch), dtype=dtype)
    corrections = bias_corrections(config.optimizer.name, config.steps).astype(dtype)
    arguments: Arguments = {
        "state": np.concatenate([start, moments]),
        "lr": rows_of(inputs.lr_B[:, None], batch, dtype),
        "taken": np.zeros(batch, dtype=np.int64),
        "status": np.full(batch, DIVERGED, dtype=np.int64),
        "first": np.zeros(batch, dtype=dtype),
        "last": np.zeros(batch, dtype=dtype),
        "final": start,
        "records": np.array([*updates, _NEVER], dtype=np.int64),
        "corrections": corrections,
        "parameters": np.array(
            [config.points, config.optimizer.beta, stop.tolerance if stop else 0.0], dtype=dtype
        ),
        **blank_records(config, kernel.record, len(updates), batch),
        "batch": batch,
        "points": config.points,
        "steps": config.steps,
        "width": width,
        "num_corrections": len(corrections),
    }
    arguments["taken"][:num_fits][startable(inputs)] = GOING
    if config.squared:
        return arguments | reduced(problems, kernel.one_design, batch, dtype)
    return arguments | _design(kernel, problems, batch) | _data(kernel, problems, batch, width)


def reduced(problems: Problems, one_R: bool, batch: int, dtype: npt.DTypeLike) -> Arguments:
    """What kernels need of a squared objective: R, row by row, q and ``rest``."""
    of, upper = problems.of_B, np.triu_indices(problems.R_PMM.shape[-1])
    R = problems.R_PMM[:, upper[0], upper[1]]
    return {
        "R": R[0].astype(dtype) if one_R else rows_of(R[of], batch, dtype),
        "q": rows_of(problems.q_PM[of], batch, dtype),
        "rest": rows_of(problems.rest_P[of, None], batch, dtype),
    }


def _design(kernel: IterationKernel, problems: Problems, batch: int) -> Arguments:
    """The basis functions at the points, or what they are computed from."""
    grid, of = problems.grid, problems.of_B
    if kernel.one_design:
        data = problems.y_PN[:1] if kernel.one_data else problems.y_PN[:0]
        return {"functions": _table(kernel, grid, data)}
    ends = {"middle": np.asarray(grid.middle), "half": np.asarray(grid.half)}
    spread = {
        name: rows_of(values[of, None], batch, np.float64)[0] for name, values in ends.items()
    }
    return {"t": grid.t(), **spread}


def _table(kernel: IterationKernel, grid: Grid, data_DN: Array) -> npt.NDArray[Any]:
    """The basis functions at the points but the first, and data: a row for each point.

    Powers are computed in the iteration's dtype, as the kernel computes those of ranges of their
    own.
    """
    dtype = kernel.config.numpy_dtype
    argument = grid.x().astype(dtype) if grid.basis == "power" else grid.t()
    columns = [*basis_functions(grid.basis, grid.degree, np.ravel(argument))][1:]
    table = np.zeros((grid.points, row_numbers(kernel.config, kernel.one_data)), dtype=dtype)
    for k, column in enumerate([*columns, *data_DN]):
        table[:, k] = column
    return table


def _data(kernel: IterationKernel, problems: Problems, batch: int, width: int) -> Arguments:
    """The data: one row for all, or one for each fit in groups of ``width``."""
    dtype = kernel.config.numpy_dtype
    if kernel.one_data:
        return {} if kernel.one_design else {"y": problems.y_PN[0].astype(dtype)}
    points = problems.y_PN.shape[1]
    y = np.zeros((batch // width, points, width), dtype=dtype)
    for group, data in enumerate(y):
        fits = problems.of_B[group * width : (group + 1) * width]
        data[:, : len(fits)] = problems.y_PN[fits].T
    return {"y": y}
