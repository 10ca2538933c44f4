"""The mappings ``fit`` and ``sweep`` of a spec -> a Fit and the axes of its sweep."""

from collections.abc import Iterator
from typing import Any

from polyfit.spec.axis import Axis, ItemError, Values
from polyfit.spec.defects import Defects, dotted, shown
from polyfit.spec.document import Path
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit

__all__ = ["read_axes", "read_fit"]


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
            defects.refuse(("fit", name), shown(value), str(error) or field.allowed)
    return Fit(**values)


def read_axes(raw: Any, defects: Defects) -> tuple[Axis, ...]:
    """The axes of the mapping ``sweep`` in canonical order, the slowest first."""
    if not isinstance(raw, dict):
        return ()
    axes = []
    first_place: dict[str, Path] = {}
    for path, group in _groups(raw, defects):
        columns = list(_columns(path, group, first_place, defects))
        if columns and _fit_together(path, columns, defects):
            columns.sort(key=lambda column: CANONICAL_ORDER.index(column.field))
            axes.append(Axis(tuple(columns)))
    return tuple(sorted(axes, key=lambda axis: CANONICAL_ORDER.index(axis.fields[0])))


def _groups(raw: dict[str, Any], defects: Defects) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The fields of each axis, and the path of the mapping that they stand in."""
    for name, value in raw.items():
        if name != "zip":
            yield ("sweep",), {name: value}
    zips = raw.get("zip", [])
    if not isinstance(zips, list):
        defects.refuse(("sweep", "zip"), shown(zips), "a list of mappings, one per axis")
        return
    for i, entry in enumerate(zips):
        if isinstance(entry, dict) and len(entry) > 1:
            yield ("sweep", "zip", i), entry
        else:
            defects.refuse(("sweep", "zip", i), shown(entry), "a mapping of two fields or more")


def _columns(
    path: Path, group: dict[str, Any], first_place: dict[str, Path], defects: Defects
) -> Iterator[Values]:
    """The values of a group's fields; ``first_place`` says where each field was found."""
    zipped = len(path) > 1
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
            defects.refuse((*path, i), shown(found), allowed)
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
