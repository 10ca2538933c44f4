"""What is wrong in one spec, gathered so that all of it is reported at once.

A defect is one line: file, line, key, what was found, what is allowed. Of the first few the line of
the file is shown too.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from polyfit.errors import FormulaError, SpecError
from polyfit.numerics.formula import Formula
from polyfit.spec.document import BY_SETTING, Document, Path
from polyfit.spec.excerpt import excerpt, line_of
from polyfit.spec.names import meant
from polyfit.spec.yaml_loader import Defect
from polyfit.store.uri import mask_credentials

__all__ = ["MAX_CHARACTERS", "MAX_DEFECTS", "MAX_EXCERPTS", "Defects", "dotted", "shown"]

MAX_DEFECTS: Final = 100
"""Defects that are reported one by one; the others are counted."""

MAX_CHARACTERS: Final = 2_000
"""Of one defect's text."""


MAX_EXCERPTS: Final = 10
"""Defects of which the line of the document is shown: with more, the list would be lost in it."""


class Defects:
    """Gathers the defects of ``document``.

    ``source`` names its file in messages; ``is_file`` is False for one made of a mapping, whose
    lines nobody has seen.
    """

    def __init__(self, document: Document, source: str, is_file: bool = True) -> None:
        self.document = document
        self.source = source
        self.is_file = is_file
        self._found: list[Defect] = list(document.defects)

    def refuse(self, path: Path, found: str, allowed: str, value: Any = None) -> None:
        """Add a value that is not allowed; ``allowed`` may be a text that says both.

        Of a ``value`` that is text the one of the names in ``allowed`` is suggested that is alike.
        """
        is_text = isinstance(value, str) and self._is_shown()
        near = meant(value, _names_in(allowed)) if is_text else None
        hint = f" (did you mean {near!r}?)" if near else ""
        says_both = "; allowed: " in allowed
        text = allowed if says_both else f"found {found}{hint}; allowed: {allowed}"
        inside = {*path} & {"target", "range"} and self._is_shown()
        self._add(path, text, self.document.columns, *(_formulas(value) if inside else ()))

    def unknown_key(self, path: Path, names: tuple[str, ...], elsewhere: Path = ()) -> None:
        """Add a key that is none of ``names``; ``elsewhere`` is where it may be meant to stand."""
        close = meant(str(path[-1]), names) if self._is_shown() else None
        close = dotted(elsewhere) if elsewhere else close
        hint = f" (did you mean {close!r}?)" if close else ""
        text = f"unknown key{hint}; allowed: {', '.join(names)}"
        self._add(path, text, self.document.key_columns)

    def refuse_setting(self, key: str, text: str) -> None:
        """Add a setting that cannot be read, or has no place."""
        self._found.append(Defect(BY_SETTING, f"--set {key}: {text}"))

    def _is_shown(self) -> bool:
        """Whether a defect that is added now can be among those that are reported one by one.

        A file may have 100,000: what is said of each must not cost a look through the whole text.
        """
        return len(self._found) < MAX_DEFECTS

    def _add(
        self, path: Path, text: str, columns: Mapping[Path, int], *formulas: tuple[str, int]
    ) -> None:
        """Add a line; ``formulas`` are those at ``path`` that are wrong, and where in them."""
        if any(path[:depth] in self.document.refused for depth in range(len(path) + 1)):
            return  # what stands there was refused already
        line = self.document.line(path)
        text = f"{dotted(path)}: {text}" if path else text
        if line == BY_SETTING:
            text = f"--set {text}"
        column = columns.get(path)
        if column is not None and formulas:
            formula, at = formulas[0]
            start = line_of(self.document.text, line).find(formula, column - 1)
            column = start + at if start >= 0 else column
        self._found.append(Defect(line, text, column))

    def place(self, path: Path) -> str:
        """Key and line of what else a message is about."""
        line = self.document.line(path)
        if line == BY_SETTING or not self.is_file:
            return f"--set {dotted(path)}" if line == BY_SETTING else dotted(path)
        return f"{dotted(path)} on line {line}"

    def raise_any(self) -> None:
        """Raise what was found so far.

        Raises:
            SpecError: a line per defect, each once, in the order of the file.
        """
        if not self._found:
            return
        once = {one[:2]: one for one in reversed(self._found)}
        ordered = [once[place] for place in sorted(once)]
        lines = [self._line(one) for one in ordered[:MAX_DEFECTS]]
        if len(ordered) > MAX_DEFECTS:
            line, more = ordered[MAX_DEFECTS].line, len(ordered) - MAX_DEFECTS
            lines.append(f"{self.source}:{line}: {more:,} more problems from here on")
        few = ordered[: MAX_EXCERPTS if self.is_file else 0]
        excerpts = {text: self._excerpt(one) for text, one in zip(lines, few, strict=False)}
        raise SpecError(lines, {text: shown for text, shown in excerpts.items() if shown})

    def _line(self, defect: Defect) -> str:
        if defect.line == BY_SETTING:
            return _printable(defect.text)
        place = f"{self.source}:{defect.line}" if self.is_file else self.source
        return f"{place}: {_printable(defect.text)}"

    def _excerpt(self, defect: Defect) -> str:
        if defect.line == BY_SETTING or defect.text.startswith("store"):  # it may hold a secret
            return ""
        return excerpt(self.document.text, defect.line, defect.column)


def _formulas(value: Any) -> Iterator[tuple[str, int]]:
    """The text in ``value``, or in the pair ``value``, that is no formula; and where not."""
    for text in value if isinstance(value, list) else [value]:
        try:
            Formula.parse(text if isinstance(text, str) else "0")
        except FormulaError as error:
            if error.column is not None:
                yield text.strip(), error.column


def _names_in(allowed: str) -> list[str]:
    """The names in a text such as ``sse | mse | huber``."""
    parts = allowed.removeprefix("a list out of ").split(" | ")
    if allowed.startswith("a list out of "):
        parts = parts[0].split(", ")
    listed = parts if len(parts) > 1 else parts[:1] if allowed.startswith("auto") else []
    found = (re.match(r"[A-Za-z]\w*(?:[:-]\w+)*", part) for part in listed)
    return [one[0] for one in found if one]


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
