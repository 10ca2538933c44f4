"""Rules of pods, Jobs and CronJobs that no schema holds: Kubernetes' own, and those of our way.

A rule has a name, which says where and what, and a function that is false where it is broken.
"""

import re
from collections.abc import Callable
from typing import Final

from deployed import Document

from polyfit.work.signals import DRAIN_S

__all__ = [
    "CONTAINER", "CRONJOB_RULES", "DAY_S", "JOB_RULES", "POD_RULES", "RESTRICTED", "Rules",
    "broken", "containers", "cron_errors",
]  # fmt: skip

Rules = dict[str, Callable[[Document], bool]]

VERSION: Final = re.compile(r"\S+:v?\d+\.\d+(\.\d+)?")
DAY_S: Final = 24 * 60 * 60


def broken(rules: Rules, spec: Document) -> list[str]:
    """The rules that an object breaks; one that finds nothing where it looks is broken too."""
    found = []
    for rule, kept in rules.items():
        try:
            if not kept(spec):
                found.append(rule)
        except (KeyError, IndexError):
            found.append(rule)
    return found


# What the restricted pod security standard asks, less what these pods have no use for.
RESTRICTED: Final[Rules] = {
    "runAsNonRoot": lambda pod: pod["securityContext"]["runAsNonRoot"] is True,
    "runAsUser": lambda pod: pod["securityContext"]["runAsUser"] > 0,
    "seccompProfile": lambda pod: (
        pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    ),
    "host namespaces": lambda pod: pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"}),
    "hostPath": lambda pod: all("hostPath" not in volume for volume in pod.get("volumes", [])),
}

CONTAINER: Final[Rules] = {
    "allowPrivilegeEscalation": lambda it: it["allowPrivilegeEscalation"] is False,
    "capabilities": lambda it: it["capabilities"] == {"drop": ["ALL"]},
    "privileged": lambda it: not it.get("privileged", False),
    "readOnlyRootFilesystem": lambda it: it["readOnlyRootFilesystem"] is True,
}


def _command(job: Document) -> str:
    return " ".join(job["template"]["spec"]["containers"][0]["command"])


def containers(pod: Document) -> list[Document]:
    return [*pod["containers"], *pod.get("initContainers", [])]


POD_RULES: Final[Rules] = {
    "image: has a version": lambda pod: all(
        VERSION.fullmatch(it["image"]) for it in containers(pod)
    ),
    "resources: requests, and a limit of memory": lambda pod: all(
        {"cpu", "memory"} <= it["resources"]["requests"].keys()
        and it["resources"]["limits"]["memory"] == it["resources"]["requests"]["memory"]
        for it in containers(pod)
    ),
    "volumeMounts: each has its volume": lambda pod: (
        {mount["name"] for it in containers(pod) for mount in it.get("volumeMounts", [])}
        == {volume["name"] for volume in pod.get("volumes", [])}
    ),
    "emptyDir: has a size": lambda pod: all(
        "sizeLimit" in volume["emptyDir"]
        for volume in pod.get("volumes", [])
        if "emptyDir" in volume
    ),
}

JOB_RULES: Final[Rules] = {
    "restartPolicy: Never, as podFailurePolicy needs": lambda job: (
        job["template"]["spec"]["restartPolicy"] == "Never"
    ),
    "podFailurePolicy: a disruption is not counted, before all else": lambda job: (
        job["podFailurePolicy"]["rules"][0]
        == {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
    ),
    "podFailurePolicy: exit codes 2 and 3 end the Job": lambda job: (
        job["podFailurePolicy"]["rules"][1]
        == {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": job["template"]["spec"]["containers"][0]["name"],
                "operator": "In",
                "values": [2, 3],
            },
        }
    ),
    # Not in args, which an overlay replaces as a whole.
    "command: metrics where they are scraped": lambda job: (
        "polyfit run" not in _command(job) or "polyfit run --metrics-port 8080" in _command(job)
    ),
    "podReplacementPolicy: Failed": lambda job: job["podReplacementPolicy"] == "Failed",
    "activeDeadlineSeconds: within a day": lambda job: 0 < job["activeDeadlineSeconds"] < DAY_S,
    "ttlSecondsAfterFinished: days": lambda job: job["ttlSecondsAfterFinished"] >= DAY_S,
    "terminationGracePeriodSeconds: shards can be stored": lambda job: (
        job["template"]["spec"]["terminationGracePeriodSeconds"] >= DRAIN_S + 20
    ),
    "automountServiceAccountToken: only for one who asks the API": lambda job: (
        job["template"]["spec"]["serviceAccountName"].startswith("polyfit-scheduler")
        or job["template"]["spec"]["automountServiceAccountToken"] is False
    ),
}

CRONJOB_RULES: Final[Rules] = {
    "concurrencyPolicy: Forbid": lambda spec: spec["concurrencyPolicy"] == "Forbid",
    "timeZone: Etc/UTC": lambda spec: spec["timeZone"] == "Etc/UTC",
    # The controller looks every ten seconds.
    "startingDeadlineSeconds: within its day": lambda spec: (
        10 < spec["startingDeadlineSeconds"] < DAY_S
    ),
}

CRON_RANGES: Final = {
    "minute": (0, 59),
    "hour": (0, 23),
    "day": (1, 31),
    "month": (1, 12),
    "weekday": (0, 7),
}


def cron_errors(fields: list[str]) -> list[str]:
    """Five fields, each `*` or a list of numbers and ranges, with or without a step."""
    if len(fields) != len(CRON_RANGES):
        return [f"{len(fields)} fields"]
    return [
        f"{name}: {field}"
        for field, (name, (low, high)) in zip(fields, CRON_RANGES.items(), strict=True)
        if not all(_cron_item_fits(item, low, high) for item in field.split(","))
    ]


def _cron_item_fits(item: str, low: int, high: int) -> bool:
    match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", item)
    if match is None:
        return False
    first, last = (
        int(number or default)
        for number, default in zip(match.groups()[:2], (low, match[1] or high), strict=True)
    )
    return low <= first <= last <= high
