"""Conditions on columns, such as ``degree == 3 and loss < 0.1``, as expressions of Arrow.

Arrow has no text form of an expression that it could read, and SQL would give the conditions that
users have written another meaning (``=``, comparisons in a chain, ``None``).
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import UsageError
from polyfit.run.columns import check_names
from polyfit.run.schema import STALLED
from polyfit.spec.condition_language import (
    ALLOWED,
    Algebra,
    NoCondition,
    parse_condition,
    read_condition,
)
from polyfit.spec.fields import FIELDS
from polyfit.spec.names import meant

__all__ = ["condition", "condition_columns", "filter_rows"]

_ALLOWED: Final = f"allowed: columns, {ALLOWED}"

_UNSIGNED: Final = "noise_seed"
"""The column of unsigned integers. Arrow would compare it as int64, in which half of its values
have no room; so it and the integers of its conditions are decimals."""

WORDS: Final = {
    "status": ("completed", "converged", STALLED, "diverged"),
    **{name: FIELDS[name].names for name in ("basis", "objective", "dtype")},
}
"""The words that some columns have, and no others."""

_EQUALITY: Final = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_WORDS: Final = {word for words in (*WORDS.values(), FIELDS["optimizer"].names) for word in words}
_OPERATORS: Final = {"&&": "and", "||": "or", "&": "and", "|": "or", "!": "not"}
_FOREIGN: Final = re.compile(r"&&|\|\||[&|!]")
_NUMBER: Final = re.compile(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*", re.IGNORECASE)
_NOT_FOREIGN: Final = re.compile(r"'[^']*'|\"[^\"]*\"|!=")


def condition(text: str, columns: Sequence[str]) -> pc.Expression:
    """The expression that ``text`` writes.

    Raises:
        UsageError: it cannot be read, with what is allowed; or names no column.
    """

    def field(name: str) -> Any:
        if name not in columns and name.lower() in _WORDS:
            raise UsageError(f"where {text!r}: put a text in quotes: {name.lower()!r}")
        check_names([name], columns)
        return pc.field(name).cast(pa.decimal256(20)) if name == _UNSIGNED else pc.field(name)

    try:
        algebra = Algebra(pc.Expression, field, pc.scalar, pc.negate, _divide)
        if _UNSIGNED in condition_columns(text):
            algebra = replace(algebra, literal=lambda value: pc.scalar(_exact(value)), item=_item)
        result = read_condition(text, algebra, (pa.ArrowException,))
    except NoCondition as error:
        said = str(error) or _python_for(text)
        hint = f"; {said}" if said else ""
        raise UsageError(f"where {text!r} cannot be read; {_ALLOWED}{hint}") from None
    if not isinstance(result, pc.Expression):
        raise UsageError(f"where {text!r} names no column; {_ALLOWED}")
    _check_words(text)
    return result


def _python_for(text: str) -> str:
    """What is written in place of another language's operators, outside of texts."""
    found = dict.fromkeys(_FOREIGN.findall(_NOT_FOREIGN.sub("", text)))
    return ", ".join(f"write {_OPERATORS[sign]} for {sign}" for sign in found)


def _check_words(text: str) -> None:
    """Check the texts that a column with a closed set of words is compared with.

    Raises:
        UsageError: the column never has it, so the comparison would choose no row or every row.
    """
    for node in ast.walk(parse_condition(text)):
        if isinstance(node, ast.Compare) and all(isinstance(op, _EQUALITY) for op in node.ops):
            sides = [node.left, *node.comparators]
            names = [side.id for side in sides if isinstance(side, ast.Name) and side.id in WORDS]
            for constant in (each for side in sides for each in ast.walk(side)):
                for name in names:
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        _check_word(text, name, constant.value)


def _check_word(text: str, name: str, word: str) -> None:
    if word in WORDS[name]:
        return
    near = meant(word, WORDS[name])
    known = f"did you mean {near!r}?" if near else f"allowed: {', '.join(WORDS[name])}"
    raise UsageError(f"where {text!r}: no {name} is {word!r}; {known}")


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
    """As Python's ``/``, where Arrow's own gives whole numbers of integers; by zero null."""
    above, below = (side.cast(pa.float64(), safe=False) for side in (left, right))
    quotient = pc.divide(above, below)
    return pc.if_else(pc.is_finite(quotient), quotient, pc.scalar(pa.scalar(None, pa.float64())))


def filter_rows(rows: pa.Table, expression: pc.Expression, text: str) -> pa.Table:
    """The rows for which ``expression`` holds, which ``text`` writes.

    Raises:
        UsageError: it does not suit the columns' types.
    """
    try:
        return rows.filter(expression)
    except pa.ArrowException:
        raise UsageError(f"where {text!r} cannot be tested: {_mixed(rows, text)}") from None


def _mixed(rows: pa.Table, text: str) -> str:
    """Why a condition does not suit the types of its columns; Arrow speaks of its own functions."""
    held = [f"{name} holds {_kind(rows[name].type)}" for name in sorted(condition_columns(text))]
    constants = [
        node.value for node in ast.walk(parse_condition(text)) if isinstance(node, ast.Constant)
    ]
    quoted = [one for one in constants if isinstance(one, str) and _NUMBER.fullmatch(one)]
    hint = f"; write {quoted[0]} without quotes" if quoted else ""
    return (
        "numbers are compared and computed with numbers, texts compared with texts, and a "
        f"condition is true or false; {', '.join(held)}{hint}"
    )


def _kind(found: pa.DataType) -> str:
    if pa.types.is_nested(found):
        return "lists, which no condition takes"
    number = pa.types.is_integer(found) or pa.types.is_floating(found)
    return "numbers" if number else "texts"
