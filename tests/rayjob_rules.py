"""Rules of a RayJob: what KubeRay's operator refuses beyond its schema (its ``validation.go``), and
what our way to run one needs."""

import re
from collections.abc import Iterator
from typing import Final

from deployed import Document
from manifest_rules import CONTAINER, DAY_S, Rules, broken

from polyfit.work.signals import DRAIN_S

__all__ = [
    "CLUSTER_RULES",
    "GROUP_RULES",
    "SPEC_RULES",
    "WAY_RULES",
    "WORKER_RULES",
    "rayjob_errors",
]

DNS_1035: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SIZES: Final = {"num-cpus", "num-gpus", "memory", "resources"}
DRIVER_NEEDS_S: Final = 40.0
"""``DRAIN_S`` and, on a busy machine, the rest of a driver's end."""
RAY_ENDS_S: Final = 30.0
"""What ``ray start --block`` gives its processes in the end."""


def rayjob_errors(rayjob: Document) -> Iterator[str]:
    """Each rule that it breaks."""
    if len(rayjob["metadata"]["name"]) > 47:
        yield "name: at most 47 characters"
    if not DNS_1035.fullmatch(rayjob["metadata"]["name"]):
        yield "name: a DNS-1035 label"
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    yield from broken(SPEC_RULES, spec)
    yield from broken(CLUSTER_RULES, cluster)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield from broken(GROUP_RULES, group)
    for group in cluster["workerGroupSpecs"]:
        yield from broken(WORKER_RULES, group)
    yield from _deletion_errors(spec)
    yield from broken(WAY_RULES, spec)


SPEC_RULES: Final[Rules] = {
    "ttlSecondsAfterFinished: needs shutdownAfterJobFinishes": lambda spec: (
        spec.get("shutdownAfterJobFinishes", False) or not spec.get("ttlSecondsAfterFinished")
    ),
    "suspend: needs shutdownAfterJobFinishes": lambda spec: (
        spec.get("shutdownAfterJobFinishes", False) or not spec.get("suspend")
    ),
    "submissionMode: unknown": lambda spec: (
        spec.get("submissionMode", "K8sJobMode")
        in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
    ),
    "submitterPodTemplate: not in SidecarMode": lambda spec: (
        spec.get("submissionMode") != "SidecarMode"
        or spec.keys().isdisjoint({"submitterPodTemplate", "submitterConfig"})
    ),
    "activeDeadlineSeconds: positive": lambda spec: spec.get("activeDeadlineSeconds", 1) > 0,
    "backoffLimit: not negative": lambda spec: spec.get("backoffLimit", 0) >= 0,
}

CLUSTER_RULES: Final[Rules] = {
    "authOptions.mode token: needs Ray 2.52": lambda cluster: (
        cluster.get("authOptions", {}).get("mode") != "token"
        or tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)
    ),
    "restartPolicy: Never with autoscaler v2": lambda cluster: (
        cluster.get("autoscalerOptions", {}).get("version") != "v2"
        or not cluster.get("enableInTreeAutoscaling")
        or all(
            group["template"]["spec"].get("restartPolicy", "Never") == "Never"
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        )
    ),
}

GROUP_RULES: Final[Rules] = {
    "resources: in one of rayStartParams and resources": lambda group: (
        not group.get("resources") or SIZES.isdisjoint(group.get("rayStartParams", {}))
    ),
    "rayStartParams.labels: use labels": lambda group: (
        "labels" not in group.get("rayStartParams", {})
    ),
    # Not of KubeRay: who asks for it, and who pays.
    "labels: owner, cost-center, part-of": lambda group: (
        {"owner", "cost-center", "app.kubernetes.io/part-of"}
        <= group["template"]["metadata"]["labels"].keys()
    ),
}

WORKER_RULES: Final[Rules] = {
    "replicas: between minimum and maximum": lambda group: (
        0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    ),
    # Not of KubeRay. Ray is told what a node will have that is not there yet.
    "rayStartParams: the size of the pod": lambda group: (
        _said(group) == _has(group["template"]["spec"]["containers"][0]["resources"]["limits"])
    ),
}


def _said(group: Document) -> tuple[str, str]:
    parameters = group["rayStartParams"]
    return parameters["num-cpus"], parameters.get("num-gpus", "0")


def _has(limits: Document) -> tuple[str, str]:
    return limits["cpu"], limits.get("nvidia.com/gpu", "0")


def _deletion_errors(spec: Document) -> Iterator[str]:
    """The rules of ``deletionStrategy``; none are there without it."""
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    rules = strategy.get("deletionRules", [])
    if not rules:
        yield "deletionStrategy: has rules"
    if spec.get("shutdownAfterJobFinishes"):
        yield "deletionStrategy: not with shutdownAfterJobFinishes"
    found: dict[str, dict[str, int]] = {}
    for rule in rules:
        condition = dict(rule["condition"])
        after_s = condition.pop("ttlSeconds", 0)
        if len(condition) != 1:
            yield "deletionRules: one of jobStatus and jobDeploymentStatus"
        policies = found.setdefault(str(condition), {})
        if rule["policy"] in policies:
            yield "deletionRules: one rule of a policy and a status"
        policies[rule["policy"]] = after_s
        if rule["policy"] == "DeleteWorkers" and spec["rayClusterSpec"]["enableInTreeAutoscaling"]:
            yield "deletionRules: no DeleteWorkers with autoscaling"
    for policies in found.values():
        order = [policies[it] for it in ("DeleteCluster", "DeleteSelf") if it in policies]
        if order != sorted(order):
            yield "deletionRules: the cluster goes before the object"


def _env(pod: Document) -> dict[str, str]:
    return {it["name"]: it.get("value", "") for it in pod["containers"][0]["env"]}


def _head(spec: Document) -> Document:
    head: Document = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return head


def _workers(spec: Document) -> list[Document]:
    return [it["template"]["spec"] for it in spec["rayClusterSpec"]["workerGroupSpecs"]]


def _drain_s(pod: Document) -> int:
    return int(_env(pod)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])


# Not of KubeRay: what our way to run it needs.
WAY_RULES: Final[Rules] = {
    "submissionMode: HTTPMode, whose state is the job's": lambda spec: (
        spec["submissionMode"] == "HTTPMode"
    ),
    "entrypoint: last the night's arguments": lambda spec: spec["entrypoint"].endswith(" $NIGHT"),
    "entrypoint: actors have a GPU where workers have one": lambda spec: (
        ("resources.gpus_per_actor=0 " not in spec["entrypoint"])
        == any(
            "nvidia.com/gpu" in it["containers"][0]["resources"]["limits"] for it in _workers(spec)
        )
    ),
    "backoffLimit: 0, for KubeRay repeats a wrong spec too": lambda spec: spec["backoffLimit"] == 0,
    "authOptions: a token": lambda spec: spec["rayClusterSpec"]["authOptions"]["mode"] == "token",
    "activeDeadlineSeconds: within a day": lambda spec: 0 < spec["activeDeadlineSeconds"] < DAY_S,
    "preRunningDeadlineSeconds: before the other deadline, but not of a queue": lambda spec: (
        "preRunningDeadlineSeconds" not in spec
        if spec.get("suspend")
        else 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    ),
    "head: no actors beside the driver": lambda spec: (
        spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    ),
    "workers: from none where they can grow, else all": lambda spec: all(
        group["replicas"]
        == (0 if spec["rayClusterSpec"]["enableInTreeAutoscaling"] else group["maxReplicas"])
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]
    ),
    "workers: no node is demanded by its price": lambda spec: all(
        "nodeSelector" not in pod
        and "requiredDuringSchedulingIgnoredDuringExecution" not in pod["affinity"]["nodeAffinity"]
        for pod in _workers(spec)
    ),
    "accounts: one of the head, another of the workers": lambda spec: (
        _head(spec)["serviceAccountName"] == "polyfit-head"
        and {pod["serviceAccountName"] for pod in _workers(spec)} == {"polyfit-worker"}
        and all(pod["automountServiceAccountToken"] is False for pod in _workers(spec))
    ),
    "env: the same way to the store everywhere": lambda spec: all(
        _env(pod) == _env(_head(spec)) for pod in _workers(spec)
    ),
    "RAY_JOB_STOP_WAIT_TIME_S: a stopped driver has its time": lambda spec: (
        float(_env(_head(spec))["RAY_JOB_STOP_WAIT_TIME_S"]) >= DRIVER_NEEDS_S > DRAIN_S + 10
    ),
    "preStop: the head stops its job": lambda spec: (
        _head(spec)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1] == spec["jobId"]
    ),
    "terminationGracePeriodSeconds: the head has its time": lambda spec: (
        _head(spec)["terminationGracePeriodSeconds"]
        >= int(_env(_head(spec))["RAY_JOB_STOP_WAIT_TIME_S"]) + _drain_s(_head(spec)) + RAY_ENDS_S
    ),
    "terminationGracePeriodSeconds: workers outlast the driver": lambda spec: all(
        _drain_s(pod) >= DRIVER_NEEDS_S
        and pod["terminationGracePeriodSeconds"] >= _drain_s(pod) + RAY_ENDS_S
        for pod in _workers(spec)
    ),
    "autoscaler: as confined as the rest": lambda spec: (
        not spec["rayClusterSpec"]["enableInTreeAutoscaling"]
        or not broken(CONTAINER, spec["rayClusterSpec"]["autoscalerOptions"]["securityContext"])
    ),
}
