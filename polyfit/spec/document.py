"""YAML or JSON text -> plain values, with the line of every key and item.

Scalars follow YAML 1.2's core schema, so that ``1e-6`` is a number and ``no`` a string. Refused
are large files, duplicate keys, and what the loader refuses.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.reader import ReaderError

from polyfit.spec.yaml_loader import REFUSED, TAB, Defect, Loader

__all__ = ["BY_SETTING", "MAX_BYTES", "Document", "Path"]

MAX_BYTES: Final = 1 << 20

BY_SETTING: Final = 0
"""The line of what stands not in the text, but was set for this call."""

Path = tuple[str | int, ...]

_MAX_DIGITS: Final = 400  # longer digit strings stay text: no field needs them


@dataclass(slots=True)
class Document:
    """One YAML document.

    ``value`` is made of dict, list, str, int, float, bool and None; ``lines`` maps the path of
    every key and item to its line, counted from 1; ``columns`` of each is that of its value where
    it begins on the same line, else of the key; ``key_columns`` are those of the keys. ``text`` is
    what was read. ``defects`` say what was refused, and ``refused`` in whose place there is null.
    A document with defects is not to be used.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    columns: dict[Path, int] = field(default_factory=dict)
    key_columns: dict[Path, int] = field(default_factory=dict)
    text: str = ""
    defects: list[Defect] = field(default_factory=list)
    refused: set[Path] = field(default_factory=set)

    @classmethod
    def read(cls, data: bytes) -> "Document":
        """Read ``data``; raises nothing, whatever the bytes are."""
        document = cls()
        if len(data) > MAX_BYTES:
            document.defects.append(
                Defect(1, f"a larger file; allowed: at most {MAX_BYTES:,} bytes")
            )
            return document
        try:
            document.text = data.decode("utf-8")
            loader = Loader(document.text, document.defects)
            root = loader.get_single_node()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            document.defects.append(Defect(line, "a byte that is not UTF-8; allowed: UTF-8 text"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            parts = [part for part in (error.context, error.problem) if part]
            if mark and mark.line == loader.tab_line:
                parts.append(f"behind {TAB}")
            place = (mark.line + 1, mark.column + 1) if mark else (1, None)
            document.defects.append(Defect(place[0], "; ".join(parts), place[1]))
        except ReaderError as error:
            line = data.decode("utf-8").count("\n", 0, error.position) + 1
            text = f"{error.reason} ({chr(error.character)!r})"
            document.defects.append(Defect(line, f"{text}; allowed: printable text"))
        except yaml.YAMLError as error:
            document.defects.append(Defect(1, " ".join(str(error).split())))
        except (ValueError, OverflowError):  # PyYAML calls chr() and int() unchecked
            document.defects.append(
                Defect(
                    loader.line + 1, "a number too large in an escape or directive; allowed: YAML"
                )
            )
        else:
            if root is not None:
                document.value = document._plain(root, ())
        return document

    def line(self, path: Path) -> int:
        """The line of ``path``, or of the nearest key or item that encloses it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def write(self) -> str:
        """``value`` as YAML."""
        return yaml.dump(self.value, Dumper=_Dumper, sort_keys=False)

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if self.lines.setdefault(path, line) == line:
            self.columns[path] = column
        if node.tag == REFUSED:
            self.refused.add(path)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, i)) for i, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                text = "a key that is a list or mapping; allowed: a name"
                self.defects.append(Defect(line, text, column))
                continue
            key = _pairs_joined(str(key_node.value))
            if not _encodable(key):  # pydantic would refuse the whole mapping
                text = "a key of no Unicode text; allowed: a name"
                self.defects.append(Defect(line, text, column))
                continue
            if key in result:
                first = self.lines[(*path, key)]
                text = f"duplicate key {key!r}, first on line {first}"
                self.defects.append(Defect(line, text, column))
                continue
            here = (*path, key)
            self.lines[here], self.columns[here], self.key_columns[here] = line, column, column
            result[key] = self._plain(value_node, here)
        return result


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that our loader would take for something else."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def _text_node(dumper: _Dumper, text: str) -> yaml.Node:
    style = None if text.isprintable() else '"'  # which escapes every character that needs it
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text_node)


def _encodable(text: str) -> bool:
    """Whether ``text`` has no lone surrogate: an escape may name half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _pairs_joined(text: str) -> str:
    """``text`` with each surrogate pair as one character: JSON escapes some characters so."""
    if _encodable(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _scalar(node: yaml.Node) -> Any:
    text = _pairs_joined(str(node.value))
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
