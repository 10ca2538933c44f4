"""YAML or JSON text -> plain values, with the line of every key and item.

Scalars follow YAML 1.2's core schema, so that ``1e-6`` is a number and ``no`` a string. What
makes YAML dangerous or surprising is refused while it is read, before anything is expanded:
aliases, tags, keys that stand twice, deep nesting, large files, more values than memory is for.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Document", "Path"]

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 12
MAX_VALUES: Final = 100_000  # keys count too; one takes a kilobyte while it is read

Path = tuple[str | int, ...]

_CORE: Final = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    "float": re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
_MAX_DIGITS: Final = 400  # longer digit strings stay text: no number of ours needs them
_BREAKS: Final = "\r\n\x85\u2028\u2029"
_ENDS: Final = f"\0{_BREAKS}"  # PyYAML puts a NUL behind the last character


@dataclass(slots=True)
class Document:
    """One YAML document.

    ``value`` is made of dict, list, str, int, float, bool and None; ``lines`` maps the path of
    every key and item to its line, counted from 1; ``problems`` are (line, text) of what was
    refused. A document with problems is not to be used.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def read(cls, data: bytes) -> "Document":
        """Read ``data``; never raises for what stands in it."""
        document = cls()
        if len(data) > MAX_BYTES:
            document.problems.append((1, f"a larger file; allowed: at most {MAX_BYTES:,} bytes"))
            return document
        try:
            loader = _Loader(data.decode("utf-8"), document.problems)
            root = loader.get_single_node()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            document.problems.append((line, "a byte that is not UTF-8; allowed: UTF-8 text"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            parts = [part for part in (error.context, error.problem) if part]
            if mark and mark.line == loader.tab_line:
                parts.append(f"behind {_TAB}")
            document.problems.append((mark.line + 1 if mark else 1, "; ".join(parts)))
        except ReaderError as error:
            line = data.decode("utf-8").count("\n", 0, error.position) + 1
            text = f"{error.reason} ({chr(error.character)!r})"
            document.problems.append((line, f"{text}; allowed: printable text"))
        except yaml.YAMLError as error:
            document.problems.append((1, " ".join(str(error).split())))
        except (ValueError, OverflowError):  # PyYAML trusts chr() and int() with what it finds
            document.problems.append(
                (loader.line + 1, "a number too large in an escape or directive; allowed: YAML")
            )
        else:
            if root is not None:
                document.value = document._plain(root, ())
        return document

    def line(self, path: Path) -> int:
        """The line of ``path``, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, i)) for i, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append((line, "a key that is a list or mapping; allowed: a name"))
                continue
            key = _joined(str(key_node.value))
            if not _encodable(key):  # pydantic would refuse the whole mapping for it
                self.problems.append((line, "a key of no Unicode text; allowed: a name"))
                continue
            if key in result:
                first = self.lines[(*path, key)]
                self.problems.append((line, f"key {key!r} stands twice, first on line {first}"))
                continue
            self.lines[(*path, key)] = line
            result[key] = self._plain(value_node, (*path, key))
        return result


def _encodable(text: str) -> bool:
    """Whether ``text`` is whole characters: an escape may name half of one."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _joined(text: str) -> str:
    """``text`` with each two halves as one character: JSON escapes some characters in halves."""
    if _encodable(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _scalar(node: yaml.Node) -> Any:
    text = _joined(str(node.value))
    match node.tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if len(text) <= _MAX_DIGITS:
            return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        case "float":
            lowered = text.lower()
            return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
    return text


_INDICATORS: Final = re.compile(r"(?:([-+])([1-9])?|([1-9])([-+])?)?(?=\t)")
_TAB: Final = "a tab ('\\t') in the indentation; allowed: spaces"


class _Loader(yaml.SafeLoader):
    """PyYAML's composer, taught the core schema and what to refuse; its scanner, taught tabs.

    PyYAML takes no tab for white space. YAML 1.2 does, but in the indentation of a block.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def __init__(self, text: str, problems: list[tuple[int, str]]) -> None:
        super().__init__(text)
        self._problems = problems
        self._depth = 0
        self._values = 0
        self.tab_line: int | None = None
        """The last line, from 0, that has a tab behind ``-``, ``?`` or ``:``, where no block may
        begin."""

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
                    raise ScannerError(problem=f"found {_TAB}", problem_mark=mark)
                if self.allow_simple_key:
                    self.allow_simple_key, self.tab_line = False, self.line
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str]:
        """The white space within a plain scalar, folded; empty where none of it is left."""
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
        """Whether nothing but white space is left of the line."""
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
        line = event.start_mark.line + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"more keys and values than are read; allowed: at most {MAX_VALUES:,}",
                problem_mark=event.start_mark,
            )
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._problems.append(
                (line, f"an alias (*{event.anchor}); allowed: the value written out")
            )
            mark: Any = event.start_mark
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        if getattr(event, "tag", None) is not None:
            self._problems.append((line, f"a tag ({event.tag}); allowed: plain YAML without tags"))
            event.tag, event.implicit = None, (True, False)
        if self._depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=event.start_mark
            )
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


for _name, _pattern in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, None)
