"""What a sweep varies, as groups: fits that differ in their seeds alone are one group.

A fit's group is computed from its index, like its parameters. Fields with many values are cut
into bins of neighbours, so that there are never more than ``MAX_GROUPS`` groups.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.spec.fit import CANONICAL_ORDER, Rate
from polyfit.spec.plan import Plan

__all__ = ["MAX_LISTED", "Grouping", "SweptField", "field_values", "in_pi", "swept_fields"]

MAX_VALUES: Final = 40
"""Values of one field that are told apart."""

MAX_GROUPS: Final = 2_000

MAX_LISTED: Final = 100_000
"""Values of a field that are listed; a field with more makes no groups."""

SEEDS: Final = ("seed", "noise_seed")


@dataclass(frozen=True, slots=True)
class SweptField:
    """A field that the sweep varies, with its values or bins in their order.

    Attributes:
        name: the field's.
        title: of an axis.
        labels: of each value or bin.
        numbers: the values, the middle one of a bin; None where they are no numbers.
        of_item: the value or bin of each item; None: the items of a range, ``per_bin`` to a bin.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    numbers: tuple[float, ...] | None
    of_item: Mapping[Any, int] | None
    per_bin: int = 1

    def codes(self, plan: Plan, fits: Index) -> Index:
        """Which value or bin each fit has."""
        column = plan.sweep.column(self.name, fits)
        if self.of_item is None:
            return column.codes // self.per_bin
        if len(column.items) > len(fits):
            column = column.compact()
        places = np.array([self.of_item[item] for item in column.items], dtype=np.int64)
        return places[column.codes]


@dataclass(frozen=True)
class Grouping:
    """The groups of a plan: combinations of the values of ``fields``."""

    plan: Plan
    fields: tuple[SweptField, ...]

    @classmethod
    def of(cls, plan: Plan) -> "Grouping":
        """By all that is swept but seeds; without the fields of most values if they are many."""
        names = [name for name in swept_fields(plan) if name not in SEEDS]
        fields = [_field(plan, name) for name in names if _countable(plan, name)]
        while math.prod(len(field.labels) for field in fields) > MAX_GROUPS:
            fields.remove(max(fields, key=lambda field: len(field.labels)))
        return cls(plan, tuple(fields))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many values each field has."""
        return tuple(len(field.labels) for field in self.fields)

    def codes(self, fits: Index) -> Index:
        """The number of each fit's group, a mixed-radix number with a digit per field."""
        total = np.zeros(len(fits), dtype=np.int64)
        for field, size in zip(self.fields, self.sizes, strict=True):
            total = total * size + field.codes(self.plan, fits)
        return total

    def digits(self, code: int) -> tuple[int, ...]:
        """The value of each field in a group."""
        found: list[int] = []
        for size in reversed(self.sizes):
            code, digit = divmod(code, size)
            found.insert(0, digit)
        return tuple(found)

    def labels(self, code: int) -> dict[str, str]:
        """The label of each field in a group, by the field's title."""
        return {
            field.title: field.labels[digit]
            for field, digit in zip(self.fields, self.digits(code), strict=True)
        }


def swept_fields(plan: Plan) -> list[str]:
    """The fields that have more than one value in a plan, in canonical order."""
    return [name for name in CANONICAL_ORDER if len(field_values(plan, name)) > 1]


def _countable(plan: Plan, name: str) -> bool:
    values = field_values(plan, name)
    return isinstance(values, range) or len(values) < MAX_LISTED


def field_values(plan: Plan, name: str) -> Sequence[Any]:
    """The values of a field, each once: numbers of one kind by size, others as the sweep has them.

    A range of one grid may be of any length, and falls if the sweep has it so and it is longer than
    ``MAX_LISTED``; of others, the first ``MAX_LISTED`` values count.
    """
    grids = plan.sweep.grids
    if len(grids) == 1 and not grids[0].exclude:
        columns = (column for axis in grids[0].axes for column in axis.values)
        for column in columns:
            items = column.items
            if column.field == name and isinstance(items, range):
                rising = items.step > 0 or len(items) >= MAX_LISTED
                return items if rising else sorted(items)
    values = list(dict.fromkeys(islice(plan.sweep.values(name), MAX_LISTED)))
    numbers = _numbers(values)
    return values if numbers is None else [values[k] for k in np.argsort(numbers, kind="stable")]


def _field(plan: Plan, name: str) -> SweptField:
    items = field_values(plan, name)
    title = _title(name, items)
    if isinstance(items, range):
        per_bin = -(-len(items) // MAX_VALUES)
        starts = range(0, len(items), per_bin)
        middles = [items[min(start + (per_bin - 1) // 2, len(items) - 1)] for start in starts]
        labels = tuple(f"{value}" if per_bin == 1 else f"~{value:,}" for value in middles)
        return SweptField(name, title, labels, tuple(map(float, middles)), None, per_bin)
    return _of_values(name, title, list(items))


def _of_values(name: str, title: str, values: list[Any]) -> SweptField:
    numbers = _numbers(values)
    if len(values) <= MAX_VALUES:
        bins = {value: place for place, value in enumerate(values)}
        short, full = (tuple(_among(v, values, digits) for v in values) for digits in (4, 17))
        labels = short if len(set(short)) == len(values) else full
        return SweptField(name, title, labels, numbers, bins)
    per_bin = -(-len(values) // MAX_VALUES)
    bins = {value: place // per_bin for place, value in enumerate(values)}
    middles = [
        values[min(start + (per_bin - 1) // 2, len(values) - 1)]
        for start in range(0, len(values), per_bin)
    ]
    labels = tuple(f"~{_label(value, 4)}" for value in middles)
    return SweptField(name, title, labels, _numbers(middles), bins)


def _numbers(values: Sequence[Any]) -> tuple[float, ...] | None:
    """The values as numbers, if they all are, and of one kind."""
    known = tuple(number for value in values if (number := _number(value)) is not None)
    one_kind = len({_kind(value) for value in values}) == 1
    return known if len(known) == len(values) and one_kind else None


def _among(value: Any, values: Sequence[Any], digits: int) -> str:
    """The label of a value; of a share of the stability limit where others are none, too."""
    label = _label(value, digits)
    mixed = isinstance(value, Rate) and len(set(map(_kind, values))) > 1
    return f"{label} of the limit" if mixed and value.kind == "of_limit" else label


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, Rate) else type(value).__name__


def _number(value: Any) -> float | None:
    if isinstance(value, Rate):
        return value.value if value.kind != "auto" else None
    return float(value) if isinstance(value, int | float) else None


def _title(name: str, items: Sequence[Any]) -> str:
    if name != "lr" or isinstance(items, range):
        return name.replace("_", " ")
    kinds = {item.kind for item in items}
    return "share of the stability limit" if kinds == {"of_limit"} else "learning rate"


def _label(value: Any, digits: int = 17) -> str:
    match value:
        case None:
            return "none"
        case Rate(kind="of_limit", value=share):
            return f"{share:.{digits}g}"
        case Rate(kind="number", value=number) | (float() as number):
            return f"{number:.{digits}g}"
        case (low, high):
            return f"[{in_pi(low)}, {in_pi(high)}]"
    return str(value)


def in_pi(value: float) -> str:
    """A bound as people write it: a simple multiple of pi, or the number itself."""
    multiple = Fraction(value / math.pi).limit_denominator(4)
    if not multiple or not math.isclose(multiple * math.pi, value):
        return f"{value:g}"
    top, bottom = multiple.as_integer_ratio()
    factor = {1: "", -1: "-"}.get(top, str(top))
    return f"{factor}π" if bottom == 1 else f"{factor}π/{bottom}"
