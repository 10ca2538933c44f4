"""What was recorded of some fits, as a long frame: a line for each fit and update."""

import polars as pl

from polyfit.errors import UsageError
from polyfit.run.schema import HISTORIES, HISTORY_STEPS
from polyfit.spec.plan import Plan

__all__ = ["history_columns", "long_history"]


def history_columns(plan: Plan) -> list[str]:
    """The columns that ``long_history`` needs.

    Raises:
        UsageError: nothing was recorded.
    """
    if not plan.record.of:
        raise UsageError("nothing was recorded: the run's spec has `record: none`")
    return ["fit", HISTORY_STEPS, *(HISTORIES[name] for name in plan.record.of)]


def long_history(rows: pl.DataFrame) -> pl.DataFrame:
    """A line for each fit and recorded update: ``fit``, ``step`` and what was recorded.

    ``step`` is the number of the update before which the values were taken.
    """
    names = {HISTORIES[name]: name for name in HISTORIES} | {HISTORY_STEPS: "step"}
    lists = [name for name in rows.columns if name != "fit"]
    long = rows.explode(lists, empty_as_null=False)
    return long.rename({name: names[name] for name in lists})
