"""``polyfit init`` and ``polyfit schema``, and ``--set`` of the commands that read specs."""

import json
import re
from pathlib import Path

import pytest
from commands import Command

from polyfit.spec.json_schema import spec_schema
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec


def test_init_writes_a_spec_that_runs_as_it_stands(command: Command, tmp_path: Path) -> None:
    ended = command("init", "My First.yaml")
    assert (ended.code, ended.err) == (0, "")
    spec = Spec.load(tmp_path / "My First.yaml")
    plan = Plan.of(spec)
    assert (spec.name, plan.fits, plan.inline) == ("my-first", 70, True)
    printed = command("init", "--name", "my-first")
    assert printed.out == (tmp_path / "My First.yaml").read_text()
    assert command("init", "-", "--name", "my-first").out == printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["My First.yaml"]


def test_what_stands_in_comments_of_the_template_is_a_spec_too(command: Command) -> None:
    head, _, rest = command("init").out.partition("\n")
    opened = re.sub(r"^( *)# ", r"\1", rest, flags=re.MULTILINE)
    spec = Spec.parse(opened)
    assert (head[0], spec.grids[0].varied) == ("#", ("degree", "lr", "seed"))
    assert spec.grids[0].size < spec.grids[0].full_size


def test_init_overwrites_nothing(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    ended = command("init", "mine.yaml")
    assert (ended.code, ended.out) == (2, "")
    message = "polyfit: mine.yaml exists; allowed: a new file, or standard output\n"
    assert ended.err == message
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--name", "A b"), "name: found 'A b'; allowed: 1 to 63 of a-z"),
        (("no/such/folder.yaml",), "no/such/folder.yaml: No such file or directory; allowed"),
    ],
)
def test_init_says_what_is_wrong(
    command: Command, arguments: tuple[str, ...], message: str
) -> None:
    ended = command("init", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_schema_prints_the_schema(command: Command) -> None:
    assert json.loads(command("schema").out) == spec_schema()


def test_settings_change_what_is_validated_planned_and_run(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    changes = ("--set", "sweep.seed={count: 2}", "--set", "name=changed", "--set", "fit.steps=3")
    assert command("validate", small_spec, *changes).out.startswith(f"{small_spec}: ")
    planned = json.loads(command("plan", small_spec, *changes, "--json").out)
    ended = command("run", small_spec, *changes, "--json", "--store", "runs")
    ran = json.loads(ended.out)
    assert (ran["name"], ran["fits"]) == ("changed", planned["fits"])
    stored = Spec.load(tmp_path / "runs" / "changed" / planned["run_id"] / "spec.yaml")
    assert Plan.of(stored).run_id == planned["run_id"]


def test_a_wrong_setting_ends_with_2_and_its_place(command: Command, small_spec: Path) -> None:
    ended = command("run", small_spec, small_spec, "--set", "fit.degre=5")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("polyfit: --set fit.degre: unknown key (did you mean 'degree'?)")
    assert ended.err.count("\n") == 1
