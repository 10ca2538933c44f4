"""Standard output and stderr that are closed or full."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polyfit.run.reader import Run


@pytest.mark.parametrize(
    "arguments",
    ["results RUN --csv", "results RUN --csv --limit 1", "results RUN --json", "results RUN", "-h"],
)
def test_a_closed_pipe_ends_the_command_without_a_message(small_run: Run, arguments: str) -> None:
    """As in ``polyfit results --csv | head``: the exit code is that of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", *arguments.replace("RUN", small_run.uri).split()],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "buffered"), [("results RUN --csv", ""), ("results RUN", "1")]
)
def test_output_to_a_full_disk_ends_with_5_and_says_so(
    small_run: Run, arguments: str, buffered: str
) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", *arguments.replace("RUN", small_run.uri).split()],
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    message = "polyfit: standard output: No space left on device; the output is incomplete\n"
    assert (ended.returncode, ended.stderr) == (5, message)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_not_reported_as_a_wrong_spec(small_spec: Path) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "polyfit", "validate", str(small_spec)]
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        ended = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 5


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_for_messages_does_not_end_a_run(small_spec: Path, tmp_path: Path) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", "run", small_spec, "--json", "--store", tmp_path],
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert (ended.returncode, json.loads(ended.stdout)["fits"]) == (0, 20)


def test_a_closed_pipe_for_messages_does_not_end_a_run(small_spec: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", "run", small_spec, "--json", "--store", tmp_path],
            stdout=subprocess.PIPE,
            stderr=pipe,
            check=False,
        )
    assert (ended.returncode, json.loads(ended.stdout)["fits"]) == (0, 20)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_from_the_start_is_no_error(small_run: Run, closed: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m polyfit results "$1" --csv {closed}', sys.executable, small_run.uri],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
