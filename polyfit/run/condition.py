"""Conditions on columns, such as ``degree == 3 and loss < 0.1``, as expressions of Arrow.

Arrow has no text form of an expression that it could read, and SQL would give the conditions that
users have written another meaning (``=``, comparisons in a chain, ``None``).
"""

import ast
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import UsageError
from polyfit.run.columns import check_names
from polyfit.spec.condition_language import (
    ALLOWED,
    Algebra,
    NoCondition,
    parse_condition,
    read_condition,
)

__all__ = ["condition", "condition_columns", "filter_rows"]

_ALLOWED: Final = f"allowed: columns, {ALLOWED}"

_UNSIGNED: Final = "noise_seed"
"""The column of unsigned integers. Arrow would compare it as int64, in which half of its values
have no room; so it and the integers of its conditions are decimals."""


def condition(text: str, columns: Sequence[str]) -> pc.Expression:
    """The expression that ``text`` writes.

    Raises:
        UsageError: it cannot be read, with what is allowed; or names no column.
    """

    def field(name: str) -> Any:
        check_names([name], columns)
        return pc.field(name).cast(pa.decimal256(20)) if name == _UNSIGNED else pc.field(name)

    try:
        algebra = Algebra(pc.Expression, field, pc.scalar, pc.negate, _divide)
        if _UNSIGNED in condition_columns(text):
            algebra = replace(algebra, literal=lambda value: pc.scalar(_exact(value)), item=_item)
        result = read_condition(text, algebra, (pa.ArrowException,))
    except NoCondition as error:
        hint = f"; {error}" if str(error) else ""
        raise UsageError(f"--where {text!r} cannot be read; {_ALLOWED}{hint}") from None
    if not isinstance(result, pc.Expression):
        raise UsageError(f"--where {text!r} names no column; {_ALLOWED}")
    return result


def condition_columns(text: str) -> set[str]:
    """The columns that a condition names, which ``condition`` has read."""
    return {node.id for node in ast.walk(parse_condition(text)) if isinstance(node, ast.Name)}


def _exact(value: Any) -> Any:
    """A value, an integer of any size as a decimal."""
    return Decimal(value) if type(value) is int else value


def _item(value: Any) -> Any:
    """An item of a list, which may hold other numbers too: these do not mix with decimals."""
    return _exact(value) if isinstance(value, int) and value >= 2**63 else value


def _divide(left: pc.Expression, right: pc.Expression) -> pc.Expression:
    """As Python's ``/``: Arrow's own gives whole numbers of integers."""
    return left.cast(pa.float64(), safe=False) / right


def filter_rows(rows: pa.Table, expression: pc.Expression, text: str) -> pa.Table:
    """The rows for which ``expression`` holds, which ``text`` writes.

    Raises:
        UsageError: it does not suit the columns' types.
    """
    try:
        return rows.filter(expression)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--where {text!r} cannot be tested: {reason}") from None
