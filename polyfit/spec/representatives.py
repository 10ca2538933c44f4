"""A few fits that stand for all: one of each kind.

Seeds, steps and stop rules do not decide whether a fit can start, nor does noise of an ordinary
size: fits that differ in those alone are of one kind.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.numerics.dtypes import holds_rate
from polyfit.spec.axis import Axis
from polyfit.spec.fit import Rate
from polyfit.spec.parameter_grid import ParameterGrid

__all__ = ["DECIDING_FIELDS", "LOUD_NOISE", "first_of_each_kind", "representatives"]

DECIDING_FIELDS: Final = (
    "degree", "points", "basis", "range", "objective", "dtype", "target", "noise", "noise_seed",
    "optimizer", "lr",
)  # fmt: skip

LOUD_NOISE: Final = 1e20
"""Noise from which on its draw may decide whether float32 holds the observations."""


def representatives(grid: ParameterGrid, most: int) -> tuple[Index, Index]:
    """The first fit of each kind that can start or not for its own reasons, at most ``most``, and
    how many fits it stands for."""
    loud = any(float(value) >= LOUD_NOISE for value in grid.values("noise"))
    return first_of_each_kind(grid, most, lambda field: _decides(field, loud), _deciding_part)


def first_of_each_kind(
    grid: ParameterGrid,
    most: int,
    decides: Callable[[str], bool],
    part: Callable[[Any], Any] = lambda value: value,
) -> tuple[Index, Index]:
    """The first fit of each kind, at most ``most``, and how many fits it stands for.

    Fits are of one kind where ``part`` of each field that ``decides`` is the same.
    """
    choices = [
        _kinds(axis, grid.kept.segments(number), decides, part, most)
        for number, axis in enumerate(grid.axes)
    ]
    count = min(math.prod(len(places) for places, _, _ in choices), most)
    weights = np.ones(count, dtype=np.int64)
    digits, segments = [], []
    every, within = np.arange(count), 1
    for places, sizes, numbers in reversed(choices):
        digit = every // within % len(places) if within < count else np.zeros_like(every)
        digits.append(places[digit])
        segments.append(numbers[digit])
        weights *= sizes[digit]
        within *= len(places)
    kept = np.broadcast_to(grid.kept.mask[tuple(reversed(segments))], count)
    if not digits:
        return np.zeros(1, dtype=np.int64), weights
    return grid.indices([own[kept] for own in reversed(digits)]), weights[kept]


def _kinds(
    axis: Axis,
    segments: Sequence[range],
    decides: Callable[[str], bool],
    part: Callable[[Any], Any],
    most: int,
) -> tuple[Index, Index, Index]:
    """The first place of each kind of value in each segment of an axis, how many places are of
    that kind, and the segment."""
    columns = [values.items for values in axis.values if decides(values.field)]
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for number, segment in enumerate(segments):
        if not columns:
            kinds[(number,)] = [segment.start, len(segment), number]
            continue
        rows = zip(*(items[segment.start : segment.stop] for items in columns), strict=True)
        for place, row in enumerate(rows, segment.start):
            kind = (number, *(part(value) for value in row))
            if kind in kinds:
                kinds[kind][1] += 1
            elif len(kinds) < most:
                kinds[kind] = [place, 1, number]
            elif all(isinstance(items, range) for items in columns):
                break  # all later values are new, and there may be thousands of millions
    places, sizes, numbers = np.array(list(kinds.values()), dtype=np.int64).T
    return places, sizes, numbers


def _decides(field: str, loud: bool) -> bool:
    return field in DECIDING_FIELDS and (loud or field not in ("noise", "noise_seed"))


def _deciding_part(value: Any) -> Any:
    """Of a stated rate that float32 holds only this: any other would do as well."""
    if isinstance(value, Rate) and value.kind == "number":
        return holds_rate("float32", np.array([value.value])).all() or value
    return value
