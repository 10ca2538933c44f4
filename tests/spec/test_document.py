"""YAML as it is read: the core schema, lines, and what is refused."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.spec.document import MAX_BYTES, Document
from polyfit.spec.yaml_loader import MAX_DEPTH


def value(text: str) -> Any:
    document = Document.read(f"key: {text}\n".encode())
    assert document.defects == []
    return document.value["key"]


def defects(text: str | bytes) -> list[tuple[int, str]]:
    data = text if isinstance(text, bytes) else text.encode()
    return [(line, found) for line, found, _ in Document.read(data).defects]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-6", 1e-6),
        ("1.0e-6", 1e-6),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        (".INF", math.inf),
        ("10", 10),
        ("010", 10),
        ("+7", 7),
        ("-0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("-1:30", "-1:30"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nil", "nil"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("=", "="),
        ("<<", "<<"),
        ("sin(x)", "sin(x)"),
        ("-x", "-x"),
        ("1" * 500, "1" * 500),
    ],
)
def test_a_scalar_is_read_by_the_core_schema(text: str, expected: Any) -> None:
    found = value(text)
    assert (found, type(found)) == (expected, type(expected))


def test_nan_is_read_by_the_core_schema() -> None:
    assert math.isnan(value(".nan"))


def test_lists_and_mappings_nest() -> None:
    assert value("{a: [1, {b: c}], d: []}") == {"a": [1, {"b": "c"}], "d": []}


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert Document.read(b"<<: {a: 1}").value == {"<<": {"a": 1}}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert Document.read(b"1: a\nnull: b\ntrue: c\n").value == {"1": "a", "null": "b", "true": "c"}


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_null(text: str) -> None:
    document = Document.read(text.encode())
    assert (document.value, document.defects) == (None, [])


def test_a_byte_order_mark_is_passed_over() -> None:
    assert Document.read(b"\xef\xbb\xbfa: 1").value == {"a": 1}


def test_every_key_and_item_knows_its_line() -> None:
    document = Document.read(b"a: 1\nb:\n  - x\n  - c: 2\n    d: [3,\n        4]\n")
    assert {path: document.line(path) for path in [("a",), ("b",), ("b", 0), ("b", 1)]} == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
    }
    assert document.line(("b", 1, "c")) == 4
    assert document.line(("b", 1, "d", 1)) == 6


def test_a_missing_key_has_the_line_of_what_encloses_it() -> None:
    document = Document.read(b"a: 1\nb:\n  c: 2\n")
    assert document.line(("b", "missing", 3)) == 2
    assert document.line(("missing",)) == 1


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("a: &x 1\nb: *x\n", 2, "an alias (*x); allowed: the value written out"),
        ("a: 1\nb: !!int 3\n", 2, "a tag (tag:yaml.org,2002:int); allowed: plain YAML"),
        ("a: 1\nb: !local {c: 1}\n", 2, "a tag (!local)"),
        ("a: 1\n\nb: !!python/object/apply:os.system ['true']\n", 3, "a tag"),
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a', first on line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "duplicate key 'b', first on line 2"),
        ("a: {b: 1, b: 2}\n", 1, "duplicate key 'b'"),
        ("1: a\n'1': b\n", 2, "duplicate key '1'"),
        ("a: 1\n? [b]\n: 2\n", 2, "a key that is a list or mapping; allowed: a name"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "expected ',' or ']'"),
        ("a: 1\nb: 'open\n", 3, "unexpected end of stream"),
        ("a: 1\n\tb: 2\n", 2, "found a tab ('\\t') in the indentation; allowed: spaces"),
        ("\ta: 1\n", 1, "found a tab ('\\t') in the indentation; allowed: spaces"),
        ("a:\n\tb: 1\n", 2, "found a tab ('\\t') in the indentation; allowed: spaces"),
        ("a:\n  b: 1\n  \tc: 2\n", 3, "found a tab ('\\t') in the indentation"),
        ("a:\n\t- 1\n", 2, "found a tab ('\\t') in the indentation; allowed: spaces"),
        ("a:\n\t# x\n\tb: 1\n", 3, "found a tab ('\\t') in the indentation; allowed: spaces"),
        ("a:\n- \tb: 1\n", 2, "; behind a tab ('\\t') in the indentation; allowed: spaces"),
        ("a:\n-\t- b\n", 2, "; behind a tab ('\\t') in the indentation; allowed: spaces"),
        ('{\n\t"a": 1\n\t"b": 2\n}', 3, "expected ',' or '}'"),
        ("a: 1\nb: @x\n", 2, "'@'"),
        ("a: 1\nb: x: y\n", 2, "mapping values are not allowed here"),
        ("a: 1\nb: \x07\n", 2, "special characters are not allowed"),
        ("%YAML 9.9\n---\na: 1\n", 1, "incompatible YAML document"),
    ],
)
def test_a_refusal_names_the_line(text: str, line: int, found: str) -> None:
    assert [number for number, _ in defects(text)] == [line]
    assert found in defects(text)[0][1]


TABS = {
    "before a comment": "a:\n  b: 3\t# three\n  c: 4 \t # four\n",
    "behind a key": "a:\t\n  b:\t3\n  c: \t4\n",
    "before a comment behind a key": "a:\t# x\n  b: 3\n  c: 4\n",
    "at the ends of lines": "a: \t\n  b: 3\t\n  c: 4\t \t\n\t\n",
    "on lines of their own": "\t\na:\n\t\n  b: 3\n \t\n  c: 4\n\t",
    "before comments of their own lines": "\t# x\na:\n\t# y\n  b: 3\n    \t# z\n  c: 4\n",
    "behind a marker": "---\t# y\na: {b: 3, c: 4}\n...\t\n",
    "between what brackets hold": "a:\t{\tb\t:\t3\t,\n\t\tc:\t4\t}\t\n",
    "in the indentation of JSON": '{\n\t"a": {\n\t\t"b": 3,\n\t\t"c":\t4\n\t}\n}\n',
    "before JSON": '\n\t{"a":{"b":3,"c":4}}\t\n',
    "in JSON within YAML": "a: {\n\tb: 3, # x\n\t# y\n\tc: 4\n  }\n",
    "behind what is quoted": "a:\n  'b'\t: 3\t# x\n  \"c\"\t:\t4\n",
}


@pytest.mark.parametrize("text", TABS.values(), ids=TABS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["unix", "dos"])
def test_a_tab_is_white_space(text: str, ends: str) -> None:
    document = Document.read(text.replace("\n", ends).encode())
    assert (document.value, document.defects) == ({"a": {"b": 3, "c": 4}}, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sin(x)\t+\t1", "sin(x)\t+\t1"),
        ("sin(x) \t+ 1\t", "sin(x) \t+ 1"),
        ("x\t#y", "x"),
        ("x\t\n  + 1", "x + 1"),
        ("x\n  \t+ 1", "x + 1"),
        ("x\n\t\n \t\n  + 1", "x\n\n+ 1"),
        ("[x\n\t+ 1,\n\t2]", ["x + 1", 2]),
        ("'x\ty'", "x\ty"),
        ("|\t# x\n  y\tz\n", "y\tz\n"),
        (">-\t\n  y\n  z", "y z"),
        ("|1+\t# x\n  y\n", " y\n\n"),
        ("|-2\t# x\n  y\n", "y"),
        ("\n- \tx\n-\t[1]\n-\t# two\n  2\n", ["x", [1], 2]),
    ],
)
def test_a_tab_within_a_scalar_is_kept_and_around_it_is_not(text: str, expected: Any) -> None:
    assert value(text) == expected


TABBED = st.lists(
    st.sampled_from(
        [*"{}[], \t\nx", "a: ", "b:\t", "- ", "? ", "\n  ", " #c", "---", "'y'", "|\n"]
    ),
    max_size=25,
)


@given(TABBED)
@settings(max_examples=300, deadline=None)
def test_where_a_tab_may_stand_a_space_says_the_same(parts: list[str]) -> None:
    """Where it may not, the text is refused."""
    text = "".join(parts)
    tabs, spaces = Document.read(text.encode()), Document.read(text.replace("\t", " ").encode())
    if not tabs.defects and "|" not in text:
        shown = json.dumps(tabs.value).replace("\\t", " ")
        assert (shown, spaces.defects) == (json.dumps(spaces.value), [])


def test_all_refusals_are_reported_at_once() -> None:
    text = "a: &x 1\nb: *x\nc: !t 1\na: 2\n"
    assert [line for line, _ in defects(text)] == [2, 3, 4]


def test_an_alias_bomb_is_refused_without_being_expanded() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    found = defects("\n".join(lines))
    assert len(found) == 29 * 9
    assert all("an alias" in text for _, text in found)


def test_an_alias_of_itself_is_refused() -> None:
    assert "an alias (*a)" in defects("a: &a [*a]")[0][1]


def test_nesting_is_bounded() -> None:
    assert defects("[" * MAX_DEPTH + "]" * MAX_DEPTH) == []
    assert defects("\n" + "[" * 100_000) == [(2, f"nested deeper than {MAX_DEPTH} levels")]


def test_block_nesting_is_bounded() -> None:
    text = "".join(" " * i + "a:\n" for i in range(50))
    assert defects(text) == [(MAX_DEPTH, f"nested deeper than {MAX_DEPTH} levels")]


def test_a_large_file_is_refused_unread() -> None:
    assert defects(b"#" * MAX_BYTES) == []
    assert defects(b"#" * (MAX_BYTES + 1)) == [
        (1, "a larger file; allowed: at most 1,048,576 bytes")
    ]


@pytest.mark.parametrize("tail", [b"\xff", b"\xc3", b"\xed\xa0\x80", "é".encode("latin-1")])
def test_a_byte_that_is_not_utf8_is_refused_with_its_line(tail: bytes) -> None:
    assert defects(b"a: 1\nb: 2\nc: " + tail + b"\n") == [
        (3, "a byte that is not UTF-8; allowed: UTF-8 text")
    ]


YAMLISH = st.lists(
    st.sampled_from(
        [*"a: \n-?[]{},!|>'\"%#@`1e\t\\é", "&a", "*a", "!!x", "---", "...", "0x", ".inf"]
    ),
    max_size=40,
).map(lambda parts: "".join(parts).encode())


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), YAMLISH))
@settings(max_examples=400, deadline=None)
def test_any_bytes_give_a_document(data: bytes) -> None:
    document = Document.read(data)
    last = data.count(b"\n") + data.count(b"\r") + data.count(b"\xc2\x85") + 2 * data.count(b"\xe2")
    assert all(1 <= line <= last + 1 for line, _, _ in document.defects)


def plain(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text("abc", min_size=1, max_size=3)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )


LAYOUTS: list[dict[str, Any]] = [
    {"ensure_ascii": False},
    {},
    {"indent": "\t"},
    {"indent": 2},
    {"separators": (",", ":")},
    {"separators": ("\t,\t", "\t:\t")},
]


@pytest.mark.slow
@given(
    plain(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text('né\t\n/"\\\U0001f600 ')
    ),
    st.sampled_from(LAYOUTS),
)
@settings(max_examples=100, deadline=None)
def test_json_is_read_as_it_was_written(source: Any, layout: dict[str, Any]) -> None:
    text = json.dumps(source, **layout).replace("Infinity", ".inf")
    document = Document.read(text.encode())
    if not document.defects:
        assert document.value == source
    else:
        assert [text for _, text, _ in document.defects] == [
            f"nested deeper than {MAX_DEPTH} levels"
        ]


def test_an_escaped_pair_of_halves_is_one_character() -> None:
    text = json.dumps({"\U0001f600": "sin \U0001f600"})
    assert "\\ud83d" in text
    assert Document.read(text.encode()).value == {"\U0001f600": "sin \U0001f600"}
