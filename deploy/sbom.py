#!/usr/bin/env python3
"""What polyfit needs at run time, package by package with its licence, as a CycloneDX list.

    make sbom      # writes .local/sbom.json

CycloneDX's own tool lists all of the environment; here what only tests need is taken out again. The
versions are those of constraints.txt, as in the image.
"""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["main", "run_time_packages"]

ROOT = Path(__file__).resolve().parents[1]


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run_time_packages() -> set[str]:
    """The names of what pyproject.toml needs, and of what that needs, as installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left = [Requirement(line) for line in project["dependencies"]]
    seen: set[tuple[str, str]] = set()
    while left:
        wanted = left.pop()
        for extra in {"", *wanted.extras}:
            if (key := (normal(wanted.name), extra)) in seen:
                continue
            seen.add(key)
            needs = map(Requirement, distribution(wanted.name).requires or [])
            left += [
                it for it in needs if it.marker is None or it.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen}


def main() -> None:
    """Write the list to standard output."""
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    listed = subprocess.run(
        [*tool, "--pyproject", str(ROOT / "pyproject.toml"), sys.executable],
        check=True,
        stdout=subprocess.PIPE,
    )
    bom, names = json.loads(listed.stdout), run_time_packages()
    bom["components"] = [it for it in bom["components"] if normal(it["name"]) in names]
    kept = {bom["metadata"]["component"]["bom-ref"], *(it["bom-ref"] for it in bom["components"])}
    bom["dependencies"] = [
        {**it, "dependsOn": [ref for ref in it.get("dependsOn", []) if ref in kept]}
        for it in bom["dependencies"]
        if it["ref"] in kept
    ]
    print(json.dumps(bom, indent=1))


if __name__ == "__main__":
    main()
