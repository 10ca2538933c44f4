"""Fits that cannot start, found before anything is fitted and without torch.

A fit starts where its dtype holds its data, its basis functions and its rate (``holds_problem``,
``holds_rate``); else its row says diverged, with no update taken. Seeds, steps and stop rules
decide nothing of that, nor does noise of an ordinary size: one fit stands for all that differ
from it in those alone. Of these, bounds settle most; only the others are computed as a worker
does. What that may cost is bounded, and what was not looked at is counted.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Array, Index
from polyfit.numerics.design import Design, design
from polyfit.numerics.dtypes import holds_problem, holds_rate
from polyfit.numerics.formula import Formula
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noisy, target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.document import Path
from polyfit.spec.fields import Rate
from polyfit.spec.rate import curvature, learning_rate
from polyfit.spec.spec import Axis, Spec
from polyfit.spec.sweep import Sweep

__all__ = ["Cause", "Precheck"]

MAX_KINDS: Final = 1 << 18
"""Fits that are looked at, each for all that are alike."""

MAX_COST: Final = 200_000_000
"""Additions that computing data and designs may cost in all: about a second of one core."""

MAX_TOLD: Final = 10
"""Causes that are told one by one."""

_DECIMAL: Final = 12
"""Characters of a number that somebody wrote, rather than of one that was computed."""
_LOUD: Final = 1e20
"""Noise from which on its draw may decide whether float32 holds the data."""

_NORMAL: Final = 16.0
"""No draw of numpy's standard_normal is as large."""

_SLACK: Final = 4.0
"""How far from a limit a bound must be to settle a matter, whatever was rounded."""

_PIVOT: Final = 1e-3
"""The pivots of Chebyshev polynomials on evenly spaced points are larger, up to degree 30."""

_NUMBERS: Final = 1 << 18
"""Numbers of an array: two megabytes."""

_CALL: Final = 20_000
"""What a call costs at least, in additions."""

_DECIDING: Final = (
    "degree", "points", "basis", "range", "objective", "dtype", "target", "noise", "noise_seed",
    "optimizer", "lr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """Why some fits cannot start.

    ``values`` are those of the fields concerned, the one to change first, and ``places`` where
    they stand on their axes (0 where no axis varies the field).
    """

    values: dict[str, Any]
    places: dict[str, int]
    told: str
    fits: int


@dataclass(frozen=True, slots=True)
class Precheck:
    """What was found: ``cannot_start`` of ``fits``, for ``causes``, each fit counted once.

    ``causes`` are the first ones, in the order of the fits; ``more`` counts the others. Of
    ``unchecked`` fits nothing is known.
    """

    fits: int
    cannot_start: int
    causes: tuple[Cause, ...]
    more: int
    unchecked: int

    @classmethod
    def of(cls, sweep: Sweep, most_cost: int = MAX_COST, most_kinds: int = MAX_KINDS) -> "Precheck":
        """Look at ``sweep``, at the cost of so many additions and kinds of fit at most."""
        fits, weights = _representatives(sweep, most_kinds)
        look = _Look(sweep, fits)
        with np.errstate(all="ignore"):
            look.budget = most_cost // 2
            look.at_bases()
            look.budget += most_cost // 2
            look.at_data()
            found, more = look.causes(weights)
        reasons = look.reasons
        return cls(
            sweep.size,
            int(weights[reasons > _UNKNOWN].sum()),
            found,
            more,
            sweep.size - int(weights[reasons != _UNKNOWN].sum()),
        )

    def lines(self, spec: Spec) -> list[str]:
        """What there is to say, a line each: empty where every fit can start."""
        of_all = f"of {self.fits:,} fits cannot start"
        lines = [f"{_where(spec, c)}: {c.told}: {c.fits:,} {of_all}" for c in self.causes]
        if self.more:
            lines.append(f"{spec.source}: {self.more:,} more causes like these")
        if len(lines) > 1:
            lines.append(f"{spec.source}: in all {self.cannot_start:,} {of_all}")
        if self.unchecked:
            lines.append(
                f"{spec.source}: whether {self.unchecked:,} of {self.fits:,} fits can start was "
                "not looked at: the check is bounded to about a second of work"
            )
        return lines


# --- which fits stand for all ----------------------------------------------------------------


def _representatives(sweep: Sweep, most: int) -> tuple[Index, Index]:
    """The first fit of each kind, at most so many, and how many fits it stands for."""
    loud = any(float(value) >= _LOUD for value in sweep.values("noise"))
    choices = [_kinds(axis, loud, most) for axis in sweep.axes]
    count = min(math.prod(len(places) for places, _ in choices), most)
    fits, weights = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    every, stride, within = np.arange(count), 1, 1
    for axis, (places, alike) in zip(reversed(sweep.axes), reversed(choices), strict=True):
        digit = every // within % len(places) if within < count else np.zeros_like(every)
        fits += places[digit] * stride
        weights *= alike[digit]
        stride, within = stride * len(axis), within * len(places)
    return fits, weights


def _kinds(axis: Axis, loud: bool, most: int) -> tuple[Index, Index]:
    """The first place of each kind of value on an axis, and how many places it stands for."""
    names = [v.field for v in axis.values if v.field in _DECIDING and _decides(v.field, loud)]
    columns = [values.items for values in axis.values if values.field in names]
    if not columns:
        return np.zeros(1, dtype=np.int64), np.full(1, len(axis))
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(zip(*columns, strict=True)):
        key = tuple(_kind(value) for value in row)
        if key in found:
            found[key][1] += 1
        elif len(found) < most:
            found[key] = [place, 1]
        elif all(isinstance(items, range) for items in columns):
            break  # it may go on for ever
    places, alike = np.array(list(found.values()), dtype=np.int64).T
    return places, alike


def _decides(name: str, loud: bool) -> bool:
    return loud or name not in ("noise", "noise_seed")


def _kind(value: Any) -> Any:
    """What of a value decides: of a rate that float32 holds, nothing but that it does."""
    if isinstance(value, Rate) and value.kind == "number":
        return holds_rate("float32", np.array([value.value])).all() or value
    return value


# --- looking ---------------------------------------------------------------------------------

_STARTS, _UNKNOWN, _TARGET, _DATA, _BASIS, _LIMIT, _RATE = range(-2, 5)
"""What is found of a fit; those above _UNKNOWN are why it cannot start."""

_CONCERNED: Final = {
    _TARGET: ("target", "range", "points"),
    _DATA: ("target", "range", "noise", "dtype"),
    _BASIS: ("range", "degree", "basis", "dtype"),
    _LIMIT: ("lr", "range", "degree", "basis", "dtype"),
    _RATE: ("lr", "dtype"),
}
"""The fields that a cause is told with, the one to change first."""


class _Look:
    """Fits, one for each kind, as columns of shape (fits,); what is computed lessens ``budget``.

    ``reasons`` holds what is found of each: that it starts, why it cannot, or that it is unknown.
    """

    def __init__(self, sweep: Sweep, fits: Index) -> None:
        found = {name: sweep.column(name, fits) for name in _DECIDING}
        self.places = {name: column.codes for name, column in found.items()}
        self.columns = {name: column.compact() for name, column in found.items()}
        self.count, self.budget = len(fits), 0
        self.reasons = np.full(self.count, _STARTS, dtype=np.int8)
        self.points, self.degree = self._numbers("points"), self._numbers("degree")
        low, high = self._of("range", lambda value: value, width=2).T
        self.half, self.reach = (high - low) / 2, np.maximum(np.abs(low), np.abs(high))
        dtypes = {name: np.finfo(name) for name in ("float32", "float64")}
        self.most = self._of("dtype", lambda name: float(dtypes[name].max))
        self.least = self._of("dtype", lambda name: float(dtypes[name].tiny))
        self.in_x = (self._of("basis", lambda name: name == "power") > 0) & (self.degree > 0)

    def _numbers(self, name: str) -> Array:
        return self.columns[name].array(np.float64)

    def _of(self, name: str, view: Callable[[Any], Any], width: int = 0) -> Array:
        """A view of a field's values, shape (fits,) or (fits, width)."""
        column = self.columns[name]
        values = np.array([view(item) for item in column.items], dtype=np.float64)
        return values.reshape((-1, width) if width else -1)[column.codes]

    def _value(self, name: str, fit: int) -> Any:
        column = self.columns[name]
        return column.items[int(column.codes[fit])]

    def _alike(self, names: Sequence[str], among: Index) -> Iterator[Index]:
        """``among`` in groups that have the same values of these fields, the first ones first."""
        if not len(among):
            return iter(())
        first, of = _numbered([self.columns[name].codes[among] for name in names])
        order = np.argsort(of, kind="stable")
        groups = np.split(among[order], np.cumsum(np.bincount(of, minlength=len(first)))[:-1])
        return iter(sorted(groups, key=lambda group: int(group[0])))

    def _afford(self, cost: float) -> bool:
        held = cost + _CALL <= self.budget
        self.budget -= int(cost) + _CALL if held else _CALL
        return held

    def _unknown(self, fits: Index) -> None:
        self.reasons[fits[self.reasons[fits] == _STARTS]] = _UNKNOWN

    def _pieces(
        self,
        alike: Sequence[str],
        apart: Sequence[str],
        among: Index,
        cost: Callable[..., tuple[float, float, int]],
    ) -> Iterator[tuple[list[Any], Index, Index, Index]]:
        """``among`` in pieces of fits that have the same values of the fields ``alike``.

        Yields those values; the first fit of each combination of the fields ``apart``, of which a
        piece has as many as memory bears; the fits; and the number of each one's combination.
        ``cost`` tells by the values what a group costs once, what a combination does, and its
        numbers. What the budget does not cover is unknown.
        """
        groups = list(self._alike(alike, among))
        for k, group in enumerate(groups):
            if self.budget < _CALL:
                self._unknown(np.concatenate(groups[k:]))
                return
            values = [self._value(name, group[0]) for name in alike]
            first, of = _numbered([self.columns[name].codes[group] for name in apart])
            once, each, numbers = cost(*values)
            affordable, most = self._afford(once), max(1, _NUMBERS // numbers)
            for low in range(0, len(first), most):
                some = group[first[low : low + most]]
                if not affordable or not self._afford(each * len(some)):
                    self._unknown(group[of >= low])
                    break
                here = (of >= low) & (of < low + most)
                yield values, some, group[here], of[here] - low

    def _grid(self, fits: Index, points: int, degree: int, basis: str) -> Grid:
        ends = np.array([self._value("range", fit) for fit in fits], dtype=np.float64)
        return Grid(ends[:, 0], ends[:, 1], points, degree, basis)

    # --- rates and bases ---

    @cached_property
    def _limit(self) -> tuple[Array, Array]:
        """Bounds of the rates that follow from the design's curvature; 1 where none does."""
        share = self._of("lr", lambda rate: {"auto": 0.5, "number": 0.0}.get(rate.kind, rate.value))
        steady = self._of("optimizer", lambda o: o.name in ("gd", "momentum")) > 0
        beta = self._of("optimizer", lambda optimizer: optimizer.beta)
        objective = self.columns["objective"]
        factor = self._of("objective", lambda name: 2.0 if name in ("sse", "mse") else 1.0)
        mean = np.array([name == "mse" for name in objective.items])[objective.codes]
        factor = np.where(mean, factor / self.points, factor)
        wide = factor * self.points * (self.degree + 1) * self._largest**2
        ends = [2.0 * (1.0 + beta) * share / bound for bound in (wide, factor * self.points)]
        follows = steady & (share > 0)
        return np.where(follows, ends[0], 1.0), np.where(follows, ends[1], 1.0)

    @cached_property
    def _largest(self) -> Array:
        """A bound of the basis functions' values."""
        return np.where(self.in_x, np.maximum(self.reach, 1.0) ** self.degree, 1.0)

    def at_bases(self) -> None:
        """Judge R and the rates: by bounds, and where those do not settle it, as a worker does."""
        lr = self._of("lr", lambda rate: rate.value if rate.kind == "number" else 1.0)
        self.reasons[(lr < self.least) | (lr > self.most)] = _RATE
        newton = self._of("optimizer", lambda optimizer: optimizer.name == "newton") > 0
        norm = np.sqrt(self.points) * self._largest
        pivot = np.where(self.in_x, np.minimum(1.0, self.half / 2) ** self.degree, 1.0) * _PIVOT
        slowest, fastest = self._limit
        settled = np.where(newton, norm * norm, norm) <= self.most / _SLACK
        settled &= (pivot >= self.least * _SLACK) & (slowest >= self.least * _SLACK)
        settled &= fastest <= self.most / _SLACK

        def cost(points: int, degree: int, basis: str) -> tuple[float, float, int]:
            size = degree + 1
            return 4.0 * points * size**2, float(size**3), size**2

        alike = ("points", "degree", "basis")
        for values, some, fits, of in self._pieces(
            alike, ("range",), np.flatnonzero(~settled), cost
        ):
            self._judge(design(self._grid(some, *values)), fits, of)

    def _judge(self, found: Design, fits: Index, of: Index) -> None:
        """Judge ``fits``, of which each has the range number ``of`` of a design."""
        zeros = np.zeros((len(found.R_MM), found.grid.degree + 1))
        names = ("dtype", "objective", "optimizer")
        at = np.empty(self.count, dtype=np.int64)
        at[fits] = of
        for group in self._alike(names, fits):
            dtype, objective, optimizer = (self._value(name, group[0]) for name in names)
            newton, own = optimizer.name == "newton", at[group]
            sound = holds_problem(dtype, newton, found.R_MM, zeros)[own]
            asked, codes = np.unique(self.columns["lr"].codes[group], return_inverse=True)
            rates = [self.columns["lr"].items[code] for code in asked.tolist()]
            bound = curvature(objective, found.sigma, found.grid.points)[own]
            held = holds_rate(dtype, learning_rate(rates, codes, optimizer, bound))
            numbers = np.array([_RATE if rate.kind == "number" else _LIMIT for rate in rates])
            self.reasons[group] = np.where(sound, np.where(held, _STARTS, numbers[codes]), _BASIS)

    # --- data ---

    def at_data(self) -> None:
        """Judge the targets on their ranges, and where those are large, q as a worker has it."""
        norm = np.full(self.count, np.nan)

        def cost(target: str, points: int) -> tuple[float, float, int]:
            return 0.0, float(Formula(target).cost * points), points

        for (target, points), some, fits, of in self._pieces(
            ("target", "points"), ("range",), np.arange(self.count), cost
        ):
            y = target_values(target, self._grid(some, points, 0, "power"))
            norm[fits] = np.abs(y).max(axis=1)[of]
            self.reasons[fits[~np.isfinite(norm[fits])]] = _TARGET
        norm = (norm + _NORMAL * self._numbers("noise")) * np.sqrt(self.points)
        large = (norm > self.most / _SLACK) & (self.reasons != _TARGET)
        self._reduced(np.flatnonzero(large))

    def _reduced(self, large: Index) -> None:
        """Judge q of fits whose data are finite and large, noise and all."""

        def cost(target: str, points: int, degree: int) -> tuple[float, float, int]:
            once = 4.0 * points * (degree + 1) ** 2
            return once, points * (Formula(target).cost + 20.0 + 3 * (degree + 1)), points

        alike, apart = ("target", "points", "degree"), ("range", "noise", "noise_seed", "dtype")
        for (target, points, degree), some, fits, of in self._pieces(alike, apart, large, cost):
            clean = target_values(target, self._grid(some, points, degree, "power"))
            seeds = self.columns["noise_seed"].array(np.uint64)[some]
            y = noisy(clean, np.arange(len(clean)), self._numbers("noise")[some], seeds)
            q, _ = reduce(degree, y)
            held = np.abs(q).max(axis=1) <= self.most[some]
            self.reasons[fits[~held[of]]] = _DATA

    # --- what to say ---

    def causes(self, weights: Index) -> tuple[tuple[Cause, ...], int]:
        """The first causes, in the order of the fits, and how many there are beside them."""
        groups = []
        for reason, names in _CONCERNED.items():
            groups += [
                (g, reason) for g in self._alike(names, np.flatnonzero(self.reasons == reason))
            ]
        groups.sort(key=lambda item: int(item[0][0]))
        told = tuple(self._cause(g, reason, weights) for g, reason in groups[:MAX_TOLD])
        return told, len(groups) - len(told)

    def _cause(self, group: Index, reason: int, weights: Index) -> Cause:
        fit = int(group[0])
        names = _CONCERNED[reason]
        return Cause(
            {name: self._value(name, fit) for name in names},
            {name: int(self.places[name][fit]) for name in names},
            _TELL[reason](self, fit),
            int(weights[group].sum()),
        )

    def one(self, fit: int) -> Grid:
        """The grid of a fit."""
        names = ("points", "degree", "basis")
        return self._grid(np.array([fit]), *(self._value(name, fit) for name in names))

    def held(self, fit: int) -> str:
        """What the dtype of a fit holds, in words."""
        return f"{self._value('dtype', fit)} ({self.least[fit]:.3g} to {self.most[fit]:.3g})"

    def tell_target(self, fit: int) -> str:
        """The target, and where it first fails."""
        grid, target = self.one(fit), self._value("target", fit)
        y = target_values(target, grid)[0]
        failing = np.flatnonzero(~np.isfinite(y))
        at, value = grid.x()[0, failing[0]], y[failing[0]]
        return (
            f"target {target} is not finite on range {_range(grid)}: first {value} at "
            f"x = {_short(at)}, in all at {len(failing):,} of {grid.points:,} points"
        )

    def tell_data(self, fit: int) -> str:
        """The target and its size."""
        grid, target, noise = self.one(fit), self._value("target", fit), self._value("noise", fit)
        largest = np.abs(target_values(target, grid)).max()
        loud = f", with noise {noise:.3g}" if noise >= _LOUD else ""
        return (
            f"target {target} on range {_range(grid)} is beyond {self.held(fit)}: "
            f"up to {largest:.3g}{loud}"
        )

    def tell_basis(self, fit: int) -> str:
        """The basis."""
        grid = self.one(fit)
        squared = ", squared," if self._value("optimizer", fit).name == "newton" else ""
        return (
            f"the functions of basis {grid.basis} up to degree {grid.degree} on range "
            f"{_range(grid)}{squared} are too large or too small for {self.held(fit)}"
        )

    def tell_limit(self, fit: int) -> str:
        """The rate that follows from the design."""
        grid, lr, names = self.one(fit), self._value("lr", fit), ("objective", "optimizer")
        objective, optimizer = (self._value(name, fit) for name in names)
        bound = curvature(objective, design(grid).sigma, grid.points)
        (rate,) = learning_rate([lr], np.zeros(1, dtype=np.int64), optimizer, bound)
        return (
            f"lr {lr} is {rate:.3g} on range {_range(grid)} with basis {grid.basis} of degree "
            f"{grid.degree}, beyond {self.held(fit)}"
        )

    def tell_rate(self, fit: int) -> str:
        """The rate as it is stated."""
        return f"lr {self._value('lr', fit)} is beyond {self.held(fit)}"


_TELL: Final = {
    _TARGET: _Look.tell_target,
    _DATA: _Look.tell_data,
    _BASIS: _Look.tell_basis,
    _LIMIT: _Look.tell_limit,
    _RATE: _Look.tell_rate,
}


def _range(grid: Grid) -> str:
    return f"[{_short(np.ravel(grid.low)[0])}, {_short(np.ravel(grid.high)[0])}]"


def _short(value: float) -> str:
    """Six digits, or all of a decimal that has a few more: those may be what matters."""
    short, whole = f"{value:.6g}", f"{value:.12g}"
    return short if float(short) == value or len(whole) > _DECIMAL else whole


def _numbered(codes: list[Index]) -> tuple[Index, Index]:
    """The first place of each distinct row of ``codes``, in their order, and each one's number."""
    mixed = codes[0]
    for more in codes[1:]:
        mixed = np.unique(mixed * (more.max() + 1) + more, return_inverse=True)[1]
    _, first, of = np.unique(mixed, return_index=True, return_inverse=True)
    return first, of


def _where(spec: Spec, cause: Cause) -> str:
    """File, line and key of the first of the fields concerned that the spec states."""
    paths: list[Path] = []
    for name, place in cause.places.items():
        zipped = [p for p in spec.lines if p[:2] == ("sweep", "zip") and p[3:] == (name,)]
        for path in (("sweep", name), *zipped):
            paths += [(*path, place), path]
        paths.append(("fit", name))
    return spec.where(*(path for path in paths if path in spec.lines), ("fit",))
