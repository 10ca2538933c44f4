"""What was recorded of some fits, as a long frame: a line for each fit and update."""

import polars as pl

from polyfit.errors import UsageError
from polyfit.run.schema import HISTORIES
from polyfit.spec.plan import Plan

__all__ = ["history_columns", "long_history"]


def history_columns(plan: Plan) -> list[str]:
    """The columns that ``long_history`` needs.

    Raises:
        UsageError: nothing was recorded.
    """
    if not plan.record.of:
        raise UsageError("nothing was recorded: the run's spec has `record: none`")
    return ["fit", "steps", *(HISTORIES[name] for name in plan.record.of)]


def long_history(rows: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """A line for each fit and recorded update: ``fit``, ``step`` and what was recorded.

    ``step`` is the number of the update before which the values were taken.
    """
    recorded = {HISTORIES[name]: name for name in plan.record.of}
    updates = {steps: plan.record.updates(steps) for steps in rows["steps"].unique()}
    length = pl.col(next(iter(recorded))).list.len()
    steps = pl.col("steps").replace_strict(updates, return_dtype=pl.List(pl.Int64))
    return (
        rows.select("fit", steps.list.head(length).alias("step"), *recorded)
        .explode("step", *recorded, empty_as_null=False)
        .rename(recorded)
    )
