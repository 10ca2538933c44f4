"""The files of deploy/ for tests: their YAML, and the polyfit commands that they start."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"

Document = dict[str, Any]


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def documents(source: str) -> list[Document]:
    """The YAML documents. Through JSON, because aliases would share objects that a test changes."""
    return [json.loads(json.dumps(document)) for document in yaml.safe_load_all(source)]


def pod_templates(rayjob: Document) -> dict[str, Document]:
    """Pod specs by role."""
    cluster = rayjob["spec"]["rayClusterSpec"]
    workers = {
        f"workers {group['groupName']}": group["template"]["spec"]
        for group in cluster["workerGroupSpecs"]
    }
    return {
        "head": cluster["headGroupSpec"]["template"]["spec"],
        **workers,
        "submitter": rayjob["spec"]["submitterPodTemplate"]["spec"],
    }


def crontab_lines() -> tuple[dict[str, str], list[str]]:
    """The variables, and the lines that start something."""
    lines = [line for line in text("crontab").splitlines() if line and not line.startswith("#")]
    variables = [line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line)]
    return dict(variables), [line for line in lines if not re.match(r"[A-Z_]+=", line)]


def commands() -> dict[str, list[str]]:
    """The arguments of every `polyfit` in deploy/, from the instructions in comments too."""
    (rayjob,) = documents(text("rayjob.yaml"))
    instructions = text("cluster.yaml").replace("\\\n#", "")
    (ray_up,) = re.findall(r"(python -m polyfit run .+)\"", instructions)
    (crontab,) = crontab_lines()[1]
    return {
        "rayjob.yaml": shlex.split(rayjob["spec"]["entrypoint"])[3:],
        "cluster.yaml": shlex.split(ray_up)[3:],
        "crontab": shlex.split(crontab.split(".venv/bin/polyfit")[1].split(">>")[0]),
    }
