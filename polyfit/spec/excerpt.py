"""The line of a document that a message is about, with a caret under the column."""

import re
from typing import Final

from polyfit.store.uri import mask_credentials

__all__ = ["excerpt", "line_of"]

_BREAKS: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # those that YAML counts
_WIDTH: Final = 88
"""Characters of a line that are shown: JSON may be one line of a megabyte."""


def line_of(text: str, line: int) -> str:
    """Line ``line`` of ``text``, counted from 1; "" beyond its end."""
    lines = _BREAKS.split(text)
    return lines[line - 1] if line <= len(lines) else ""


def excerpt(text: str, line: int, column: int | None) -> str:
    """Two lines: line ``line`` of ``text``, and a caret under ``column``, both counted from 1.

    Empty where the column is not known, the line blank, or a credential may stand in it.
    """
    whole = line_of(text, line).rstrip()
    if column is None or not whole or mask_credentials(whole) != whole:
        return ""
    start = max(0, min(column - _WIDTH // 2, len(whole) - _WIDTH))
    part = "".join(c if c.isprintable() else " " for c in whole[start : start + _WIDTH])
    head = f"    {line} | "
    return f"{head}{part}\n{' ' * (len(head) - 2)}| {' ' * (column - 1 - start)}^"
