"""A batch: what its fits have in common, their problems, how they end.

Shapes: B fits, M = degree + 1 coefficients, N points, P problems, K recorded updates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.numerics.arrays import Array, Index
from polyfit.numerics.basis import functions_on
from polyfit.numerics.dtypes import holds_problem, holds_rate
from polyfit.numerics.grid import Grid
from polyfit.spec.fit import LOSS_GROWTH, SQUARED, Stop
from polyfit.spec.optimizer import Optimizer

__all__ = [
    "CHECK_EVERY",
    "COMPLETED",
    "CONVERGED",
    "DIVERGED",
    "LOSS_GROWTH",
    "STATUSES",
    "BatchConfig",
    "BatchInputs",
    "BatchResult",
    "Floats",
    "Index",
    "Problems",
    "blank_records",
    "startable",
]

Floats = npt.NDArray[np.floating]

STATUSES: Final = ("completed", "converged", "diverged")
COMPLETED, CONVERGED, DIVERGED = range(3)

CHECK_EVERY: Final = 10
"""Updates between two tests of finiteness and of the stop rule."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """What all fits of a batch have in common."""

    degree: int
    points: int
    objective: str
    optimizer: Optimizer
    steps: int
    stop: Stop | None
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """M, the number of coefficients."""
        return self.degree + 1

    @property
    def num_states(self) -> int:
        """S, the numbers of a fit's state: coefficients and the optimizer's moments."""
        return self.size * (1 + self.optimizer.traits.num_moments)

    @property
    def numpy_dtype(self) -> type[np.floating]:
        """The dtype of the iteration, in numpy's terms."""
        return np.float32 if self.dtype == torch.float32 else np.float64

    @property
    def squared(self) -> bool:
        """Whether the objective is a sum of squares, which QR reduces to M rows."""
        return self.objective in SQUARED

    @property
    def halved(self) -> bool:
        """Whether updates take half the gradient, and twice the rate.

        Factors of two are exact, so the coefficients have the same bits, and no residual has to
        be doubled. Adam's and Newton's updates need the gradient itself.
        """
        return self.squared and self.optimizer.traits.linear


@dataclass(frozen=True, slots=True, eq=False)
class Problems:
    """The problems of a batch in float64, and which one each fit has.

    Attributes:
        of_B: each fit's problem, int64.
        R_PMM, q_PM, rest_P: the reduction, which a squared objective needs.
        grid: of all problems; on one range, or on one for each problem.
        y_PN: the data, which other objectives need. One row serves all problems where the first
            axis has length 1.
    """

    of_B: Index
    R_PMM: Array
    q_PM: Array
    rest_P: Array
    grid: Grid
    y_PN: Array

    @property
    def one_R(self) -> bool:
        """Whether all problems have the same R."""
        return not np.ptp(self.R_PMM, axis=0).any()

    @property
    def functions_PMN(self) -> Array:
        """The basis functions at the points; one serves all where the first axis has length 1."""
        functions = functions_on(self.grid)
        return functions[None] if functions.ndim == 2 else functions


@dataclass(frozen=True, slots=True, eq=False)
class BatchInputs:
    """What an engine needs to fit a batch.

    Attributes:
        config, problems: of the batch.
        start_BM: the initial coefficients, float32.
        lr_B: the rates, float64.
        updates: the updates to record, counted from 0, rising, below ``config.steps``.
        record: what to record of "loss", "coefficients", "gradient_norm".
    """

    config: BatchConfig
    problems: Problems
    start_BM: npt.NDArray[np.float32]
    lr_B: Array
    updates: Sequence[int]
    record: Sequence[str]

    def take(self, fits: Index) -> "BatchInputs":
        """Some of the fits."""
        problems = replace(self.problems, of_B=self.problems.of_B[fits])
        return replace(self, problems=problems, start_BM=self.start_BM[fits], lr_B=self.lr_B[fits])


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How the fits of a batch ended, in the order of the batch.

    ``coefficients_BM`` has the dtype of the iteration. Records have the shape (K, B), those of
    coefficients (K, B, M); values at or after a fit's ``steps_taken`` mean nothing.
    """

    coefficients_BM: Floats
    steps_taken_B: Index
    status_B: npt.NDArray[np.int8]
    recorded: dict[str, Floats]

    @classmethod
    def unstarted(cls, inputs: BatchInputs) -> "BatchResult":
        """The result of fits none of which could be started."""
        config, batch = inputs.config, len(inputs.lr_B)
        blank = blank_records(config, inputs.record, len(inputs.updates), batch)
        return cls(
            inputs.start_BM.astype(config.numpy_dtype),
            np.zeros(batch, dtype=np.int64),
            np.full(batch, DIVERGED, dtype=np.int8),
            {name: np.ascontiguousarray(np.moveaxis(v, -1, 1)) for name, v in blank.items()},
        )

    def put(self, fits: Index, part: "BatchResult") -> None:
        """Replace the results of some fits."""
        self.coefficients_BM[fits] = part.coefficients_BM
        self.steps_taken_B[fits] = part.steps_taken_B
        self.status_B[fits] = part.status_B
        for name, values in part.recorded.items():
            self.recorded[name][:, fits] = values


def blank_records(
    config: BatchConfig, record: Sequence[str], num_updates: int, width: int
) -> dict[str, Floats]:
    """Zeros for what kernels record: (K, ``width``), of coefficients (K, M, ``width``)."""
    rows = {"loss": (), "gradient_norm": (), "coefficients": (config.size,)}
    return {
        name: np.zeros((num_updates, *rows[name], width), dtype=config.numpy_dtype)
        for name in record
    }


def startable(inputs: BatchInputs) -> npt.NDArray[np.bool_]:
    """Which fits can be iterated: those whose problem and rate the dtype holds, shape (B,)."""
    config, problems = inputs.config, inputs.problems
    dtype, newton = np.dtype(config.numpy_dtype).name, config.optimizer.traits.second_order
    held_P = holds_problem(dtype, newton, problems.R_PMM, problems.q_PM)
    return held_P[problems.of_B] & holds_rate(dtype, inputs.lr_B)
