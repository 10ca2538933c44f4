"""The first process of a job says why this Python cannot do the run, or becomes polyfit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.work import job_start


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """The working folder of a job of one spec, submitted from here."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("name: a")
    return {
        "versions": job_start.versions(),
        "plans": {"a.yaml": Plan.of(Spec.parse("name: a")).hash},
    }


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the process became."""
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: found.append(words))
    return found


def start(asked: dict[str, dict[str, str]]) -> None:
    Path(job_start.ASKED).write_text(json.dumps(asked))
    job_start.main(["run", "a.yaml"])


def test_the_same_versions_run_at_once(
    asked: dict[str, dict[str, str]], became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    start(asked)
    assert became == [[sys.executable, "-m", "polyfit", "run", "a.yaml"]]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(job_start.STARTING)
    assert f"polyfit {asked['versions']['polyfit']}" in line


def test_other_versions_that_make_the_same_plan_are_told(
    asked: dict[str, dict[str, str]], became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    asked["versions"] |= {"Python": "3.11.99", "torch": "9.9"}
    start(asked)
    assert len(became) == 1
    line = capsys.readouterr().out.splitlines()[1]
    assert line == "polyfit: it was submitted by another one, with Python 3.11.99, torch 9.9"


def test_another_plan_is_refused_with_both_versions(
    asked: dict[str, dict[str, str]], became: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    asked["plans"]["a.yaml"] = "f" * 64
    asked["versions"]["polyfit"] = "9.9.9"
    with pytest.raises(SystemExit) as ended:
        start(asked)
    assert (ended.value.code, became) == (6, [])
    err = capsys.readouterr().err
    assert err.startswith("polyfit: for the cluster's polyfit a.yaml is plan ")
    assert "polyfit 9.9.9" in err


def test_a_spec_that_is_wrong_there_is_left_to_the_run(
    asked: dict[str, dict[str, str]], became: list[list[str]]
) -> None:
    Path("a.yaml").write_text("name: A")
    start(asked)
    assert len(became) == 1


def test_a_python_without_polyfit_is_named(asked: dict[str, dict[str, str]]) -> None:
    """Without the packages of this environment, as on another machine."""
    Path(job_start.ASKED).write_text(json.dumps(asked))
    (Path.cwd() / "start.py").write_bytes(Path(job_start.__file__).read_bytes())
    ended = subprocess.run(
        [sys.executable, "-S", "start.py", "run", "a.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (6, "")
    assert ended.stderr.startswith(f"polyfit: the cluster's {sys.executable} (Python ")
    assert "cannot run polyfit: No module named 'polyfit'; install polyfit and" in ended.stderr
