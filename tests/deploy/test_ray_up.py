"""`ray up`'s file, without a cloud: Ray's own validation, and EC2's own model of its requests."""

import botocore.session
import jsonschema
import pytest
from botocore.validate import ParamValidator
from deployed import Document, documents, text
from manifests import put


@pytest.fixture
def cluster() -> Document:
    (document,) = documents(text("aws/cluster.yaml"))
    return document


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
