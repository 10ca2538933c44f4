"""Whether grids that follow one another have a fit in common."""

from collections.abc import Sequence
from itertools import combinations
from math import gcd
from typing import Any, Final

import numpy as np

from polyfit.spec.defects import Defects, dotted
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.grid_overlap import GridOverlap
from polyfit.spec.parameter_grid import ParameterGrid

__all__ = ["check_disjoint"]

_MAX_FITS: Final = 100_000
"""Fits of the smaller of two grids that are looked for in the other one by one."""


def check_disjoint(grids: Sequence[ParameterGrid], defects: Defects) -> None:
    """Refuse a grid that has a fit of an earlier one.

    Grids of many fits with a ``zip`` or with conditions are not compared: a fit in both is fitted
    in both.
    """
    for earlier, later in combinations(grids, 2):
        number = _common_fit(earlier, later)
        if number is not None:
            where = dotted(earlier.path)
            found = f"fits that {where} has too, such as its fit {number:,}"
            defects.refuse(later.path, found, "each fit once")


def _common_fit(earlier: ParameterGrid, later: ParameterGrid) -> int | None:
    """The index in ``earlier`` of a fit of both; None where none was found."""
    if not all(_meet(earlier.items(name), later.items(name)) for name in CANONICAL_ORDER):
        return None
    small, large = sorted((earlier, later), key=lambda grid: grid.size)
    if small.size > _MAX_FITS or large.full_size >= 2**63:
        return 0 if _is_product(small) and _is_product(large) else None
    found = GridOverlap(small, large).indices(np.arange(small.size))
    if not (found >= 0).any():
        return None
    first = int(np.argmax(found >= 0))
    return first if small is earlier else int(found[first])


def _is_product(grid: ParameterGrid) -> bool:
    """Whether the grid has every combination of its fields' values."""
    return not grid.exclude and all(len(axis.values) == 1 for axis in grid.axes)


def _meet(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two sequences have a value in common."""
    if isinstance(one, range) and isinstance(other, range):
        return _ranges_meet(_ascending(one), _ascending(other))
    listed, among = (one, other) if isinstance(other, range) else (other, one)
    values = among if isinstance(among, range) else set(among)
    return any(value in values for value in listed)


def _ascending(items: range) -> range:
    return items if items.step > 0 else items[::-1]


def _ranges_meet(one: range, other: range) -> bool:
    """Whether two rising ranges of any length have a number in common (Chinese remainders)."""
    divisor = gcd(one.step, other.step)
    distance, rest = divmod(other[0] - one[0], divisor)
    if rest:
        return False
    period = other.step // divisor
    steps = distance * pow(one.step // divisor, -1, period) % period
    common, every = one[0] + one.step * steps, one.step * period
    common += every * -(-max(other[0] - common, 0) // every)
    return common <= min(one[-1], other[-1])
