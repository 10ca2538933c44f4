"""A Ray of our own: how it starts, what it needs, what it leaves behind."""

import json
import shutil
import subprocess
import sysconfig
import tempfile
import venv
from pathlib import Path

import pytest
from launch import clean, command, elsewhere
from limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with all packages of ours but polyfit."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    # Those that are installed in place are named by files like this one, which do not nest.
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))
    return str(folder / "bin" / "python")


def test_an_own_ray_starts_without_an_stderr_and_leaves_no_token(
    sweep_path: str, tmp_path: Path
) -> None:
    """A token in the home folder would turn authentication on for the next `ray start`."""
    home = tmp_path / "home"
    home.mkdir()
    ours = command("run", sweep_path, "--store", str(tmp_path), "--executor", "ray", "--json")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *ours],
        env=clean({"HOME": str(home)}), cwd=ROOT, text=True, capture_output=True,
        timeout=HANG_S, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["shards"] > 0) == (0, True)
    assert not (home / ".ray").exists()


def test_a_ray_that_does_not_start_says_why_and_where_its_logs_lie(
    sweep_path: str, tmp_path: Path
) -> None:
    """Too little address space: Ray's own words for that are a bare Exception's."""
    home = tempfile.mkdtemp(prefix="pf", dir="/tmp")
    try:
        ours = command("run", sweep_path, "--store", str(tmp_path), "--executor", "ray")
        done = subprocess.run(
            ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", *ours],
            env=clean({"RAY_TMPDIR": home}), cwd=ROOT, text=True, capture_output=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 6, done.stderr
        (session,) = Path(home).glob("ray/session_2*")
        last = done.stderr.splitlines()[-1]
        assert last.startswith("polyfit: a Ray cluster on this machine cannot be used: ")
        assert f"Ray's logs are in {session}/logs" in last
        assert "4.1 GB of address space (ulimit -v)" in last
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_relative_folder_for_ray_is_refused_before_ray_starts(
    sweep_path: str, tmp_path: Path, name: str
) -> None:
    ours = ("run", sweep_path, "--store", str(tmp_path), "--executor", "ray")
    done = elsewhere({name: "here"}, tmp_path, *ours)
    assert done.returncode == 6, done.stderr
    assert f"no Ray starts with {name}=here" in done.stderr
    assert not (tmp_path / "here").exists()
