"""The command as a whole: help, usage, and a Python environment that lacks something."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command, process

from polyfit.run.reader import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("run", "--help"), ("--version",)])
def test_help_and_version_end_with_0_on_stdout(
    command: Command, arguments: tuple[str, ...]
) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert "polyfit" in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--nonsense", "x.yaml"),
        ("nonsense",),
        ("run",),
        ("run", "x.yaml", "--executor", "slurm"),
        ("run", "x.yaml", "--placement-timeout", "nan"),
        ("run", "x.yaml", "--wait", "nan"),
        ("results", "x", "--limit", "0"),
        ("results", "x", "--json", "--csv"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err


@pytest.mark.parametrize("arguments", ["run {spec} --store {store}", "plan spec.yaml"])
def test_a_deleted_working_folder_ends_with_2_and_one_line(
    small_spec: Path, tmp_path: Path, arguments: str
) -> None:
    """Intel's numeric library would end the process there, in the middle of a run."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = arguments.format(spec=small_spec, store=tmp_path).split()
    ended = subprocess.run(
        ["sh", "-c", 'rmdir ../gone; "$0" -m polyfit "$@"', sys.executable, *command],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("polyfit: the working folder no longer exists (No such file")


MISSING = """\
import sys

missing = sys.argv[1]

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv[:2] = ["polyfit"]
from polyfit.__main__ import program
program()
"""


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("click", "--version"),
        ("numpy", "plan {spec}"),
        ("pyarrow", "results {run}"),
        ("ray", "run {spec} --executor ray --store {store}"),
        ("torch", "run {spec} --store {store}"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_environment(
    package: str, arguments: str, small_spec: Path, small_run: Run, tmp_path: Path
) -> None:
    command = arguments.format(spec=small_spec, run=small_run.uri, store=tmp_path).split()
    ended = process(package, *command, program=("-c", MISSING))
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == (
        f"polyfit: the package {package!r} is missing in the Python environment {sys.prefix} "
        f"({sys.executable}); install polyfit and its dependencies in that environment"
    )
    assert "Traceback" not in ended.err


def test_the_module_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("polyfit")
    job = ROOT / "jobs" / "sine.yaml"
    as_module = process("plan", job, "--json")
    as_script = process("plan", job, "--json", program=(str(script),))
    assert as_module == as_script
    assert json.loads(as_module.out)["fits"] == 1


def test_the_module_has_the_exit_code_of_the_command() -> None:
    ended = process("plan", "none.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("polyfit: ")
