"""``polyfit run`` with several specs."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from commands import TEXT, Command

from polyfit.cli.app import cli
from polyfit.run.reader import Run
from polyfit.spec.spec import Spec
from polyfit.work import driver


def test_several_specs_give_one_json_object(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"name: {name}\nfit: {{steps: 5, points: 20}}\n")
        paths.append(str(path))
    done = CliRunner().invoke(
        cli, ["run", *paths, "--store", str(tmp_path / "runs"), "--executor", "inline", "--json"]
    )
    assert [run["name"] for run in json.loads(done.stdout)["runs"]] == ["one", "two"]


def test_if_one_spec_is_wrong_none_is_run(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\nfit: {degree: -1}\n")
    ended = command("run", "none.yaml", small_spec, "bad.yaml")
    assert ended.code == 2
    assert "none.yaml: No such file" in ended.err
    assert "bad.yaml:2: fit.degree: found -1" in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def others(tmp_path: Path) -> dict[str, Path]:
    """Specs by name; the runs of ``a`` and ``c`` hold another plan's data, and fail with 2."""
    paths = {name: tmp_path / f"{name}.yaml" for name in "abc"}
    for name, path in paths.items():
        path.write_text(TEXT.replace("small", name))
        if name != "b":
            folder = tmp_path / "runs" / name / "mine"
            folder.mkdir(parents=True)
            (folder / "plan.json").write_text('{"hash": "another"}')
    return paths


def test_if_one_spec_fails_the_others_are_run_and_its_exit_code_is_the_commands(
    command: Command, others: dict[str, Path]
) -> None:
    ended = command("run", *others.values(), "--run-id", "mine")
    assert ended.code == 2
    assert re.search(r"20 fits: 20 completed\nresults: \S+/b/mine\n$", ended.out)
    lines = [line for line in ended.err.splitlines() if line.startswith("polyfit: ")]
    assert ["belongs to plan another" in line for line in lines] == [True, True]
    assert [line[:12] for line in lines] == ["polyfit: a: ", "polyfit: c: "]


def test_the_exit_code_is_that_of_the_first_spec_that_failed(
    command: Command, others: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = driver.execute

    def planted(spec: Spec, **options: Any) -> Run:
        if spec.name == "b":
            raise ZeroDivisionError("a bug")
        return execute(spec, **options)

    monkeypatch.setattr(driver, "execute", planted)
    assert command("run", others["b"], others["a"], "--run-id", "mine").code == 1
    ended = command("run", others["a"], others["b"], "--run-id", "mine")
    assert ended.code == 2
    assert "polyfit: b: internal error: ZeroDivisionError: a bug" in ended.err


def test_in_json_a_failed_spec_has_its_error_in_its_place(
    command: Command, others: dict[str, Path]
) -> None:
    ended = command("run", *others.values(), "--run-id", "mine", "--json")
    failed, finished, _ = json.loads(ended.out)["runs"]
    assert (ended.code, finished["name"], finished["fits"]) == (2, "b", 20)
    assert (failed["name"], failed["exit_code"]) == ("a", 2)
    assert "belongs to plan another" in failed["error"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("task", [0, 1], ids=["before the last shard", "at the last shard"])
def test_a_signal_ends_all_specs(
    command: Command,
    others: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    task: int,
) -> None:
    """Also one that comes when the present run has nothing left to stop."""
    from polyfit.work import storing, worker

    compute, computed = storing.run_shard, list[int]()

    def signalled(*arguments: Any) -> Any:
        computed.append(arguments[1])
        if len(computed) == task + 1:
            os.kill(os.getpid(), number)
        return compute(*arguments)

    monkeypatch.setattr(worker, "run_shard", signalled)
    ended = command("run", others["b"], others["b"], "--run-id", "other", "--store", "here")
    assert (ended.code, len(computed)) == (code, task + 1)
    monkeypatch.setattr(worker, "run_shard", compute)
    assert (
        "here/b/other is complete"
        in command("run", others["b"], others["b"], "--run-id", "other", "--store", "here").err
    )
