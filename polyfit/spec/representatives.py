"""A few fits that stand for all: one of each kind that can start or not for its own reasons.

Seeds, steps and stop rules do not decide whether a fit can start, nor does noise of an ordinary
size: fits that differ in those alone are of one kind.
"""

import math
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.numerics.dtypes import holds_rate
from polyfit.spec.axis import Axis
from polyfit.spec.fit import Rate
from polyfit.spec.sweep import Sweep

__all__ = ["DECIDING_FIELDS", "LOUD_NOISE", "representatives"]

DECIDING_FIELDS: Final = (
    "degree", "points", "basis", "range", "objective", "dtype", "target", "noise", "noise_seed",
    "optimizer", "lr",
)  # fmt: skip

LOUD_NOISE: Final = 1e20
"""Noise from which on its draw may decide whether float32 holds the observations."""


def representatives(sweep: Sweep, most: int) -> tuple[Index, Index]:
    """The first fit of each kind, at most ``most``, and how many fits it stands for."""
    loud = any(float(value) >= LOUD_NOISE for value in sweep.values("noise"))
    choices = [_kinds(axis, loud, most) for axis in sweep.axes]
    count = min(math.prod(len(places) for places, _ in choices), most)
    fits, weights = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    every, stride, within = np.arange(count), 1, 1
    for axis, (places, sizes) in zip(reversed(sweep.axes), reversed(choices), strict=True):
        digit = every // within % len(places) if within < count else np.zeros_like(every)
        fits += places[digit] * stride
        weights *= sizes[digit]
        stride, within = stride * len(axis), within * len(places)
    return fits, weights


def _kinds(axis: Axis, loud: bool, most: int) -> tuple[Index, Index]:
    """The first place of each kind of value on an axis, and how many places are of that kind."""
    columns = [values.items for values in axis.values if _decides(values.field, loud)]
    if not columns:
        return np.zeros(1, dtype=np.int64), np.full(1, len(axis))
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(zip(*columns, strict=True)):
        kind = tuple(_deciding_part(value) for value in row)
        if kind in kinds:
            kinds[kind][1] += 1
        elif len(kinds) < most:
            kinds[kind] = [place, 1]
        elif all(isinstance(items, range) for items in columns):
            break  # all later values are new, and there may be thousands of millions
    places, sizes = np.array(list(kinds.values()), dtype=np.int64).T
    return places, sizes


def _decides(field: str, loud: bool) -> bool:
    return field in DECIDING_FIELDS and (loud or field not in ("noise", "noise_seed"))


def _deciding_part(value: Any) -> Any:
    """Of a stated rate that float32 holds only this: any other would do as well."""
    if isinstance(value, Rate) and value.kind == "number":
        return holds_rate("float32", np.array([value.value])).all() or value
    return value
