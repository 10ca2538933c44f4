"""Why fits cannot start, in words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from polyfit.numerics.arrays import Index
from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values
from polyfit.spec.document import Path
from polyfit.spec.fit_table import FitTable
from polyfit.spec.rate import curvature, learning_rate
from polyfit.spec.representatives import LOUD_NOISE
from polyfit.spec.start_check import Reason

__all__ = ["Cause", "find_causes"]

_MAX_WRITTEN: Final = 12
"""Characters of a number that a person wrote; a computed one has more."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why some fits cannot start.

    ``values`` are those of the fields concerned, the one to change first, and ``places`` where
    they stand on their axes (0 where no axis varies the field); ``path`` is where the spec states
    the axes.
    """

    values: dict[str, Any]
    places: dict[str, int]
    path: Path
    message: str
    fits: int


def find_causes(
    table: FitTable, reasons: Index, weights: Index, most: int
) -> tuple[tuple[Cause, ...], int]:
    """The first ``most`` causes, in the order of the fits, and the number of the others.

    ``reasons`` and ``weights``, shape (fits,), are what was found of each fit of the table, and
    how many fits it stands for.
    """
    groups = [
        (group, reason)
        for reason, (fields, _) in _CONCERNED.items()
        for group in table.groups(fields, np.flatnonzero(reasons == reason))
    ]
    groups.sort(key=lambda item: int(item[0][0]))
    causes = tuple(
        _cause(table, group, reason, int(weights[group].sum())) for group, reason in groups[:most]
    )
    return causes, len(groups) - len(causes)


def _cause(table: FitTable, group: Index, reason: Reason, num_fits: int) -> Cause:
    fit = int(group[0])
    fields, describe = _CONCERNED[reason]
    return Cause(
        {name: table.value(name, fit) for name in fields},
        {name: int(table.places[name][fit]) for name in fields},
        table.path,
        describe(table, fit),
        num_fits,
    )


def _target(table: FitTable, fit: int) -> str:
    grid, target = table.grid(fit), table.value("target", fit)
    y = target_values(target, grid)[0]
    failing = np.flatnonzero(~np.isfinite(y))
    x, value = grid.x()[0, failing[0]], y[failing[0]]
    return (
        f"target {target} is not finite on range {_range(grid)}: first {value} at "
        f"x = {_short(x)}, in all at {len(failing):,} of {grid.points:,} points"
    )


def _observations(table: FitTable, fit: int) -> str:
    grid, (target, noise) = table.grid(fit), table.values(("target", "noise"), fit)
    largest = np.abs(target_values(target, grid)).max()
    loud = f", with noise {noise:.3g}" if noise >= LOUD_NOISE else ""
    return (
        f"target {target} on range {_range(grid)} is beyond {_dtype(table, fit)}: "
        f"up to {largest:.3g}{loud}"
    )


def _basis(table: FitTable, fit: int) -> str:
    grid = table.grid(fit)
    squared = ", squared," if table.value("optimizer", fit).traits.second_order else ""
    return (
        f"the functions of basis {grid.basis} up to degree {grid.degree} on range "
        f"{_range(grid)}{squared} are too large or too small for {_dtype(table, fit)}"
    )


def _limit(table: FitTable, fit: int) -> str:
    grid = table.grid(fit)
    lr, objective, optimizer = table.values(("lr", "objective", "optimizer"), fit)
    bound = curvature(objective, design(grid).sigma, grid.points)
    (rate,) = learning_rate([lr], np.zeros(1, dtype=np.int64), optimizer, bound)
    return (
        f"lr {lr} is {rate:.3g} on range {_range(grid)} with basis {grid.basis} of degree "
        f"{grid.degree}, beyond {_dtype(table, fit)}"
    )


def _rate(table: FitTable, fit: int) -> str:
    return f"lr {table.value('lr', fit)} is beyond {_dtype(table, fit)}"


_CONCERNED: Final[dict[Reason, tuple[tuple[str, ...], Callable[[FitTable, int], str]]]] = {
    Reason.TARGET: (("target", "range", "points"), _target),
    Reason.OBSERVATIONS: (("target", "range", "noise", "dtype"), _observations),
    Reason.BASIS: (("range", "degree", "basis", "dtype"), _basis),
    Reason.LIMIT: (("lr", "range", "degree", "basis", "dtype"), _limit),
    Reason.RATE: (("lr", "dtype"), _rate),
}
"""The fields that a reason concerns, the one to change first, and what describes it."""


def _dtype(table: FitTable, fit: int) -> str:
    """A fit's dtype and its range."""
    smallest, largest = table.smallest[fit], table.largest[fit]
    return f"{table.value('dtype', fit)} ({smallest:.3g} to {largest:.3g})"


def _range(grid: Grid) -> str:
    return f"[{_short(np.ravel(grid.low)[0])}, {_short(np.ravel(grid.high)[0])}]"


def _short(value: float) -> str:
    """Six digits, or all of a decimal that a person wrote with a few more: those may matter."""
    short, whole = f"{value:.6g}", f"{value:.12g}"
    return short if float(short) == value or len(whole) > _MAX_WRITTEN else whole
