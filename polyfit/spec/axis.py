"""The axes of a sweep: the values of one field, or of fields that vary together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import Fit
from polyfit.spec.generators import generate

__all__ = ["Axis", "ItemError", "Values", "combinations"]

_MAX_LISTED_STEPS: Final = 100_000
"""Integers in even steps that ``combinations`` goes through one by one."""


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
        if isinstance(raw, dict):
            return cls(name, *generate(FIELDS[name], raw))
        if not isinstance(raw, list) or not raw:
            raise ValueError("a list with at least one value, or a generator")
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
            refused.append((i, item, str(error) or field.allowed))
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


def combinations(
    fit: Fit,
    axes: tuple[Axis, ...],
    names: tuple[str, ...],
    view: Callable[[str, Any], Any] = lambda name, value: value,
) -> Iterator[tuple[Any, ...]]:
    """All distinct combinations of (a view of) the named fields, without walking the sweep.

    Of a long axis of integers in even steps only the two ends: enough for monotone rules.
    """
    fixed = {name: view(name, getattr(fit, name)) for name in names}
    choices: list[list[dict[str, Any]]] = [[fixed]]
    for axis in axes:
        columns = [values for values in axis.values if values.field in names]
        if columns:
            fields = [values.field for values in columns]
            rows = zip(*_few(columns), strict=True)
            distinct = dict.fromkeys(tuple(map(view, fields, row)) for row in rows)
            choices.append([dict(zip(fields, row, strict=True)) for row in distinct])
    for parts in product(*choices):
        merged: dict[str, Any] = {}
        for part in parts:
            merged.update(part)
        yield tuple(merged[name] for name in names)


def _few(columns: list[Values]) -> list[Any]:
    items = [values.items for values in columns]
    if all(isinstance(one, range) for one in items) and len(items[0]) > _MAX_LISTED_STEPS:
        return [(one[0], one[-1]) for one in items]
    return items
