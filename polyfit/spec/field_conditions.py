"""Conditions on the fields of a fit: which combinations of an axis' values they hold for.

A field of two numbers or of several kinds has a name or a text of its own, as in the rows of a
run: ``range_low``, ``range_high``; ``optimizer`` and ``stop`` as text; ``lr`` where it is a number.
"""

import ast
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from polyfit.numerics.arrays import Mask
from polyfit.spec.condition_language import (
    ALLOWED,
    Algebra,
    NoCondition,
    UnknownName,
    parse_condition,
    read_condition,
)
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.names import meant
from polyfit.spec.nullable import Nullable

__all__ = ["FieldCondition", "field_of"]

MAX_CHARACTERS: Final = 1_000

_NAMES: Final = tuple(
    name
    for field in CANONICAL_ORDER
    for name in (("range_low", "range_high") if field == "range" else (field,))
)
_TEXTS: Final = ("basis", "objective", "dtype", "optimizer")
_ALLOWED: Final = f"{', '.join(_NAMES)}; {ALLOWED}"


def field_of(name: str) -> str:
    """The field that ``name`` in a condition belongs to."""
    return "range" if name.startswith("range_") else name


def _part(name: str, value: Any) -> Any:
    """What a condition sees of a field's value."""
    match name:
        case "range_low" | "range_high":
            return value[name == "range_high"]
        case "lr":
            return value.value if value.kind == "number" else None
        case "optimizer":
            return str(value)
        case "stop":
            return None if value is None else str(value)
    return value


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A condition that can be read. ``text`` is its normal form, ``names`` are those in it."""

    text: str
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: Any) -> "FieldCondition":
        """Read ``text``.

        Raises:
            ValueError: what is allowed.
        """
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"a condition of at most {MAX_CHARACTERS:,} characters, "
                "such as \"degree > 10 and basis == 'power'\""
            )
        names: dict[str, None] = {}

        def field(name: str) -> Nullable:
            if name not in _NAMES:
                raise UnknownName(name, _NAMES)
            names[name] = None
            return Nullable.of(None)  # of which anything may be asked

        try:
            tree = parse_condition(text)
            _check_texts(tree)
            read_condition(text, Algebra(Nullable, field, Nullable.of))
        except NoCondition as error:
            raise _not_readable(text, error) from None
        if not names:
            raise ValueError(f"a condition that names a field; {_ALLOWED}")
        return cls(ast.unparse(tree), tuple(names))

    @property
    def fields(self) -> set[str]:
        return {field_of(name) for name in self.names}

    def holds(self, values: Callable[[str], Any]) -> Mask:
        """Where it holds; ``values`` of a name is an array of objects, or of a field one.

        Raises:
            ValueError: it does not suit the values.
        """

        def field(name: str) -> Nullable:
            array = values(field_of(name)).copy()
            array.flat = [_part(name, value) for value in array.flat]
            return Nullable(array)

        try:
            found = read_condition(self.text, Algebra(Nullable, field, Nullable.of))
            return found.true()  # type: ignore[no-any-return]
        except NoCondition as error:
            raise _not_readable(self.text, error) from None

    def thresholds(self, field: str) -> list[Any] | None:
        """The numbers that ``field`` is compared with; None where it is used in another way.

        Between two neighbouring thresholds all values of the field are alike to the condition.
        """
        tree = parse_condition(self.text)
        found: list[Any] = []
        compared: set[ast.expr] = set()
        for one, other in _links(tree):
            if isinstance(one, ast.Name) and one.id == field:
                numbers = _numbers(other)
                if numbers is None:
                    return None
                compared.add(one)
                found += numbers
        names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == field)
        return found if all(name in compared for name in names) else None


def _links(tree: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The two sides of each comparison, and again the other way round."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for left, right in itertools.pairwise(operands):
                yield from ((left, right), (right, left))


def _numbers(node: ast.expr) -> list[Any] | None:
    """The numbers of a constant or a list of constants; None for anything else."""
    if any(isinstance(one, ast.Name) for one in ast.walk(node)):
        return None
    items = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]
    try:
        found = [read_condition(ast.unparse(item), _NO_NAMES) for item in items]
    except NoCondition:
        return None
    return [value for value in found if isinstance(value, int | float)]


def _check_texts(tree: ast.expr) -> None:
    """Refuse a text that the field it is compared with never has.

    Raises:
        NoCondition: with what is allowed.
    """
    for one, other in _links(tree):
        if isinstance(one, ast.Name) and one.id in (*_TEXTS, "lr", "stop"):
            items = other.elts if isinstance(other, ast.List | ast.Tuple | ast.Set) else [other]
            for item in items:
                if one.id in _TEXTS:
                    _check_text(one.id, FIELDS[one.id].names, item)
                else:
                    _check_no_text(one.id, item)


def _check_no_text(field: str, node: ast.expr) -> None:
    match node:
        case ast.Constant(value=str()) if field == "lr":
            raise NoCondition(
                "lr is a number, or None where the rate is auto or a share of the limit; did you "
                "mean lr == None?"
            )
        case ast.Constant(value=str(text)) if "=" not in text:
            raise NoCondition(
                "stop is None, or a text such as 'gradient=1e-06'; did you mean stop == None?"
            )


def _check_text(field: str, names: tuple[str, ...], node: ast.expr) -> None:
    match node:
        case ast.Name(id=text) if text in names:
            raise NoCondition(f"did you mean {text!r} in quotes?")
        case ast.Constant(value=str(text)) if text == "momentum" and field == "optimizer":
            raise NoCondition("did you mean 'momentum(beta=0.9)', with its beta?")
        case ast.Constant(value=str(text)) if text not in names and "(" not in text:
            close = meant(text, names)
            hint = f"; did you mean {close!r}?" if close else ""
            raise NoCondition(f"{field} is one of {' | '.join(names)}{hint}")


def _not_readable(text: str, error: NoCondition) -> ValueError:
    reason = f"; {error}" if str(error) else ""
    return ValueError(f"a condition on {_ALLOWED}{reason}")


def _no_name(name: str) -> Any:
    raise UnknownName(name, ())


_NO_NAMES: Final = Algebra(Nullable, _no_name, Nullable.of)
