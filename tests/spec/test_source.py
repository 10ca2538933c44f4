"""Where the bytes of a spec come from."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from specs import EXAMPLE

from polyfit.errors import SpecError
from polyfit.spec.spec import Spec


def a_socket(folder: Path) -> str:
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
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
def test_a_path_to_no_file_is_refused_unopened(kind: str, tmp_path: Path) -> None:
    path, found = NO_FILES[kind]
    with pytest.raises(SpecError, match=f"{found}.*; allowed: a YAML or JSON file"):
        Spec.load(path if isinstance(path, str) else path(tmp_path))


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


def test_a_spec_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(EXAMPLE, encoding="utf-8")
    assert Spec.load(tmp_path / "job.yaml").fit == Spec.parse(EXAMPLE).fit


def test_a_json_file_is_a_spec_and_its_text_is_kept(tmp_path: Path) -> None:
    source = {"name": "test", "fit": {"degree": 5, "lr": 1e-06}, "sweep": {"seed": {"count": 3}}}
    for layout in ({"indent": "\t"}, {"separators": (",", ":")}):
        (tmp_path / "job.json").write_text(json.dumps(source, **layout))
        found = Spec.load(tmp_path / "job.json")
        assert (found.fit.degree, len(found.grids[0].axes[0])) == (5, 3)
        assert found.text == json.dumps(source, **layout)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_a_spec_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="allowed: a YAML or JSON file"):
        Spec.load(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("rates", "rates.yaml"),
        ("jobs/rates", "jobs/rates.json"),
        ("ratess.yaml", "rates.yaml"),
        ("rates.yml", "rates.yaml"),
        ("far", None),
        ("none/rates", None),
    ],
)
def test_of_a_missing_file_the_one_beside_it_is_named(
    path: str, meant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    for name in ("rates.yaml", "rates.txt", "jobs/rates.json", "jobs/rats.json"):
        (tmp_path / name).write_text("name: a")
    with pytest.raises(SpecError) as caught:
        Spec.load(path)
    hint = f"; did you mean {meant}?" if meant else ""
    assert str(caught.value) == (
        f"{path}: No such file or directory; allowed: a YAML or JSON file, or a pipe{hint}"
    )


def test_a_mapping_of_other_things_is_refused() -> None:
    with pytest.raises(SpecError, match=r"set.*; allowed: mappings, lists, text, numbers"):
        Spec.parse({"name": "a", "sweep": {"seed": {1, 2}}})
