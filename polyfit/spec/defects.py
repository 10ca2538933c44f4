"""What is wrong in one spec, gathered so that all of it is reported at once.

A defect is one line: file, line, key, what was found, what is allowed.
"""

import difflib
from typing import Any, Final

from polyfit.errors import SpecError
from polyfit.spec.document import Document, Path
from polyfit.store.uri import mask_credentials

__all__ = ["MAX_CHARACTERS", "MAX_DEFECTS", "Defects", "dotted", "shown"]

MAX_DEFECTS: Final = 100
"""Defects that are reported one by one; the others are counted."""

MAX_CHARACTERS: Final = 2_000
"""Of one defect's text."""


class Defects:
    """Gathers the defects of ``document``; ``source`` names its file in messages."""

    def __init__(self, document: Document, source: str) -> None:
        self.document = document
        self.source = source
        self._found: list[tuple[int, str]] = list(document.defects)

    def refuse(self, path: Path, found: str, allowed: str) -> None:
        """Add a value that is not allowed; ``allowed`` may be a text that says both."""
        text = allowed if "; allowed: " in allowed else f"found {found}; allowed: {allowed}"
        self._add(path, f"{dotted(path)}: {text}" if path else text)

    def unknown_key(self, path: Path, names: tuple[str, ...]) -> None:
        """Add a key that is none of ``names``."""
        searched = len(self._found) < MAX_DEFECTS  # the others are not shown
        close = difflib.get_close_matches(str(path[-1]), names, 1) if searched else []
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        self._add(path, f"{dotted(path)}: unknown key{hint}; allowed: {', '.join(names)}")

    def _add(self, path: Path, text: str) -> None:
        self._found.append((self.document.line(path), text))

    def raise_any(self) -> None:
        """Raise what was found so far.

        Raises:
            SpecError: a line per defect, each once, in the order of the file.
        """
        if not self._found:
            return
        ordered = sorted(dict.fromkeys(self._found))
        lines = [f"{self.source}:{n}: {_printable(text)}" for n, text in ordered[:MAX_DEFECTS]]
        if len(ordered) > MAX_DEFECTS:
            line, more = ordered[MAX_DEFECTS][0], len(ordered) - MAX_DEFECTS
            lines.append(f"{self.source}:{line}: {more:,} more problems from here on")
        raise SpecError(lines)


def _printable(text: str) -> str:
    """A message fit for a terminal, whatever the keys of the spec hold."""
    text = mask_credentials(text)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} ... {text[-MAX_CHARACTERS // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted(path: Path) -> str:
    """A path as messages write it: ``sweep.zip[0].seed``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: Any) -> str:
    """A value as messages write it: YAML's words, cut short, without credentials."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = mask_credentials(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."
