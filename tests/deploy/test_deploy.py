"""The image, and what holds for all files of deploy/: versions, stores, no credentials."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from deployed import ROOT, Document, commands, documents, files, text
from limits import HANG_S
from manifests import pods

IMAGE = "ghcr.io/example/polyfit"


def manifest(name: str) -> Document:
    (document,) = documents(text(name))
    return document


# The image and what runs in it -------------------------------------------------------------------


def hadolint(source: str) -> str:
    result = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "-"],
        input=source,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    return result.stdout + result.stderr


def copied() -> set[str]:
    lines = re.findall(r"^COPY (.+) \S+$", text("Dockerfile"), flags=re.MULTILINE)
    return {name for line in lines for name in line.split()}


def test_the_dockerfile_passes_hadolint() -> None:
    assert hadolint(text("Dockerfile")) == ""


def test_hadolint_refuses_a_fault() -> None:
    assert "DL3007" in hadolint("FROM python:latest\n")


def test_the_image_runs_as_the_user_that_the_pods_ask_for() -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", text("Dockerfile"), flags=re.MULTILINE)
    specs = [*pods(manifest("pod/base/job.yaml")).values()]
    specs += pods(manifest("rayjob/base/rayjob.yaml")).values()

    assert {(pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"])
            for pod in specs} == {tuple(map(int, user))}  # fmt: skip


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {rule[1:] for rule in rules if rule.startswith("!")}

    assert [rule for rule in rules if not rule.startswith(("#", "!"))] == ["*", "**/__pycache__"]
    assert copied() == kept


def test_what_the_dockerfile_copies_is_there() -> None:
    assert [name for name in sorted(copied()) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", commands())
def test_the_job_that_a_command_names_is_there(name: str) -> None:
    job = commands()[name][1].removeprefix("/opt/polyfit/")

    assert (ROOT / job).is_file()


def test_every_run_goes_to_the_same_store() -> None:
    stores = {command[command.index("--store") + 1] for command in commands().values()}

    assert stores == {"s3://polyfit-results/nightly"}


# Versions and credentials ------------------------------------------------------------------------


def test_every_image_has_the_packages_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {name: set(re.findall(rf"{IMAGE}:(\S+)", text(name))) for name in files()}
    named = {name: found for name, found in tags.items() if found}

    manifests = {"pod/base/job.yaml", "rayjob/base/rayjob.yaml", "aws/cluster.yaml"}
    assert named.keys() >= {"Dockerfile", "README.md"} | manifests
    assert named == {name: {version} for name in named}


def test_the_cluster_has_the_pinned_ray() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^ray(?:\[.*\])?==(\S+)", constraints, flags=re.MULTILINE)

    assert manifest("rayjob/base/rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == pinned


def test_the_image_has_the_pinned_python() -> None:
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", text("Dockerfile"), flags=re.MULTILINE)

    assert (ROOT / ".python-version").read_text(encoding="utf-8").strip() == python


def secrets(source: str) -> list[str]:
    """What looks like a key, or is a place to write one down."""
    shapes = (
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        r"-----BEGIN",
        r"\w+://[^/\s:@]+:[^/\s@]+@",
        r"(?<![A-Za-z0-9/+])(?=\S*\d)(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
        r"aws_credentials",
        r"RAY_AUTH_TOKEN\b",
    )
    return [found for shape in shapes for found in re.findall(shape, source)]


@pytest.mark.parametrize("name", files())
def test_no_file_holds_a_credential(name: str) -> None:
    found = text(name)
    if name.endswith(".md"):
        found = found.replace("`RAY_AUTH_TOKEN`", "")  # a page may name the variable
    assert secrets(found) == []


@pytest.mark.parametrize("name", [it for it in files() if it.endswith(("Dockerfile", ".yaml"))])
def test_no_manifest_sets_a_credentials_variable(name: str) -> None:
    lines = [line for line in text(name).splitlines() if not line.startswith("#")]

    assert re.findall(r"AWS_(?:ACCESS|SECRET|SESSION)\w*", "\n".join(lines)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "key: AKIA" + "ABCDEFGH01234567",
        "url: https://user:" + "pass@example.com",
        "secret: " + "aB3/" * 10,
        "RAY_AUTH_TOKEN" + "=x",
    ],
)
def test_a_planted_credential_is_found(planted: str) -> None:
    assert len(secrets(planted)) == 1
