"""A spec as an attack: what is hostile is refused before it is expanded, and the message is fit
for a terminal."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import HANG_S

import polyfit
from polyfit.errors import Exit, FormulaError, SpecError, UsageError
from polyfit.numerics.formula import FUNCTIONS, MAX_CHARACTERS, Formula
from polyfit.spec.defects import MAX_CHARACTERS as MAX_LINE
from polyfit.spec.defects import MAX_DEFECTS
from polyfit.spec.document import MAX_BYTES
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.spec.yaml_loader import MAX_VALUES
from polyfit.store.address import StoreAddress

"""A child that has not ended after this long hangs; what it does takes seconds."""


def told(data: str | bytes) -> str:
    """What is said of a spec that is refused."""
    with pytest.raises(UsageError) as caught:
        Plan.of(Spec.parse(data, "job.yaml"))
    return sound(str(caught.value))


def sound(message: str) -> str:
    """``message``, if it is a few lines of printable text, each with its place."""
    lines = message.split("\n")
    assert len(lines) <= MAX_DEFECTS + 1
    for line in lines:
        assert re.match(r"job\.yaml:(\d+:)? ", line), line
        assert line.isprintable()
        assert len(line) <= 6 * MAX_LINE  # a character may be shown as an escape
    return message


def quoted(text: str) -> str:
    """``text`` as a YAML scalar."""
    return json.dumps(text, ensure_ascii=False)


# --- what is no file -------------------------------------------------------------------------


def a_socket(folder: Path) -> str:
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket")
    finally:
        os.chdir(here)
    return f"{folder}/socket"


def a_link_to_itself(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return f"{folder}/loop"


NO_FILES: dict[str, tuple[str | Callable[[Path], str], str]] = {
    "a socket": (a_socket, "a socket"),
    "zeros without end": ("/dev/zero", "a device"),
    "nothing": ("/dev/null", "a device"),
    "a folder": ("/", "a folder"),
    "a link to itself": (a_link_to_itself, "symbolic links"),
    "below a file": (f"{__file__}/x", "Not a directory"),
    "a long name": ("x" * 5000, "too long"),
    "a NUL in its name": ("job\0.yaml", "null"),
    "half a character in its name": ("\ud800", "surrogates not allowed"),
    "no name": ("", "No such file"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_unopened(kind: str, tmp_path: Path) -> None:
    path, found = NO_FILES[kind]
    with pytest.raises(SpecError, match=f"{found}.*; allowed: a YAML or JSON file"):
        Spec.load(path if isinstance(path, str) else path(tmp_path))


@pytest.mark.parametrize(
    ("command", "code", "found"),
    [
        ("echo name: a | {} validate -", Exit.COMPLETE, "<stdin>: 1 fit\n"),
        ("{} validate - < {}/a.yaml", Exit.COMPLETE, "<stdin>: 1 fit\n"),
        ("{} validate /dev/stdin < {}/a.yaml", Exit.COMPLETE, "/dev/stdin: 1 fit\n"),
        ("echo name: a | {} validate /dev/stdin", Exit.COMPLETE, "/dev/stdin: 1 fit\n"),
        ("{} validate <(echo name: a) {}/a.yaml", Exit.COMPLETE, "/a.yaml: 1 fit\n"),
        ("(sleep 0.2; echo name: a) > {1}/pipe & {0} validate {1}/pipe", 0, "/pipe: 1 fit\n"),
        ("printf 'name: a\nfit: 3' | {} plan -", Exit.USAGE, "<stdin>:2: fit: found 3; allowed"),
        ("{} validate <(printf 'name: a\nfit: 3')", Exit.USAGE, ":2: fit: found 3; allowed: "),
        ("{} validate - < /dev/zero", Exit.USAGE, "<stdin>:1: a larger file; allowed: at most"),
        ("{} validate - < /dev/null", Exit.USAGE, "<stdin>:1: found an empty file; allowed: a "),
        ("{} plan - <&-", Exit.USAGE, "<stdin>: standard input is closed; allowed: a YAML or"),
        ("{} plan /dev/zero", Exit.USAGE, "/dev/zero: a device; allowed: a YAML or JSON file"),
    ],
)
def test_the_command_reads_files_pipes_and_standard_input(
    command: str, code: Exit, found: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.yaml").write_text("name: a\n")
    line = command.format(f"{sys.executable} -m polyfit", tmp_path)
    ended = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert found in ended.stdout + ended.stderr
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)


# --- what is too large -----------------------------------------------------------------------

TEN_MB = 10_000_000
LARGE_FILES: dict[str, Callable[[], bytes]] = {
    "lines": lambda: b"name: a\n" * (TEN_MB // 8),
    "one line": lambda: b"name: " + b"a" * TEN_MB,
    "words on a line": lambda: b"name: " + b"a " * (TEN_MB // 2),
    "open lists": lambda: b"[" * TEN_MB,
    "open mappings": lambda: b"{a: " * (TEN_MB // 4),
    "keys": lambda: b"".join(b"k%07d: 1\n" % i for i in range(TEN_MB // 11)),
    "zeros": lambda: bytes(TEN_MB),
    "comments": lambda: b"#\n" * (TEN_MB // 2),
}


@pytest.mark.parametrize("kind", LARGE_FILES)
def test_a_file_of_10_MB_is_refused_unread(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(LARGE_FILES[kind]())
    with pytest.raises(SpecError, match=r":1: a larger file; allowed: at most 1,048,576 bytes$"):
        Spec.load(path)


def full(start: str, item: str, end: str = "") -> str:
    """As many items as a file may hold."""
    return start + item * ((MAX_BYTES - len(start + end)) // len(item.encode())) + end


def numbered(start: str, item: str, count: int, end: str = "") -> str:
    return start + "".join(item.format(i) for i in range(count)) + end


NAME = "name: a\n"
WIDE: dict[str, tuple[str, str]] = {
    "items": (full(NAME + "fit: [", "a,", "]"), "more keys and values than are read"),
    "dashes": (full("", "-\n"), "more keys and values than are read"),
    "lists": (full(NAME + "fit: [", "[],", "]"), "more keys and values than are read"),
    "keys": (numbered("", "k{}:\n", 110_000), "more keys and values than are read"),
    "keys of a line": (numbered("{", "{},", 150_000, "}"), "more keys and values"),
    "no keys": (full("", "? "), "nested deeper"),
    "aliases": (full("a: &a x\nb: [", "*a,", "]"), "more keys and values than are read"),
    "tags": (full("[", "!t a,", "]"), "more keys and values than are read"),
    "one key again": ("a: 1\n" * 45_000, "44,899 more problems"),
    "open lists": (full("", "["), "nested deeper than 12 levels"),
    "open mappings": (full("", "{a: "), "nested deeper than 12 levels"),
    "open items": (full("", "- "), "nested deeper than 12 levels"),
    "closed lists": (full("", "]"), "expected"),
    "a long name": (full("name: ", "a"), "name: found 'aaa"),
    "many words": (full("name: ", "a "), "name: found 'a a"),
    "many lines": (full("name: a\n", " a\n"), "name: found 'a a"),
    "a text": (full("name: '", "a", "'"), "name: found 'aaa"),
    "an open text": (full('name: "', "a"), "end of stream"),
    "a block": (full("name: |\n ", "a"), "name: found 'aaa"),
    "empty lines of a block": (full("name: |\n", "\n"), "name: found ''"),
    "escapes": (full('name: "', r"\x41", '"'), "name: found 'AAA"),
    "digits": (full("name: ", "9"), "name: found '999"),
    "hex digits": (full("name: 0x", "f"), "name: found '0xfff"),
    "decimals": (full("name: 0.", "3"), "name: found 0.333"),
    "an exponent": (full("name: 1e", "9"), "name: found inf"),
    "one long key": (full("", "k", ": 1"), "job.yaml:1: "),
    "one long key of a field": (full(NAME + 'fit: {? "', "k", '" : 1}'), "unknown key"),
    "a long anchor": (full("name: &", "a", " a"), ""),
    "a long alias": (full("name: *", "a"), "an alias"),
    "a long tag": (full("name: !", "a", " a"), "a tag"),
    "comments": (full("", "#\n"), "an empty file"),
    "directives": (full("", "%a\n"), "expected '<document start>'"),
    "documents": (full("", "---\n"), "another document"),
    "slashes": (full("name: '", "/", "'"), "name: found '///"),
    "pairs of slashes": (full("name: '", "//a ", "'"), "name: found '//a"),
    "a key of slashes": (full(NAME + "? '", "/", "'\n: 1"), "unknown key"),
    "unknown keys": (numbered(NAME, "key{}: 1\n", 49_000), "48,900 more problems"),
    "unknown fields": (numbered(NAME + "fit: {", "f{}: 1,", 49_000, "}"), "48,900 more problems"),
    "unknown axes": (numbered(NAME + "sweep: {", "f{}: 1,", 49_000, "}"), "48,900 more problems"),
    "bad formulas": (
        numbered(NAME + "sweep: {target: [", "y{},", 90_000, "]}"),
        "89,900 more problems",
    ),
    "long bad formulas": (full(NAME + "sweep: {target: [", f"{'-x' * 495}--,", "]}"), "is not a"),
    "one value again": (full(NAME + "sweep: {seed: [", "1234567890,", "]}"), "more problems"),
    "zips": (numbered(NAME + "sweep: {zip: [", "{{a: 1}},", 33_000, "]}"), "32,900 more problems"),
    "records": (numbered(NAME + "record: {every: 1, of: [", "r{},", 90_000, "]}"), "record.of"),
    "updates": (numbered(NAME + "record: {at: [", "{},", 90_000, "]}"), "record.at: found"),
}
LISTED = "\nsweep: {degree: {count: 31}, points: {count: 100000, start: 31}}"
TAKEN: dict[str, str] = {
    "as many values as are read": numbered(NAME + "sweep: {seed: [", "{},", MAX_VALUES - 7, "]}"),
    "all seeds": NAME + "sweep: {seed: {count: 4294967296}}",
    "all seeds in a zip": NAME
    + "sweep: {zip: [{seed: {count: 4294967296}, noise_seed: {count: 4294967296}}]}",
    "all updates": NAME + "sweep: {steps: {start: 1, stop: 1000000001}}\nrecord: none",
    "wide axes": NAME + "sweep: {lr: {linspace: [0.1, 1, 100000]}, seed: {count: 1000000}}",
    "combinations": NAME + LISTED,
    "records of many lengths": numbered(
        NAME + "sweep: {steps: {count: 100000, start: 10000}}\nrecord: {at: [",
        "{},",
        10_000,
        "]}",
    ),
}

# The address space may grow by half a gigabyte after all imports; a larger one is a MemoryError.
LIMITED = """
import json, resource, sys
import numpy as np
from polyfit.errors import UsageError
from polyfit.numerics.formula import Formula
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

Plan.of(Spec.parse("name: a"))
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
limit = used + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fits(text):
    return f"{Plan.of(Spec.parse(text, 'job.yaml')).fits} fits"


def values(text):
    return str(Formula.parse(text)(np.array([-2.0, 0.5, 3.0])).tolist())


for line in sys.stdin:
    try:
        print(json.dumps(globals()[sys.argv[1]](json.loads(line))))
    except UsageError as error:
        print(json.dumps(str(error)))
"""


def limited(what: str, texts: list[str]) -> list[str]:
    """What a process with little memory says of each of ``texts``."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, what],
        input="\n".join(map(json.dumps, texts)),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(answers) == len(texts)
    return answers


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_a_file_full_of_anything_takes_little_memory() -> None:
    assert all(len(text.encode()) <= MAX_BYTES for text, _ in WIDE.values())
    answers = limited("fits", [text for text, _ in WIDE.values()])
    for (kind, (_, found)), answer in zip(WIDE.items(), answers, strict=True):
        if not answer.endswith(" fits"):
            sound(answer)
        assert found in answer, kind


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_a_large_sweep_takes_little_memory() -> None:
    answers = limited("fits", list(TAKEN.values()))
    assert dict(zip(TAKEN, answers, strict=True)) == {
        "as many values as are read": f"{MAX_VALUES - 7} fits",
        "all seeds": "4294967296 fits",
        "all seeds in a zip": "4294967296 fits",
        "all updates": "1000000000 fits",
        "wide axes": "100000000000 fits",
        "combinations": "3100000 fits",
        "records of many lengths": "100000 fits",
    }


# --- YAML ------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
YAMLS: dict[str, tuple[str | bytes, str]] = {
    "an alias bomb": (NAME + LAUGHS, "an alias (*a0); allowed: the value written out"),
    "an alias bomb of mappings": (
        NAME + "a: &a {b: 1}\nc: &c {d: *a, e: *a}\nf: {g: *c, h: *c}",
        "an alias (*a)",
    ),
    "an alias of itself": (NAME + "fit: &a {target: *a}", "an alias (*a)"),
    "an alias as a key": (NAME + "a: &a fit\n*a : {}", "an alias (*a)"),
    "a merge": (NAME + "a: &a {degree: 5}\nfit: {<<: *a}", "an alias (*a)"),
    "a merge without alias": (NAME + "fit: {<<: {degree: 5}}", "fit.<<: unknown key"),
    "a merge of the top": ("<<: {name: a}", "<<: unknown key"),
    "a hidden tag": (
        "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\nname: !os.system ['true']",
        "a tag (tag:yaml.org,2002:python/object/apply:os.system)",
    ),
    "a tag in full": ("name: !<tag:yaml.org,2002:python/name:os.system> ''", "a tag"),
    "a tag of a key": ("!!str name: a", "a tag"),
    "the tag of the top": ("!!python/object:polyfit.spec.spec.Spec\nname: a", "a tag"),
    "an unknown handle": ("name: !a!b c", "undefined tag handle"),
    "tags that escape": ("name: !%1b%5b2J a", r"a tag (!\x1b[2J)"),
    "flow lists": ("fit: " + "[" * 5000 + "]" * 5000, "nested deeper than 12 levels"),
    "flow mappings": ("{fit: " * 5000 + "}" * 5000, "nested deeper than 12 levels"),
    "blocks": ("".join(" " * i + "fit:\n" for i in range(1000)), "nested deeper than 12"),
    "blocks of lists": ("- " * 5000 + "a", "nested deeper than 12 levels"),
    "blocks of keys": ("? " * 5000 + "a", "nested deeper than 12 levels"),
    "two documents": ("name: a\n---\nname: b", "another document"),
    "a key again": ("name: a\nname: b", "key 'name' stands twice, first on line 1"),
    "a key again in quotes": ('name: a\n"\\x6eame": b', "key 'name' stands twice"),
    "a key that is a list": ("? [name]\n: a", "a key that is a list or mapping"),
    "a character beyond Unicode": (r'name: "\U00110000"', "a number too large in an escape"),
    "a character beyond C": (r'name: "\Uffffffff"', "a number too large in an escape"),
    "half a character": (r'name: "\ud800"', r"found '\ud800'"),
    "a key of half a character": (r'"\udfff": 1', "a key of no Unicode text; allowed: a name"),
    "a long version": (f"%YAML 1.{'9' * 5000}\n---\nname: a", "a number too large in an escape"),
    "a NUL": (b"name: a\0b", "special characters are not allowed ('\\x00')"),
    "a NUL by its escape": (r'name: "a\0b"', r"found 'a\x00b'"),
    "a program": (b"\x7fELF\x02\x01\x01" + bytes(200), "special characters"),
    "compressed data": (b"\x1f\x8b\x08\x00" + os.urandom(200), "; allowed: "),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "a byte that is not UTF-8"),
    "latin-1": ("name: é".encode("latin-1"), "a byte that is not UTF-8"),
    "UTF-16": ("name: a".encode("utf-16"), "a byte that is not UTF-8"),
    "UTF-16 without a mark": ("name: a".encode("utf-16-le"), "special characters"),
    "UTF-32": ("name: a".encode("utf-32"), "a byte that is not UTF-8"),
    "a slash in two bytes": (b"name: \xc0\xaf", "a byte that is not UTF-8"),
    "half a character in three bytes": (b"name: \xed\xa0\x80", "a byte that is not UTF-8"),
    "a byte beyond Unicode": (b"name: \xf5\x80\x80\x80", "a byte that is not UTF-8"),
    "a mark in the middle": ("name: \ufeffa", "name: found '\\ufeffa'"),
    "an empty file": (b"", "found an empty file; allowed: a mapping with at least `name`"),
    "only a mark": (b"\xef\xbb\xbf", "found an empty file"),
    "only blanks": (b" \n\n", "found an empty file"),
    "a key that clears the screen": (r'"\e[2J\e]0;x\a": 1', r"\x1b[2J\x1b]0;x\x07: unknown key"),
    "a key that tells lies": (r'"a\njob.yaml:9: fine": 1', r"a\njob.yaml:9: fine: unknown key"),
    "a key that turns round": ('"\u202eabc": 1', r"\u202eabc: unknown key"),
    "a key of two lines, twice": ('{"a\\nb": 1, "a\\nb": 2}', r"key 'a\nb' stands twice"),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_hostile_yaml_is_refused(kind: str) -> None:
    data, found = YAMLS[kind]
    assert found in told(data)


@pytest.mark.parametrize(
    "tag",
    [
        *(
            "python/object/apply:os.system ['touch MARK']",
            "python/object/new:os.system ['touch M']",
        ),
        *("python/object/apply:pathlib.Path.touch ['MARK']", "python/object:os.PathLike {}"),
        *("python/name:os.system ''", "python/module:os ''", "python/tuple [1]", "python/none ''"),
        *("binary aGFsbG8=", "set {a}", "omap [a: 1]", "timestamp 2024-01-01", "str a", "map {}"),
    ],
)
@pytest.mark.parametrize("place", ["name: {}", "name: a\nfit: {{target: {}}}", "- {}", "{}"])
def test_a_tag_makes_nothing(tag: str, place: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert "a tag (tag:yaml.org,2002:" in told(place.format(f"!!{tag}".replace("MARK", str(mark))))
    assert not mark.exists()


def test_a_byte_order_mark_before_a_spec_is_passed_over() -> None:
    assert Spec.parse(b"\xef\xbb\xbfname: a").name == "a"


# --- formulas --------------------------------------------------------------------------------

CODE = [
    "open('MARK', 'w')",
    "print(x)",
    'eval(\'open("MARK", "w")\')',
    'exec(\'open("MARK", "w")\')',
    "compile('x', 'x', 'eval')",
    "__import__('pathlib').Path('MARK').touch()",
    "().__class__.__base__.__subclasses__()",
    "(lambda: open('MARK', 'w'))()",
    "lambda x: x",
    "[open('MARK', 'w') for _ in (1,)]",
    "{open('MARK', 'w') for _ in (1,)}",
    "{x: open('MARK', 'w') for x in (1,)}",
    "sum(x for x in x)",
    "(y := open('MARK', 'w'))",
    'f\'{open("MARK", "w")}\'',
    "f'{x}'",
    "'x'",
    "b'x'",
    "'%9999999999d' % 1",
    "'x' * 9**9",
    "[0] * 9**9",
    "(0,) * 9**9",
    "1 << 9**9",
    "9 // 1",
    "9 % 2",
    "await x",
    "yield x",
    "yield from x",
    "import os",
    "from os import *",
    "x; import os",
    "x\nimport os",
    "del x",
    "x = 1",
    "x.__class__",
    "x.real",
    "x\\\n.real",
    "sin.__globals__",
    "sin(x).base",
    "x[0]",
    "x[::1]",
    "sin(x)[0]",
    "sin(*x)",
    "sin(**x)",
    "sin(x, out=x)",
    "sin(sin)",
    "sin(x)(x)",
    "(sin)",
    "x(x)",
    "x if x else x",
    "x and x",
    "not x",
    "x == x",
    "x is x",
    "x in x",
    "*x",
    "x,",
    "x:x",
    "...",
    "None",
    "True",
    "1j",
    "__debug__",
    "numpy",
    "np.sin(x)",
    "inf",
    "nan",
    "@x",
    "x!",
    "$x",
    "`x`",
    "%s",
    "{x}",
    "{{x}}",
    "x\0",
    "x \x1b[2J",
]
LIKENESSES = [
    *("\uff58", "\U0001d431", "\u0445", "x\u0301", "\u1d61", "\uff53in(x)", "\u017fin(x)"),
    *("sin\uff08x\uff09", "x \uff0b 1", "x \u2212 1", "x \u00d7 2", "x \u00f7 2", "x\u00b2"),
    *("\u221ax", "\u03c0", "\u212f", "\u0661", "\uff11", "\u00bd", "x\u200b", "x\u200d+1"),
    *("\u202ex", "x\u00a0+ 1", "x\u2028+ 1", "\ufeffx", "e\u0445p(x)"),
]
DEEP = [
    *("(" * n + "x" + ")" * n for n in (201, 499, 1000, 100_000)),
    *("[" * n + "x" + "]" * n for n in (60, 499)),
    *(sign * n + "x" for sign in "-+~" for n in (60, 999, 100_000)),
    *("sin(" * n + "x" + ")" * n for n in (60, 199, 1000)),
    *("x" + link * n for link in ("+x", "**x", "*-x", "<x", "[x]", "(x)", ".x") for n in (60, 240)),
    *("not " * 240 + "x", "lambda:" * 140 + "x", "x if x else " * 80 + "x", "await " * 160 + "x"),
    *("f'{" * 20, "(" * 1000, ")" * 1000, "'" * 999, '"' * 999, "\\" * 999, "#" * 1000, "\n" * 999),
]
DIGITS = [
    *("9" * 400, "0x" + "f" * 998, "0o" + "7" * 998, "1_0" * 300, "9" * 998),
    *("9" * 5000, "x + " + "9" * 900 + ".real", "9" * 310 + "**9"),
]
AT_ONCE = {
    "9**9**9": "inf",
    "9**9**9**9**9": "inf",
    "(9**9**9)**9": "inf",
    "2**2**2**2**2**2**2": "inf",
    "0x" + "f" * 255 + "**9": "inf",
    "9" * 300 + "**99999999": "inf",
    "99999999999**99999999999": "inf",
    "1e999999999999999999": "inf",
    "exp(exp(exp(exp(9))))": "inf",
    "9**-9**9**9": "0.0",
    "0**9**9**9": "0.0",
    "(-9)**9**9": "-inf",
}


def refuses(text: str) -> str:
    with pytest.raises(FormulaError, match="allowed: ") as caught:
        Formula.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 6 * MAX_CHARACTERS
    return message


@pytest.mark.parametrize("text", [*CODE, *LIKENESSES, *DEEP, *DIGITS], ids=lambda text: text[:20])
def test_a_hostile_formula_is_refused(text: str, tmp_path: Path) -> None:
    text = text.replace("MARK", str(tmp_path / "mark"))
    refuses(text)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "place",
    [
        "name: a\nfit: {{target: {}}}",
        "name: a\nfit: {{range: [{}, 1]}}",
        "name: a\nsweep: {{target: [x, {}]}}",
        "name: a\nsweep: {{zip: [{{range: [[0, {}], [0, 1]], seed: [1, 2]}}]}}",
    ],
)
def test_a_hostile_formula_is_refused_wherever_a_spec_has_one(place: str, tmp_path: Path) -> None:
    for text in [*CODE, *LIKENESSES, *DEEP, *DIGITS]:
        text = text.replace("MARK", str(tmp_path / "mark"))
        if len(text) < MAX_BYTES:
            assert "allowed: " in told(place.format(quoted(text)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_powers_of_powers_take_no_memory() -> None:
    answers = limited("values", list(AT_ONCE))
    assert answers == [f"[{value}, {value}, {value}]" for value in AT_ONCE.values()]


# --- names, run ids, places ------------------------------------------------------------------

PATHS = [
    *("../x", "..", ".", "/", "/etc", "a/b", "a/../b", "a\\b", "a\0b", "a\n", "\na", "a b", "~"),
    *("~root", "$HOME", "%2e%2e", "a%2fb", "A", "", "-rf", "a" * 64, "a" * 100_000, "\uff41"),
    *("a\u200b", "\u202ea", "a.yaml", "a_b", "a:b", "a?b", "*", "a;b", "s3://b", "\x1b[2J"),
]


@pytest.mark.parametrize("name", PATHS, ids=lambda name: ascii(name[:20]))
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    assert "allowed: 1 to 63 of a-z, 0-9 and -" in told(f"name: {json.dumps(name)}")


@pytest.mark.parametrize("run_id", PATHS, ids=lambda name: ascii(name[:20]))
def test_a_run_id_that_is_a_path_is_refused(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="allowed: 1 to 63 of a-z, 0-9 and -"):
        polyfit.execute(
            Spec.parse("name: a"), store=f"{tmp_path}/store", run_id=run_id, executor="inline"
        )
    assert list(tmp_path.iterdir()) == []


PLACES = [
    *("", "s3://", "s3:///etc/passwd", "s3://bucket?x=y"),
    *("s3://bucket/x?y", "s3://bucket#x", "s3://?", "file:///etc/passwd", "gs://bucket"),
    *("http://169.254.169.254/latest", "https://bucket.s3.amazonaws.com", "://", "x://y"),
    *("s3://key:secret@bucket", "s3://secret@bucket/x", "//key:secret@host/x", "s3://[::1"),
    *("a\0b", "a\nb", "s3://bu\ncket", "s3://bucket/\r\nx: y", "\x1b[2J", "\u202eabc"),
    *("s3://bucket\uff20host", "s3://a\u2100b", "\ud800", "a\u2028b"),
]
ENDPOINTS = [
    *("", "localhost:9000", "file:///x", "http://", "http:///x", "ftp://host", "javascript:x"),
    *("https://key:secret@host", "http://@host", "http://host:99999", "http://host:0"),
    *("http://host:x", "http://[::1", "http://host\n.b", "http://host\0", "http://a\uff20b"),
    *("\x1b[2J", "//host", "http:host"),
]


@pytest.mark.parametrize("uri", PLACES, ids=ascii)
def test_a_uri_that_is_no_place_is_refused(uri: str) -> None:
    message = told(f"name: a\nstore: {{uri: {json.dumps(uri)}}}")
    assert "store.uri: found " in message
    assert "allowed: a folder or s3://bucket/prefix, without credentials" in message
    assert "secret" not in message
    with pytest.raises(UsageError) as caught:
        StoreAddress.of(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ENDPOINTS, ids=ascii)
def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    message = told(f"name: a\nstore: {{uri: s3://b, endpoint_url: {json.dumps(url)}}}")
    assert "store.endpoint_url: found " in message
    assert "secret" not in message


# --- sweeps ----------------------------------------------------------------------------------

HUGE = 10**30
SWEEPS: dict[str, str] = {
    f"seed: {{count: {HUGE}}}": "at most 2^62 values",
    f"noise_seed: {{count: {HUGE}}}": "at most 2^62 values",
    f"noise_seed: {{start: 0, stop: {10**300}}}": "at most 2^62 values",
    f"noise_seed: {{start: 0, stop: {10**399}}}": "sweep.noise_seed: found",
    "noise_seed: {count: 4611686018427387905}": "at most 2^62 values",
    "noise_seed: {count: 4611686018427387904, step: 8}": "the generator reaches",
    "seed: {count: 4294967297}": "the generator reaches 4294967296",
    f"seed: {{count: 2, start: {HUGE}}}": "the generator reaches",
    f"seed: {{count: 2, step: {HUGE}}}": "the generator reaches",
    f"seed: {{count: 2, step: -{HUGE}}}": "the generator reaches",
    "seed: {count: 2, step: 0}": "a step other than 0",
    "seed: {count: 1e30}": "at least one value",
    "seed: {count: .inf}": "at least one value",
    "seed: {count: true}": "at least one value",
    "seed: {count: -1}": "at least one value",
    "seed: {start: 0, stop: 1e300}": "at most 2^62 values",
    "seed: {start: 0, stop: 1, step: 1e-300}": "integers",
    f"degree: {{count: {HUGE}}}": "at most 2^62 values",
    "steps: {linspace: [1, 1000000000, 1000000000]}": "from 1 to 100,000 values",
    "points: {logspace: [1, 6, 1000000]}": "from 1 to 100,000 values",
    f"lr: {{linspace: [1, 2, {10**9}]}}": "from 1 to 100,000 values",
    f"lr: {{logspace: [-300, 300, {HUGE}]}}": "from 1 to 100,000 values",
    f"lr: {{count: {10**9}, start: 1}}": "from 1 to 100,000 values",
    "lr: {start: 1, stop: 2, step: 1e-300}": "from 1 to 100,000 values",
    "lr: {start: -1.0e+308, stop: 1.0e+308, step: 1}": "from 1 to 100,000 values",
    "lr: {start: 1, stop: 1e400}": "sweep.lr: found",
    "lr: {start: 1, stop: .nan}": "sweep.lr: found",
    "lr: {linspace: [1, 2, -1]}": "from 1 to 100,000 values",
    "lr: {linspace: [1, 2, true]}": "from 1 to 100,000 values",
    "lr: {linspace: [1, 2, 1e9]}": "sweep.lr: found",
    "lr: {linspace: [1.0e-300, 1.1e-300, 100000], x: 1}": "sweep.lr: found",
    "lr: {linspace: [-1.0e+308, 1.0e+308, 3]}": "the generator makes -1e+308",
    "lr: {logspace: [0, 309, 3]}": "beyond float64",
    "lr: {logspace: [-400, 0, 3]}": "a number above 0",
    "noise: {linspace: [1, 1.0000000000000002, 100000]}": "each value once",
    f"zip: [{{seed: {{count: {HUGE}}}, noise_seed: {{count: {HUGE}}}}}]": "at most 2^62 values",
    f"zip: [{{lr: {{linspace: [1, 2, {10**9}]}}, noise: {{count: {10**9}}}}}]": "100,000 values",
    "zip: [{seed: {count: 4294967296}, noise_seed: {count: 4294967295}}]": "equally many",
    "zip: [{seed: {count: 4294967296}, lr: [1, 2]}]": "equally many",
    "zip: {seed: {count: 2}}": "a list of mappings",
    "zip: [[[[[1]]]]]": "a mapping of two fields or more",
    "seed: {count: 4294967296}, noise_seed: {count: 2147483648}": "9,223,372,036,854,775,808 fits",
    "seed: {count: 4294967296}, noise_seed: {count: 4611686018427387904}, "
    "steps: {start: 1, stop: 1000001}, points: {start: 31, stop: 1000001}": "fits; allowed",
    "seed: {count: 4294967296}, lr: {linspace: [1, 2, 100000]}": "shards; allowed",
}
OTHERS: dict[str, str] = {
    "sweep: {seed: {count: 1000001}}\nshard: 1": "1,000,001 shards; allowed: at most 1,000,000",
    f"shard: {HUGE}": "allowed: auto or an integer from 1",
    f"record: {{every: 1}}\nfit: {{steps: {10**9}}}": "1,000,000,000 records of a fit",
    f"record: {{at: [{HUGE}]}}": "updates from 0 to steps - 1",
    f"fit: {{points: {10**9}}}": "an integer from 1 to 1,000,000",
    f"fit: {{degree: {HUGE}}}": "an integer from 0 to 30",
    f"fit: {{steps: {HUGE}}}": "an integer from 1 to 1,000,000,000",
    f"fit: {{steps: {'9' * 100_000}}}": "an integer from 1 to 1,000,000,000",
    f"fit: {{lr: {'9' * 399}}}": "a number above 0",
    "fit: {range: [-1.0e+308, 1.0e+308]}": "a finite width",
    "fit: {range: [0, 9**9**9]}": "fit.range: found",
    "fit: {range: [1, 1.0000000000000002]}": "float64 can tell",
    "sweep: {seed: {count: 1000000}}\nlimits: {fits: 1000}": "the plan has 1,000,000; allowed",
}


@pytest.mark.parametrize("text", SWEEPS, ids=lambda text: text[:60])
def test_a_sweep_beyond_bounds_is_refused_unexpanded(text: str) -> None:
    assert SWEEPS[text] in told(f"name: a\nsweep: {{{text}}}")


@pytest.mark.parametrize("text", OTHERS, ids=lambda text: text[:60])
def test_another_number_beyond_bounds_is_refused(text: str) -> None:
    assert OTHERS[text] in told(f"name: a\n{text}")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_a_sweep_beyond_bounds_takes_no_memory() -> None:
    texts = [f"name: a\nsweep: {{{text}}}" for text in SWEEPS]
    answers = limited("fits", texts)
    assert all(found in answer for found, answer in zip(SWEEPS.values(), answers, strict=True))


# --- anything at all -------------------------------------------------------------------------

FUZZ = settings(deadline=None, derandomize=False, print_blob=True)  # new ones in every run


def taken(data: str | bytes) -> None:
    """Anything is a spec or a user's error; a plan that is made can be read again."""
    try:
        plan = Plan.of(Spec.parse(data, "job.yaml"))
    except UsageError as error:
        sound(str(error))
    else:
        assert plan.fits >= 1
        assert Plan.from_json(plan.to_json(), "plan.json").hash == plan.hash


WHOLE = """\
name: whole
fit: {target: exp(x), points: 40, basis: legendre, stop: {gradient: 1e-6}, noise: 0.5}
sweep:
  degree: {start: 1, stop: 9, step: 2}
  range: [[-pi, pi], [0, 2*pi]]
  lr: {logspace: [-3, -1, 3]}
  noise_seed: {count: 5, start: 7}
  zip: [{optimizer: [gd, {momentum: {beta: 0.5}}], objective: [sse, huber]}]
record: {at: [0, 10], of: [loss, coefficients]}
engine: eager
shard: 100
store: {uri: s3://bucket/prefix, endpoint_url: 'http://localhost:9000'}
resources: {gpus_per_actor: 0.5, cpus_per_actor: 1, actors: {min: 1, max: 4}}
limits: {fits: 100000, core_hours: 10, bytes: 1000000000}
on_failure: stop
"""
JOBS = [WHOLE, *(path.read_text() for path in sorted(Path("jobs").glob("*.yaml")))]
SCRAPS = [
    *("", " ", "\n", "\t", ":", ": ", "- ", "? ", ",", "[", "]", "{", "}", "|", ">", "'", '"'),
    *("#", "&a ", "*a", "!!python/none ", "!t ", "<<", "---\n", "...\n", "%YAML 1.2\n", "\\"),
    *("\0", "\r", "\x1b", "\x85", "\u2028", "\ufeff", "\ud800", "\U0001f600", '"\\U00110000"'),
    *("null", "~", "true", "auto", "none", ".inf", "-.inf", ".nan", "0", "-1", "1e400", "1e-400"),
    *("4294967296", "18446744073709551616", "1" * 30, "9" * 399, "9" * 5000, "0x" + "f" * 99),
    *("[]", "{}", "[[]]", "{count: 3}", f"{{count: {HUGE}}}", "{count: 4294967296}"),
    *("{start: 1, stop: 5}", "{linspace: [1, 9, 5]}", f"{{linspace: [0, 1, {HUGE}]}}"),
    *("{logspace: [0, 400, 3]}", "{of_limit: 0.5}", "{momentum: {beta: 1}}", "{gradient: 1}"),
    *("gd", "adam", "newton", "l1", "mse", "power", "affine", "compiled", "float64", "zip"),
    *("sin(x)", "9**9**9", "x.real", "'x'", "../x", "s3://k:s@b", "http://[::1", "a/b"),
    *CANONICAL_ORDER,
]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A job of the repository with a few places changed."""
    text = draw(st.sampled_from(JOBS))
    for _ in range(draw(st.integers(1, 4))):
        scrap = draw(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=3)))
        lines = text.splitlines(keepends=True) or [""]
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["word", "word", "word", "character", "line", "copy", "cut"])):
            case "word":
                words = list(re.finditer(r"[^\s\[\]{},:]+|[\[{].*?[\]}]", text))
                if words:
                    word = words[draw(st.integers(0, len(words) - 1))]
                    text = text[: word.start()] + scrap + text[word.end() :]
            case "character":
                start = draw(st.integers(0, len(text)))
                stop = start + draw(st.integers(0, 2))
                text = text[:start] + scrap + text[stop:]
            case "line":
                text = "".join([*lines[:line], *lines[line + 1 :]])
            case "copy":
                other = draw(st.integers(0, len(lines)))
                text = "".join([*lines[:other], lines[line], *lines[other:]])
            case "cut":
                text = text[: draw(st.integers(0, len(text)))]
    return text


@given(mutants())
@settings(FUZZ, max_examples=1000)
def test_a_changed_job_is_a_spec_or_a_users_error(text: str) -> None:
    taken(text)


NUMBERS = st.one_of(
    st.integers(-2, 40),
    st.floats(0.001, 2),
    st.sampled_from([100_000, 10**6, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1, HUGE]),
    st.sampled_from([10**308, 10**399, 1e-300, 1e308, -1e308, 5e-324, 0.0, -0.0]),
    st.floats(),
)
GENERATORS: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"count": NUMBERS}, optional={"start": NUMBERS, "step": NUMBERS}),
    st.fixed_dictionaries({"start": NUMBERS, "stop": NUMBERS}, optional={"step": NUMBERS}),
    st.fixed_dictionaries({"linspace": st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list)}),
    st.fixed_dictionaries({"logspace": st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list)}),
)
WORDS: dict[str, list[Any]] = {
    "degree": [0, 3, 30],
    "points": [31, 100, 1_000_000],
    "basis": ["chebyshev", "legendre", "power"],
    "range": [[-1, 1], ["-pi", "pi"], [0, "2*pi"], [-1e308, 1e308], [0, 5e-324]],
    "objective": ["sse", "mse", "huber", "log_cosh", "l1"],
    "dtype": ["float32", "float64"],
    "target": ["sin(x)", "1", 2, 0.5, "x**9**9", "1/0", "0x10"],
    "noise": [0, 0.5, 1e308],
    "noise_seed": [0, 2**64 - 1],
    "steps": [1, 2000, 10**9],
    "stop": ["none", None, {"gradient": 1e-6}, {"loss_change": 1e-9}],
    "optimizer": ["gd", "adam", "newton", "momentum", {"momentum": {"beta": 0.5}}],
    "lr": ["auto", 1e-6, {"of_limit": 0.9}, 5e-324],
    "seed": [0, 2**32 - 1],
}


def field(name: str) -> st.SearchStrategy[Any]:
    likely = st.sampled_from(WORDS[name])
    return st.one_of(likely, likely, likely, NUMBERS, st.text(max_size=3))


def axis(name: str) -> st.SearchStrategy[Any]:
    listed = st.lists(st.sampled_from(WORDS[name]), min_size=1, max_size=4, unique_by=repr)
    numeric = isinstance(WORDS[name][0], int) or name == "lr"
    return st.one_of(listed, listed, GENERATORS if numeric else listed, st.lists(field(name)))


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """Some fields by themselves, some in a zip."""
    names = draw(st.lists(st.sampled_from(CANONICAL_ORDER), max_size=6, unique=True))
    apart = draw(st.integers(0, len(names)))
    sweep = {name: draw(axis(name)) for name in names[:apart]}
    if len(names) - apart >= 2:
        sweep["zip"] = [{name: draw(axis(name)) for name in names[apart:]}]
    return sweep


RECORDS = st.one_of(
    st.just("none"),
    st.fixed_dictionaries(
        {"every": NUMBERS}, optional={"of": st.just(["loss", "coefficients", "gradient_norm"])}
    ),
    st.fixed_dictionaries({"at": st.lists(st.integers(0, 2000), max_size=5).map(sorted)}),
)
SPECS = st.fixed_dictionaries(
    {"name": st.just("test"), "sweep": sweeps()},
    optional={
        "fit": st.fixed_dictionaries({}, optional={name: field(name) for name in WORDS}),
        "record": RECORDS,
        "engine": st.sampled_from(["auto", "eager", "compiled", "affine"]),
        "shard": st.one_of(st.just("auto"), NUMBERS),
        "limits": st.fixed_dictionaries(
            {}, optional={"fits": NUMBERS, "core_hours": NUMBERS, "bytes": NUMBERS}
        ),
    },
)


def yaml_of(value: Any) -> str:
    words = {"NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}
    return re.sub("-?Infinity|NaN", lambda found: words[found[0]], json.dumps(value))


@given(SPECS)
@settings(FUZZ, max_examples=600)
def test_a_generated_spec_is_a_spec_or_a_users_error(source: dict[str, Any]) -> None:
    taken(yaml_of(source))


TOKENS = st.one_of(
    st.sampled_from(["x", "pi", "e", "1", "0", "2.5", "1e308", "1e-320", "0x1f", "9" * 40]),
    st.sampled_from(["+", "-", "*", "/", "**", "(", ")", " "]),
    st.sampled_from([f"{name}(" for name in FUNCTIONS]),
    st.sampled_from(
        [
            *("//", "%", "@", ",", ".", ":", ";", "=", "==", "<", "!", "&", "|", "~", "^", "->"),
            *(":=", "[", "]", "{", "}", "'", '"', "'''", "f'", "b'", "r'", "\\", "#", "\n", "\t"),
            *("\0", "\r", "\x0c", "$", "?", "`", "_", "j", "0b", "0o", "0x", "1_", "...", "e9"),
            *("if ", "else ", "for ", "in ", "is ", "not ", "and ", "or ", "lambda ", "lambda:"),
            *("await ", "async ", "yield ", "import ", "del ", "None", "True", "print(", "sin"),
            *(".real", "__class__", "*x", "\u00a0", "\uff58", "\u03c0", "\ud800", "\U0001d431"),
        ]
    ),
    st.text(max_size=3),
)
POINTS = np.array([[-np.inf, -1e308, -1.0, -0.0], [5e-324, 0.5, np.inf, np.nan]])


def evaluated(text: str) -> None:
    """Any text is a formula or a FormulaError; a formula has a value at every point."""
    refusal = ""
    try:
        formula = Formula.parse(text)
    except FormulaError as error:
        refusal = str(error)
    if refusal:
        assert "allowed: " in refusal
        return
    assert Formula.parse(formula.text) == formula
    for x in (POINTS, POINTS[0], POINTS[:, :0], POINTS[0, 0, ...]):
        value = formula(x)
        assert (value.shape, value.dtype) == (x.shape, np.dtype(np.float64))
        assert not np.shares_memory(value, x)


@given(st.lists(TOKENS, max_size=30).map("".join))
@settings(FUZZ, max_examples=2000)
def test_any_tokens_are_a_formula_or_a_users_error(text: str) -> None:
    evaluated(text)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "**", " - ", "**-"])
    return st.one_of(
        st.tuples(inner, operators, inner).map("".join),
        st.tuples(st.sampled_from(["-", "+", *FUNCTIONS]), inner).map(lambda p: f"{p[0]}({p[1]})"),
    )


@given(
    st.recursive(
        st.sampled_from(["x", "x", "pi", "e", "0", "9", "1e308", "1e400", ".5", "0x1f", "9" * 308]),
        grown,
        max_leaves=30,
    ),
    st.data(),
)
@settings(FUZZ, max_examples=800)
def test_a_changed_formula_is_a_formula_or_a_users_error(text: str, data: st.DataObject) -> None:
    evaluated(text)
    at = data.draw(st.integers(0, len(text)))
    evaluated(text[:at] + data.draw(TOKENS) + text[at + data.draw(st.integers(0, 1)) :])
