"""Settings such as ``fit.degree=5``: values of a spec that are given for one call."""

import re
from collections.abc import Sequence
from typing import Any, Final

from polyfit.spec.axis import Axis
from polyfit.spec.defects import Defects, dotted, shown
from polyfit.spec.document import BY_SETTING, Document, Path

__all__ = ["apply_settings", "check_settings"]

_KEY: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[[0-9]{1,6}\])*")
_PART: Final = re.compile(r"[A-Za-z_]\w*|[0-9]+")


def apply_settings(settings: Sequence[str], defects: Defects) -> None:
    """Put each KEY=VALUE into the document: the value is YAML. Of one key the last counts.

    What has no place, or is no YAML, is added to the defects.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not _KEY.fullmatch(key):
            defects.refuse_setting(shown(setting), "allowed: KEY=VALUE, such as fit.degree=5")
            continue
        value = Document.read(text.encode("utf-8", "surrogatepass"))
        for defect in value.defects:
            defects.refuse_setting(key, defect.text)
        if not value.defects:
            parts = _PART.findall(key)
            path = tuple(int(part) if part.isdigit() else part for part in parts)
            _put(path, value.value, defects)


def check_settings(sweep: Sequence[tuple[Path, tuple[Axis, ...]]], defects: Defects) -> None:
    """Refuse a setting of a field that the sweep varies everywhere: it would change nothing."""
    lines = defects.document.lines
    for path in [one for one, line in lines.items() if line == BY_SETTING and len(one) == 2]:
        places = [
            (*where, path[1])
            for where, axes in sweep
            if any(path[1] in axis.fields for axis in axes)
        ]
        if path[0] == "fit" and len(places) == len(sweep):
            found = f"a value of a field that the sweep varies ({defects.place(places[0])})"
            defects.refuse(path, found, f"--set '{dotted(places[0])}=[...]', or another field")


def _put(path: Path, value: Any, defects: Defects) -> None:
    """Put ``value`` at ``path``; mappings on the way there are made."""
    inside: Any = defects.document.value
    if path[0] == "store" and len(path) > 1 and isinstance(inside.get("store"), str):
        inside["store"] = {"uri": inside["store"]}
    for depth, part in enumerate(path[:-1]):
        here = path[: depth + 1]
        missing = isinstance(inside, dict) and inside.get(part) is None
        if missing and isinstance(part, str) and isinstance(path[depth + 1], str):
            inside[part] = {}
            _mark(here, defects.document)
        elif not _has(inside, part):
            _refuse(path, here, inside, defects)
            return
        inside = inside[part]
    last = path[-1]
    if (isinstance(last, str) and isinstance(inside, dict)) or _has(inside, last):
        inside[last] = value
        _mark(path, defects.document)
    else:
        _refuse(path, path, inside, defects)


def _has(inside: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(inside, list) and part < len(inside)
    return isinstance(inside, dict) and part in inside


def _refuse(path: Path, here: Path, inside: Any, defects: Defects) -> None:
    place = dotted(here[:-1])
    if isinstance(inside, dict):
        text = f"found no {dotted(here)}; allowed: an entry of a list that is there"
    elif isinstance(inside, list):
        allowed = (
            f"{place}[0] to {place}[{len(inside) - 1}]" if inside else "a list that is not empty"
        )
        text = f"found a list of {len(inside):,} at {place}; allowed: {allowed}"
    else:
        text = f"found {shown(inside)} at {place}; allowed: a mapping there"
    defects.refuse_setting(dotted(path), text)


def _mark(path: Path, document: Document) -> None:
    """Remember that what is at ``path`` stands in no line."""
    for places in (document.lines, document.columns, document.key_columns):
        for inner in [one for one in places if one[: len(path)] == path]:
            del places[inner]
    document.lines[path] = BY_SETTING
