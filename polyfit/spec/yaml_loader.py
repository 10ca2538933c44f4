"""PyYAML's loader for YAML 1.2's core schema, without what is dangerous or surprising.

Refused while it is read, before anything is expanded: aliases, tags, deep nesting, and more values
than memory is for. PyYAML takes no tab for white space; YAML 1.2 does, except in the indentation
of a block.
"""

import re
from typing import Any, Final, NamedTuple

import yaml
from yaml.scanner import ScannerError

__all__ = ["MAX_DEPTH", "MAX_VALUES", "REFUSED", "TAB", "Defect", "Loader"]

MAX_DEPTH: Final = 12
MAX_VALUES: Final = 100_000  # keys count too; one takes a kilobyte while it is read

REFUSED: Final = "tag:polyfit,refused"
"""The tag of a node in the place of one that was refused."""

TAB: Final = "a tab ('\\t') in the indentation; allowed: spaces"

_CORE: Final = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    "float": re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
_BREAKS: Final = "\r\n\x85\u2028\u2029"
_ENDS: Final = f"\0{_BREAKS}"  # PyYAML puts a NUL behind the last character
_INDICATORS: Final = re.compile(r"(?:([-+])([1-9])?|([1-9])([-+])?)?(?=\t)")


class Defect(NamedTuple):
    """What is wrong at a line, and a column where it is known, both counted from 1."""

    line: int
    text: str
    column: int | None = None


class Loader(yaml.SafeLoader):
    """Scans tabs as YAML 1.2 does, composes plain nodes; adds to ``defects``."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def __init__(self, text: str, defects: list[Defect]) -> None:
        super().__init__(text)
        self._defects = defects
        self._depth = 0
        self._values = 0
        self.tab_line: int | None = None
        """The last line, from 0, with a tab behind ``-``, ``?`` or ``:``: no block begins there."""

    def _pass_white(self) -> str:
        length = 0
        while self.peek(length) in " \t":
            length += 1
        white = str(self.prefix(length))
        self.forward(length)
        return white

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t":
            mark = self.get_mark()
            self._pass_white()
            if not self.flow_level and self.peek() not in f"#{_ENDS}":
                before = str(mark.buffer)[mark.pointer - mark.column : mark.pointer]
                in_block = self.indent >= 0 or self.peek() not in "{["
                if in_block and not before.strip(" "):
                    raise ScannerError(problem=f"found {TAB}", problem_mark=mark)
                if self.allow_simple_key:
                    self.allow_simple_key, self.tab_line = False, self.line
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str]:
        """The white space within a plain scalar, folded; empty where the scalar ends."""
        white = self._pass_white()
        if self.peek() not in _BREAKS:
            return [white] if white else []
        self.allow_simple_key = True
        breaks: list[str] = []
        while self.peek() in _BREAKS:
            breaks.append(self.scan_line_break())  # type: ignore[no-untyped-call]
            if (
                self.check_document_start()  # type: ignore[no-untyped-call]
                or self.check_document_end()  # type: ignore[no-untyped-call]
            ):
                return []
            while self.peek() == " ":
                self.forward()
            if self.flow_level or self.column >= indent or self._blank():
                self._pass_white()
        if breaks[0] != "\n":
            return breaks
        return breaks[1:] or [" "]

    def _blank(self) -> bool:
        """Whether only white space is left of the line."""
        length = 0
        while self.peek(length) in " \t":
            length += 1
        return self.peek(length) in _BREAKS

    def scan_block_scalar_indicators(self, start_mark: yaml.Mark) -> tuple[bool | None, int | None]:
        found = _INDICATORS.match(self.prefix(4))
        if found is None:
            return super().scan_block_scalar_indicators(start_mark)
        self.forward(found.end())
        chomping, increment = found[1] or found[4], found[2] or found[3]
        return (chomping == "+" if chomping else None, int(increment) if increment else None)

    def scan_block_scalar_ignored_line(self, start_mark: yaml.Mark) -> None:
        self._pass_white()
        super().scan_block_scalar_ignored_line(start_mark)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        start = event.start_mark
        line, column = start.line + 1, start.column + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"more keys and values than are read; allowed: at most {MAX_VALUES:,}",
                problem_mark=start,
            )
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._defects.append(
                Defect(line, f"an alias (*{event.anchor}); allowed: the value written out", column)
            )
            mark: Any = start
            return yaml.ScalarNode(REFUSED, "", mark, mark)
        if getattr(event, "tag", None) is not None:
            text = f"a tag ({event.tag}); allowed: plain YAML without tags"
            self._defects.append(Defect(line, text, column))
            event.tag, event.implicit = None, (True, False)
        if self._depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=start
            )
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


for _name, _pattern in _CORE.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, None)
