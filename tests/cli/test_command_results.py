"""``polyfit results``: rows of a run."""

import csv
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands import Command
from places import use
from servers import S3Server

import polyfit
from polyfit.run.reader import Run


def test_a_condition_that_cannot_be_read_ends_with_2(command: Command, small_run: Run) -> None:
    ended = command("results", small_run.uri, "--where", "loss ~ 3")
    assert (ended.code, ended.out) == (2, "")
    assert "--where 'loss ~ 3' cannot be read" in ended.err


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
