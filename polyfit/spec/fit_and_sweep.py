"""``fit``, ``sweep`` and ``exclude`` of a spec -> a Fit and the grids of its sweep."""

from collections.abc import Iterator
from typing import Any

from polyfit.spec.axis import Axis, ItemError, Values
from polyfit.spec.defects import Defects, dotted, shown
from polyfit.spec.document import Path
from polyfit.spec.exclusion import ExclusionError
from polyfit.spec.field_conditions import FieldCondition
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.suggestions import of_value

__all__ = ["make_grids", "read_exclude", "read_fit", "read_sweep"]


def read_fit(raw: Any, defects: Defects) -> Fit:
    """The fit of the mapping ``fit``; a field that is refused has its default."""
    values = {}
    for name, value in raw.items() if isinstance(raw, dict) else ():
        field = FIELDS.get(name)
        if field is None:
            defects.unknown_key(("fit", name), CANONICAL_ORDER)
            continue
        try:
            values[name] = field.read(value)
        except ValueError as error:
            allowed = (str(error) or field.allowed) + of_value(field, value)
            defects.refuse(("fit", name), shown(value), allowed, value)
    return Fit(**values)


def read_sweep(raw: Any, defects: Defects) -> list[tuple[Path, tuple[Axis, ...]]]:
    """The axes of each grid of ``sweep``, and the path of the mapping that states them.

    ``sweep`` is one such mapping, or a list of them.
    """
    if not isinstance(raw, list):
        return [(("sweep",), _read_axes(("sweep",), raw, defects))]
    grids: list[tuple[Path, tuple[Axis, ...]]] = []
    for number, entry in enumerate(raw):
        path: Path = ("sweep", number)
        if not isinstance(entry, dict):
            defects.refuse(path, shown(entry), "a mapping of fields to lists or generators")
        grids.append((path, _read_axes(path, entry, defects)))
    return grids


def read_exclude(raw: Any, defects: Defects) -> tuple[FieldCondition, ...]:
    """The conditions of the list ``exclude``."""
    conditions = []
    for number, text in enumerate(raw if isinstance(raw, list) else ()):
        try:
            conditions.append(FieldCondition.parse(text))
        except ValueError as error:
            defects.refuse(("exclude", number), shown(text), str(error))
    return tuple(conditions)


def make_grids(
    fit: Fit,
    sweep: list[tuple[Path, tuple[Axis, ...]]],
    exclude: tuple[FieldCondition, ...],
    defects: Defects,
) -> tuple[ParameterGrid, ...]:
    """The grids of a spec; what cannot be counted and an empty sweep are refused."""
    grids = []
    for path, axes in sweep:
        try:
            grids.append(ParameterGrid.of(fit, axes, exclude, path))
        except ExclusionError as error:
            place: Path = ("exclude", error.number)
            defects.refuse(place, shown(exclude[error.number].text), str(error))
    if not any(grid.size for grid in grids) and len(grids) == len(sweep):
        total = sum(grid.full_size for grid in grids)
        found = f"conditions that exclude all {total:,} fits" if total > 1 else "the only fit"
        defects.refuse(("exclude",), found, "conditions that leave at least one")
    return tuple(grids)


def _read_axes(path: Path, raw: Any, defects: Defects) -> tuple[Axis, ...]:
    """The axes of one mapping in canonical order, the slowest first."""
    if not isinstance(raw, dict):
        return ()
    axes = []
    first_place: dict[str, Path] = {}
    for here, group in _groups(path, raw, defects):
        columns = list(_columns(here, group, first_place, defects))
        if columns and _fit_together(here, columns, defects):
            columns.sort(key=lambda column: CANONICAL_ORDER.index(column.field))
            axes.append(Axis(tuple(columns)))
    return tuple(sorted(axes, key=lambda axis: CANONICAL_ORDER.index(axis.fields[0])))


def _groups(
    path: Path, raw: dict[str, Any], defects: Defects
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The fields of each axis, and the path of the mapping that they stand in."""
    for name, value in raw.items():
        if name != "zip":
            yield path, {name: value}
    zips = raw.get("zip", [])
    if not isinstance(zips, list):
        defects.refuse((*path, "zip"), shown(zips), "a list of mappings, one per axis")
        return
    for i, entry in enumerate(zips):
        here = (*path, "zip", i)
        if isinstance(entry, dict) and len(entry) > 1:
            yield here, entry
        else:
            defects.refuse(here, shown(entry), "a mapping of two fields or more")


def _columns(
    path: Path, group: dict[str, Any], first_place: dict[str, Path], defects: Defects
) -> Iterator[Values]:
    """The values of a group's fields; ``first_place`` says where each field was found."""
    zipped = "zip" in path
    for name, value in group.items():
        here = (*path, name)
        if name not in FIELDS:
            defects.unknown_key(here, (*CANONICAL_ORDER, *(() if zipped else ("zip",))))
            continue
        if name in first_place:
            defects.refuse(here, f"the field a second time ({dotted(first_place[name])})", "once")
        first_place[name] = here
        column = _values(here, name, value, not zipped, defects)
        if column is not None:
            yield column


def _values(path: Path, name: str, raw: Any, distinct: bool, defects: Defects) -> Values | None:
    try:
        return Values.read(name, raw, distinct=distinct)
    except ItemError as error:
        for i, found, allowed in error.items:
            defects.refuse((*path, i), shown(found), allowed, found)
    except ValueError as error:
        defects.refuse(path, shown(raw), str(error) or FIELDS[name].allowed)
    return None


def _fit_together(path: Path, columns: list[Values], defects: Defects) -> bool:
    """Whether the columns of a zip entry have equal lengths and no row twice."""
    if len(columns) == 1:
        return True
    lengths = {column.field: len(column) for column in columns}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{n} values of {name}" for name, n in lengths.items())
        defects.refuse(path, found, "the same number of each")
        return False
    if any(isinstance(column.source, dict) for column in columns):
        return True  # a generator makes no value twice, so no row is repeated
    first: dict[tuple[Any, ...], int] = {}
    for i, row in enumerate(zip(*(column.items for column in columns), strict=True)):
        if row in first:
            here = (*path, columns[0].field, i)
            defects.refuse(here, f"row {first[row]} again", "each row once")
        first.setdefault(row, i)
    return True
