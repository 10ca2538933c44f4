"""How a store is addressed, and what is said of an address that is none."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from places import error_message

from polyfit.errors import UsageError
from polyfit.store.address import StoreAddress


def test_an_address_has_endpoint_and_region_of_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example:8333")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-2")
    address = StoreAddress.of("s3://bucket/prefix/")
    assert address == StoreAddress("s3://bucket/prefix", "http://s3.example:8333", "eu-central-2")


def test_an_endpoint_that_is_given_goes_before_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example:8333")
    assert StoreAddress.of("s3://b", "https://other").endpoint_url == "https://other"


def test_the_endpoint_of_all_services_serves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all.example")
    assert StoreAddress.of("s3://b").endpoint_url == "http://all.example"


def test_without_an_environment_an_address_is_amazons() -> None:
    assert StoreAddress.of("s3://bucket") == StoreAddress("s3://bucket", None, None)


def test_an_address_pickles_to_itself_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example")
    address = StoreAddress.of("s3://bucket/prefix")
    data = pickle.dumps(address)
    assert pickle.loads(data) == address
    assert not any(secret in data for secret in (b"the-key-id", b"the-secret", b"the-token"))


def test_a_relative_folder_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert StoreAddress.of("./runs").uri == str(tmp_path / "runs")


def test_a_tilde_is_the_home() -> None:
    assert StoreAddress.of("~/runs").uri == f"{os.environ['HOME']}/runs"


def test_a_path_is_an_address_even_one_that_lost_a_slash(tmp_path: Path) -> None:
    assert StoreAddress.of(tmp_path / "runs").uri == str(tmp_path / "runs")
    assert StoreAddress.of(Path("s3://bucket//x")).uri == "s3://bucket/x"


@pytest.mark.parametrize("given", [{"uri": "s3://key:s3cret@b"}, b"runs", 3, None])
def test_what_is_neither_text_nor_path_is_no_address(given: Any) -> None:
    text = error_message(lambda: StoreAddress.of(given), UsageError)
    assert text == (
        f"a {type(given).__name__} is no store; "
        "allowed: a folder or s3://bucket/prefix, as text or path"
    )


def test_an_address_reads_as_the_command_line_takes_it() -> None:
    address = StoreAddress.of("s3://bucket/it's", "http://127.0.0.1:8333/")
    assert str(address) == "'s3://bucket/it'\"'\"'s' --endpoint-url http://127.0.0.1:8333"
    assert str(StoreAddress.of("/a b/c")) == "'/a b/c'"
    assert str(StoreAddress("s3://bucket/x")) == "s3://bucket/x"


@pytest.mark.parametrize("url", ["http://host/bucket", "https://bucket.s3.example.com"])
def test_an_endpoint_that_holds_the_bucket_is_refused_wherever_it_comes_from(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = error_message(lambda: StoreAddress.of("s3://bucket/x", url), UsageError)
    assert text.startswith(f"endpoint {url!r} holds the bucket 'bucket'; allowed: ")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    assert error_message(lambda: StoreAddress.of("s3://bucket/x"), UsageError) == text


def test_a_folder_is_given_no_endpoint_but_the_environment_may_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = error_message(lambda: StoreAddress.of("bucket/x", "http://host"), UsageError)
    assert text.endswith("; write s3://bucket/x for a bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://host")
    assert StoreAddress.of("/runs") == StoreAddress("/runs")


def test_what_lies_beside_a_bucket_is_at_its_endpoint_and_a_folder_at_none() -> None:
    home = StoreAddress("s3://bucket/x", "http://host")
    assert home.beside("s3://other/y", None).endpoint_url == "http://host"
    assert home.beside("s3://other/y", "http://there").endpoint_url == "http://there"
    assert home.beside("/runs", "http://there") == StoreAddress("/runs")


def test_a_profile_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    assert "nobodys" in error_message(lambda: StoreAddress.of("s3://bucket"))


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("s3://key-id:s3cret@bucket/prefix", None),
        ("s3://bucket", "http://key-id:s3cret@host:8333"),
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(
    uri: str, endpoint: str | None
) -> None:
    text = error_message(lambda: StoreAddress.of(uri, endpoint), UsageError)
    assert "holds credentials" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://bucket?x=1", "s3://bucket/a#b"])
def test_an_s3_uri_without_a_bucket_is_refused(uri: str) -> None:
    assert (
        error_message(lambda: StoreAddress.of(uri), UsageError)
        == f"{uri!r} is no bucket; allowed: s3://bucket/prefix"
    )


@pytest.mark.parametrize("uri", ["gs://bucket/prefix", "http://host/bucket", "file:///tmp"])
def test_another_kind_of_uri_is_refused(uri: str) -> None:
    assert f"{uri!r} is no store" in error_message(lambda: StoreAddress.of(uri), UsageError)


def test_an_empty_uri_is_refused() -> None:
    assert "empty" in error_message(lambda: StoreAddress.of(""), UsageError)


def test_an_endpoint_that_is_no_url_is_named() -> None:
    assert "'127.0.0.1:8333'" in error_message(
        lambda: StoreAddress.of("s3://bucket", "127.0.0.1:8333"), UsageError
    )
