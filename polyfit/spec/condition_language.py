"""Conditions such as ``degree == 3 and loss < 0.1``: Python's syntax, read through ``ast``.

Nothing of a condition is ever executed as Python. ``read_condition`` makes an expression of any
kind that has Python's operators: Arrow's for the rows of a run, ours for the fields of a spec.
"""

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["ALLOWED", "Algebra", "NoCondition", "UnknownName", "parse_condition", "read_condition"]

ALLOWED: Final = "numbers, 'text', None, + - * /, == != < <= > >=, in [...], and, or, not"

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
)
_SINGLE_EQUALS: Final = re.compile(r"(?<![=!<>])=(?!=)")


class NoCondition(ValueError):
    """A text that is no condition; the message may say what was probably meant."""


class UnknownName(NoCondition):
    """A name that may not stand in the condition."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        close = difflib.get_close_matches(name, names, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        super().__init__(f"{name!r} is an unknown name{hint}")
        self.name = name


@dataclass(frozen=True, slots=True)
class Algebra:
    """Expressions of one kind: they have Python's operators, ``isin`` and ``is_null``.

    ``field`` and ``literal`` make one of a name and of a Python value, ``negate`` one of another,
    ``divide`` one of two; ``kind`` is their class. ``item`` makes one of a list's items of a value.
    """

    kind: type
    field: Callable[[str], Any]
    literal: Callable[[Any], Any]
    negate: Callable[[Any], Any] = operator.neg
    divide: Callable[[Any, Any], Any] = operator.truediv
    item: Callable[[Any], Any] = lambda value: value

    def lift(self, value: Any) -> Any:
        return value if isinstance(value, self.kind) else self.literal(value)

    def apply(self, operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
        """An operation on two expressions, on one and a Python value, or on two of those."""
        if not (isinstance(left, self.kind) or isinstance(right, self.kind)):
            try:
                return operation(left, right)
            except ArithmeticError as error:
                raise NoCondition(f"{error}") from None
        if operation is operator.truediv:
            operation = self.divide
        return operation(self.lift(left), self.lift(right))


class _Ranges(ast.NodeTransformer):
    """Writes ``range == [a, b]`` as ``range_low == a and range_high == b``."""

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        match node:
            case ast.Compare(
                left=ast.Name(id="range"),
                ops=[ast.Eq() | ast.NotEq() as op],
                comparators=[ast.List(elts=[low, high]) | ast.Tuple(elts=[low, high])],
            ):
                ends = {"range_low": low, "range_high": high}
                parts: list[ast.expr] = [
                    ast.Compare(ast.Name(name), [op], [value]) for name, value in ends.items()
                ]
                joint = ast.And() if isinstance(op, ast.Eq) else ast.Or()
                return ast.BoolOp(joint, parts)
            case ast.Compare(left=ast.Name(id="range")):
                raise NoCondition("write range == [-3, 3], or compare range_low and range_high")
        return node


def parse_condition(text: str) -> ast.expr:
    """The tree of ``text``, with ``range`` as its two columns.

    Raises:
        NoCondition: it is not Python's syntax.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1if" and the like warn before they are refused
            tree = ast.parse(text.strip(), mode="eval").body
            return _Ranges().visit(tree)  # type: ignore[no-any-return]
    except NoCondition:
        raise
    except _PARSE_ERRORS:
        hint = "did you mean == for =?" if _SINGLE_EQUALS.search(text) else ""
        raise NoCondition(hint) from None


def read_condition(text: str, algebra: Algebra, errors: tuple[type[Exception], ...] = ()) -> Any:
    """The expression that ``text`` writes, or a Python value where it has no name in it.

    ``errors`` are those that the algebra raises for what cannot be computed.

    Raises:
        NoCondition: it cannot be read.
    """
    tree = parse_condition(text)
    unreadable: tuple[type[Exception], ...] = (*_PARSE_ERRORS, *errors)
    try:
        return _expression(tree, algebra)
    except NoCondition:
        raise
    except unreadable:
        raise NoCondition from None


def _expression(node: ast.expr, algebra: Algebra) -> Any:
    """What ``node`` writes: an expression, or a Python value where it has no name in it."""

    def read(inner: ast.expr) -> Any:
        return _expression(inner, algebra)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(id=name):
            return algebra.field(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = read(operand)
            return algebra.negate(value) if isinstance(value, algebra.kind) else -value
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~algebra.lift(read(operand))
        case ast.BoolOp(op=op, values=values):
            parts = [algebra.lift(read(value)) for value in values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(op, ast.And) else result | part
            return result
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return algebra.apply(_ARITHMETIC[type(op)], read(left), read(right))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            operands = [read(left), *(_operand(node, read) for node in comparators)]
            links = zip(operands, ops, operands[1:], strict=False)  # 1 < degree <= 3 has two
            result = None
            for link in links:
                part = _comparison(*link, algebra)
                result = part if result is None else result & part
            return result
    raise ValueError


def _operand(node: ast.expr, read: Callable[[ast.expr], Any]) -> Any:
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [read(item) for item in node.elts]
    return read(node)


def _comparison(left: Any, op: ast.cmpop, right: Any, algebra: Algebra) -> Any:
    """One comparison; ``== None`` asks for null."""
    if isinstance(op, ast.In | ast.NotIn) and isinstance(right, list):
        result = algebra.lift(left).isin([algebra.item(value) for value in right])
        return ~result if isinstance(op, ast.NotIn) else result
    if type(op) not in _COMPARISONS or isinstance(right, list):
        raise ValueError
    if left is not None and right is not None:
        return algebra.apply(_COMPARISONS[type(op)], left, right)
    if not isinstance(op, ast.Eq | ast.NotEq):
        raise ValueError
    result = algebra.lift(left if right is None else right).is_null()
    return ~result if isinstance(op, ast.NotEq) else result
