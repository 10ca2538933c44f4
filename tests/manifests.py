"""What is wrong with a Kubernetes object, without a cluster: its schema, and what no schema holds.

``errors`` has it all. The schema of RayJob is made from the CRD of KubeRay 1.7, and refuses unknown
fields as the API server does; the rules of KubeRay are those of its operator's ``validation.go``.
"""

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # has no annotations
from deployed import Document
from manifest_rules import (
    CONTAINER,
    CRONJOB_RULES,
    JOB_RULES,
    POD_RULES,
    RESTRICTED,
    broken,
    containers,
    cron_errors,
)  # fmt: skip
from rayjob_rules import rayjob_errors

__all__ = ["errors", "node_at", "pods", "put", "restricted_errors"]

RAYJOB_SCHEMA: Final = Path(__file__).parent / "deploy" / "rayjob-v1.schema.json.gz"


def node_at(document: Document, path: str) -> Any:
    """What is at the dotted path; a number is a place in a list."""
    node: Any = document
    for key in path.split(".") if path else []:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    return node


def put(document: Document, path: str, value: object) -> Document:
    """Set what is at the dotted path; None removes it."""
    parents, _, last = path.rpartition(".")
    node = node_at(document, parents)
    key = int(last) if isinstance(node, list) else last
    if value is None:
        del node[key]
    else:
        node[key] = value
    return document


def pods(document: Document) -> dict[str, Document]:
    """The pod specs of an object by their role, those of a RayJob without one for its submitter."""
    match document["kind"]:
        case "Job" | "Deployment":
            return {"pod": node_at(document, "spec.template.spec")}
        case "CronJob":
            return {"pod": node_at(document, "spec.jobTemplate.spec.template.spec")}
        case "RayJob":
            cluster = document["spec"]["rayClusterSpec"]
            groups = {f"workers {it['groupName']}": it for it in cluster["workerGroupSpecs"]}
            templates = {"head": cluster["headGroupSpec"], **groups}
            if submitter := document["spec"].get("submitterPodTemplate"):
                templates["submitter"] = {"template": submitter}
            return {role: it["template"]["spec"] for role, it in templates.items()}
    return {}


def errors(document: Document) -> list[str]:
    """All that is wrong with an object; a line each, beginning with where."""
    return [*_all(document)]


def _all(document: Document) -> Iterator[str]:
    if found := _schema_errors(document):  # the rules look at what the schema has seen
        yield from found
        return
    for role, pod in pods(document).items():
        if document["kind"] == "RayJob":  # the schemas of all others hold their pods
            it = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
            yield from (f"{role}: {error}" for error in _schema_errors(it))
        yield from (f"{role}: {error}" for error in restricted_errors(pod))
        yield from (f"{role}: {error}" for error in broken(POD_RULES, pod))
    match document["kind"]:
        case "Job":
            yield from broken(JOB_RULES, document["spec"])
        case "CronJob":
            name, spec = document["metadata"]["name"], document["spec"]
            if len(name) > 52:
                yield "name: the controller appends the minute, 52 characters at most"
            yield from cron_errors(spec["schedule"].split())
            yield from broken(CRONJOB_RULES, spec)
            yield from broken(JOB_RULES, spec["jobTemplate"]["spec"])
        case "RayJob":
            yield from rayjob_errors(document)


def _schema_errors(document: Document) -> list[str]:
    if document["kind"] == "RayJob":
        found = jsonschema.Draft7Validator(_rayjob_schema()).iter_errors(document)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


@cache
def _rayjob_schema() -> Document:
    schema: Document = json.loads(gzip.decompress(RAYJOB_SCHEMA.read_bytes()))
    return schema


def restricted_errors(pod: Document) -> list[str]:
    """What restricted pod security refuses, and a root that can be written."""
    found = broken(RESTRICTED, pod)
    for container in containers(pod):
        found += broken(CONTAINER, container.get("securityContext", {}))
    return found
