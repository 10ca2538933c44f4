"""The files of deploy/ for tests: their YAML, and the polyfit commands that they start."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

__all__ = ["DEPLOY", "ROOT", "Document", "commands", "crontab_lines", "documents", "files", "text"]

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"

Document = dict[str, Any]


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def files() -> list[str]:
    """The names of all files of deploy/, less what Python leaves there."""
    paths = (path.relative_to(DEPLOY) for path in sorted(DEPLOY.rglob("*")) if path.is_file())
    return [path.as_posix() for path in paths if "__pycache__" not in path.parts]


def documents(source: str) -> list[Document]:
    """The YAML documents. Through JSON, because aliases would share objects that a test changes."""
    return [json.loads(json.dumps(document)) for document in yaml.safe_load_all(source)]


def crontab_lines() -> tuple[dict[str, str], list[str]]:
    """The variables, and the lines that start something; the first of these is the night."""
    lines = [
        line for line in text("machine/crontab").splitlines() if line and not line.startswith("#")
    ]
    variables = [line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line)]
    return dict(variables), [line for line in lines if not re.match(r"[A-Z_]+=", line)]


def commands() -> dict[str, list[str]]:
    """The arguments of every `polyfit` in deploy/, from the instructions in comments too."""
    (job,) = documents(text("pod/base/job.yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (rayjob,) = documents(text("rayjob/base/rayjob.yaml"))
    (patches,) = documents(text("rayjob/gpu/kustomization.yaml"))
    (gpu,) = yaml.safe_load(patches["patches"][0]["patch"])[:1]
    instructions = text("aws/cluster.yaml").replace("\\\n#", "")
    (ray_up,) = re.findall(r"(python -m polyfit run .+)\"", instructions)
    crontab = crontab_lines()[1][0]
    return {
        "pod": ["run", *container["args"], *container["command"][2:]],
        "rayjob": entrypoint(rayjob["spec"]["entrypoint"]),
        "rayjob/gpu": entrypoint(gpu["value"]),
        "aws": shlex.split(ray_up)[3:],
        "crontab": ["run", *shlex.split(crontab.split("nightly.sh")[1])],
    }


def entrypoint(line: str) -> list[str]:
    """The arguments of a RayJob's entrypoint on some night."""
    return shlex.split(line.replace("$NIGHT", "--date 2026-11-23"))[1:]
