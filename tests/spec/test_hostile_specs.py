"""Hostile specs are refused before they are expanded, with a message fit for a terminal."""

import json
import os
from pathlib import Path

import pytest
from hostile import CODE, DEEP, DIGITS, LIKENESSES, PATHS, checked, limited, quoted, refusal

from polyfit.errors import UsageError
from polyfit.spec.defects import MAX_DEFECTS
from polyfit.spec.document import MAX_BYTES
from polyfit.spec.spec import Spec
from polyfit.spec.yaml_loader import MAX_VALUES
from polyfit.store.address import StoreAddress

SHARE = 16
"""Most kinds are tried at a sixteenth of the bounds, in a sixteenth of the memory."""


def numbered(start: str, item: str, count: int, end: str = "") -> str:
    return start + "".join(item.format(i) for i in range(count)) + end


NAME = "name: a\n"


def wide(max_bytes: int, max_values: int) -> dict[str, tuple[str, str]]:
    """Files as large as the bounds allow, and what is said of each."""

    def full(start: str, item: str, end: str = "") -> str:
        """As many items as a file may hold."""
        return start + item * ((max_bytes - len(start + end)) // len(item.encode())) + end

    def many(share: float) -> int:
        return int(share * max_values)

    def unsaid(share: float) -> str:
        return f"{many(share) - MAX_DEFECTS:,} more problems"

    return {
        "items": (full(NAME + "fit: [", "a,", "]"), "more keys and values than are read"),
        "dashes": (full("", "-\n"), "more keys and values than are read"),
        "lists": (full(NAME + "fit: [", "[],", "]"), "more keys and values than are read"),
        "keys": (numbered("", "k{}:\n", many(1.1)), "more keys and values than are read"),
        "keys of a line": (numbered("{", "{},", many(1.5), "}"), "more keys and values"),
        "no keys": (full("", "? "), "nested deeper"),
        "aliases": (full("a: &a x\nb: [", "*a,", "]"), "more keys and values than are read"),
        "tags": (full("[", "!t a,", "]"), "more keys and values than are read"),
        "one key again": ("name: a\n" * (many(0.45) + 1), unsaid(0.45)),
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
        "unknown keys": (numbered(NAME, "key{}: 1\n", many(0.49)), unsaid(0.49)),
        "unknown fields": (numbered(NAME + "fit: {", "f{}: 1,", many(0.49), "}"), unsaid(0.49)),
        "unknown axes": (numbered(NAME + "sweep: {", "f{}: 1,", many(0.49), "}"), unsaid(0.49)),
        "bad formulas": (
            numbered(NAME + "sweep: {target: [", "y{},", many(0.9), "]}"),
            unsaid(0.9),
        ),
        "long bad formulas": (
            full(NAME + "sweep: {target: [", f"{'-x' * 495}--,", "]}"),
            "is not a",
        ),
        "one value again": (full(NAME + "sweep: {seed: [", "1234567890,", "]}"), "more problems"),
        "zips": (numbered(NAME + "sweep: {zip: [", "{{a: 1}},", many(0.33), "]}"), unsaid(0.33)),
        "records": (
            numbered(NAME + "record: {every: 1, of: [", "r{},", many(0.9), "]}"),
            "record.of",
        ),
        "updates": (numbered(NAME + "record: {at: [", "{},", many(0.9), "]}"), "record.at: found"),
    }


def taken(max_values: int) -> dict[str, tuple[str, int]]:
    """Large sweeps, and how many fits each has."""
    listed = f"{NAME}sweep: {{degree: {{count: 31}}, points: {{count: {max_values}, start: 31}}}}"
    return {
        "as many values as are read": (
            numbered(NAME + "sweep: {seed: [", "{},", max_values - 7, "]}"),
            max_values - 7,
        ),
        "all seeds": (NAME + "sweep: {seed: {count: 4294967296}}", 2**32),
        "all seeds in a zip": (
            NAME + "sweep: {zip: [{seed: {count: 4294967296}, noise_seed: {count: 4294967296}}]}",
            2**32,
        ),
        "all updates": (NAME + "sweep: {steps: {start: 1, stop: 1000000001}}\nrecord: none", 10**9),
        "wide axes": (
            NAME + f"sweep: {{lr: {{linspace: [0.1, 1, {max_values}]}}, seed: {{count: 1000000}}}}",
            max_values * 10**6,
        ),
        "combinations": (listed, 31 * max_values),
        "combinations less some": (f"{listed}\nexclude: [degree == 3]", 30 * max_values),
        "records of many lengths": (
            numbered(
                f"{NAME}sweep: {{steps: {{count: {max_values}, start: 10000}}}}\nrecord: {{at: [",
                "{},",
                max_values // 10,
                "]}",
            ),
            max_values,
        ),
    }


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
@pytest.mark.parametrize(("share", "kinds"), [(SHARE, None), (1, ("records", "unknown keys"))])
def test_a_file_full_of_anything_takes_little_memory(
    share: int, kinds: tuple[str, ...] | None
) -> None:
    """The costliest kinds at the bounds, all kinds at a share of bounds and memory."""
    files = wide(MAX_BYTES // share, MAX_VALUES // share)
    files = {kind: files[kind] for kind in kinds or files}
    assert all(len(text.encode()) <= MAX_BYTES // share for text, _ in files.values())
    answers = limited("fits", [text for text, _ in files.values()], share)
    for (kind, (_, found)), answer in zip(files.items(), answers, strict=True):
        if not answer.endswith(" fits"):
            checked(answer)
        assert found in answer, kind


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
@pytest.mark.parametrize(
    ("share", "kinds"), [(8, None), (1, ("as many values as are read", "wide axes"))]
)
def test_a_large_sweep_takes_little_memory(share: int, kinds: tuple[str, ...] | None) -> None:
    """At an eighth: of fewer combinations the cost of each is computed, which takes longer."""
    sweeps = taken(MAX_VALUES // share)
    sweeps = {kind: sweeps[kind] for kind in kinds or sweeps}
    answers = limited("fits", [text for text, _ in sweeps.values()], share)
    fits = {kind: f"{fits} fits" for kind, (_, fits) in sweeps.items()}
    assert dict(zip(sweeps, answers, strict=True)) == fits


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
    "a key again": ("name: a\nname: b", "duplicate key 'name', first on line 1"),
    "a key again in quotes": ('name: a\n"\\x6eame": b', "duplicate key 'name'"),
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
    "a key of two lines, twice": ('{"a\\nb": 1, "a\\nb": 2}', r"duplicate key 'a\nb'"),
}


@pytest.mark.parametrize("kind", YAMLS)
def test_hostile_yaml_is_refused(kind: str) -> None:
    data, found = YAMLS[kind]
    assert found in refusal(data)


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
    assert "a tag (tag:yaml.org,2002:" in refusal(
        place.format(f"!!{tag}".replace("MARK", str(mark)))
    )
    assert not mark.exists()


def test_a_byte_order_mark_before_a_spec_is_passed_over() -> None:
    assert Spec.parse(b"\xef\xbb\xbfname: a").name == "a"


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
            assert "allowed: " in refusal(place.format(quoted(text)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", PATHS, ids=lambda name: ascii(name[:20]))
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    assert "allowed: 1 to 63 of a-z, 0-9 and -" in refusal(f"name: {json.dumps(name)}")


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
    message = refusal(f"name: a\nstore: {{uri: {json.dumps(uri)}}}")
    assert "store.uri: found " in message
    assert "allowed: a folder or s3://bucket/prefix, without credentials" in message
    assert "secret" not in message
    with pytest.raises(UsageError) as caught:
        StoreAddress.of(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ENDPOINTS, ids=ascii)
def test_an_endpoint_that_is_no_url_is_refused(url: str) -> None:
    message = refusal(f"name: a\nstore: {{uri: s3://b, endpoint_url: {json.dumps(url)}}}")
    assert "store.endpoint_url: found " in message
    assert "secret" not in message


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
    "lr: {linspace: [1, 2, true]}": "an integer as the number of values",
    "lr: {linspace: [1, 2, 1e9]}": "sweep.lr: found",
    "lr: {linspace: [1.0e-300, 1.1e-300, 100000], x: 1}": "sweep.lr: found",
    "lr: {linspace: [-1.0e+308, 1.0e+308, 3]}": "the generator makes -1e+308",
    "lr: {logspace: [0, 309, 3]}": "beyond float64",
    "lr: {logspace: [-400, 0, 3]}": "a number above 0",
    "noise: {linspace: [1, 1.0000000000000002, 100000]}": "each value once",
    f"zip: [{{seed: {{count: {HUGE}}}, noise_seed: {{count: {HUGE}}}}}]": "at most 2^62 values",
    f"zip: [{{lr: {{linspace: [1, 2, {10**9}]}}, noise: {{count: {10**9}}}}}]": "100,000 values",
    "zip: [{seed: {count: 4294967296}, noise_seed: {count: 4294967295}}]": "the same number",
    "zip: [{seed: {count: 4294967296}, lr: [1, 2]}]": "the same number",
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
    "fit: {range: [1, 1.0000000000000002]}": "a float64 number between them",
    "sweep: {seed: {count: 1000000}}\nlimits: {fits: 1000}": "the plan has 1,000,000; allowed",
}


@pytest.mark.parametrize("text", SWEEPS, ids=lambda text: text[:60])
def test_a_sweep_beyond_bounds_is_refused_unexpanded(text: str) -> None:
    assert SWEEPS[text] in refusal(f"name: a\nsweep: {{{text}}}")


@pytest.mark.parametrize("text", OTHERS, ids=lambda text: text[:60])
def test_another_number_beyond_bounds_is_refused(text: str) -> None:
    assert OTHERS[text] in refusal(f"name: a\n{text}")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_a_sweep_beyond_bounds_takes_no_memory() -> None:
    texts = [f"name: a\nsweep: {{{text}}}" for text in SWEEPS]
    answers = limited("fits", texts)
    assert all(found in answer for found, answer in zip(SWEEPS.values(), answers, strict=True))
