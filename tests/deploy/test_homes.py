"""Users without a home, or with an odd one: a run works, or says in one line what is missing.

The processes are another user's, whom the system does not know. They may read everything, so that
this Python serves them wherever it is installed, and write only what is theirs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import S3Server

STRANGER = 54_321
SETPRIV = shutil.which("setpriv")
TEXT = """\
name: small
engine: eager
fit: {steps: 12, points: 40}
sweep: {seed: {count: 10}}
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or SETPRIV is None, reason="only root, with setpriv, can be another user"
)

AsStranger = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the stranger's; its name is short, as Ray's sockets want."""
    with tempfile.TemporaryDirectory(prefix="pf", dir="/tmp") as folder:
        place = Path(folder)
        (place / "spec.yaml").write_text(TEXT)
        for path in (place, place / "spec.yaml"):
            os.chown(path, STRANGER, STRANGER)
        place.chmod(0o755)
        yield place


@pytest.fixture
def as_stranger(place: Path) -> AsStranger:
    """Run this Python as the stranger, with nothing in the environment but what is given."""

    def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        reads = "-all,+dac_read_search"
        capabilities = [
            f"--{kind}={reads}" for kind in ("bounding-set", "inh-caps", "ambient-caps")
        ]
        user = [f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
        return subprocess.run(
            [str(SETPRIV), *user, *capabilities, sys.executable, *arguments],
            env={"PATH": os.environ["PATH"], "RAY_TMPDIR": str(place), **env},
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def homes(place: Path) -> dict[str, dict[str, str]]:
    odd = place / """the "home" of o'brien"""
    odd.mkdir()
    os.chown(odd, STRANGER, STRANGER)
    return {
        "none": {},
        "read-only": {"HOME": str(Path(__file__).parent)},
        "missing": {"HOME": "/nowhere/at/all"},
        "odd": {"HOME": str(odd)},
    }


@pytest.mark.parametrize("home", ["none", "odd"])
def test_a_run_works_whatever_home_its_user_has(
    home: str, place: Path, as_stranger: AsStranger
) -> None:
    env = homes(place)[home]
    ended = as_stranger("-m", "polyfit", "run", "spec.yaml", "--json", **env)
    assert (ended.returncode, json.loads(ended.stdout)["statuses"]) == (0, {"completed": 10})
    assert "Traceback" not in ended.stderr


def test_ray_and_its_actors_need_no_home(place: Path, as_stranger: AsStranger) -> None:
    arguments = ["run", "spec.yaml", "--executor", "ray", "--json"]
    ended = as_stranger("-m", "polyfit", *arguments)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert json.loads(ended.stdout)["statuses"] == {"completed": 10}


def test_a_store_in_s3_needs_no_home(
    place: Path, as_stranger: AsStranger, seaweed: S3Server
) -> None:
    uri = f"s3://{seaweed.bucket}/homes"
    ended = as_stranger(
        "-m", "polyfit", "run", "spec.yaml", "--store", uri, "--json", **seaweed.env
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    run = json.loads(ended.stdout)["run"]
    ended = as_stranger("-m", "polyfit", "verify", run, **seaweed.env)
    assert (ended.returncode, ended.stdout[:7]) == (0, "intact:")


@pytest.mark.parametrize("home", ["none", "read-only", "missing"])
def test_machine_code_is_kept_with_the_temporary_files_where_the_home_does_not_do(
    home: str, place: Path, as_stranger: AsStranger
) -> None:
    env = {"TMPDIR": str(place), **homes(place)[home]}
    code = "from polyfit.engine.cpu import cache_folder; print(cache_folder())"
    ended = as_stranger("-c", code, **env)
    assert (ended.stdout, ended.stderr) == (f"{place}/polyfit-{STRANGER}\n", "")


def test_a_home_that_a_store_names_and_nobody_has_is_told_in_one_line(
    as_stranger: AsStranger,
) -> None:
    ended = as_stranger("-m", "polyfit", "run", "spec.yaml", "--store", "~/runs")
    assert ended.returncode == 2
    assert ended.stderr.startswith("polyfit: '~/runs'")
    assert ended.stderr.count("\n") == 1
