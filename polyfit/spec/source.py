"""The bytes of a spec: from a file, a pipe, standard input or a mapping."""

import json
import os
import stat
import sys
from collections.abc import Mapping
from typing import Any, Final

from polyfit.errors import SpecError
from polyfit.spec.document import MAX_BYTES

__all__ = ["STDIN", "as_json", "name_of", "read_source"]

STDIN: Final = "-"

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
        allowed = "a YAML or JSON file, or a pipe"
        raise SpecError([f"{name_of(path)}: {found}; allowed: {allowed}"]) from None


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

    Raises:
        SpecError: it holds something that JSON has not.
    """
    try:
        return json.dumps(source, indent=2, default=os.fspath)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = "mappings, lists, text, numbers, booleans and None"
        raise SpecError([f"{name}: {error}; allowed: {allowed}"]) from None
