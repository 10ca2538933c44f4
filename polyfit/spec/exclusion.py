"""What the conditions of ``exclude`` leave of a product of axes.

Each axis is cut into segments of neighbouring values that no condition tells apart, so that a
thousand million seeds are one segment where no condition names them.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Index, Mask
from polyfit.spec.axis import Axis
from polyfit.spec.field_conditions import FieldCondition
from polyfit.spec.fit import Fit

__all__ = ["MAX_COMBINATIONS", "ExclusionError", "Kept"]

MAX_COMBINATIONS: Final = 1_000_000
"""Combinations of values that a condition is tried on."""

MAX_TRIED: Final = 4_000_000
"""The same for all conditions together: half a minute."""


class ExclusionError(ValueError):
    """Condition ``number`` cannot be used; the message says what is allowed."""

    def __init__(self, number: int, allowed: str) -> None:
        super().__init__(allowed)
        self.number = number


class Kept:
    """The combinations of segments that are kept.

    ``mask`` has a dimension per axis and an item per segment; ``starts`` are the first places of
    each axis' segments, ``lengths`` the numbers of their places. ``idle`` are the numbers of the
    conditions that hold for no combination.
    """

    def __init__(self, base: Fit, axes: Sequence[Axis], exclude: Sequence[FieldCondition]) -> None:
        """Try the conditions.

        Raises:
            ExclusionError: one does not suit the values, or tells too many of them apart.
        """
        self._axes, self._tried = axes, 0
        self.idle: set[int] = set()
        starts = [np.zeros(1, dtype=np.int64) for _ in axes]
        mask = np.ones((1,) * len(axes), dtype=np.bool_)
        for number, condition in enumerate(exclude):
            try:
                more_starts, excluded = _merged(*self._try(base, condition))
                if not excluded.any():
                    self.idle.add(number)
                starts, (mask, excluded) = _refined((starts, mask), (more_starts, excluded))
            except ValueError as error:
                raise ExclusionError(number, str(error)) from None
            starts, mask = _merged(starts, mask & ~excluded)
        self.starts: list[Index] = starts
        self.mask: Mask = mask
        self.lengths: list[list[int]] = [
            np.diff([*s.tolist(), len(axis)]).tolist() for s, axis in zip(starts, axes, strict=True)
        ]

    def segments(self, axis: int) -> list[range]:
        """The places of each segment of an axis."""
        pairs = zip(self.starts[axis].tolist(), self.lengths[axis], strict=True)
        return [range(start, start + length) for start, length in pairs]

    def counts(self, axes: Sequence[int]) -> Any:
        """How many kept combinations of all other axes there are with each segment of ``axes``.

        An array of Python integers, with a dimension for each of ``axes``, which rise.
        """
        found: Any = self.mask.astype(np.int64).astype(object)
        for axis in reversed(range(self.mask.ndim)):
            if axis not in axes:
                widths = np.array(self.lengths[axis], dtype=object)
                found = np.moveaxis(found, axis, -1) @ widths
        return np.asarray(found, dtype=object)

    def _try(self, base: Fit, condition: FieldCondition) -> tuple[list[Index], Mask]:
        """The segments that ``condition`` may tell apart, and where it holds."""
        starts = [_starts(axis, condition) for axis in self._axes]
        combinations = prod(len(one) for one in starts)
        self._tried += combinations
        if self._tried > MAX_TRIED:
            raise ValueError(f"conditions that are tried on at most {MAX_TRIED:,} combinations")
        if combinations > MAX_COMBINATIONS:
            raise ValueError(
                f"a condition on axes with at most {MAX_COMBINATIONS:,} combinations of values, "
                f"here {combinations:,}"
            )

        def values(field: str) -> Any:
            for number, axis in enumerate(self._axes):
                for column in axis.values:
                    if column.field == field:
                        seen = [column.items[place] for place in starts[number].tolist()]
                        shape = [1] * len(self._axes)
                        shape[number] = -1
                        return _objects(seen).reshape(shape)
            return _objects([getattr(base, field)]).reshape([1] * len(self._axes))

        holds = condition.holds(values)
        return starts, np.broadcast_to(holds, [len(one) for one in starts])


def _objects(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # a pair would become two items
        array[place] = value
    return array


def _starts(axis: Axis, condition: FieldCondition) -> Index:
    """The places at which the condition may change along an axis, beginning with 0."""
    named = [column for column in axis.values if column.field in condition.fields]
    if not named:
        return np.zeros(1, dtype=np.int64)
    places = {0}
    for column in named:
        thresholds = condition.thresholds(column.field)
        if thresholds is None or not isinstance(column.items, range):
            if len(axis) > MAX_COMBINATIONS:
                raise _too_long(axis)
            return np.arange(len(axis), dtype=np.int64)
        for number in thresholds:
            places |= _around(column.items, number)
    return np.array(sorted(places), dtype=np.int64)


def _too_long(axis: Axis) -> ValueError:
    return ValueError(
        f"of {'+'.join(axis.fields)}, which has {len(axis):,} values, only comparisons with "
        f"numbers, or at most {MAX_COMBINATIONS:,} values"
    )


def _around(items: range, number: float) -> set[int]:
    """The first places in ``items`` at or beyond ``number``, and beyond it."""
    found = set()
    for beyond in (False, True):
        low, high = 0, len(items)
        while low < high:  # bisection: a range may be longer than memory
            middle = (low + high) // 2
            item = items[middle]
            past = (item > number if items.step > 0 else item < number) or (
                not beyond and item == number
            )
            low, high = (low, middle) if past else (middle + 1, high)
        found.add(low)
    return {place for place in found if place < len(items)}


def _merged(starts: list[Index], mask: Mask) -> tuple[list[Index], Mask]:
    """The same mask, with neighbouring segments that are alike as one."""
    merged = []
    for axis, own in enumerate(starts):
        rows = np.moveaxis(mask, axis, 0).reshape(len(own), -1)
        changes = np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1)))
        merged.append(own[changes])
        mask = np.compress(changes, mask, axis=axis)
    return merged, mask


def _refined(
    one: tuple[list[Index], Mask], other: tuple[list[Index], Mask]
) -> tuple[list[Index], tuple[Mask, Mask]]:
    """Two masks over the same, finer segments."""
    starts = [np.union1d(a, b) for a, b in zip(one[0], other[0], strict=True)]
    combinations = prod(len(own) for own in starts)
    if combinations > MAX_COMBINATIONS:
        raise ValueError(
            f"conditions that tell at most {MAX_COMBINATIONS:,} combinations apart, "
            f"here {combinations:,}"
        )
    return starts, (_spread(one, starts), _spread(other, starts))


def _spread(one: tuple[list[Index], Mask], starts: list[Index]) -> Mask:
    numbers = [
        np.searchsorted(own, finer, side="right") - 1
        for own, finer in zip(one[0], starts, strict=True)
    ]
    return one[1][np.ix_(*numbers)] if numbers else one[1]
