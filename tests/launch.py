"""The command ``polyfit`` as a process, in a clean environment, for tests with Ray."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import ray
from limits import HANG_S
from servers import ROOT

__all__ = ["SMALL", "clean", "command", "elsewhere", "plant_nodes", "polyfit_run", "quick"]

SMALL = "name: small\nshard: 100\nfit: {steps: 20}\nsweep: {degree: [1, 3], seed: {count: 250}}\n"


def plant_nodes(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """A cluster of these nodes; nothing runs on them."""
    found = [
        {"NodeID": f"id-{address}", "NodeManagerAddress": address, "Alive": True,
         "NodeManagerHostname": "host", "Resources": {"CPU": 2.0}}
        for address in addresses
    ]  # fmt: skip
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0 * len(addresses)})


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without a cluster's or a store's, plus ``env``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **env}


def command(*arguments: str) -> list[str]:
    """The words of the command."""
    return [sys.executable, "-m", "polyfit", *arguments]


QUICK = """
from polyfit.__main__ import program
from polyfit.show import progress
from polyfit.work import capacity, ray_executor

progress.LINE_EVERY_S = ray_executor.ASK_EVERY_S = 0.5
capacity.START_PAUSE_S = 0.1
program()
"""


def quick(*arguments: str) -> list[str]:
    """The words of the command with short pauses: between lines of a log, and before an actor is
    started again where none started."""
    return [sys.executable, "-c", QUICK, *arguments]


def polyfit_run(
    env: Mapping[str, str], *arguments: str, timeout: float = HANG_S
) -> subprocess.CompletedProcess[str]:
    """The command in our repository."""
    return subprocess.run(
        command(*arguments), env=clean(env), cwd=ROOT, text=True, capture_output=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def elsewhere(
    env: Mapping[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """As users run it: not in our repository, whose folder Ray would pass on to the nodes."""
    return subprocess.run(
        command(*arguments), env=clean(env), cwd=folder, text=True, capture_output=True,
        timeout=HANG_S, check=False,
    )  # fmt: skip
