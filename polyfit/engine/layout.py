"""The arrays of the iteration's kernel for a batch.

Shapes: B fits, filled up to whole vectors; the others are those of ``IterationKernel``. Where a
kernel computes a point's residual ahead it reads one point beyond the last, and does not use it.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.engine.batch import DIVERGED, BatchInputs, Problems, blank_records, startable
from polyfit.engine.emitted_objective import row_numbers
from polyfit.engine.iteration_kernel import GOING, IterationKernel
from polyfit.engine.optimizer import bias_corrections
from polyfit.numerics.arrays import Array
from polyfit.numerics.basis import basis_functions
from polyfit.numerics.grid import Grid

__all__ = ["Arrays", "integers", "kernel_of", "layout", "rows_of"]

Arrays = dict[str, npt.NDArray[Any]]

_NEVER: Final = 1 << 62
"""The update of the record after the last."""


def kernel_of(inputs: BatchInputs) -> IterationKernel:
    """The kernel that the fits of a batch need."""
    config, problems = inputs.config, inputs.problems
    if config.squared:
        one_design, one_data = not np.ptp(problems.R_PMM, axis=0).any(), False
    else:
        grid = problems.grid
        one_design = grid.basis != "power" or np.size(grid.low) == 1 or config.degree == 0
        one_data = len(problems.y_PN) == 1
    return IterationKernel(config, one_design, one_data, tuple(inputs.record))


def rows_of(values_BK: npt.NDArray[Any], width: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """One row per column, shape (K, ``width``), filled up with zeros."""
    rows = np.zeros((values_BK.shape[1], width), dtype=dtype)
    with np.errstate(over="ignore"):  # numbers of fits that cannot be started
        rows[:, : len(values_BK)] = values_BK.T
    return rows


def layout(kernel: IterationKernel, inputs: BatchInputs, width: int) -> Arrays:
    """The arrays of ``kernel`` for a batch, its vectors filled up to a multiple of ``width``.

    Fits that cannot be started have ended where they start, and so have those that fill up.
    """
    config, stop, dtype = kernel.config, kernel.config.stop, kernel.config.numpy_dtype
    num_fits, updates, problems = len(inputs.lr_B), inputs.updates, inputs.problems
    batch = -(-num_fits // width) * width
    start = rows_of(inputs.start_BM, batch, dtype)
    moments = np.zeros((kernel.vectors - config.size, batch), dtype=dtype)
    arrays: Arrays = {
        "state": np.concatenate([start, moments]),
        "lr": rows_of(inputs.lr_B[:, None], batch, dtype),
        "taken": np.zeros(batch, dtype=np.int64),
        "status": np.full(batch, DIVERGED, dtype=np.int64),
        "first": np.zeros(batch, dtype=dtype),
        "last": np.zeros(batch, dtype=dtype),
        "final": start,
        "records": np.array([*updates, _NEVER], dtype=np.int64),
        "corrections": bias_corrections(config.optimizer.name, config.steps).astype(dtype),
        "parameters": np.array(
            [config.points, config.optimizer.beta, stop.tolerance if stop else 0.0], dtype=dtype
        ),
        **blank_records(config, kernel.record, len(updates), batch),
    }
    arrays["taken"][:num_fits][startable(inputs)] = GOING
    if config.squared:
        return arrays | _reduced(kernel, problems, batch)
    return arrays | _design(kernel, problems, batch) | _data(kernel, problems, batch, width)


def integers(kernel: IterationKernel, arrays: Arrays, width: int) -> dict[str, int]:
    """The integers of ``kernel`` that are the same in every call."""
    return {
        "batch": len(arrays["taken"]),
        "points": kernel.config.points,
        "steps": kernel.config.steps,
        "width": width,
        "num_corrections": len(arrays["corrections"]),
    }


def _reduced(kernel: IterationKernel, problems: Problems, batch: int) -> Arrays:
    """What a squared objective needs."""
    of, dtype, upper = problems.of_B, kernel.config.numpy_dtype, np.triu_indices(kernel.config.size)
    R = problems.R_PMM[:, upper[0], upper[1]]
    return {
        "R": R[0].astype(dtype) if kernel.one_design else rows_of(R[of], batch, dtype),
        "q": rows_of(problems.q_PM[of], batch, dtype),
        "rest": rows_of(problems.rest_P[of, None], batch, dtype),
    }


def _design(kernel: IterationKernel, problems: Problems, batch: int) -> Arrays:
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
    """The basis functions at the points but the first, and data: a row for each point and one more.

    Powers are computed in the iteration's dtype, as the kernel computes those of ranges of their
    own.
    """
    dtype = kernel.config.numpy_dtype
    argument = grid.x().astype(dtype) if grid.basis == "power" else grid.t()
    columns = [*basis_functions(grid.basis, grid.degree, np.ravel(argument))][1:]
    table = np.zeros((grid.points + 1, row_numbers(kernel.config, kernel.one_data)), dtype=dtype)
    for k, column in enumerate([*columns, *data_DN]):
        table[:-1, k] = column
    return table


def _data(kernel: IterationKernel, problems: Problems, batch: int, width: int) -> Arrays:
    """The data: one row for all, or one for each fit in groups of ``width``, and one more row."""
    dtype = kernel.config.numpy_dtype
    if kernel.one_data:
        return {} if kernel.one_design else {"y": problems.y_PN[0].astype(dtype)}
    points = problems.y_PN.shape[1]
    y = np.zeros((batch * points // width + 1, width), dtype=dtype)
    for group, data in enumerate(y[:-1].reshape(-1, points, width)):
        fits = problems.of_B[group * width : (group + 1) * width]
        data[:, : len(fits)] = problems.y_PN[fits].T
    return {"y": y}
