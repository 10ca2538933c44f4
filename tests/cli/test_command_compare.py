"""``polyfit compare``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TEXT, Command

from polyfit.run.reader import Run

KEYS = [
    "run", "endpoint_url", "plan_hash", "before", "common", "only_here", "only_before", "identical",
    "other_bits", "tolerance", "beyond", "statuses", "largest", "groups", "groups_only_here",
    "groups_only_before", "max_regression", "worse", "better", "all_diverged",
]  # fmt: skip


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The small run with fewer updates, so that its losses are larger."""
    import polyfit

    folder = tmp_path_factory.mktemp("store")
    text = TEXT.replace("steps: 12", "steps: 3")
    return polyfit.execute(polyfit.Spec.parse(text), store=folder, executor="inline")


def test_a_run_compared_with_itself_is_the_same(command: Command, small_run: Run) -> None:
    ended = command("compare", small_run.uri, small_run.uri, "--max-regression", "0")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert "fits       20 in both, 0 only now, 0 only before" in lines
    assert "same bits  20 of 20 in both" in lines
    assert "status     the same" in lines
    assert "groups     2 in both, 0 only now, 0 only before" in lines
    assert lines[-1] == ("Of 2 groups compared, none is worse and none is better by more than 0%.")


@pytest.mark.parametrize(("share", "code"), [("1%", 8), ("0.01", 8), ("1e11%", 0), (None, 0)])
def test_a_run_that_is_worse_ends_with_8_if_that_is_asked_for(
    command: Command, small_run: Run, shorter: Run, share: str | None, code: int
) -> None:
    options = () if share is None else ("--max-regression", share)
    ended = command("compare", small_run.uri, shorter.uri, *options)
    assert ended.code == code
    assert "20 only now, 20 only before" in ended.out
    assert ("\nWorse:\n" in ended.out) == (share != "1e11%")
    assert command("compare", shorter.uri, small_run.uri, *options).code == 0


def test_a_comparison_comes_as_json_and_markdown(
    command: Command, small_run: Run, shorter: Run
) -> None:
    found = command("compare", small_run.uri, shorter.uri, "--by", "degree,basis", "--json")
    facts = json.loads(found.out)
    assert list(facts) == KEYS
    assert (facts["run"], facts["before"]["run"], facts["worse"]) == (shorter.uri, small_run.uri, 2)
    lines = command("compare", small_run.uri, shorter.uri, "--md").out.splitlines()
    heads = "| degree | fits before | fits now | diverged before | diverged now |"
    assert any(line.startswith(heads) for line in lines)


def test_runs_with_nothing_in_common_are_refused(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    import polyfit

    text = "name: other\nfit: {steps: 3, points: 9}\nsweep: {degree: [7, 8]}"
    other = polyfit.execute(polyfit.Spec.parse(text), store=tmp_path, executor="inline")
    ended = command("compare", small_run.uri, other.uri)
    assert (ended.code, ended.out) == (2, "")
    assert "nothing to compare: " in ended.err
    assert command("compare", small_run.uri, other.uri, "--by", "objective").code == 0


def test_a_part_of_a_run_does_not_pass(command: Command, small_run: Run, tmp_path: Path) -> None:
    part = tmp_path / "small" / "part"
    shutil.copytree(small_run.uri, part)
    (part / "manifest.json").unlink()
    min((part / "shards").iterdir()).unlink()
    ended = command("compare", small_run.uri, part, "--max-regression", "5%")
    assert (ended.code, ended.err) == (
        7,
        f"{part} is not complete: only what it has stored is compared\n",
    )
    assert command("compare", part, small_run.uri, "--max-regression", "5%").code == 0
    assert command("compare", small_run.uri, part).code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--max-regression", "5%%"), "allowed: a share from 0, such as 0.05 or 5%"),
        (("--tolerance", "nan"), "allowed: a share from 0"),
        (("--max-regression", "inf"), "allowed: a share from 0"),
        (("--max-regression", "5"), "'5' may mean 5% or 500%"),
        (("--by", "degre"), "no column 'degre'"),
        (("--json", "--md"), "--json and --md exclude each other"),
        (("--quiet",), "--quiet needs --max-regression"),
    ],
)
def test_what_cannot_be_compared_ends_with_2(
    command: Command, small_run: Run, arguments: tuple[str, ...], error: str
) -> None:
    ended = command("compare", small_run.uri, small_run.uri, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert error in ended.err


def test_a_run_that_is_not_there_is_named(command: Command, small_run: Run, tmp_path: Path) -> None:
    ended = command("compare", "none@-1", small_run.uri)
    assert (ended.code, "there is no run 'none@-1'" in ended.err) == (2, True)


def test_results_and_compare_import_neither_torch_nor_ray(small_run: Run) -> None:
    uri = small_run.uri
    calls = [["results", uri, "--by", "degree", "--json"], ["compare", uri, uri, "--json"]]
    code = (
        "import sys\nfrom polyfit.cli.app import main\n"
        f"for words in {calls!r}:\n"
        "    sys.argv = ['polyfit', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'ray'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    groups, compared, loaded = done.stdout.splitlines()
    assert (len(json.loads(groups)["groups"]), json.loads(compared)["common"]) == (2, 20)
    assert loaded == "[]"
