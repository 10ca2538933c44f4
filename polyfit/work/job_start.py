"""The first process of a submitted Ray job: looks whether this Python can do the run, then does it.

This file travels with the job, to a Python that may be older and have no polyfit: until polyfit has
been found there, it uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys

__all__ = ["ASKED", "STARTING", "main", "versions"]

ASKED = "job.json"
"""The file with the submitter's ``versions`` and the hashes of its ``plans``, by file."""

STARTING = "polyfit: starting on "
"""Begins the line that says that the run can be done here."""

_CLUSTER = 6
"""``Exit.CLUSTER``, where there may be no polyfit."""

_HINT = "install polyfit and its packages there, or name a Python that has them with --python"


def main(arguments: list[str]) -> None:
    """Become ``polyfit`` with these arguments, or end with a message and exit code 6."""
    with open(ASKED, encoding="utf-8") as file:
        asked = json.load(file)
    problem = _problem(asked)
    if problem:
        print(f"polyfit: {problem}", file=sys.stderr, flush=True)
        sys.exit(_CLUSTER)
    here, there = versions(), asked["versions"]
    print(f"{STARTING}{socket.gethostname()} with {_listed(here)}", flush=True)
    others = {name: text for name, text in there.items() if here.get(name) != text}
    if others:
        print(f"polyfit: it was submitted by another one, with {_listed(others)}", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "polyfit", *arguments])


def versions() -> dict[str, str]:
    """The versions that matter here, by name; polyfit is installed."""
    from importlib import metadata

    from polyfit import __version__

    found = {"Python": platform.python_version()}
    for name in ("Ray", "torch"):
        try:
            found[name] = metadata.version(name.lower()).partition("+")[0]  # whatever the device
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return {**found, "polyfit": __version__}


def _problem(asked: dict[str, dict[str, str]]) -> str:
    """Why the run cannot be done here; empty if nothing speaks against it."""
    python = f"{sys.executable} (Python {platform.python_version()} on {socket.gethostname()})"
    try:
        from polyfit.errors import PolyfitError
        from polyfit.spec.plan import Plan
        from polyfit.spec.spec import Spec

        for path, expected in asked["plans"].items():
            try:
                found = Plan.of(Spec.load(path)).hash
            except PolyfitError:
                continue  # the run itself says what is wrong
            if found != expected:
                return (
                    f"for the cluster's polyfit {path} is plan {found[:12]}, for the one that "
                    f"submitted it {expected[:12]}: their numbers differ, and one version is "
                    f"needed. There: {_listed(versions())}; here: {_listed(asked['versions'])}"
                )
    except ImportError as error:
        return f"the cluster's {python} cannot run polyfit: {error}; {_HINT}"
    return ""


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in found.items())


if __name__ == "__main__":
    main(sys.argv[1:])
