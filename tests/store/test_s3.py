"""What is said where a server cannot be reached, or refuses."""

from collections.abc import Callable

import pytest
from local_s3 import free_port
from places import OPERATIONS, SERVERS, error_message, use
from servers import S3Server

from polyfit.store import s3_client
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store

operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@operations
def test_an_endpoint_that_does_not_answer_is_named(
    operation: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = StoreAddress.of("s3://bucket/prefix", endpoint).open()
    text = error_message(lambda: operation(store))
    assert text.startswith(f"bucket 'bucket' at {endpoint}: cannot be reached")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each kind of S3 server in turn, with its keys in the environment."""
    found: S3Server = request.getfixturevalue(request.param)
    use(found, monkeypatch)
    return found


@pytest.mark.slow
@operations
def test_keys_that_the_store_refuses_are_reported(
    operation: Callable[[Store], object], server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    store = StoreAddress.of(server.fresh_uri()).open()
    text = error_message(lambda: operation(store))
    assert text.startswith(f"bucket {server.bucket!r} at {server.endpoint_url}: ")
    assert "refuses this secret key" in text
    assert "wrong-secret" not in text


def test_a_key_id_that_the_store_does_not_know_is_reported(
    server: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    store = StoreAddress.of(server.fresh_uri()).open()
    # Swift alone does not tell strangers which names it knows.
    known = request.node.callspec.params["server"] == "swift"
    said = "refuses this secret key" if known else "does not know this access key"
    assert said in error_message(lambda: store.get("key"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["get", "list"])
def test_an_unknown_bucket_is_named_when_read(name: str, server: S3Server) -> None:
    """Not taken for a missing key, which would look like a run that has not begun."""
    store = StoreAddress.of("s3://nowhere/prefix").open()
    text = error_message(lambda: OPERATIONS[name](store))
    assert text.startswith(f"bucket 'nowhere' at {server.endpoint_url}: there is no such bucket")


@operations
def test_missing_credentials_are_reported_with_where_they_are_looked_for(
    operation: Callable[[Store], object],
) -> None:
    store = StoreAddress.of("s3://bucket/prefix", "http://127.0.0.1:9").open()
    text = error_message(lambda: operation(store))
    assert text.startswith("bucket 'bucket' at http://127.0.0.1:9: no credentials")
    assert "AWS_ACCESS_KEY_ID" in text


def test_half_of_the_credentials_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "alone")
    text = error_message(
        lambda: StoreAddress.of("s3://bucket", "http://127.0.0.1:9").open().get("key")
    )
    assert "credentials" in text


def test_a_bucket_name_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    store = StoreAddress.of(
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/a", "http://127.0.0.1:9"
    ).open()
    assert "Invalid bucket name" in error_message(lambda: store.get("key"))


def test_a_bug_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only failures of the world become StoreErrors."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    store = StoreAddress.of("s3://bucket", "http://127.0.0.1:9").open()

    with pytest.raises(TypeError):
        store.put("key", "no bytes")  # type: ignore[arg-type]


def test_the_size_of_an_object_in_an_unknown_bucket_is_that_of_no_object(server: S3Server) -> None:
    """An answer to HEAD has no body that could name the bucket: plans are read with GET first."""
    with pytest.raises(NoSuchKey):
        StoreAddress.of("s3://nowhere/prefix").open().size("key")
