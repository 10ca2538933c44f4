"""What a batch comes to, and which fits can be iterated at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine.model import Array, BatchConfig, Problems
from polyfit.engine.status import DIVERGED
from polyfit.numerics.dtypes import holds_problem, holds_rate

__all__ = ["BatchResult", "Index", "Numbers", "usable"]

Index = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How the fits of a batch ended; arrays in the order of the batch.

    ``coefficients_BM`` has the dtype of the iteration. Recorded values have the shape (K, B), of
    coefficients (K, B, M); those at or after a fit's ``steps_taken`` mean nothing.
    """

    coefficients_BM: Numbers
    steps_taken_B: npt.NDArray[np.int64]
    status_B: npt.NDArray[np.int8]
    recorded: dict[str, Numbers]

    @classmethod
    def unstarted(
        cls,
        kind: BatchConfig,
        start_BM: npt.NDArray[np.float32],
        updates: Sequence[int],
        record: Sequence[str],
    ) -> "BatchResult":
        """As of fits that could not be started."""
        batch, size = start_BM.shape
        dtype = np.float32 if kind.dtype == torch.float32 else np.float64
        shapes = {"loss": (), "gradient_norm": (), "coefficients": (size,)}
        return cls(
            start_BM.astype(dtype),
            np.zeros(batch, dtype=np.int64),
            np.full(batch, DIVERGED, dtype=np.int8),
            {
                name: np.full((len(updates), batch, *shapes[name]), np.nan, dtype=dtype)
                for name in record
            },
        )


def usable(kind: BatchConfig, problems: Problems, lr_B: Array) -> npt.NDArray[np.bool_]:
    """Which fits can be iterated in dtype: those whose problem and rate it holds."""
    dtype, newton = str(kind.dtype).removeprefix("torch."), kind.optimizer.name == "newton"
    sound_P = holds_problem(dtype, newton, problems.R_PMM, problems.q_PM)
    return sound_P[problems.of_B] & holds_rate(dtype, lr_B)
