"""`ray up`'s file, without a cloud: Ray's own validation, and EC2's own model of its requests."""

import re

import botocore.session
import jsonschema
import pytest
from botocore.validate import ParamValidator
from deployed import Document, documents, text
from manifests import put
from rayjob_rules import DRIVER_NEEDS_S


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
    subnets = node_config.pop("SubnetIds")  # Ray's own: it takes one of them for each machine
    request = {"MinCount": 1, "MaxCount": 1, "SubnetId": subnets[0], **node_config}
    report = ParamValidator().validate(request, shape)
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


def test_workers_are_spot_instances_that_come_from_none_and_the_head_is_not(
    cluster: Document,
) -> None:
    head, gpu = (cluster["available_node_types"][name] for name in ("head", "gpu"))

    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["min_workers"] == 0
    assert gpu["resources"] == {"CPU": 4, "GPU": 1}
    assert head["resources"] == {"CPU": 0}


def test_a_machine_has_its_profile_and_no_other_way_to_be_somebody(cluster: Document) -> None:
    for name, profile in (("head", "polyfit-head"), ("gpu", "polyfit-worker")):
        config = cluster["available_node_types"][name]["node_config"]
        assert config["IamInstanceProfile"] == {"Name": profile}
        assert config["MetadataOptions"] == {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
        }
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])


def test_nobody_gets_in_and_ssh_goes_through_the_endpoint(cluster: Document) -> None:
    """Ray makes a group that is open to ssh from everywhere for node types that name none."""
    groups = [it["node_config"]["SecurityGroupIds"] for it in
              cluster["available_node_types"].values()]  # fmt: skip

    assert groups == [["sg-0123456789abcdef0"]] * 2
    assert cluster["provider"]["use_internal_ips"] is True
    assert "open-tunnel" in cluster["auth"]["ssh_proxy_command"]
    assert "--ip-permissions" in text("aws/setup.sh")
    assert "0.0.0.0" not in text("aws/setup.sh")


def test_whatever_is_put_in_by_hand_is_told_by_the_script_that_makes_it(cluster: Document) -> None:
    made = set(re.findall(r"\b(?:subnet|sg|eice)-[0-9a-f]{17}\b", text("aws/setup.sh")))

    assert made == set(re.findall(r"\b(?:subnet|sg|eice)-[0-9a-f]{17}\b", text("aws/cluster.yaml")))


def test_a_stopped_driver_has_its_time_on_the_head(cluster: Document) -> None:
    options = " ".join(cluster["docker"]["head_run_options"])
    (wait_s,) = re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", options)

    assert float(wait_s) >= DRIVER_NEEDS_S


def test_teardown_is_told_where_it_is_started() -> None:
    for name in ("aws/cluster.yaml", "README.md"):
        up, down = (text(name).index(f"ray {it} --yes deploy/aws") for it in ("up", "down"))
        assert 0 < down - up < 1500


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
