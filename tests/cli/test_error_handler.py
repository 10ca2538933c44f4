"""What ends a command has an exit code and a message: an error, an interrupt or a bug."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import TEXT, Command
from limits import HANG_S, wait_for

from polyfit.errors import ClusterError, FailedShards
from polyfit.work import driver


@pytest.mark.parametrize(
    ("error", "code"), [(FailedShards("two shards"), 3), (ClusterError("no room"), 6)]
)
def test_an_error_of_a_run_ends_the_command_with_its_exit_code(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr(driver, "execute", raising(error))
    ended = command("run", small_spec)
    assert (ended.code, ended.out, ended.err) == (code, "", f"polyfit: {error}\n")


def raising(error: BaseException) -> Callable[..., None]:
    def raise_it(*args: object, **options: object) -> None:
        raise error

    return raise_it


def test_an_internal_error_ends_with_1_and_says_how_to_see_more(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "execute", raising(ZeroDivisionError("a bug")))
    ended = command("run", small_spec)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "polyfit: internal error: ZeroDivisionError: a bug (--debug shows where)\n"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_debug_shows_the_traceback_of_an_internal_error(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(driver, "execute", raising(ZeroDivisionError("a bug")))
    ended = (
        command("run", small_spec, "--debug") if after else command("--debug", "run", small_spec)
    )
    assert ended.code == 1
    assert "Traceback (most recent call last)" in ended.err
    assert "in raise_it" in ended.err


def test_debug_shows_the_traceback_of_a_users_error_too(command: Command) -> None:
    ended = command("plan", "none.yaml", "--debug")
    assert ended.code == 2
    assert "Traceback" in ended.err


def test_an_interrupt_ends_with_130(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "execute", raising(KeyboardInterrupt()))
    ended = command("run", small_spec)
    assert (ended.code, ended.out) == (130, "")
    assert "interrupted; run the same command to resume" in ended.err
    assert "Traceback" not in ended.err


def test_ctrl_c_ends_a_run_with_130_and_its_attempt_notes_it(
    small_spec: Path, tmp_path: Path
) -> None:
    small_spec.write_text(
        TEXT.replace("steps: 12", "steps: 5000").replace("count: 10", "count: 5000")
    )
    arguments = ["-m", "polyfit", "run", str(small_spec), "--store", str(tmp_path), "--executor"]
    running = subprocess.Popen(
        [sys.executable, *arguments, "inline"], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(tmp_path.glob("small/*/status.json")), "its status", running)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=HANG_S)
    assert running.returncode == 130
    assert "run the same command to resume" in err
    assert "Traceback" not in err
    (attempt,) = tmp_path.glob("small/*/attempts/*.json")
    assert json.loads(attempt.read_bytes())["exit_code"] == 130
