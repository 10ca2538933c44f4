"""The bytes of a spec: from a file, a pipe, standard input or a mapping."""

import difflib
import json
import os
import stat
import sys
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from polyfit.errors import SpecError
from polyfit.spec.document import MAX_BYTES

__all__ = ["STDIN", "as_json", "name_of", "read_source"]

STDIN: Final = "-"

SUFFIXES: Final = (".yaml", ".yml", ".json")
_MAX_BESIDE: Final = 10_000
"""Files that are looked through for the one that was meant."""

_KINDS: Final = {stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


def name_of(path: str | os.PathLike[str]) -> str:
    """The name of the file at ``path`` in messages."""
    return "<stdin>" if path == STDIN else str(path)


def read_source(path: str | os.PathLike[str]) -> bytes:
    """What the file or pipe at ``path`` holds, ``-`` being standard input.

    At most one byte more than a spec may have.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return _stdin() if path == STDIN else _file(path)
    except (OSError, ValueError) as error:  # ValueError: a path that no system has
        found = getattr(error, "strerror", None) or error
        near = _near(path) if isinstance(error, FileNotFoundError) else None
        allowed = "a YAML or JSON file, or a pipe" + (f"; did you mean {near}?" if near else "")
        raise SpecError([f"{name_of(path)}: {found}; allowed: {allowed}"]) from None


def _near(path: str | os.PathLike[str]) -> str | None:
    """A file beside the missing one whose name is alike, or is the same but for its ending."""
    folder, name = os.path.split(os.fspath(path))
    try:
        with os.scandir(folder or ".") as entries:
            some = [entry.name for entry in islice(entries, _MAX_BESIDE)]
    except OSError:
        return None
    names = sorted(one for one in some if one.endswith(SUFFIXES))
    same = [one for one in names if os.path.splitext(one)[0] == name]
    close = same or difflib.get_close_matches(name, names, 1)
    return os.path.join(folder, close[0]) if close else None


def _file(path: str | os.PathLike[str]) -> bytes:
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):  # a device never ends
        raise ValueError(_KINDS.get(stat.S_IFMT(mode), "a device"))
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def _stdin() -> bytes:
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def as_json(source: Mapping[str, Any], name: str) -> str:
    """A spec given as a mapping, as the text of a file.

    It may hold ranges, numpy's arrays and numbers, and tuples. A range in ``sweep`` is a generator.

    Raises:
        SpecError: it holds something that JSON has not.
    """
    try:
        swept = source.get("sweep")
        source = source if swept is None else {**source, "sweep": _generators(swept)}
        return json.dumps(source, indent=2, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = "mappings, lists, text, numbers, booleans, None, ranges and numpy's arrays"
        raise SpecError([f"{name}: {error}; allowed: {allowed}"]) from None


def _generators(value: Any) -> Any:
    """``value`` with ranges as generators: a thousand million seeds are not listed."""
    match value:
        case range() if value:
            return {"count": len(value), "start": value.start, "step": value.step}
        case Mapping():
            return {key: _generators(one) for key, one in value.items()}
        case list() | tuple():
            return [_generators(one) for one in value]
    return value


def _plain(value: Any) -> Any:
    """What JSON does not know, as something that it does."""
    if isinstance(value, range):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # an array or a number of numpy
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"found a {type(value).__name__}")
