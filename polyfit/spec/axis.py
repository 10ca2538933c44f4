"""The axes of a sweep: the values of one field, or of fields that vary together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyfit.spec.fields import FIELDS
from polyfit.spec.generators import generate
from polyfit.spec.suggestions import is_allowed, of_list, of_value

__all__ = ["Axis", "ItemError", "Values"]


class ItemError(ValueError):
    """Items of a list that are not allowed: (position, what was found, what is allowed)."""

    def __init__(self, items: list[tuple[int, Any, str]]) -> None:
        super().__init__(items)
        self.items = items


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one field along an axis, in order.

    ``items`` is a tuple, or a ``range`` for integers in even steps. ``source`` is the canonical
    JSON that it was made from.
    """

    field: str
    source: Any
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def read(cls, name: str, raw: Any, distinct: bool = True) -> "Values":
        """Read a list or a generator of field ``name``.

        ``distinct`` is False within a zip: there a value may be repeated, but no whole row.

        Raises:
            ValueError: what is allowed.
            ItemError: the items of a list that are not allowed.
        """
        match raw:  # {of_limit: [...]} is a list of rates
            case {"of_limit": list() as shares, **others} if name == "lr" and not others:
                raw = [{"of_limit": share} for share in shares]
        if isinstance(raw, dict):
            return cls(name, *generate(FIELDS[name], raw))
        if name == "range" and is_allowed(FIELDS[name], raw):
            raise ValueError(f"a list of ranges; did you mean [{raw}]?")
        if not isinstance(raw, list) or not raw:
            hint = of_list(FIELDS[name], raw)
            raise ValueError(f"a list with at least one value, or a generator{hint}")
        items = _read_items(name, raw, distinct)
        return cls(name, [FIELDS[name].write(item) for item in items], tuple(items))


def _read_items(name: str, raw: list[Any], distinct: bool) -> list[Any]:
    field = FIELDS[name]
    items: list[Any] = []
    refused: list[tuple[int, Any, str]] = []
    first: dict[Any, int] = {}
    for i, item in enumerate(raw):
        try:
            value = field.read(item)
        except ValueError as error:
            refused.append((i, item, (str(error) or field.allowed) + of_value(field, item)))
            continue
        if distinct and value in first:
            refused.append((i, item, f"each value once; it equals item {first[value]}"))
        first.setdefault(value, i)
        items.append(value)
    if refused:
        raise ItemError(refused)
    return items


@dataclass(frozen=True, slots=True)
class Axis:
    """Fields that vary together; one field alone, or the fields of a zip entry."""

    values: tuple[Values, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(values.field for values in self.values)

    def __len__(self) -> int:
        return len(self.values[0])
