"""Everything under deploy/, checked without a cluster, a cloud or a container engine."""

import datetime as dt
import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # has no annotations
import pytest
from botocore.validate import ParamValidator
from deployed import DEPLOY, ROOT, Document, commands, crontab_lines, documents, pod_templates, text
from limits import HANG_S

from polyfit.work.signals import DRAIN_S

# Made from the CRD of KubeRay 1.7: unknown fields are refused, there as by `kubectl create`.
RAYJOB_SCHEMA = Path(__file__).with_name("rayjob-v1.schema.json.gz")
IMAGE = "ghcr.io/example/polyfit"
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
DAY_S = 24 * 60 * 60


def put(document: Document, path: str, value: object) -> Document:
    """Sets what is at the dotted path; a number is a place in a list."""
    *parents, last = path.split(".")
    node: Any = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    node[last] = value
    return document


@pytest.fixture
def rayjob() -> Document:
    (document,) = documents(text("rayjob.yaml"))
    return document


@pytest.fixture
def scheduler() -> dict[str, Document]:
    """The objects of cronjob.yaml by kind."""
    return {document["kind"]: document for document in documents(text("cronjob.yaml"))}


@pytest.fixture
def cluster() -> Document:
    (document,) = documents(text("cluster.yaml"))
    return document


# RayJob ------------------------------------------------------------------------------------------


def rayjob_schema_errors(rayjob: Document) -> list[str]:
    schema = json.loads(gzip.decompress(RAYJOB_SCHEMA.read_bytes()))
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(rayjob)]


def rayjob_rule_errors(rayjob: Document) -> list[str]:
    """What KubeRay's operator refuses beyond its schema (its validation.go)."""
    name, spec = rayjob["metadata"]["name"], rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    pods = pod_templates(rayjob)
    autoscaled = cluster.get("enableInTreeAutoscaling", False)
    autoscaler = cluster.get("autoscalerOptions", {})
    sidecar = spec.get("submissionMode") == "SidecarMode"
    token = cluster.get("authOptions", {}).get("mode") == "token"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    sizes = {"num-cpus", "num-gpus", "memory", "resources"}
    rules = {
        "name: at most 47 characters": len(name) <= 47,
        "name: a DNS-1035 label": DNS_1035.fullmatch(name) is not None,
        "ttlSecondsAfterFinished: needs shutdownAfterJobFinishes": spec["shutdownAfterJobFinishes"]
        or not spec.get("ttlSecondsAfterFinished"),
        "submissionMode: unknown": spec.get("submissionMode", "K8sJobMode")
        in {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"},
        "submitterPodTemplate: not in SidecarMode": not sidecar
        or spec.keys().isdisjoint({"submitterPodTemplate", "submitterConfig"}),
        "activeDeadlineSeconds: positive": spec.get("activeDeadlineSeconds", 1) > 0,
        "backoffLimit: not negative": spec.get("backoffLimit", 0) >= 0,
        "authOptions.mode token: needs Ray 2.52": not token
        or tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0),
        "restartPolicy: Never with autoscaler v2": not autoscaled
        or autoscaler.get("version") != "v2"
        or all(
            pods[pod].get("restartPolicy", "Never") == "Never" for pod in pods if pod != "submitter"
        ),
        "replicas: minimum above maximum": all(
            0 <= group["minReplicas"] <= group["maxReplicas"]
            for group in cluster["workerGroupSpecs"]
        ),
        "resources: in one of rayStartParams and resources": all(
            not group.get("resources") or sizes.isdisjoint(group.get("rayStartParams", {}))
            for group in groups
        ),
        "rayStartParams.labels: use labels": all(
            "labels" not in group.get("rayStartParams", {}) for group in groups
        ),
        "rayStartParams: strings": all(
            isinstance(value, str)
            for group in groups
            for value in group.get("rayStartParams", {}).values()
        ),
    }
    return [rule for rule, kept in rules.items() if not kept]


def kubernetes_errors(document: Document) -> list[str]:
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


def as_pod(spec: Document) -> Document:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}


def restricted_errors(pod: Document) -> list[str]:
    """What the restricted pod security standard refuses, less what these pods have no use for."""
    security = pod.get("securityContext", {})
    errors = [
        rule
        for rule, kept in {
            "runAsNonRoot": security.get("runAsNonRoot") is True,
            "runAsUser": security.get("runAsUser", 0) > 0,
            "seccompProfile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "host namespaces": pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"}),
            "hostPath": all("hostPath" not in volume for volume in pod.get("volumes", [])),
        }.items()
        if not kept
    ]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        errors += container_errors(container.get("securityContext", {}))
    return errors


def container_errors(security: Document) -> list[str]:
    rules = {
        "allowPrivilegeEscalation": security.get("allowPrivilegeEscalation") is False,
        "capabilities": security.get("capabilities") == {"drop": ["ALL"]},
        "privileged": not security.get("privileged", False),
    }
    return [rule for rule, kept in rules.items() if not kept]


def test_the_rayjob_fits_kuberays_strict_schema(rayjob: Document) -> None:
    assert rayjob_schema_errors(rayjob) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofLimit", 2),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.images", "x"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", "8"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
    ],
)
def test_the_rayjob_schema_refuses_a_fault(rayjob: Document, path: str, value: object) -> None:
    assert rayjob_schema_errors(put(rayjob, path, value)) != []


def test_the_rayjob_keeps_the_rules_that_no_schema_holds(rayjob: Document) -> None:
    assert rayjob_rule_errors(rayjob) == []


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("metadata.name", "p" * 48, "name: at most 47 characters"),
        ("metadata.name", "1-polyfit", "name: a DNS-1035 label"),
        ("spec.shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished: needs"),
        ("spec.submissionMode", "SidecarMode", "submitterPodTemplate: not in SidecarMode"),
        ("spec.submissionMode", "K8sJobsMode", "submissionMode: unknown"),
        ("spec.activeDeadlineSeconds", 0, "activeDeadlineSeconds: positive"),
        ("spec.backoffLimit", -1, "backoffLimit: not negative"),
        ("spec.rayClusterSpec.rayVersion", "2.51.2", "authOptions.mode token: needs"),
        (
            "spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy",
            "Always",
            "restartPolicy: Never",
        ),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplicas", 9, "replicas: minimum above"),
        ("spec.rayClusterSpec.headGroupSpec.resources", {"CPU": "0"}, "resources: in one of"),
        (
            "spec.rayClusterSpec.headGroupSpec.rayStartParams",
            {"labels": "a=b"},
            "rayStartParams.labels",
        ),
        (
            "spec.rayClusterSpec.headGroupSpec.rayStartParams",
            {"num-cpus": 0},
            "rayStartParams: strings",
        ),
    ],
)
def test_each_rule_refuses_its_fault(rayjob: Document, path: str, value: object, rule: str) -> None:
    (error,) = rayjob_rule_errors(put(rayjob, path, value))

    assert error.startswith(rule)


def test_the_pods_of_the_rayjob_are_kubernetes_pods(rayjob: Document) -> None:
    errors = {name: kubernetes_errors(as_pod(pod)) for name, pod in pod_templates(rayjob).items()}

    assert errors == {"head": [], "workers gpu": [], "submitter": []}


def test_the_pods_of_the_rayjob_pass_restricted_pod_security(rayjob: Document) -> None:
    errors = {name: restricted_errors(pod) for name, pod in pod_templates(rayjob).items()}

    assert errors == {"head": [], "workers gpu": [], "submitter": []}


def test_the_autoscalers_container_passes_restricted_pod_security(rayjob: Document) -> None:
    options = rayjob["spec"]["rayClusterSpec"]["autoscalerOptions"]

    assert container_errors(options["securityContext"]) == []


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("securityContext.runAsUser", 0, "runAsUser"),
        ("securityContext.seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
        ("hostNetwork", True, "host namespaces"),
        ("volumes", [{"name": "v", "hostPath": {"path": "/"}}], "hostPath"),
        ("containers.0.securityContext", {}, "allowPrivilegeEscalation"),
    ],
)
def test_restricted_pod_security_refuses_a_fault(
    rayjob: Document, path: str, value: object, rule: str
) -> None:
    assert rule in restricted_errors(put(pod_templates(rayjob)["head"], path, value))


def test_no_actor_lands_on_the_head(rayjob: Document) -> None:
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]

    assert head["rayStartParams"]["num-cpus"] == "0"


def test_a_worker_has_one_gpu_on_a_spot_node_and_some_are_there_when_the_driver_starts(
    rayjob: Document,
) -> None:
    (group,) = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]

    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "SPOT" in pod["nodeSelector"].values()
    assert group["replicas"] == group["minReplicas"] > 0  # an actor's GPU is asked of the cluster


def wait_s(environment: Document) -> int:
    """Seconds that `ray job stop` leaves a driver on a head with these variables."""
    return int(environment.get("RAY_JOB_STOP_WAIT_TIME_S", 3))  # Ray's own


DRIVER_NEEDS_S = 40  # DRAIN_S and, on a busy machine, the rest of a driver's end
RAY_ENDS_S = 30  # what `ray start --block` gives its processes in the end


def test_whatever_starts_a_head_gives_a_stopped_driver_its_time(
    rayjob: Document, cluster: Document
) -> None:
    (container,) = pod_templates(rayjob)["head"]["containers"]
    pod = {variable["name"]: variable["value"] for variable in container["env"]}
    docker = cluster["docker"]
    options = [*docker["run_options"], *docker["head_run_options"]]
    machine = dict(words[1].split("=") for words in map(str.split, options) if words[0] == "--env")

    assert wait_s(pod) == wait_s(machine) == DRIVER_NEEDS_S > DRAIN_S + 10


def test_a_heads_pod_stops_its_job_before_it_ends_and_has_the_time(rayjob: Document) -> None:
    head = pod_templates(rayjob)["head"]
    (container,) = head["containers"]
    pod = {variable["name"]: variable["value"] for variable in container["env"]}
    *_, job = container["lifecycle"]["preStop"]["exec"]["command"]

    assert job == rayjob["spec"]["jobId"]
    drain_s = int(pod["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert head["terminationGracePeriodSeconds"] >= wait_s(pod) + drain_s + RAY_ENDS_S


def test_a_workers_pod_outlasts_a_driver_that_ends(rayjob: Document) -> None:
    worker = pod_templates(rayjob)["workers gpu"]
    (container,) = worker["containers"]
    pod = {variable["name"]: variable["value"] for variable in container["env"]}
    drain_s = int(pod["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])

    assert drain_s >= DRIVER_NEEDS_S
    assert worker["terminationGracePeriodSeconds"] >= drain_s + RAY_ENDS_S


def test_driver_and_workers_have_the_same_way_to_the_store(rayjob: Document) -> None:
    pods = pod_templates(rayjob)
    head, worker = pods["head"], pods["workers gpu"]

    assert head["serviceAccountName"] == worker["serviceAccountName"] == "polyfit"
    assert head["containers"][0]["env"] == worker["containers"][0]["env"]


# CronJob -----------------------------------------------------------------------------------------

# Stands in for kubectl: answers `get` with $DUE and keeps what `create` is given, once per name.
KUBECTL = """#!/bin/sh
case $1 in
  get) printf '%s' "$DUE" ;;
  create)
    [ -z "$REFUSAL" ] || { echo "$REFUSAL" >&2; exit 1; }
    cat > "$OBJECTS/stdin"
    name=$(sed -n 's/^  name: //p' "$OBJECTS/stdin")
    if [ -e "$OBJECTS/$name.yaml" ]; then
      echo "Error from server (AlreadyExists): rayjobs.ray.io \\"$name\\" already exists" >&2
      exit 1
    fi
    mv "$OBJECTS/stdin" "$OBJECTS/$name.yaml" ;;
esac
"""

Tick = Callable[..., "subprocess.CompletedProcess[str]"]


def executable(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def tick(scheduler: dict[str, Document], tmp_path: Path) -> Tick:
    """Runs the CronJob's container here, against a stand-in for kubectl."""
    executable(tmp_path / "bin" / "kubectl", KUBECTL)
    (container,) = cron_pod(scheduler)["containers"]
    command = [*container["command"], *container["args"]]

    def run(
        due: str, template: Path = DEPLOY / "rayjob.yaml", refusal: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [part.replace("/template/rayjob.yaml", str(template)) for part in command],
            env={
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "JOB_NAME": "polyfit-nightly-29911937",
                "DUE": due,
                "OBJECTS": str(tmp_path),
                "REFUSAL": refusal,
            },
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )

    return run


def cron_pod(scheduler: dict[str, Document]) -> Document:
    pod: Document = scheduler["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def created(folder: Path) -> list[Document]:
    return [
        document
        for path in sorted(folder.glob("*.yaml"))
        for document in documents(path.read_text(encoding="utf-8"))
    ]


def test_the_scheduler_is_made_of_kubernetes_objects(scheduler: dict[str, Document]) -> None:
    errors = {kind: kubernetes_errors(document) for kind, document in scheduler.items()}

    assert errors == {"ServiceAccount": [], "Role": [], "RoleBinding": [], "CronJob": []}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("CronJob", "spec.concurrencypolicy", "Forbid"),
        ("CronJob", "spec.startingDeadlineSeconds", "6h"),
        ("CronJob", "spec.jobTemplate.spec.template.spec.containers.0.volumeMount", []),
        ("Role", "rules.0.verb", ["create"]),
        ("RoleBinding", "roleRef", {}),
    ],
)
def test_kubernetes_schema_refuses_a_fault(
    scheduler: dict[str, Document], kind: str, path: str, value: object
) -> None:
    assert kubernetes_errors(put(scheduler[kind], path, value)) != []


def test_the_schedulers_pod_passes_restricted_pod_security(
    scheduler: dict[str, Document],
) -> None:
    assert restricted_errors(cron_pod(scheduler)) == []


def test_the_schedulers_pod_may_do_what_its_script_does_and_no_more(
    scheduler: dict[str, Document],
) -> None:
    account = scheduler["ServiceAccount"]["metadata"]["name"]
    (subject,) = scheduler["RoleBinding"]["subjects"]

    assert cron_pod(scheduler)["serviceAccountName"] == account == subject["name"]
    assert scheduler["RoleBinding"]["roleRef"]["name"] == scheduler["Role"]["metadata"]["name"]
    assert scheduler["Role"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
    ]


def test_one_night_is_started_once_and_within_its_day(
    scheduler: dict[str, Document], rayjob: Document
) -> None:
    name, spec = scheduler["CronJob"]["metadata"]["name"], scheduler["CronJob"]["spec"]

    assert len(name) <= 52, "the controller appends the minute"
    assert cron_errors(spec["schedule"].split()) == []
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["timeZone"] == "Etc/UTC"
    assert 10 < spec["startingDeadlineSeconds"] < DAY_S
    assert rayjob["spec"]["activeDeadlineSeconds"] < DAY_S


def test_the_mounted_configmap_is_the_one_the_instructions_make(
    scheduler: dict[str, Document],
) -> None:
    (volume,) = cron_pod(scheduler)["volumes"]
    making = f"create configmap {volume['configMap']['name']} --from-file=deploy/rayjob.yaml"

    assert making in text("cronjob.yaml")


def test_the_date_it_was_due_names_rayjob_and_run(tick: Tick, tmp_path: Path) -> None:
    result = tick("2026-11-23T04:17:00Z")

    (rayjob,) = created(tmp_path)
    assert result.returncode == 0, result.stderr
    assert rayjob["metadata"]["name"] == "polyfit-nightly-2026-11-23"
    assert shlex.split(rayjob["spec"]["entrypoint"])[-2:] == ["--run-id", "nightly-2026-11-23"]


def test_the_rayjob_of_a_night_is_valid_and_otherwise_the_template(
    tick: Tick, tmp_path: Path, rayjob: Document
) -> None:
    tick("2026-11-23T04:17:00Z")

    (nightly,) = created(tmp_path)
    assert rayjob_rule_errors(nightly) == []
    nightly["metadata"]["name"] = rayjob["metadata"]["name"]
    nightly["spec"]["entrypoint"] = rayjob["spec"]["entrypoint"]
    assert nightly == rayjob


def test_a_repeated_night_is_a_success_and_creates_nothing(tick: Tick, tmp_path: Path) -> None:
    tick("2026-11-23T04:17:00Z")

    again = tick("2026-11-23T04:17:00Z")

    assert again.returncode == 0
    assert "AlreadyExists" in again.stderr
    assert len(created(tmp_path)) == 1


def test_the_next_night_is_another_run(tick: Tick, tmp_path: Path) -> None:
    tick("2026-11-23T04:17:00Z")
    tick("2026-11-24T04:17:00Z")

    assert len(created(tmp_path)) == 2


def test_a_job_made_by_hand_is_todays_run(tick: Tick, tmp_path: Path) -> None:
    before, result, after = utc_date(), tick(""), utc_date()

    (rayjob,) = created(tmp_path)
    assert result.returncode == 0, result.stderr
    assert rayjob["metadata"]["name"] in {f"polyfit-nightly-{day}" for day in (before, after)}


def test_any_other_refusal_fails_the_job(tick: Tick) -> None:
    result = tick("2026-11-23T04:17:00Z", refusal="Error from server (Forbidden): no")

    assert result.returncode != 0
    assert "Forbidden" in result.stderr


def test_a_template_without_a_place_for_the_run_id_is_refused(tick: Tick, tmp_path: Path) -> None:
    template = tmp_path / "template" / "rayjob.yaml"
    template.parent.mkdir()
    template.write_text(text("rayjob.yaml").replace("--store", "--storage"), encoding="utf-8")

    result = tick("2026-11-23T04:17:00Z", template=template)

    assert result.returncode != 0
    assert "no place for '--run-id nightly-2026-11-23'" in result.stderr
    assert created(tmp_path) == []


def utc_date() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


# ray up ------------------------------------------------------------------------------------------

# What Ray's AWS provider reads (autoscaler/_private/aws), less aws_credentials.
PROVIDER_KEYS = {
    "type",
    "region",
    "availability_zone",
    "cache_stopped_nodes",
    "use_internal_ips",
    "key_pair",
    "security_group",
    "cloudwatch",
}


def cluster_errors(cluster: Document) -> list[str]:
    """Ray's own check, then those of the two parts in which Ray takes any key."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(cluster))
    except (jsonschema.ValidationError, ValueError) as error:
        return [str(error)]
    errors = [f"provider.{key}" for key in cluster["provider"].keys() - PROVIDER_KEYS]
    for node_type in cluster["available_node_types"].values():
        errors += run_instances_errors(node_type["node_config"])
    return errors


def run_instances_errors(node_config: Document) -> list[str]:
    """Ray passes node_config on to EC2's RunInstances, whose parameters botocore knows."""
    service = botocore.session.Session().get_service_model("ec2")
    shape = service.operation_model("RunInstances").input_shape
    assert shape is not None
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node_config}, shape)
    return [report.generate_report()] if report.has_errors() else []


def test_the_cluster_file_is_valid(cluster: Document) -> None:
    assert cluster_errors(cluster) == []


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("max_worker", 8, "max_worker"),
        ("docker.images", "x", "images"),
        ("head_node_type", "heads", "head_node_type"),
        ("provider.regions", "eu-central-1", "provider.regions"),
        ("available_node_types.gpu.node_config.InstanceMarketOption", {}, "InstanceMarketOption"),
        ("available_node_types.gpu.node_config.IamInstanceProfile", {"Nam": "x"}, "Nam"),
        ("available_node_types.gpu.node_config.InstanceType", 6, "InstanceType"),
    ],
)
def test_a_fault_in_the_cluster_file_is_refused(
    cluster: Document, path: str, value: object, named: str
) -> None:
    (error,) = cluster_errors(put(cluster, path, value))

    assert named in error


def test_workers_are_spot_instances_and_the_head_is_not(cluster: Document) -> None:
    head, gpu = (cluster["available_node_types"][name] for name in ("head", "gpu"))

    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["min_workers"] > 0
    assert head["resources"] == {"CPU": 0}


def test_machines_reach_the_store_by_an_instance_profile(cluster: Document) -> None:
    profiles = [
        node_type["node_config"]["IamInstanceProfile"]["Name"]
        for node_type in cluster["available_node_types"].values()
    ]

    assert profiles == ["polyfit-head", "polyfit-worker"]


def test_the_cluster_asks_for_a_token_that_comes_as_a_file(cluster: Document) -> None:
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"] == {"/home/polyfit/.ray/auth_token": "~/.ray/auth_token"}
    assert "HOME=/home/polyfit" in text("Dockerfile")


def test_no_default_command_of_ray_is_left_in_place(cluster: Document) -> None:
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(cluster)

    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert prepared[key] == []
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[key] == cluster[key]


# crontab -----------------------------------------------------------------------------------------

CRON_RANGES = {
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
        if not all(cron_item_fits(item, low, high) for item in field.split(","))
    ]


def cron_item_fits(item: str, low: int, high: int) -> bool:
    match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", item)
    if match is None:
        return False
    first, last = (
        int(number or default)
        for number, default in zip(match.groups()[:2], (low, match[1] or high), strict=True)
    )
    return low <= first <= last <= high


@pytest.fixture
def crontab_command() -> str:
    """As cron hands it to the shell."""
    (line,) = crontab_lines()[1]
    return line.split(maxsplit=5)[5].replace(r"\%", "%")


@pytest.fixture
def nightly(crontab_command: str, tmp_path: Path) -> Callable[[], int]:
    """Runs crontab's command in folders made for it, with a polyfit that writes its arguments."""
    executable(tmp_path / "opt/.venv/bin/polyfit", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "log").mkdir()
    command = crontab_command.replace("/opt/polyfit", str(tmp_path / "opt"))
    command = command.replace("/var/log/polyfit", str(tmp_path / "log"))

    def run() -> int:
        shell = crontab_lines()[0]["SHELL"]
        return subprocess.run([shell, "-c", command], timeout=HANG_S, check=False).returncode

    return run


def test_the_crontab_line_has_five_valid_fields() -> None:
    (line,) = crontab_lines()[1]

    assert cron_errors(line.split(maxsplit=5)[:5]) == []


@pytest.mark.parametrize("when", ["4 * * *", "60 4 * * *", "7 4 0 * *", "9-5 4 * * *", "a 4 * * *"])
def test_a_fault_in_the_five_fields_is_refused(when: str) -> None:
    assert cron_errors(when.split()) != []


@pytest.mark.parametrize("when", ["*/5 4,16 1-7 * 0-7/2", "17 4 * * 7"])
def test_lists_ranges_and_steps_are_valid_fields(when: str) -> None:
    assert cron_errors(when.split()) == []


def test_no_percent_sign_ends_the_crontab_command() -> None:
    assert re.findall(r"(?<!\\)%", text("crontab").split("\n17 ")[1]) == []


def test_the_crontab_run_is_named_by_its_date_and_logged(
    nightly: Callable[[], int], tmp_path: Path
) -> None:
    before, status, after = utc_date(), nightly(), utc_date()

    (log,) = (tmp_path / "log").glob("*.log")
    assert status == 0
    assert log.stem in {before, after}
    run = ["run", "jobs/sweep.yaml", "--store", "s3://polyfit-results/nightly"]
    assert "\n".join([*run, "--run-id", f"nightly-{log.stem}"]) in log.read_text()


def test_a_night_at_work_keeps_the_next_one_out(nightly: Callable[[], int], tmp_path: Path) -> None:
    lock = tmp_path / "log" / "lock"
    with subprocess.Popen(
        ["flock", str(lock), "sh", "-c", "echo locked; read -r _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        status = nightly()
        holder.communicate("\n", timeout=HANG_S)

    (log,) = (tmp_path / "log").glob("*.log")
    assert status != 0
    assert "failed to get lock" in log.read_text()


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


def test_the_image_runs_as_the_user_that_the_pods_ask_for(rayjob: Document) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", text("Dockerfile"), flags=re.MULTILINE)
    pods = pod_templates(rayjob).values()

    assert {(pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"])
            for pod in pods} == {tuple(map(int, user))}  # fmt: skip


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


def test_a_dated_run_id_is_a_run_id() -> None:
    assert RUN_ID.fullmatch("nightly-2026-11-23")


# Versions and credentials ------------------------------------------------------------------------


def test_every_image_has_the_packages_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {
        name: set(re.findall(rf"{IMAGE}:(\S+)", text(name)))
        for name in ("Dockerfile", "rayjob.yaml", "cluster.yaml")
    }

    assert tags == {name: {version} for name in tags}


def test_every_image_has_a_version(scheduler: dict[str, Document], rayjob: Document) -> None:
    pods = [*pod_templates(rayjob).values(), cron_pod(scheduler)]
    images = {container["image"] for pod in pods for container in pod["containers"]}

    assert all(re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", image) for image in images), images


def test_the_cluster_has_the_pinned_ray(rayjob: Document) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^ray(?:\[.*\])?==(\S+)", constraints, flags=re.MULTILINE)

    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pinned


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


@pytest.mark.parametrize(
    "path", [path for path in sorted(DEPLOY.iterdir()) if path.is_file()], ids=lambda p: p.name
)
def test_no_file_holds_a_credential(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        source = source.replace("`RAY_AUTH_TOKEN`", "")  # a page may name the variable
    assert secrets(source) == []


@pytest.mark.parametrize("name", ["Dockerfile", "rayjob.yaml", "cronjob.yaml", "cluster.yaml"])
def test_no_manifest_sets_a_credentials_variable(name: str) -> None:
    assert re.findall(r"AWS_(?:ACCESS|SECRET|SESSION)\w*", text(name)) == []


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
