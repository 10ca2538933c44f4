"""The papers of deploy/aws, tried at a cloud in memory with keys that may do only what they say.

moto asks who may do what, but knows neither conditions nor the machines that a request of EC2 is
about. So it is given these papers without conditions, and for EC2 with any resource; what the
conditions and resources are is read from the papers.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.exceptions
import pytest
from commands import Command
from deployed import Document, commands, documents, text
from proxy import Request, proxied
from servers import moto_cloud, moto_key

BUCKET = "polyfit-results"
EC2 = ("ec2:RunInstances", "ec2:CreateTags", "ec2:DescribeInstances", "ec2:TerminateInstances")


def paper(name: str) -> Document:
    found: Document = json.loads(text(f"aws/{name}-policy.json"))
    return found


def actions(statement: Document) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


def resources(statement: Document) -> list[str]:
    found = statement["Resource"]
    return [found] if isinstance(found, str) else found


def for_moto(policy: Document, without: str = "") -> Document:
    """A paper as far as moto understands it, perhaps without one action."""
    policy = copy.deepcopy(policy)
    for statement in policy["Statement"]:
        statement.pop("Condition", None)
        statement["Action"] = [it for it in actions(statement) if it != without]
        if any(it.startswith("ec2:") for it in statement["Action"]):
            statement["Resource"] = "*"
    policy["Statement"] = [it for it in policy["Statement"] if it["Action"]]
    return policy


@dataclass(frozen=True)
class Cloud:
    """``keys`` are environments by who they are for; a machine can be started in ``place``."""

    endpoint_url: str
    keys: dict[str, dict[str, str]]
    place: dict[str, Any]

    def client(self, who: str, service: str) -> Any:
        key = self.keys[who]
        session: Any = boto3.Session(
            key["AWS_ACCESS_KEY_ID"], key["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
        )
        return session.client(service, endpoint_url=self.endpoint_url)


def prepare(client: Callable[..., Any]) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    s3, ec2 = client("s3"), client("ec2")
    for bucket in (BUCKET, "others"):
        s3.create_bucket(Bucket=bucket)
    bucket_policy = paper("bucket")
    unconditional = [it for it in bucket_policy["Statement"] if "Condition" not in it]
    policy = json.dumps({**bucket_policy, "Statement": unconditional})
    s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policies = {
        "worker": for_moto(paper("worker")),
        "head": for_moto(paper("head")),
        "reader": for_moto(paper("reader")),
        **{f"head without {it}": for_moto(paper("head"), without=it) for it in EC2},
        "administrator": {"Version": "2012-10-17", "Statement": [everything]},
    }
    keys = {who: moto_key(client, f"user-{i}", it) for i, (who, it) in enumerate(policies.items())}
    subnet = ec2.describe_subnets()["Subnets"][0]
    group = ec2.create_security_group(
        GroupName="polyfit", Description="nodes", VpcId=subnet["VpcId"]
    )
    client("iam").create_instance_profile(InstanceProfileName="polyfit-worker")
    ec2.create_key_pair(KeyName="ssh")
    return keys, {
        "ImageId": ec2.describe_images()["Images"][0]["ImageId"],
        "SubnetIds": [subnet["SubnetId"]],
        "SecurityGroupIds": [group["GroupId"]],
        "KeyName": "ssh",
    }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with moto_cloud(tmp_path_factory.mktemp("moto"), prepare) as (endpoint_url, prepared):
        yield Cloud(endpoint_url, *prepared)


@pytest.mark.parametrize("who", ["worker", "head"])
def test_a_run_needs_no_more_than_the_paper_of_who_runs_it(
    who: str, cloud: Cloud, command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"s3://{BUCKET}/nightly"
    listed: list[tuple[str, str]] = []
    entered: list[str] = []

    def note(request: Request) -> None:
        """Of each listing who asked, and its prefix, from its query."""
        asked = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        if "list-type" in asked:
            listed.append((entered[-1], asked["prefix"][0]))

    def enter(who: str) -> None:
        entered.append(who)
        for name, value in cloud.keys[who].items():
            monkeypatch.setenv(name, value)

    with proxied(cloud.endpoint_url, note) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", way.url)
        enter(who)
        for words in (
            ["run", small_spec, "--store", store, "--run-id", f"{who}-2026-03-01"],
            ["run", small_spec, "--store", store, "--run-id", f"{who}-2026-03-02"],
            ["list", store],
        ):
            ended = command(*words)
            assert ended.code == 0, ended.err
        ended = command("verify", f"{store}/small/{who}-2026-03-01")
        assert (ended.code, ended.out[:7]) == (0, "intact:"), ended.err
        enter("reader")
        for words in (
            ["list", store],
            ["status", f"{store}/small/{who}-2026-03-02"],
            ["results", f"{store}/small/{who}-2026-03-02"],
            ["compare", "@last", f"small/{who}-2026-03-02", "--store", store],
        ):
            ended = command(*words)
            assert ended.code == 0, ended.err

    # What moto does not ask: S3 grants a listing by its prefix.
    assert len(listed) > 8
    assert {it for it, _ in listed} == {who, "reader"}
    assert [it for it in listed if not listing(*it)] == []


def listing(who: str, prefix: str) -> bool:
    """Whether a paper lets its holder list what begins so."""
    (statement,) = (it for it in paper(who)["Statement"] if actions(it) == ["s3:ListBucket"])
    assert statement["Resource"] == f"arn:aws:s3:::{BUCKET}"
    return fnmatchcase(prefix, statement["Condition"]["StringLike"]["s3:prefix"])


@pytest.mark.parametrize("who", ["worker", "head", "reader"])
def test_who_may_list_runs_may_list_nothing_beside_them(who: str) -> None:
    assert listing(who, "nightly/")
    assert [it for it in ("", "night", "nightly", "nightly-2/", "other/") if listing(who, it)] == []


def test_the_rule_that_removes_old_runs_is_one_for_s3_and_for_them_alone(cloud: Cloud) -> None:
    """moto checks it as S3 does, and gives it back."""
    s3, rules = cloud.client("administrator", "s3"), json.loads(text("aws/lifecycle.json"))
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=rules)

    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule == rules["Rules"][0]
    # It counts each object's own age: a run is long finished before its first shard goes.
    assert (rule["Filter"]["Prefix"], rule["Expiration"]["Days"] >= 365) == ("nightly/", True)


REFUSED: dict[str, Callable[[Cloud, str], Any]] = {
    "deletes": lambda cloud, who: cloud.client(who, "s3").delete_object(
        Bucket=BUCKET, Key="nightly/x"
    ),
    "writes elsewhere in the bucket": lambda cloud, who: cloud.client(who, "s3").put_object(
        Bucket=BUCKET, Key="other/x", Body=b""
    ),
    "writes into another bucket": lambda cloud, who: cloud.client(who, "s3").put_object(
        Bucket="others", Key="nightly/x", Body=b""
    ),
    "lists another bucket": lambda cloud, who: cloud.client(who, "s3").list_objects_v2(
        Bucket="others"
    ),
    "makes a bucket": lambda cloud, who: cloud.client(who, "s3").create_bucket(Bucket="new"),
    "makes itself a key": lambda cloud, who: cloud.client(who, "iam").create_access_key(),
    "opens a door": lambda cloud, who: cloud.client(who, "ec2").create_security_group(
        GroupName="open", Description="open"
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("who", ["worker", "head", "reader"])
def test_nobody_of_ours_does_more(who: str, what: str, cloud: Cloud) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|403"):
        REFUSED[what](cloud, who)


def test_a_reader_writes_no_run(cloud: Cloud) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|403"):
        cloud.client("reader", "s3").put_object(Bucket=BUCKET, Key="nightly/x", Body=b"")


def test_a_worker_knows_no_machines(cloud: Cloud) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        cloud.client("worker", "ec2").describe_instances()


def test_the_bucket_lets_not_even_an_administrator_delete_a_run(cloud: Cloud) -> None:
    s3 = cloud.client("administrator", "s3")
    for key in ("nightly/kept", "scratch"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")

    s3.delete_object(Bucket=BUCKET, Key="scratch")
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|403"):
        s3.delete_object(Bucket=BUCKET, Key="nightly/kept")


def life_of_a_worker(cloud: Cloud, who: str) -> list[str]:
    """What Ray's autoscaler on the head does with a worker of cluster.yaml; its states."""
    from ray.autoscaler import tags
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    (cluster,) = documents(text("aws/cluster.yaml"))
    key = cloud.keys[who]
    credentials = {
        "aws_access_key_id": key["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": key["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": cloud.endpoint_url,
    }
    settings = {**cluster["provider"], "region": "us-east-1", "aws_credentials": credentials}
    provider = AWSNodeProvider(settings, cluster["cluster_name"])
    node = {**cluster["available_node_types"]["gpu"]["node_config"], **cloud.place}
    labels = {tags.TAG_RAY_NODE_KIND: "worker", tags.TAG_RAY_NODE_NAME: "ray-polyfit-worker"}
    labels[tags.TAG_RAY_NODE_STATUS] = "uninitialized"
    (machine,) = provider.create_node(node, labels, 1)
    assert machine in provider.non_terminated_nodes({tags.TAG_RAY_NODE_KIND: "worker"})
    states = [provider.node_tags(machine)[tags.TAG_RAY_NODE_STATUS]]
    provider.set_node_tags(machine, {tags.TAG_RAY_NODE_STATUS: "up-to-date"})
    states.append(provider.node_tags(machine)[tags.TAG_RAY_NODE_STATUS])
    provider.terminate_nodes([machine])
    assert machine not in provider.non_terminated_nodes({})
    return states


def test_rays_autoscaler_needs_no_more_than_the_paper_of_the_head(cloud: Cloud) -> None:
    assert life_of_a_worker(cloud, "head") == ["uninitialized", "up-to-date"]


@pytest.mark.parametrize("action", EC2)
def test_rays_autoscaler_needs_each_right_of_it(action: str, cloud: Cloud) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 (Ray wraps it; its causes are read)
        life_of_a_worker(cloud, f"head without {action}")

    error: BaseException | None = refused.value
    said = []
    while error:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    assert any(f"not authorized to perform: {action}" in it for it in said), said


# What moto does not know --------------------------------------------------------------------------


def test_whatever_changes_a_machine_is_for_machines_of_this_cluster() -> None:
    (cluster,) = documents(text("aws/cluster.yaml"))
    ours = {"ray-cluster-name": cluster["cluster_name"]}
    on_machines = [
        (action, statement["Condition"]["StringEquals"])
        for statement in paper("head")["Statement"]
        for action in actions(statement)
        if action.startswith("ec2:") and any("instance/" in it for it in resources(statement))
    ]

    assert on_machines == [
        ("ec2:RunInstances", {f"aws:RequestTag/{key}": value for key, value in ours.items()}),
        ("ec2:CreateTags", {"ec2:CreateAction": "RunInstances"}),
        *(
            (action, {f"aws:ResourceTag/{key}": value for key, value in ours.items()})
            for action in ("ec2:CreateTags", "ec2:TerminateInstances")
        ),
    ]


def test_the_head_hands_on_the_workers_role_alone() -> None:
    (statement,) = (it for it in paper("head")["Statement"] if actions(it) == ["iam:PassRole"])

    assert resources(statement) == ["arn:aws:iam::*:role/polyfit-worker"]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


@pytest.mark.parametrize("name", ["worker", "head", "reader"])
def test_no_paper_has_a_star_for_an_action_or_deletes(name: str) -> None:
    found = [action for it in paper(name)["Statement"] for action in actions(it)]

    assert [it for it in found if "*" in it or "Delete" in it] == []


def test_the_papers_are_about_the_store_of_every_run() -> None:
    (store,) = {words[words.index("--store") + 1] for words in commands().values()}
    objects = f"arn:aws:s3:::{store.removeprefix('s3://')}/*"

    for name in ("worker", "head", "reader", "bucket"):
        about = [it for statement in paper(name)["Statement"] for it in resources(statement)]
        assert objects in about
        assert {it for it in about if ":s3:" in it} <= {
            objects,
            f"arn:aws:s3:::{BUCKET}",
            f"arn:aws:s3:::{BUCKET}/*",
        }
