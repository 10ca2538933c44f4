"""The Dockerfile's own steps in a folder and a fresh venv, and what deploy/ then runs."""

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployed import ROOT, commands, text
from limits import HANG_S


def steps(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Instruction and argument of each step, without comments and continued lines."""
    lines = [line for line in dockerfile.splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, argument = line.partition(" ")
            yield instruction, argument.strip()


@dataclass(frozen=True, slots=True)
class Image:
    """What the steps have made: ``root`` is the image's /, ``cwd`` and ``cmd`` are its own."""

    root: Path
    env: dict[str, str]
    cwd: str
    cmd: list[str]

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command in the image; /opt/polyfit in it is the one below ``root``."""
        return subprocess.run(
            [word.replace("/opt/polyfit", str(self.path("/opt/polyfit"))) for word in words],
            env=self.env,
            cwd=self.path(self.cwd),
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )


def replay(dockerfile: str, root: Path) -> Image:
    """Carry out the steps of ``dockerfile`` below ``root``, in a venv instead of the base image.

    The dependencies are those of this environment, where pip finds each at its version already:
    nothing is downloaded. What belongs to the system (apt-get, useradd) is left out.
    """
    image = Image(root, _pip_env(_venv_on_top(root / "venv")), "/", [])
    cwd, cmd = "/", ["sh"]
    for instruction, argument in steps(dockerfile):
        if instruction == "WORKDIR":
            cwd = argument
            image.path(cwd).mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            *sources, target = argument.split()
            for source in sources:
                _copy(ROOT / source, image.path(cwd) / target)
        elif instruction == "RUN" and not argument.startswith("apt-get "):
            step = image.path(cwd)
            subprocess.run(["/bin/sh", "-euc", argument], cwd=step, env=image.env, check=True)
        elif instruction == "CMD":
            cmd = json.loads(argument)
    return Image(root, image.env, cwd, cmd)


def _venv_on_top(folder: Path) -> Path:
    """A fresh venv that imports from this environment what it does not have itself."""
    venv.create(folder, symlinks=True)
    names = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=names))
    (packages / "below.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    pip = folder / "bin" / "pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n', encoding="utf-8")
    pip.chmod(0o755)
    return folder / "bin"


def _pip_env(scripts: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    offline = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this one the wrong way round
        "PIP_NO_INDEX": "1",
        "PIP_QUIET": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    return env | offline | {"PATH": f"{scripts}:{os.environ['PATH']}"}


def _copy(source: Path, target: Path) -> None:
    """As COPY does: a file into the folder ``target``, a folder as ``target``; times are kept."""
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return replay(text("Dockerfile"), tmp_path_factory.mktemp("image"))


def test_the_image_answers_with_its_own_command(image: Image) -> None:
    done = image.run(*image.cmd)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: polyfit ")


def test_the_image_has_every_module_of_the_package_as_it_is(image: Image) -> None:
    done = image.run("python", "-c", "import polyfit; print(polyfit.__path__[0])")

    installed, source = Path(done.stdout.strip()), ROOT / "polyfit"
    assert installed.is_relative_to(image.root / "venv")
    files = [file.name for file in source.glob("*.py")]
    assert filecmp.cmpfiles(source, installed, files, shallow=False) == (files, [], [])


def test_a_job_of_the_image_runs_in_it(image: Image, tmp_path: Path) -> None:
    run = ("python", "-m", "polyfit", "run", "/opt/polyfit/jobs/sine.yaml")
    done = image.run(*run, "--store", str(tmp_path), "--executor", "inline")

    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("sine/*/manifest.json"))) == 1


@pytest.mark.parametrize("name", commands())
def test_the_image_knows_every_option_that_deploy_gives_it(image: Image, name: str) -> None:
    # --help at the end: click reads all arguments first, then helps instead of running.
    done = image.run("python", "-m", "polyfit", *commands()[name], "--run-id", "x", "--help")

    assert done.returncode == 0, done.stderr


def test_the_image_refuses_an_unknown_option(image: Image) -> None:
    done = image.run("polyfit", "run", "jobs/sweep.yaml", "--stroe", "s3://bucket", "--help")

    assert done.returncode == 2


def test_an_image_whose_first_build_is_left_in_place_does_not_start(tmp_path: Path) -> None:
    removal = r"\\\n    && rm -r build \S+\n"
    assert len(re.findall(removal, text("Dockerfile"))) == 1

    done = replay(re.sub(removal, "\n", text("Dockerfile")), tmp_path).run("polyfit", "--help")

    assert "cannot import name '__version__'" in done.stderr


def test_the_check_of_the_image_names_the_packages_that_it_needs(tmp_path: Path) -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "tests" / "image.py"], env={"PATH": str(tmp_path)},
        capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip

    assert check.returncode != 0
    assert "apt-get install buildah debootstrap bubblewrap\n" in check.stderr
