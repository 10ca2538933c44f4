"""``polyfit report`` and ``polyfit plot``: what they write, and what they refuse."""

from pathlib import Path

import pytest
from commands import Command

from polyfit.charts.files import FORMATS
from polyfit.cli import plot
from polyfit.run.plot import KINDS
from polyfit.run.reader import Run


def test_the_names_of_kinds_and_formats_are_those_of_the_charts() -> None:
    assert plot.KINDS == KINDS
    assert tuple(f".{name}" for name in FORMATS) == plot.SUFFIXES


@pytest.mark.slow
def test_a_report_is_a_file_and_is_stored_in_the_run(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    ended = command("report", small_run.uri, "--out", "page.html", "--vs", small_run.uri)
    page = (tmp_path / "page.html").read_bytes()

    assert (ended.code, ended.out) == (0, "")
    assert (Path(small_run.uri) / "report.html").read_bytes() == page
    assert page.startswith(b"<!doctype html>")
    assert len(page) < 4_000_000


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("a.svg", b"<svg"),
        ("a.png", b"\x89PNG"),
        pytest.param("a.html", b"<!DOCTYPE", marks=pytest.mark.slow),
        ("a.json", b"{"),
    ],
)
def test_a_chart_has_the_format_of_its_files_name(
    command: Command, small_run: Run, tmp_path: Path, name: str, begin: bytes
) -> None:
    ended = command("plot", small_run.uri, "--kind", "loss", "--out", name)
    assert (ended.code, ended.err) == (0, f"chart: {name}\n")
    assert (tmp_path / name).read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "loss", "--out", "a.gif"], "a.gif; allowed: a name that ends in .svg"),
        (
            ["--kind", "loss", "--out", "a.svg", "--by", "lr"],
            "by lr: allowed are one or two of what is swept: degree",
        ),
        (["--kind", "loss", "--out", "a.svg", "--fit", "3"], "--fit belongs to --kind fit"),
        (["--kind", "fit", "--out", "a.svg", "--by", "degree"], "--by belongs to the kinds"),
        (["--kind", "fit", "--out", "a.svg", "--fit", "20"], "this run has fits 0 to 19"),
        (["--kind", "paths", "--out", "a.svg"], "this run recorded no coefficients"),
        (["--kind", "edge", "--out", "a.svg"], "every fit has the same share of its stability"),
        (["--kind", "loss", "--out", "a.svg", "--by", "seed"], "a point is the median over the"),
    ],
)
def test_what_a_run_cannot_show_is_said(
    command: Command, small_run: Run, arguments: list[str], message: str
) -> None:
    ended = command("plot", small_run.uri, *arguments)
    assert ended.code == 2
    assert message in ended.err


@pytest.mark.parametrize(
    ("out", "code", "message"),
    [
        ("a.pdf", 2, "a.pdf; a report is HTML: allowed is a name that ends in .html"),
        ("new/a.html", 5, "new/a.html: there is no folder new"),
    ],
)
def test_a_report_is_written_as_html_into_a_folder_that_exists(
    command: Command, small_run: Run, tmp_path: Path, out: str, code: int, message: str
) -> None:
    ended = command("report", small_run.uri, "--out", out)
    assert ended.code == code
    assert message in ended.err
    assert not (tmp_path / out).exists()


def test_a_file_that_cannot_be_written_ends_with_5(command: Command, small_run: Run) -> None:
    ended = command("plot", small_run.uri, "--kind", "loss", "--out", "/proc/none/a.svg")
    assert ended.code == 5
    assert "/proc/none/a.svg" in ended.err
