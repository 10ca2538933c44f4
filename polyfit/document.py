"""YAML text -> plain values, with the line of every key and item.

Scalars follow YAML 1.2's core schema, so that ``1e-6`` is a number and ``no`` a string. What
makes YAML dangerous or surprising is refused while it is read, before anything is expanded:
aliases, tags, keys that stand twice, deep nesting, large files, more values than memory is for.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.reader import ReaderError

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
            key = str(key_node.value)
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


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
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


class _Loader(yaml.SafeLoader):
    """PyYAML's composer, taught the core schema and what to refuse."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def __init__(self, text: str, problems: list[tuple[int, str]]) -> None:
        super().__init__(text)
        self._problems = problems
        self._depth = 0
        self._values = 0

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
