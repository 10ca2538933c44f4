"""Conditions on columns, such as ``degree == 3 and loss < 0.1``, as expressions of Arrow.

The language is Python's syntax, read through ``ast``: Arrow has no text form of an expression that
it could read, and SQL would give the conditions that users have written another meaning (``=``,
comparisons in a chain, ``None``). Nothing of a condition is ever executed as Python.
"""

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import UsageError
from polyfit.run.columns import check_names

__all__ = ["condition", "condition_columns", "filter_rows"]

_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_PARSE_ERRORS: Final = (
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    pa.ArrowException,
)
_ALLOWED: Final = (
    "allowed: columns, numbers, 'text', None, + - * /, == != < <= > >=, in [...], and, or, not"
)


def condition(text: str, columns: Sequence[str]) -> pc.Expression:
    """The expression that ``text`` writes.

    Raises:
        UsageError: it cannot be read, with what is allowed; or names no column.
    """
    try:
        result = _expression(ast.parse(text.strip(), mode="eval").body, columns)
    except _PARSE_ERRORS:
        raise UsageError(f"--where {text!r} cannot be read; {_ALLOWED}") from None
    if not isinstance(result, pc.Expression):
        raise UsageError(f"--where {text!r} names no column; {_ALLOWED}")
    return result


def condition_columns(text: str) -> set[str]:
    """The columns that a condition names, which ``condition`` has read."""
    return {node.id for node in ast.walk(ast.parse(text.strip())) if isinstance(node, ast.Name)}


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


def _expression(node: ast.expr, columns: Sequence[str]) -> Any:
    """What ``node`` writes: an expression, or a Python value where it names no column."""

    def read(inner: ast.expr) -> Any:
        return _expression(inner, columns)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(id=name):
            check_names([name], columns)
            return pc.field(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = read(operand)
            return pc.negate(value) if isinstance(value, pc.Expression) else -value
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_as_expression(read(operand))
        case ast.BoolOp(op=op, values=values):
            parts = [_as_expression(read(value)) for value in values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(op, ast.And) else result | part
            return result
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](read(left), read(right))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            operands = [read(left), *(_operand(node, read) for node in comparators)]
            links = zip(operands, ops, operands[1:], strict=False)  # 1 < degree <= 3 has two
            result = None
            for link in links:
                part = _comparison(*link)
                result = part if result is None else result & part
            return result
    raise ValueError


def _operand(node: ast.expr, read: Callable[[ast.expr], Any]) -> Any:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [read(item) for item in node.elts]
    return read(node)


def _comparison(left: Any, op: ast.cmpop, right: Any) -> Any:
    """One comparison; ``== None`` asks for null."""
    if isinstance(op, ast.In | ast.NotIn) and isinstance(right, list):
        result = _as_expression(left).isin(right)
        return ~result if isinstance(op, ast.NotIn) else result
    if type(op) not in _COMPARISONS or isinstance(right, list):
        raise ValueError
    if left is not None and right is not None:
        return _COMPARISONS[type(op)](left, right)
    if not isinstance(op, ast.Eq | ast.NotEq):
        raise ValueError
    result = _as_expression(left if right is None else right).is_null()
    return ~result if isinstance(op, ast.NotEq) else result


def _as_expression(value: Any) -> pc.Expression:
    return value if isinstance(value, pc.Expression) else pc.scalar(value)
