"""Whether fits can start: where their dtype holds their observations, basis and rate.

Bounds settle most fits; only the others are computed, as a worker does it. A budget of additions
bounds that: fits beyond it stay unknown.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import cached_property
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Array, Index, Mask
from polyfit.numerics.design import Design, design
from polyfit.numerics.dtypes import holds_problem, holds_rate
from polyfit.numerics.formula import Formula
from polyfit.numerics.observations import noisy, target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.fit import SQUARED
from polyfit.spec.fit_table import FitTable
from polyfit.spec.rate import curvature, learning_rate

__all__ = ["Reason", "StartCheck"]

_NORMAL: Final = 16.0
"""No draw of numpy's standard_normal is as large."""

_SLACK: Final = 4.0
"""How far from a limit a bound must be to settle a fit, whatever was rounded."""

_PIVOT: Final = 1e-3
"""The pivots of Chebyshev polynomials on evenly spaced points are larger, up to degree 30."""

_MAX_NUMBERS: Final = 1 << 18
"""Numbers of an array: two megabytes."""

_MIN_COST: Final = 20_000
"""What a call costs at least, in additions."""


class Reason(IntEnum):
    """Why a fit cannot start; the negative ones are no such reason."""

    STARTS = -2
    UNKNOWN = -1
    TARGET = 0
    """The target is not finite on the points."""
    OBSERVATIONS = 1
    """The dtype does not hold the observations."""
    BASIS = 2
    """The dtype does not hold the basis functions."""
    LIMIT = 3
    """The dtype does not hold the rate that follows from the design."""
    RATE = 4
    """The dtype does not hold the rate that is stated."""


class StartCheck:
    """Checks the fits of a table; ``reasons``, shape (fits,), says what was found of each.

    ``budget`` is the number of additions that may still be spent.
    """

    def __init__(self, table: FitTable) -> None:
        self.table, self.budget = table, 0
        self.reasons = np.full(table.num_fits, Reason.STARTS, dtype=np.int64)
        self._points, self._degree = table.numbers("points"), table.numbers("degree")

    # --- rates and bases ---

    def check_bases(self) -> None:
        """Check R and the rates: by bounds, and where those settle nothing, as a worker does."""
        table = self.table
        lr = table.view("lr", lambda rate: rate.value if rate.kind == "number" else 1.0)
        self.reasons[(lr < table.smallest) | (lr > table.largest)] = Reason.RATE

        def cost(points: int, degree: int, basis: str) -> tuple[float, float, int]:
            size = degree + 1
            return 4.0 * points * size**2, float(size**3), size**2

        fields = ("points", "degree", "basis")
        unsettled = np.flatnonzero(~self._bases_settled())
        for values, some, fits, of in self._pieces(fields, ("range",), unsettled, cost):
            self._check_designs(design(table.grids(some, *values)), fits, of)

    def _bases_settled(self) -> Mask:
        """Which fits bounds prove to hold R and the rate, shape (fits,)."""
        table, largest = self.table, self._largest_function
        second_order = table.view("optimizer", lambda optimizer: optimizer.traits.second_order) > 0
        low, high = table.view("range", lambda value: value, width=2).T
        norm = np.sqrt(self._points) * largest
        narrowness = np.minimum(1.0, (high - low) / 2 / 2)
        pivot = np.where(self._in_powers, narrowness**self._degree, 1.0) * _PIVOT
        slowest, fastest = self._rate_bounds
        settled = np.where(second_order, norm * norm, norm) <= table.largest / _SLACK
        settled &= (pivot >= table.smallest * _SLACK) & (slowest >= table.smallest * _SLACK)
        settled &= fastest <= table.largest / _SLACK
        return np.asarray(settled)

    @cached_property
    def _in_powers(self) -> Mask:
        """Which fits have powers whose size depends on the range."""
        powers = self.table.view("basis", lambda name: name == "power") > 0
        return np.asarray(powers & (self._degree > 0))

    @cached_property
    def _largest_function(self) -> Array:
        """A bound of the basis functions' values."""
        low, high = self.table.view("range", lambda value: value, width=2).T
        largest_x = np.maximum(np.abs(low), np.abs(high))
        return np.where(self._in_powers, np.maximum(largest_x, 1.0) ** self._degree, 1.0)

    @cached_property
    def _rate_bounds(self) -> tuple[Array, Array]:
        """Bounds of the rates that follow from the design's curvature; 1 where none does."""
        view = self.table.view
        share = view("lr", lambda rate: {"auto": 0.5, "number": 0.0}.get(rate.kind, rate.value))
        limited = view("optimizer", lambda optimizer: optimizer.traits.linear) > 0
        beta = view("optimizer", lambda optimizer: optimizer.beta)
        factor = view("objective", lambda name: 2.0 if name in SQUARED else 1.0)
        mean = view("objective", lambda name: name == "mse") > 0
        factor = np.where(mean, factor / self._points, factor)
        widest = factor * self._points * (self._degree + 1) * self._largest_function**2
        bounds = [2.0 * (1.0 + beta) * share / c for c in (widest, factor * self._points)]
        follows = limited & (share > 0)
        return np.where(follows, bounds[0], 1.0), np.where(follows, bounds[1], 1.0)

    def _check_designs(self, found: Design, fits: Index, design_of: Index) -> None:
        """Check ``fits``, of which each has the design number ``design_of``."""
        table, rates_of = self.table, self.table.columns["lr"]
        zeros = np.zeros((len(found.R_MM), found.grid.degree + 1))
        fields = ("dtype", "objective", "optimizer")
        numbers = np.empty(table.num_fits, dtype=np.int64)
        numbers[fits] = design_of
        for group in table.groups(fields, fits):
            dtype, objective, optimizer = table.values(fields, group[0])
            own = numbers[group]
            sound = holds_problem(dtype, optimizer.traits.second_order, found.R_MM, zeros)[own]
            asked, codes = np.unique(rates_of.codes[group], return_inverse=True)
            rates = [rates_of.items[code] for code in asked.tolist()]
            bound = curvature(objective, found.sigma, found.grid.points)[own]
            held = holds_rate(dtype, learning_rate(rates, codes, optimizer, bound))
            stated = np.array([rate.kind == "number" for rate in rates])[codes]
            of_rate = np.where(stated, Reason.RATE, Reason.LIMIT)
            reasons = np.where(held, Reason.STARTS, of_rate)
            self.reasons[group] = np.where(sound, reasons, Reason.BASIS)

    # --- observations ---

    def check_observations(self) -> None:
        """Check the targets on their ranges; where those are large, q as a worker has it."""
        table = self.table
        largest = np.full(table.num_fits, np.nan)

        def cost(target: str, points: int) -> tuple[float, float, int]:
            return 0.0, float(Formula(target).cost * points), points

        every = np.arange(table.num_fits)
        for values, some, fits, of in self._pieces(("target", "points"), ("range",), every, cost):
            target, points = values
            y = target_values(target, table.grids(some, points, 0, "power"))
            largest[fits] = np.abs(y).max(axis=1)[of]
            self.reasons[fits[~np.isfinite(largest[fits])]] = Reason.TARGET
        norm = (largest + _NORMAL * table.numbers("noise")) * np.sqrt(self._points)
        large = (norm > table.largest / _SLACK) & (self.reasons != Reason.TARGET)
        self._check_reduced(np.flatnonzero(large))

    def _check_reduced(self, large: Index) -> None:
        """Check q of fits whose observations are finite and large, with their noise."""
        table = self.table

        def cost(target: str, points: int, degree: int) -> tuple[float, float, int]:
            once = 4.0 * points * (degree + 1) ** 2
            return once, points * (Formula(target).cost + 20.0 + 3 * (degree + 1)), points

        fields, apart = ("target", "points", "degree"), ("range", "noise", "noise_seed", "dtype")
        for (target, points, degree), some, fits, of in self._pieces(fields, apart, large, cost):
            clean = target_values(target, table.grids(some, points, degree, "power"))
            seeds = table.columns["noise_seed"].array(np.uint64)[some]
            y = noisy(clean, np.arange(len(clean)), table.numbers("noise")[some], seeds)
            q, _ = reduce(degree, y)
            held = np.abs(q).max(axis=1) <= table.largest[some]
            self.reasons[fits[~held[of]]] = Reason.OBSERVATIONS

    # --- within the budget ---

    def _pieces(
        self,
        fields: Sequence[str],
        apart: Sequence[str],
        among: Index,
        cost: Callable[..., tuple[float, float, int]],
    ) -> Iterator[tuple[list[Any], Index, Index, Index]]:
        """``among`` in pieces of fits that have the same values of ``fields``.

        Yields those values; the first fit of each combination of the fields ``apart``, as many as
        an array may hold; all fits of the piece; and the number of each one's combination.
        ``cost`` of the values: of a group once, of each combination, and its numbers. Fits that
        the budget does not cover are unknown.
        """
        groups = self.table.groups(fields, among)
        for k, group in enumerate(groups):
            if self.budget < _MIN_COST:
                self._set_unknown(np.concatenate(groups[k:]))
                return
            values = self.table.values(fields, group[0])
            first, of = self.table.distinct(apart, group)
            once, each, numbers = cost(*values)
            affordable, most = self._spend(once), max(1, _MAX_NUMBERS // numbers)
            for low in range(0, len(first), most):
                some = group[first[low : low + most]]
                if not affordable or not self._spend(each * len(some)):
                    self._set_unknown(group[of >= low])
                    break
                here = (of >= low) & (of < low + most)
                yield values, some, group[here], of[here] - low

    def _spend(self, cost: float) -> bool:
        """Whether the budget covers ``cost``, which is then spent."""
        covered = cost + _MIN_COST <= self.budget
        self.budget -= int(cost) + _MIN_COST if covered else _MIN_COST
        return covered

    def _set_unknown(self, fits: Index) -> None:
        self.reasons[fits[self.reasons[fits] == Reason.STARTS]] = Reason.UNKNOWN
