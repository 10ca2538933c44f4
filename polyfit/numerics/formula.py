"""A formula in x -> a function of an array.

The text is read with Python's grammar through ``ast`` and checked node by node against a short
list of what is allowed; nothing is ever handed to ``eval``. All numbers are float64, so that
``9**9**9**9`` is infinity at once rather than an integer that fills the memory.
"""

import ast
import difflib
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from polyfit.errors import FormulaError
from polyfit.numerics import elementary
from polyfit.numerics.arrays import Array

__all__ = ["FUNCTIONS", "MAX_CHARACTERS", "MAX_DEPTH", "Formula", "Functions", "constant"]

MAX_CHARACTERS: Final = 1_000
MAX_DEPTH: Final = 50


Functions = Mapping[str, Callable[[Any], Any]]

FUNCTIONS: Final[Functions] = {
    "sin": elementary.sin,
    "cos": elementary.cos,
    "tan": elementary.tan,
    "asin": elementary.asin,
    "acos": elementary.acos,
    "atan": elementary.atan,
    "sinh": elementary.sinh,
    "cosh": elementary.cosh,
    "tanh": elementary.tanh,
    "exp": elementary.exp,
    "log": elementary.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": elementary.sign,
}
"""Their values have the same bits in numpy and in kernels."""
CONSTANTS: Final = {"pi": math.pi, "e": math.e}
_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: elementary.power,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_ALLOWED: Final = "numbers, x, pi, e, + - * / **, parentheses and the functions " + " ".join(
    FUNCTIONS
)


@dataclass(frozen=True, slots=True)
class Formula:
    """A checked formula.

    ``text`` is its normal form: two texts that differ only in blanks and needless parentheses
    have the same one: a plan does not depend on layout.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> "Formula":
        """Read ``text``.

        Raises:
            FormulaError: what was found, at which column, and what is allowed.
        """
        normal = ast.unparse(_checked(text))
        if len(normal) > MAX_CHARACTERS:  # a plan holds the normal form, and is read again
            raise FormulaError(
                f"a formula of {len(normal):,} characters in its normal form; "
                f"allowed: at most {MAX_CHARACTERS:,}"
            )
        return cls(normal)

    @property
    def cost(self) -> int:
        """The cost of one value in additions: a function or a power counts as a hundred."""
        nodes = ast.walk(_tree(self.text))
        return sum(100 if isinstance(node, ast.Call | ast.Pow) else 1 for node in nodes)

    def of(self, x: Any, functions: Functions = FUNCTIONS) -> Any:
        """The formula at ``x``: any object that has operators and that ``functions`` take."""
        return _evaluate(_tree(self.text), x, functions)

    def __call__(self, x: Array) -> Array:
        """The formula at each of ``x`` (any shape, float64): same shape, float64.

        A value outside a function's domain is NaN or infinite, never an exception.
        """
        with np.errstate(all="ignore"):
            value = self.of(x)
        if value is x or np.shape(value) != np.shape(x):
            return np.array(np.broadcast_to(value, np.shape(x)), dtype=np.float64)
        return np.asarray(value, dtype=np.float64)


@lru_cache(maxsize=256)
def _tree(text: str) -> ast.expr:
    """The tree of a checked formula; the same one is evaluated on many arrays."""
    return ast.parse(text, mode="eval").body


def constant(text: str) -> float:
    """The value of a formula without x, for example ``2*pi``.

    Raises:
        FormulaError: it is no formula, or contains x.
    """
    tree = _checked(text)
    if any(isinstance(node, ast.Name) and node.id == "x" for node in ast.walk(tree)):
        raise FormulaError(f"{text!r} depends on x; allowed: a constant such as 2*pi")
    with np.errstate(all="ignore"):
        return float(_evaluate(tree, np.float64(0.0), FUNCTIONS))


def _checked(text: str) -> ast.expr:
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(
            f"a formula of {len(text):,} characters; allowed: at most {MAX_CHARACTERS:,}"
        )
    text = text.strip()
    for column, character in enumerate(text, 1):
        if not character.isascii():  # Python's grammar would take a fullwidth x for x
            raise FormulaError(
                f"{character!r} at column {column} is no part of a formula; allowed: {_ALLOWED}",
                column,
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1if" and the like warn before they are refused
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        offset = getattr(error, "offset", None)
        where = f" at column {offset}" if offset else ""
        raise FormulaError(
            f"{text!r} is not a formula{where}; allowed: {_ALLOWED}{_advice(text)}", offset
        ) from None
    _check(tree, text)
    return tree


def _check(tree: ast.expr, text: str) -> None:
    level: list[ast.expr] = [tree]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise FormulaError(
                f"a formula nested deeper than {MAX_DEPTH} levels; "
                f"allowed: at most {MAX_DEPTH} levels"
            )
        level = [child for node in level for child in _children(node, text)]


def _children(node: ast.expr, text: str) -> list[ast.expr]:
    """The operands of an allowed node; anything else is refused by name and column."""
    column = node.col_offset + 1
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            try:
                float(number)
            except OverflowError:
                raise FormulaError(
                    f"a number beyond float64 at column {column} of a formula; "
                    "allowed: numbers up to 1.8e308",
                    column,
                ) from None
            return []
        case ast.Name(id=name):
            if name == "x" or name in CONSTANTS:
                return []
            hint = "a function without its argument" if name in FUNCTIONS else "an unknown name"
            raise FormulaError(
                f"{name!r} in {text!r} is {hint} (column {column}); "
                f"allowed: {_ALLOWED}{_advice(text)}",
                column,
            )
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return [left, right]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return [operand]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            if name in FUNCTIONS and len(args) == 1 and not keywords:
                return list(args)
            if name in FUNCTIONS:
                raise FormulaError(
                    f"{name!r} in {text!r} has {len(args) + len(keywords)} arguments "
                    f"(column {column}); allowed: one, as in {name}(x)",
                    column,
                )
            raise FormulaError(
                f"{name!r} in {text!r} is an unknown function (column {column}); "
                f"allowed: {_ALLOWED}{_meant(name)}",
                column,
            )
    found, column = _operator(node, text) or (
        ast.get_source_segment(text, node) or type(node).__name__,
        column,
    )
    raise FormulaError(
        f"{found[:60]!r} at column {column} is no part of a formula; "
        f"allowed: {_ALLOWED}{_advice(text)}",
        column,
    )


def _operator(node: ast.expr, text: str) -> tuple[str, int] | None:
    """The sign between two operands, and its column; None where there is none, or on more lines."""
    if not isinstance(node, ast.BinOp) or node.end_lineno != 1:
        return None
    assert node.left.end_col_offset is not None, "parsed from text"
    between = text[node.left.end_col_offset : node.right.col_offset]
    sign = re.search(r"[^\s()]+", between)
    return (sign[0], node.left.end_col_offset + sign.start() + 1) if sign else None


def _advice(text: str) -> str:
    """What was probably meant by what Python's grammar reads in another way, or not at all."""
    if text.count("(") != text.count(")"):
        few = text.count("(") > text.count(")")
        return f"; a parenthesis is {'not closed' if few else 'closed that was not opened'}"
    if "^" in text:
        return "; did you mean ** for ^?"
    if called := re.search(rf"\b({'|'.join(FUNCTIONS)})\s+([a-z0-9.]+)", text):
        return f"; did you mean {called[1]}({called[2]})?"
    if product := re.search(r"(?<![\w.])([0-9.]+)\s*([a-z]\w*|\()", text):
        return f"; did you mean {product[1]}*{product[2]}?"
    return ""


def _meant(name: str) -> str:
    names = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "fabs": "abs"}
    close = [names[name]] if name in names else difflib.get_close_matches(name, FUNCTIONS, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _evaluate(node: ast.expr, x: Any, functions: Functions) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return np.float64(number)
        case ast.Name(id=name):
            return x if name == "x" else np.float64(CONSTANTS[name])
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, x, functions), _evaluate(right, x, functions))
        case ast.UnaryOp(op=sign, operand=operand):
            return _UNARY[type(sign)](_evaluate(operand, x, functions))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return functions[name](_evaluate(argument, x, functions))
    raise AssertionError(f"unchecked node {node!r}")
