"""What boto3's environment and files say is followed."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from odd import Answer, OddS3, odd_s3, refusal

from polyfit.errors import StoreError
from polyfit.store.address import StoreAddress
from polyfit.store.aws import split_bucket
from polyfit.store.base import Store

KEYS = "aws_access_key_id = a\naws_secret_access_key = b\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of the config file."""
    path = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    return path


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[OddS3]:
    """A server that is asked for whatever host, as a proxy is."""
    with odd_s3(lambda asked: Answer(200, {"ETag": '"x"'})) as odd:
        monkeypatch.setenv("HTTP_PROXY", odd.url)
        yield odd


SERVICES = "[services here]\ns3 =\n  endpoint_url = http://services.example\n"
PROFILE = f"[default]\n{KEYS}endpoint_url = http://profile.example\n"
ENV_S3 = {"AWS_ENDPOINT_URL_S3": "http://s3.example"}
ENV = {"AWS_ENDPOINT_URL": "http://all.example"}
IGNORE = {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}

ENDPOINTS: dict[str, tuple[dict[str, str], str, str | None]] = {
    "nothing": ({}, "", None),
    "s3 before all": (ENV_S3 | ENV, PROFILE, "http://s3.example"),
    "environment before file": (ENV, f"{PROFILE}services = here\n{SERVICES}", "http://all.example"),
    "an empty variable is none": ({"AWS_ENDPOINT_URL_S3": ""} | ENV, "", "http://all.example"),
    "profile": ({}, PROFILE, "http://profile.example"),
    "services before profile": (
        {},
        f"{PROFILE}services = here\n{SERVICES}",
        "http://services.example",
    ),
    "services of others": (
        {},
        f"{PROFILE}services = here\n[services here]\nec2 =\n  endpoint_url = http://ec2.example\n",
        "http://profile.example",
    ),
    "services that are not the profile's": ({}, f"{PROFILE}{SERVICES}", "http://profile.example"),
    "another profile": (
        {"AWS_PROFILE": "other"},
        f"{PROFILE}[profile other]\n{KEYS}services = here\n{SERVICES}",
        "http://services.example",
    ),
    "ignored": (ENV_S3 | ENV | IGNORE, PROFILE, None),
    "ignored by the profile": (ENV_S3, f"{PROFILE}ignore_configured_endpoint_urls = true\n", None),
    "not ignored": (
        ENV | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"},
        PROFILE,
        "http://all.example",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_address_has_the_endpoint_that_a_client_of_boto3_has(
    name: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, file, expected = ENDPOINTS[name]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    config.write_text(file)
    assert StoreAddress.of("s3://bucket").endpoint_url == expected
    endpoint = boto3.Session().client("s3", region_name="eu-north-1").meta.endpoint_url
    assert endpoint == (expected or "https://s3.eu-north-1.amazonaws.com")


def test_an_endpoint_that_is_given_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert StoreAddress.of("s3://bucket", "http://given").endpoint_url == "http://given"


def test_a_services_section_that_is_not_there_is_reported(config: Path) -> None:
    config.write_text(f"[default]\n{KEYS}services = nowhere\n")
    with pytest.raises(StoreError, match="services section 'nowhere', which does not exist"):
        StoreAddress.of("s3://bucket")


def put(config: Path, profile: str, uri: str = "s3://bucket/p") -> Store:
    """A store at a host that a proxy answers for, with an object written."""
    config.write_text(f"[default]\n{KEYS}{profile}")
    store = StoreAddress.of(uri, "http://s3.example").open()
    store.put("key", b"data")
    return store


@pytest.mark.parametrize(
    ("profile", "url"),
    [
        ("", "http://s3.example/bucket/p/key"),
        ("s3 =\n  addressing_style = path\n", "http://s3.example/bucket/p/key"),
        ("s3 =\n  addressing_style = virtual\n", "http://bucket.s3.example/p/key"),
    ],
)
def test_a_bucket_is_in_host_or_path_as_the_profile_asks(
    config: Path, proxy: OddS3, profile: str, url: str
) -> None:
    put(config, profile)
    (asked,) = proxy.asked
    assert asked.path == url
    assert asked.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"  # the other default stays


def test_what_else_the_profile_says_of_s3_stays(config: Path, proxy: OddS3) -> None:
    put(config, "s3 =\n  payload_signing_enabled = true\n")
    assert proxy.asked[0].path == "http://s3.example/bucket/p/key"
    assert proxy.asked[0].headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD"


@pytest.mark.parametrize(
    ("environment", "profile", "there", "back"),
    [
        ({}, "", False, False),
        ({"AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"}, "", True, False),
        ({"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported"}, "", False, True),
        ({}, "request_checksum_calculation = when_supported\n", True, False),
        ({}, "response_checksum_validation = when_supported\n", False, True),
        (
            {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"},
            "request_checksum_calculation = when_supported\n",
            False,
            False,
        ),
    ],
)
def test_checksums_are_those_that_are_configured(
    config: Path,
    proxy: OddS3,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    profile: str,
    there: bool,
    back: bool,
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    put(config, profile).get("key")
    wrote, read = proxy.asked
    assert any(name.startswith("x-amz-checksum-crc") for name in wrote.headers) is there
    assert ("x-amz-checksum-mode" in read.headers) is back


POINT = "arn:aws:s3:eu-north-1:123456789012:accesspoint/results"


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b"),
        (f"s3://{POINT}", POINT, ""),
        (f"s3://{POINT}/a/b", POINT, "a/b"),
        (f"s3://{POINT.replace('t/r', 't:r')}/a", POINT.replace("t/r", "t:r"), "a"),
        ("s3://arn:aws:s3::1:accesspoint/m.mrap/a", "arn:aws:s3::1:accesspoint/m.mrap", "a"),
        (
            "s3://arn:aws:s3-outposts:eu:1:outpost/op-1/accesspoint/x/a/b",
            "arn:aws:s3-outposts:eu:1:outpost/op-1/accesspoint/x",
            "a/b",
        ),
    ],
)
def test_a_bucket_may_be_an_access_point(uri: str, bucket: str, prefix: str) -> None:
    assert split_bucket(uri) == (bucket, prefix)


@pytest.mark.parametrize("style", ["", "s3 =\n  addressing_style = virtual\n"])
def test_an_access_point_is_a_host_of_its_own(config: Path, proxy: OddS3, style: str) -> None:
    put(config, style, f"s3://{POINT}/p").get("key")
    wrote, read = proxy.asked
    assert wrote.path == read.path == "http://results-123456789012.s3.example/p/key"
    assert "/eu-north-1/s3/" in wrote.headers["authorization"]


def test_a_store_needs_no_config_file(proxy: OddS3, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Path(os.environ["AWS_CONFIG_FILE"]).exists()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    StoreAddress.of("s3://bucket/p", "http://s3.example").open().put("key", b"data")
    assert proxy.asked[0].path == "http://s3.example/bucket/p/key"


# --- signing in ------------------------------------------------------------------------------

SESSION = "[sso-session corp]\nsso_region = eu-north-1\nsso_start_url = https://corp.example\n"
SSO = "sso_session = corp\nsso_account_id = 1\nsso_role_name = r\n"
OLD_SSO = SSO.replace("sso_session = corp", SESSION.split("\n", 1)[1].strip())
EXPIRED = '{"accessToken": "t", "expiresAt": "2020-01-01T00:00:00Z", "region": "eu-north-1"}'


@pytest.mark.parametrize(
    ("file", "signs_in"),
    [
        (f"[profile work]\n{SSO}{SESSION}", "work"),
        (f"[profile work]\n{OLD_SSO}", "work"),
        (
            "[profile work]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = people\n"
            f"[profile people]\n{SSO}{SESSION}",
            "people",
        ),
    ],
    ids=["session", "old form", "role"],
)
@pytest.mark.parametrize("token", ["none", "expired"])
def test_a_user_who_is_not_signed_in_is_told_how_to(
    file: str,
    signs_in: str,
    token: str,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config.write_text(file)
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    if token == "expired":
        name = "https://corp.example" if file.count("sso_session") == 0 else "corp"
        cache = tmp_path / ".aws" / "sso" / "cache"
        cache.mkdir(parents=True)
        (cache / f"{hashlib.sha1(name.encode()).hexdigest()}.json").write_text(EXPIRED)
    store = StoreAddress.of("s3://bucket/p", "http://127.0.0.1:9").open()
    with pytest.raises(StoreError) as caught:
        store.get("key")
    assert f"the SSO session of profile '{signs_in}' is missing or has expired" in str(caught.value)
    assert f"`aws sso login --profile {signs_in}`" in str(caught.value)
    assert not caught.value.transient  # so a run ends at once


def test_a_role_that_is_refused_is_no_refusal_of_the_store(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no = refusal(403, "AccessDenied", "Not authorized to perform sts:AssumeRole")
    body = b"<ErrorResponse>" + no.body.partition(b"?>")[2] + b"</ErrorResponse>"
    with odd_s3(lambda asked: Answer(no.status, no.headers, body)) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        config.write_text(
            "[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = own\n"
            f"[profile own]\n{KEYS}"
        )
        store = StoreAddress.of("s3://bucket/p", "http://127.0.0.1:9").open()
        with pytest.raises(StoreError) as caught:
            store.get("key")
    assert (
        "the keys for it are refused (AssumeRole for GetObject p/key: 403 AccessDenied: "
        '"Not authorized to perform sts:AssumeRole")' in str(caught.value)
    )
    assert not caught.value.transient


@pytest.mark.process  # by botocore
def test_a_program_for_keys_that_fails_is_reported(config: Path) -> None:
    config.write_text("[default]\ncredential_process = sh -c 'echo no ticket >&2; exit 1'\n")
    with pytest.raises(StoreError, match=r"no credentials \(a client for S3: .*no ticket\)"):
        StoreAddress.of("s3://bucket/p", "http://127.0.0.1:9").open().get("key")


@pytest.mark.parametrize(
    "program",
    [
        "/no/such/program",
        "echo 5",
        "echo []",
        "echo hi",
        'echo "open',
        "cat /bin/ls",
        "",
    ],
)
def test_a_program_for_keys_that_prints_none_is_reported(config: Path, program: str) -> None:
    config.write_text(f"[default]\ncredential_process = {program}\n")
    with pytest.raises(StoreError, match=r"^s3://bucket/p: no credentials \(.*credential_process"):
        StoreAddress.of("s3://bucket/p", "http://127.0.0.1:9").open()
