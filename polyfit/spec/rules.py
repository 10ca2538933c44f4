"""Rules between the fields of a fit, and between a fit and what is recorded of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from polyfit.spec.axis import Axis
from polyfit.spec.defects import Defects, dotted, shown
from polyfit.spec.document import Path
from polyfit.spec.fit import Rate
from polyfit.spec.optimizer import TRAITS, Optimizer
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.record import MAX_RECORDED, Record

__all__ = ["check_combinations", "check_record"]


def check_combinations(grid: ParameterGrid, defects: Defects) -> None:
    """Refuse fields that cannot go together in any one fit of the grid."""
    for degree, points in grid.combinations(("degree", "points")):
        if points < degree + 1:
            values = {"points": points, "degree": degree}
            found = f"{points} points at degree {degree}"
            allowed = f"at least degree + 1 = {degree + 1} points"
            _refuse_together(grid, values, allowed, defects, found)
            break
    names = ("objective", "optimizer", "lr")
    for combination in grid.combinations(names, _name_of):
        every = dict(zip(names, combination, strict=True))
        for together, allowed in _exclusions(*combination):
            _refuse_together(grid, {name: every[name] for name in together}, allowed, defects)


def _name_of(field: str, value: Any) -> Any:
    """The part of a value that these rules look at: of optimizers and rates no numbers."""
    if isinstance(value, Rate):
        return value.kind
    return value.name if isinstance(value, Optimizer) else value


def _exclusions(objective: str, optimizer: str, rate: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The fields that do not go together, the one to change first, and what is allowed."""
    traits = TRAITS[optimizer]
    if traits.second_order and objective == "l1":
        yield ("optimizer", "objective"), "another optimizer: l1 has no Hessian"
    elif rate != "number" and objective == "l1" and traits.linear:
        allowed = "a number for lr: l1 has no stability limit"
        yield ("lr", "objective", "optimizer"), allowed
    elif rate == "auto" and objective == "l1":
        yield ("lr", "objective", "optimizer"), "a number for lr: l1 has no automatic rate"
    elif rate == "of_limit" and not traits.linear:
        allowed = f"auto or a number for lr: {optimizer} has no stability limit"
        yield ("lr", "optimizer"), allowed


def _refuse_together(
    grid: ParameterGrid,
    values: dict[str, Any],
    allowed: str,
    defects: Defects,
    found: str = "",
) -> None:
    """Refuse ``values`` of fields, the one to change first, at the first that the spec states."""
    lines = defects.document.lines
    stated = {name: path for name in values if (path := _place(grid, name, values, lines))}
    first, *others = (
        f"{name} {values[name]}" for name in sorted(values, key=lambda n: n not in stated)
    )
    here, *there = stated.values() or [()]
    found = found or f"{first} with {' and '.join(others)}"
    if there:
        places = map(defects.place, there)
        found += f" ({', '.join(places)})"
    if len({axis.fields for axis in grid.axes if set(axis.fields) & set(values)}) > 1:
        zipped = dotted((*grid.path, "zip"))
        allowed += (
            f"; or pair them under {zipped}: here every value meets every other; or exclude them"
        )
    defects.refuse(here, found, allowed)


def _place(
    grid: ParameterGrid, name: str, values: dict[str, Any], lines: dict[Path, int]
) -> Path | None:
    """Where the spec states the value of field ``name`` that goes with the other ``values``."""
    for axis in grid.axes:
        if name in axis.fields:
            return _place_on_axis(grid.path, axis, name, values, lines)
    return ("fit", name) if ("fit", name) in lines else None


def _place_on_axis(
    sweep: Path, axis: Axis, name: str, values: dict[str, Any], lines: dict[Path, int]
) -> Path | None:
    inside, depth = (*sweep, "zip"), len(sweep) + 1
    zipped = (path for path in lines if path[:depth] == inside and path[depth + 1 :] == (name,))
    path = next(zipped, (*sweep, name))
    columns = [column for column in axis.values if column.field in values]
    if not any(isinstance(column.source, list) for column in columns):
        return path  # a generator has one line
    wanted = [values[column.field] for column in columns]
    fields = [column.field for column in columns]
    rows = zip(*(column.items for column in columns), strict=True)
    row = next(i for i, row in enumerate(rows) if [*map(_name_of, fields, row)] == wanted)
    return (*path, row) if (*path, row) in lines else path


def check_record(record: Record, grids: Sequence[ParameterGrid], defects: Defects) -> None:
    """Refuse updates that no fit has, too many of them, and what is listed twice."""
    (steps,) = max(values for grid in grids for values in grid.combinations(("steps",)))
    at = () if record.at == "auto" else record.at
    if list(at) != sorted(set(at)):
        defects.refuse(("record", "at"), shown(list(at)), "a rising list, each update once")
    elif at and at[-1] >= steps:
        allowed = f"updates from 0 to steps - 1 = {steps - 1}"
        defects.refuse(("record", "at"), str(at[-1]), allowed)
    elif record.every and steps // record.every > MAX_RECORDED:
        found = f"{steps // record.every:,} records of a fit of {steps:,} steps"
        allowed = f"at most {MAX_RECORDED:,}, so every: {-(-steps // MAX_RECORDED):,} or more"
        defects.refuse(("record", "every"), found, allowed)
    if len(set(record.of)) != len(record.of):
        defects.refuse(("record", "of"), shown(list(record.of)), "each name once")
