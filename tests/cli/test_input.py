"""Where the command reads a spec from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from limits import HANG_S

from polyfit.errors import Exit


@pytest.mark.parametrize(
    ("command", "code", "found"),
    [
        ("echo name: a | {} validate -", Exit.COMPLETE, "<stdin>: 1 fit\n"),
        ("{} validate - < {}/a.yaml", Exit.COMPLETE, "<stdin>: 1 fit\n"),
        ("{} validate /dev/stdin < {}/a.yaml", Exit.COMPLETE, "/dev/stdin: 1 fit\n"),
        ("echo name: a | {} validate /dev/stdin", Exit.COMPLETE, "/dev/stdin: 1 fit\n"),
        ("{} validate <(echo name: a) {}/a.yaml", Exit.COMPLETE, "/a.yaml: 1 fit\n"),
        ("(sleep 0.2; echo name: a) > {1}/pipe & {0} validate {1}/pipe", 0, "/pipe: 1 fit\n"),
        ("printf 'name: a\nfit: 3' | {} plan -", Exit.USAGE, "<stdin>:2: fit: found 3; allowed"),
        ("{} validate <(printf 'name: a\nfit: 3')", Exit.USAGE, ":2: fit: found 3; allowed: "),
        ("{} validate - < /dev/zero", Exit.USAGE, "<stdin>:1: a larger file; allowed: at most"),
        ("{} validate - < /dev/null", Exit.USAGE, "<stdin>:1: found an empty file; allowed: a "),
        ("{} plan - <&-", Exit.USAGE, "<stdin>: standard input is closed; allowed: a YAML or"),
        ("{} plan /dev/zero", Exit.USAGE, "/dev/zero: a device; allowed: a YAML or JSON file"),
    ],
)
def test_the_command_reads_files_pipes_and_standard_input(
    command: str, code: Exit, found: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.yaml").write_text("name: a\n")
    line = command.format(f"{sys.executable} -m polyfit", tmp_path)
    ended = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert found in ended.stdout + ended.stderr
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
