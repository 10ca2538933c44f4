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

__all__ = ["DECIDING_FIELDS", "LOUD_NOISE", "first_of_each_kind", "representatives", "spread_order"]

DECIDING_FIELDS: Final = (
    "degree", "points", "basis", "range", "objective", "dtype", "target", "noise", "noise_seed",
    "optimizer", "lr",
)  # fmt: skip

_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: its multiples modulo 2^64 are spread evenly, and keep no step
with the lengths of axes (Knuth, The Art of Computer Programming, vol. 3, section 6.4)."""

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
    spread: bool = False,
) -> tuple[Index, Index]:
    """The first fit of each kind, at most ``most``, and how many fits it stands for.

    Fits are of one kind where ``part`` of each field that ``decides`` is the same. Of more kinds
    they are the first ones, or with ``spread`` a sample of all.
    """
    choices = [
        _kinds(axis, grid.kept.segments(number), decides, part, most, spread)
        for number, axis in enumerate(grid.axes)
    ]
    total = math.prod(len(places) for places, _, _ in choices)
    count = min(total, most)
    weights = np.ones(count, dtype=np.int64)
    digits, segments = [], []
    every, within = np.array(_ranks(total, count, spread), dtype=object), 1
    for places, sizes, numbers in reversed(choices):
        digit = (every // within % len(places)).astype(np.int64)
        digits.append(places[digit])
        segments.append(numbers[digit])
        weights *= sizes[digit]
        within *= len(places)
    kept = np.broadcast_to(grid.kept.mask[tuple(reversed(segments))], count)
    if not digits:
        return np.zeros(1, dtype=np.int64), weights
    return grid.indices([own[kept] for own in reversed(digits)]), weights[kept]


def spread_order(count: int) -> Index:
    """The numbers below ``count`` in an order whose beginnings are spread over all of them."""
    return np.argsort(np.arange(count, dtype=np.uint64) * np.uint64(_GOLDEN), kind="stable")


def _ranks(total: int, count: int, spread: bool) -> Sequence[int]:
    """``count`` of the numbers below ``total``, rising: the first, or one of each stretch."""
    if not spread or count == total:
        return range(count)
    return [
        i * total // count + (((i * _GOLDEN) % 2**64 * (total // count)) >> 64)
        for i in range(count)
    ]


def _kinds(
    axis: Axis,
    segments: Sequence[range],
    decides: Callable[[str], bool],
    part: Callable[[Any], Any],
    most: int,
    spread: bool,
) -> tuple[Index, Index, Index]:
    """The first place of each kind of value in each segment of an axis, how many places are of
    that kind, and the segment."""
    columns = [values.items for values in axis.values if decides(values.field)]
    even = bool(columns) and all(isinstance(items, range) for items in columns)
    if spread and even:
        return _sampled(segments, most)
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
            elif len(kinds) < most or spread:
                kinds[kind] = [place, 1, number]
            elif even:
                break  # all later values are new, and there may be thousands of millions
    found = np.array(list(kinds.values()), dtype=np.int64)
    found = found[_ranks(len(found), min(len(found), most), spread)]
    places, sizes, numbers = found.T
    return places, sizes, numbers


def _sampled(segments: Sequence[range], most: int) -> tuple[Index, Index, Index]:
    """As ``_kinds``, of an axis on which all values differ: a sample of its places."""
    ends = np.cumsum([len(segment) for segment in segments])
    total = int(ends[-1])
    ranks = np.array(_ranks(total, min(total, most), True), dtype=np.int64)
    numbers = np.searchsorted(ends, ranks, "right")
    starts = np.array([segment.start for segment in segments], dtype=np.int64)
    lengths = np.array([len(segment) for segment in segments], dtype=np.int64)
    places = starts[numbers] + ranks - (ends - lengths)[numbers]
    return places, np.ones_like(places), numbers


def _decides(field: str, loud: bool) -> bool:
    return field in DECIDING_FIELDS and (loud or field not in ("noise", "noise_seed"))


def _deciding_part(value: Any) -> Any:
    """Of a stated rate that float32 holds only this: any other would do as well."""
    if isinstance(value, Rate) and value.kind == "number":
        return holds_rate("float32", np.array([value.value])).all() or value
    return value
