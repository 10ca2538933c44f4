"""``polyfit results``: rows of a run."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest
from commands import Command
from places import use
from servers import S3Server

import polyfit
from polyfit.run.reader import Run


def test_a_condition_that_cannot_be_read_ends_with_2(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--where", "loss ~ 3")
    assert (ended.code, ended.out) == (2, "")
    assert "where 'loss ~ 3' cannot be read" in ended.err


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("degree > '3'", "degree holds numbers; write 3 without quotes"),
        ("status > 3", "status holds texts\n"),
        ("loss_history == 3", "loss_history holds lists, which no condition takes"),
        ("degree == 3 and loss", "a condition is true or false; degree holds numbers, loss holds"),
        ("range < 3", "write range == [-3, 3], or compare range_low and range_high"),
    ],
)
def test_a_condition_that_mixes_kinds_is_refused_in_words_of_its_own(
    command: Command, small_run: Run, where: str, error: str
) -> None:
    ended = command("results", small_run.uri, "--where", where)
    assert (ended.code, ended.out) == (2, "")
    assert error in ended.err
    assert "kernel" not in ended.err


def test_it_is_said_how_many_rows_match(
    command: Command, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("results", small_run.uri, "--limit", "1", "--where", "fit >= 5")
    assert command(*arguments).err == "1 row of 15 that match\n"
    monkeypatch.setattr("polyfit.cli.results.COUNTED_FITS", 19)
    assert command(*arguments).err == "1 row of those that match\n"


def test_a_range_is_two_columns_in_a_condition(small_run: Run) -> None:
    low, high = small_run.to_arrow(["range_low", "range_high"]).slice(0, 1).to_pylist()[0].values()
    counts = [
        len(small_run.to_arrow(["fit"], where))
        for where in (
            f"range == [{low!r}, {high!r}]",
            f"not range != ({low!r}, {high!r})",
            f"range == [{low!r}, {high + 1!r}]",
            f"range != [{low!r}, {high + 1!r}]",
        )
    ]
    assert counts == [20, 20, 0, 20]


def test_results_as_json_are_one_object_with_every_row(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--json")
    facts = json.loads(ended.out)
    assert (ended.code, ended.err, facts["complete"]) == (0, "", True)
    assert facts["rows"] == small_run.to_arrow().to_pylist()


def test_results_as_csv_have_a_header_and_every_row(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--csv")
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    wanted = small_run.to_arrow().to_pylist()
    assert (ended.code, ended.err, list(rows[0])) == (0, "", list(wanted[0]))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in wanted]
    assert [json.loads(r["coefficients"]) for r in rows] == [r["coefficients"] for r in wanted]


def test_a_null_is_empty_in_csv(command: Command, small_run: Run) -> None:
    (row,) = csv.DictReader(
        io.StringIO(command("results", small_run.uri, "--csv", "--limit", 1).out)
    )
    assert row["stop"] == ""


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_limit_holds_in_every_form(command: Command, small_run: Run, form: str) -> None:
    out = command("results", small_run.uri, form, "--limit", 3).out
    rows = json.loads(out)["rows"] if form == "--json" else list(csv.DictReader(io.StringIO(out)))
    assert [int(row["fit"]) for row in rows] == [0, 1, 2]


def test_where_and_sort_choose_and_order_rows(command: Command, small_run: Run) -> None:
    arguments = ("--where", "degree == 3 and seed < 3", "--sort", "-seed", "--json")
    rows = json.loads(command("results", small_run.uri, *arguments).out)["rows"]
    assert [row["fit"] for row in rows] == [12, 11, 10]


def test_a_generated_value_is_found_by_its_shortest_decimal(
    command: Command, tmp_path: Path
) -> None:
    for name, noise in (("tenths", "{start: 0, stop: 0.5, step: 0.1}"), ("list", "[0.3, 0.4]")):
        text = f"name: {name}\nfit: {{steps: 10, points: 40}}\nsweep: {{noise: {noise}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    first = json.loads(command("run", "tenths.yaml", "--json").out)
    found = command("results", first["run"], "--where", "noise == 0.3", "--json")
    assert [row["noise"] for row in json.loads(found.out)["rows"]] == [0.3]
    second = json.loads(command("run", "list.yaml", "--reuse", first["run"], "--json").out)
    assert second["fits_reused"] == 2


def test_nothing_found_is_an_empty_list(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--where", "degree == 2", "--json")
    assert (ended.code, json.loads(ended.out)["rows"]) == (0, [])


def test_nothing_found_is_a_header_in_csv(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--where", "degree == 2", "--csv")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert ended.out.startswith("fit,degree,")


def test_a_table_shows_what_varies_and_twenty_rows_at_most(
    command: Command, small_run: Run, small_spec: Path
) -> None:
    ended = command("results", small_run.uri, "--limit", 5)
    header = ended.out.split("\n", 2)[1].split()
    assert header[:4] == ["fit", "degree", "seed", "status"]
    assert ended.out.count("completed") == 5


def test_results_of_an_unfinished_run_say_so(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(small_run.uri, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    ended = command("results", tmp_path / "copy")
    (attempt,) = (path.stem for path in (tmp_path / "copy" / "attempts").glob("*.json"))
    assert ended.code == 0
    assert re.fullmatch(
        rf"20 rows of 20\nthis run is not complete: these are the stored rows; no driver is at "
        rf"work on it: attempt {attempt} \(process {os.getpid()} on \S+\) ended with exit code 0\n",
        ended.err,
    )


def test_the_printed_line_opens_the_run_again_wherever_it_is_pasted(
    command: Command, small_spec: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(seaweed, monkeypatch)
    uri = seaweed.fresh_uri()
    line = command("run", small_spec, "--store", uri).out.splitlines()[-1]
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    words = shlex.split(line.removeprefix("results: "))
    assert words[0].startswith(f"{uri}/small/")
    assert words[1:] == ["--endpoint-url", seaweed.endpoint_url]
    assert command("verify", *words).code == 0
    facts = json.loads(command("results", *words, "--json", "--limit", 1).out)
    assert polyfit.Run.open(facts["run"], facts["endpoint_url"]).plan.fits == 20


@pytest.mark.parametrize("folder", ["", "none"])
def test_a_folder_without_runs_ends_with_2(
    command: Command, small_spec: Path, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    ended = command("results", tmp_path / folder)
    assert (ended.code, ended.out) == (2, "")
    assert "holds no run; expected plan.json there" in ended.err
    assert "`polyfit list STORE` lists the runs in a store" in ended.err


def table(text: str) -> list[list[str]]:
    """The cells of each line of a table, without its head."""
    lines = [line.split() for line in text.splitlines()]
    (rule,) = (number for number, line in enumerate(lines) if line and set(line[0]) == {"─"})
    return [line for line in lines[rule + 1 :] if line]


def test_groups_are_shown_by_any_columns(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--by", "degree")
    assert (ended.code, ended.err) == (0, "2 groups\n")
    assert [line[:2] for line in table(ended.out)] == [["1", "10"], ["3", "10"]]
    assert table(ended.out) == table(command("results", small_run.uri, "--by", "swept").out)
    ended = command("results", small_run.uri, "--by", "range,status", "--where", "seed < 4")
    assert table(ended.out)[0][:4] == ["[-3.1416,", "3.1416]", "completed", "8"]
    ended = command("results", small_run.uri, "--by", "seed", "--sort", "-best_loss", "--limit", 2)
    assert len(table(ended.out)) == 2
    ended = command("results", small_run.uri, "--by", "seed,sed")
    assert (ended.code, ended.out) == (2, "")
    assert "no column 'sed'; did you mean 'seed'?" in ended.err


def test_groups_come_as_json_csv_parquet_and_markdown(command: Command, small_run: Run) -> None:
    wanted = small_run.groups("degree")
    found = json.loads(command("results", small_run.uri, "--by", "degree", "--json").out)
    assert [group["median_loss"] for group in found["groups"]] == wanted["median_loss"].to_list()
    assert [group["statuses"] for group in found["groups"]] == [{"completed": 10}] * 2
    text = command("results", small_run.uri, "--by", "degree", "--csv").out
    assert pl.read_csv(io.StringIO(text)).columns == wanted.columns
    ended = command("results", small_run.uri, "--by", "degree", "--parquet", "g.parquet")
    assert (ended.out, ended.err) == ("", "g.parquet: 2 groups\n")
    assert pl.read_parquet("g.parquet").equals(wanted)
    lines = command("results", small_run.uri, "--by", "degree", "--md").out.splitlines()
    assert lines[0].startswith("| degree | fits | best loss |")
    assert (lines[1].count("---"), lines[2][:10]) == (lines[0].count("|") - 1, "| 1 | 10 |")


def test_rows_come_as_parquet_and_markdown_with_columns_of_choice(
    command: Command, small_run: Run
) -> None:
    ended = command("results", small_run.uri, "--columns", "fit,range,coefficients", "--md")
    assert ended.out.splitlines()[0] == "| fit | range_low | range_high | coefficients |"
    assert (
        command("results", small_run.uri, "--parquet", "rows.parquet").err
        == "rows.parquet: 20 rows\n"
    )
    first = command("results", small_run.uri, "--by", "degree", "--limit", "1")
    assert (len(first.out.split("completed")), first.err) == (2, "1 group of 2\n")
    assert pl.read_parquet("rows.parquet").equals(small_run.to_polars())
    ended = command("results", small_run.uri, "--parquet", "none/rows.parquet")
    assert (ended.code, ended.err) == (
        5, "polyfit: none/rows.parquet: No such file or directory; it is not written\n"
    )  # fmt: skip


def test_a_parquet_file_is_replaced_with_its_mode_and_through_links(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "rows.parquet"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "rows.parquet.part").write_text("mine")
    (tmp_path / "rows.parquet").symlink_to(target)
    (tmp_path / "new.parquet").symlink_to(target.with_name("new.parquet"))
    for name in ("rows.parquet", "new.parquet"):
        assert command("results", small_run.uri, "--parquet", name).code == 0
        assert (tmp_path / name).is_symlink()
        assert pl.read_parquet(target.with_name(name)).height == 20
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert (tmp_path / "rows.parquet.part").read_text() == "mine"
    assert {path.name for path in target.parent.iterdir()} == {"rows.parquet", "new.parquet"}


def test_parquet_goes_into_regular_files_only(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link", "."):
        ended = command("results", small_run.uri, "--parquet", name)
        wanted = f"polyfit: {name} is no regular file; allowed: a new file, or one to replace\n"
        assert (ended.code, ended.err) == (2, wanted)
    assert (tmp_path / "pipe").is_fifo()
    ended = command("results", small_run.uri, "--parquet", "-")
    assert (ended.code, "not written to standard output" in ended.err) == (2, True)
    assert not (tmp_path / "-").exists()


def test_the_worst_fit_of_each_group_is_shown(command: Command, small_run: Run) -> None:
    found = command("results", small_run.uri, "--worst-per", "degree", "--json").out
    fits = [row["fit"] for row in json.loads(found)["rows"]]
    assert fits == small_run.extremes(["degree"], worst=True)["fit"].to_list()
    assert command("results", small_run.uri, "--worst-per", "swept", "--json").out == found
    assert " reason\n" in command("results", small_run.uri, "--worst-per", "degree").out
    ended = command("results", small_run.uri, "--worst-per", "degree", "--sort", "-degree")
    assert [line[0] for line in table(ended.out)] == [str(fit) for fit in reversed(fits)]
    assert ended.err == "2 rows\n"


def test_several_runs_are_one_table(command: Command, small_run: Run, tmp_path: Path) -> None:
    shutil.copytree(small_run.uri, tmp_path / "runs" / "other" / "1234")
    (tmp_path / "runs" / "other" / "1234" / "manifest.json").unlink()
    ended = command("results", small_run.uri, "other", "--by", "degree")
    assert [line[:3] for line in table(ended.out)] == [
        [degree, run, "10"] for degree in "13" for run in ("other/1234", small_run.label)
    ]
    assert ended.err.startswith("4 groups\nother/1234 is not complete: these are the stored rows; ")
    facts = json.loads(command("results", small_run.uri, "other", "--json").out)
    assert [run["complete"] for run in facts["runs"]] == [True, False]
    assert [row["run"] for row in facts["rows"]] == [small_run.label] * 20 + ["other/1234"] * 20
    out = command("results", small_run.uri, "other", "--columns", "fit,loss", "--csv").out
    assert out.startswith("run,fit,loss\n")
    out = command("results", small_run.uri, "other", "--columns", "fit,run", "--csv").out
    assert out.startswith("fit,run\n")


def test_a_run_that_is_named_twice_does_not_count_twice(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    ended = command("results", small_run.uri, f"{small_run.uri}/", "--by", "degree", "--csv")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"polyfit: {small_run.uri} is named 2 times; name each run once\n"
    copy = tmp_path / "elsewhere" / small_run.label
    shutil.copytree(small_run.uri, copy)
    rows = json.loads(command("results", small_run.uri, copy, "--by", "run", "--json").out)
    groups = [(group["run"], group["fits"]) for group in rows["groups"]]
    assert groups == sorted([(small_run.uri, 20), (str(copy), 20)])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--json", "--md"), "--json and --md exclude each other"),
        (("--by", "degree", "--worst-per", "degree"), "--by and --worst-per exclude each other"),
        (("--by", "degree", "--columns", "fit"), "it does not go with --by"),
        (("--by", "degree", "--sort", "loss"), "did you mean 'best_loss' or 'p10_loss' or"),
        (("--worst-per", "degree", "--columns", "coefficients"), "no column 'coefficients'"),
        (("--columns", "los"), "no column 'los'"),
        (("--columns", ","), "',' names no column"),
        (("--by", ""), "'' names no column"),
        (("--worst-per", "coefficients"), "coefficients: fits are not grouped by lists; allowed"),
        (("--by", "degree,loss_history"), "loss_history: fits are not grouped by lists; allowed"),
    ],
)
def test_what_does_not_go_together_ends_with_2(
    command: Command, small_run: Run, arguments: tuple[str, ...], error: str
) -> None:
    ended = command("results", small_run.uri, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert error in ended.err
