"""The columns of a row: their names, order and Arrow types."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyfit.spec.plan import Plan

__all__ = [
    "HISTORIES",
    "HISTORY_STEPS",
    "REASONS",
    "SCALARS",
    "STALLED",
    "empty_table",
    "list_dtype",
    "schema",
]

SCALARS: Final = (
    "loss", "optimum_loss", "excess_loss", "gradient_norm", "rmse", "max_error",
)  # fmt: skip
HISTORIES: Final = {
    "loss": "loss_history",
    "gradient_norm": "gradient_norm_history",
    "coefficients": "coefficients_history",
}
"""The column of each quantity that can be recorded."""

HISTORY_STEPS: Final = "history_steps"
"""The column of the updates that the histories are of."""

STALLED: Final = "stalled"
"""The status of a fit that ended by itself, but far above the optimum."""

REASONS: Final = {
    "target": "target not finite at x = {x:.6g}",
    "data": "data beyond the dtype",
    "basis": "basis functions beyond the dtype",
    "rate overflows": "rate overflows",
    "rate underflows": "rate underflows",
    "above limit": "rate above the limit",
    "not finite": "no longer finite",
    "grown": "loss above ten times the first",
    "gradient": "stopped by gradient far from the optimum",
    "loss_change": "stopped by loss_change far from the optimum",
    "newton": "no step lowers the loss, far from the optimum",
    "steps": "out of steps far from the optimum",
}
"""The texts of the column ``reason``, by their causes."""


def list_dtype(plan: Plan) -> npt.DTypeLike:
    """The dtype of all lists: float32 where every fit of the plan is, else float64."""
    return np.float64 if "float64" in plan.sweep.values("dtype") else np.float32


def schema(plan: Plan) -> pa.Schema:
    """The columns of a row, in order, with their Arrow types."""
    word = pa.dictionary(pa.int32(), pa.string())
    numbers = pa.list_(pa.float64() if list_dtype(plan) == np.float64 else pa.float32())
    fields = [
        pa.field("fit", pa.int64(), nullable=False),
        pa.field("degree", pa.int32(), nullable=False),
        pa.field("points", pa.int32(), nullable=False),
        pa.field("basis", word, nullable=False),
        pa.field("range_low", pa.float64(), nullable=False),
        pa.field("range_high", pa.float64(), nullable=False),
        pa.field("objective", word, nullable=False),
        pa.field("dtype", word, nullable=False),
        pa.field("target", word, nullable=False),
        pa.field("noise", pa.float64(), nullable=False),
        pa.field("noise_seed", pa.uint64(), nullable=False),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("stop", word),
        pa.field("optimizer", word, nullable=False),
        pa.field("lr", pa.float64()),
        pa.field("lr_limit", pa.float64()),
        pa.field("lr_share", pa.float64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("status", word, nullable=False),
        pa.field("reason", word),
        pa.field("steps_taken", pa.int64(), nullable=False),
        pa.field("steps_to_1pct", pa.int64()),
        *(pa.field(name, pa.float64()) for name in SCALARS),
        pa.field("coefficients", numbers, nullable=False),
        pa.field("power_coefficients", numbers),
    ]
    if plan.record.of:
        fields.append(pa.field(HISTORY_STEPS, pa.list_(pa.int32()), nullable=False))
    for name in plan.record.of:
        history = pa.list_(numbers) if name == "coefficients" else numbers
        fields.append(pa.field(HISTORIES[name], history, nullable=False))
    return pa.schema(fields)


def empty_table(columns: pa.Schema) -> pa.Table:
    """A table of no rows. ``columns.empty_table()`` would have pyarrow import pandas, for 0.3 s."""
    return pa.Table.from_batches([], columns)
