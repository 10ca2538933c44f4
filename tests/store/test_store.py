"""One contract for a folder and for S3, and what is said where a store cannot be used."""

import io
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import botocore
import botocore.exceptions
import places
import pytest
from botocore.config import Config
from local_s3 import free_port
from places import SERVERS, Place, use
from servers import S3Server

from polyfit.errors import PolyfitError, StoreError, UsageError
from polyfit.store import store as module
from polyfit.store.store import Entry, FolderStore, NoSuchKey, Store, StoreAddress

BIG = bytes(range(256)) * (9 * 4096)
"""9 MiB: above the size from which boto3's own transfers come in parts."""


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


# --- the contract ----------------------------------------------------------------------------


def test_what_is_created_is_read_again(store: Store) -> None:
    assert store.create("a/b.bin", b"\x00\xff\r\n") is True
    assert store.get("a/b.bin") == b"\x00\xff\r\n"


def test_a_second_create_leaves_the_firsts_bytes(place: Place, store: Store) -> None:
    """A server that ignores the condition overwrites, and cannot be told from one that wrote."""
    store.create("key", b"first")
    answer = place.store.create("key", b"second")
    if place.honours_conditions:
        assert (answer, store.get("key")) == (False, b"first")
    else:
        assert (answer, store.get("key")) == (True, b"second")


def test_of_many_creates_at_once_one_wins(place: Place, store: Store) -> None:
    """A server that ignores the condition lets all of them win. Swift looks first and writes
    later: any number of them may."""
    barrier = threading.Barrier(4)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create("race", b"%d" % number)

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(create, range(4)))
    if place.name == "swift":
        assert store.get("race") in [b"%d" % number for number in range(4) if won[number]]
    elif place.honours_conditions:
        assert won.count(True) == 1
        assert store.get("race") == b"%d" % won.index(True)
    else:
        assert won == [True] * 4


def test_put_writes_and_replaces(store: Store) -> None:
    store.put("key", b"a longer first")
    store.put("key", b"second")
    assert store.get("key") == b"second"


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (0, 1, b"0"),
        (3, 4, b"3456"),
        (9, 1, b"9"),
        (8, 100, b"89"),
        (5, 0, b""),
        (10, None, b""),
        (10, 5, b""),
        (99, 1, b""),
    ],
)
def test_a_range_is_read_as_a_slice_would_be(
    store: Store, start: int, length: int | None, expected: bytes
) -> None:
    store.put("key", b"0123456789")
    assert store.get("key", start, length) == expected


def test_an_empty_object_is_an_object(store: Store) -> None:
    assert store.create("empty", b"") is True
    assert (store.get("empty"), store.get("empty", 0, 5)) == (b"", b"")
    assert store.size("empty") == 0
    assert list(store.list("")) == [Entry("empty", 0)]


def test_a_large_object_arrives_whole(store: Store) -> None:
    store.create("big", BIG)
    assert store.size("big") == len(BIG)
    assert store.get("big") == BIG
    assert store.get("big", len(BIG) - 300, 300) == BIG[-300:]


@pytest.mark.parametrize(
    "read",
    [lambda s: s.get("a/none"), lambda s: s.get("a/none", 2, 3), lambda s: s.size("a/none")],
    ids=["get", "range", "size"],
)
def test_a_key_that_is_not_there_is_told(store: Store, read: Callable[[Store], object]) -> None:
    store.put("a/other", b"")
    with pytest.raises(NoSuchKey, match="a/none"):
        read(store)


def test_a_key_in_a_place_that_was_never_written_is_told(store: Store) -> None:
    with pytest.raises(NoSuchKey):
        store.get("plan.json")


def test_a_place_that_was_never_written_lists_nothing(store: Store) -> None:
    assert keys(store) == keys(store, "shards/") == []


def test_a_listing_tells_keys_and_sizes_below_its_prefix(store: Store) -> None:
    for key, size in {"shards/1": 3, "shards/2": 0, "shards/in/ner": 5, "plan.json": 7}.items():
        store.put(key, b"x" * size)
    assert list(store.list("shards/")) == [
        Entry("shards/1", 3),
        Entry("shards/2", 0),
        Entry("shards/in/ner", 5),
    ]


def test_a_prefix_may_end_within_a_name(store: Store) -> None:
    for key in ("shards/01-a", "shards/01-b", "shards/02-a"):
        store.put(key, b"")
    assert keys(store, "shards/01") == ["shards/01-a", "shards/01-b"]


def test_the_listing_of_a_folder_is_in_the_order_of_keys(store: Store) -> None:
    for key in ("a/x", "a/x.y", "a/x-y", "a/x0", "a/X"):
        store.put(key, b"")
    assert keys(store, "a/") == ["a/X", "a/x", "a/x-y", "a/x.y", "a/x0"]


def test_a_listing_of_several_folders_is_in_the_order_of_keys(place: Place, store: Store) -> None:
    """``-`` and ``.`` come before ``/``; SeaweedFS alone lists ``a`` before ``a-b``."""
    for key in ("a/x", "a.b", "a-b/x", "a0", "B"):
        store.put(key, b"")
    if place.name == "seaweed":
        assert keys(store) == ["B", "a/x", "a-b/x", "a.b", "a0"]
    else:
        assert keys(store) == ["B", "a-b/x", "a.b", "a/x", "a0"]


def test_a_listing_goes_beyond_a_page_of_a_thousand_keys_in_order(
    place: Place, store: Store
) -> None:
    """Amazon's pages, rclone's and Swift's are no longer; the others give as many as are asked."""
    wanted = [f"shards/{number:06d}" for number in range(1_003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), reversed(wanted)))
    assert keys(store, "shards/") == wanted
    if place.server is not None:
        prefix, listed = place.uri.split("/", 3)[3], place.server.client().list_objects_v2
        page = listed(Bucket=place.server.bucket, Prefix=prefix, MaxKeys=1_003)
        assert page["KeyCount"] == (1_000 if place.name in ("rclone", "swift") else 1_003)


def test_the_folders_of_a_prefix_are_those_right_below_it(place: Place, store: Store) -> None:
    for key in ("b/c/d", "b/c/e", "b/f/g", "b/file", "ba/x", "file"):
        store.put(key, b"x")
    assert list(store.folders()) == ["b", "ba"]
    assert list(store.folders("b/")) == ["c", "f"]
    assert list(store.folders("none/")) == list(store.folders("file/")) == []


def test_a_prefix_does_not_list_its_neighbours(place: Place, store: Store) -> None:
    """Runs lie side by side, and one's name may begin another's."""
    ours, theirs = place.address.under("run").open(), place.address.under("run-2").open()
    ours.put("shards/1", b"")
    theirs.put("shards/2", b"")
    store.put("running", b"")
    assert (keys(ours), keys(theirs)) == (["shards/1"], ["shards/2"])


def test_what_lies_under_a_prefix_is_the_same_from_above(place: Place, store: Store) -> None:
    place.address.under("name/run").open().put("plan.json", b"{}")
    assert store.get("name/run/plan.json") == b"{}"


def test_another_client_sees_what_one_wrote(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("shards/1", b"rows")
    monkeypatch.setattr(places, "_made", {})
    other: Store = pickle.loads(pickle.dumps(place.address)).open()
    assert (keys(other), other.get("shards/1")) == (["shards/1"], b"rows")


class Watched(io.BytesIO):
    """A body that looks around whenever a piece of it is sent, and more is to come."""

    def __init__(self, data: bytes, look: Callable[[], None]) -> None:
        super().__init__(data)
        self._look, self._size = look, len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        if 0 < self.tell() < self._size:
            self._look()
        return super().read(size)


def test_what_is_half_written_is_not_listed(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    store.put("shards/before", b"")

    def look() -> None:
        seen.extend(keys(store, "shards/"))

    if place.server is None:
        monkeypatch.setattr(os, "fsync", lambda file: look())
        store.put("shards/now", BIG)
    else:
        key = f"{place.address.uri.split('/', 3)[3]}/shards/now"
        body = Watched(BIG, look)
        place.server.client().put_object(Bucket=place.server.bucket, Key=key, Body=body)
    assert seen
    assert set(seen) == {"shards/before"}
    assert keys(store, "shards/") == ["shards/before", "shards/now"]


def test_what_a_store_checks_is_found_by_trying(place: Place, store: Store) -> None:
    store.put("key", b"older")
    assert store.checks("key", b"data") == place.checks
    assert store.get("key") == b"data"


def test_a_write_that_breaks_off_leaves_nothing_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        FolderStore(str(tmp_path)).create("shards/1", b"rows")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- addresses -------------------------------------------------------------------------------


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
    text = told(lambda: StoreAddress.of(given), UsageError)
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
    text = told(lambda: StoreAddress.of("s3://bucket/x", url), UsageError)
    assert text.startswith(f"endpoint {url!r} holds the bucket 'bucket'; allowed: ")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    assert told(lambda: StoreAddress.of("s3://bucket/x"), UsageError) == text


def test_a_folder_is_given_no_endpoint_but_the_environment_may_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = told(lambda: StoreAddress.of("bucket/x", "http://host"), UsageError)
    assert text.endswith("; write s3://bucket/x for a bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://host")
    assert StoreAddress.of("/runs") == StoreAddress("/runs")


def test_what_lies_beside_a_bucket_is_at_its_endpoint_and_a_folder_at_none() -> None:
    home = StoreAddress("s3://bucket/x", "http://host")
    assert home.beside("s3://other/y", None).endpoint_url == "http://host"
    assert home.beside("s3://other/y", "http://there").endpoint_url == "http://there"
    assert home.beside("/runs", "http://there") == StoreAddress("/runs")


# --- what is said ----------------------------------------------------------------------------


def told(action: Callable[[], object], kind: type[PolyfitError] = StoreError) -> str:
    """The one line of a StoreError, or of another kind."""
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.create("key", b""),
    "put": lambda store: store.put("key", b""),
    "get": lambda store: store.get("key"),
    "list": lambda store: list(store.list("")),
}
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@operations
def test_an_endpoint_that_does_not_answer_is_named(
    operation: Callable[[Store], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = StoreAddress.of("s3://bucket/prefix", endpoint).open()
    text = told(lambda: operation(store))
    assert text.startswith(f"bucket 'bucket' at {endpoint}: cannot be reached")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each kind of S3 server in turn, with its keys in the environment."""
    found: S3Server = request.getfixturevalue(request.param)
    use(found, monkeypatch)
    return found


@operations
def test_keys_that_the_store_refuses_are_told(
    operation: Callable[[Store], object], server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    store = StoreAddress.of(server.fresh_uri()).open()
    text = told(lambda: operation(store))
    assert text.startswith(f"bucket {server.bucket!r} at {server.endpoint_url}: ")
    assert "refuses this secret key" in text
    assert "wrong-secret" not in text


def test_a_key_id_that_the_store_does_not_know_is_told(
    server: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    store = StoreAddress.of(server.fresh_uri()).open()
    # Swift alone does not tell strangers which names it knows.
    known = request.node.callspec.params["server"] == "swift"
    said = "refuses this secret key" if known else "does not know this access key"
    assert said in told(lambda: store.get("key"))


@pytest.mark.parametrize("name", ["get", "list"])
def test_an_unknown_bucket_is_named_when_read(name: str, server: S3Server) -> None:
    """Not taken for a missing key, which would look like a run that has not begun."""
    store = StoreAddress.of("s3://nowhere/prefix").open()
    text = told(lambda: OPERATIONS[name](store))
    assert text.startswith(f"bucket 'nowhere' at {server.endpoint_url}: there is no such bucket")


@operations
def test_missing_credentials_are_told_with_where_they_are_looked_for(
    operation: Callable[[Store], object],
) -> None:
    store = StoreAddress.of("s3://bucket/prefix", "http://127.0.0.1:9").open()
    text = told(lambda: operation(store))
    assert text.startswith("bucket 'bucket' at http://127.0.0.1:9: no credentials")
    assert "AWS_ACCESS_KEY_ID" in text


def test_half_of_the_credentials_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "alone")
    text = told(lambda: StoreAddress.of("s3://bucket", "http://127.0.0.1:9").open().get("key"))
    assert "credentials" in text


def test_a_profile_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    assert "nobodys" in told(lambda: StoreAddress.of("s3://bucket"))


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
    text = told(lambda: StoreAddress.of(uri, endpoint), UsageError)
    assert "holds credentials" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://bucket?x=1", "s3://bucket/a#b"])
def test_an_s3_uri_without_a_bucket_is_refused(uri: str) -> None:
    assert (
        told(lambda: StoreAddress.of(uri), UsageError)
        == f"{uri!r} is no bucket; allowed: s3://bucket/prefix"
    )


@pytest.mark.parametrize("uri", ["gs://bucket/prefix", "http://host/bucket", "file:///tmp"])
def test_another_kind_of_uri_is_refused(uri: str) -> None:
    assert f"{uri!r} is no store" in told(lambda: StoreAddress.of(uri), UsageError)


def test_an_empty_uri_is_refused() -> None:
    assert "empty" in told(lambda: StoreAddress.of(""), UsageError)


def test_an_endpoint_that_is_no_url_is_named() -> None:
    assert "'127.0.0.1:8333'" in told(
        lambda: StoreAddress.of("s3://bucket", "127.0.0.1:8333"), UsageError
    )


def test_a_bucket_name_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    store = StoreAddress.of(
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/a", "http://127.0.0.1:9"
    ).open()
    assert "Invalid bucket name" in told(lambda: store.get("key"))


@pytest.mark.parametrize("operation", [OPERATIONS["create"], OPERATIONS["put"]])
def test_a_folder_that_cannot_be_written_is_named(
    operation: Callable[[Store], object], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    text = told(lambda: operation(FolderStore(str(tmp_path / "file" / "runs"))))
    assert text.startswith(f"folder {tmp_path}/file/runs: ")
    assert f"Not a directory: {tmp_path}/file is no folder" in text
    (tmp_path / "link").symlink_to("gone")
    text = told(lambda: operation(FolderStore(str(tmp_path / "link" / "runs"))))
    assert f"{tmp_path}/link, a link to gone, is no folder" in text


def test_a_bug_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only failures of the world become StoreErrors."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    store = StoreAddress.of("s3://bucket", "http://127.0.0.1:9").open()

    with pytest.raises(TypeError):
        store.put("key", "no bytes")  # type: ignore[arg-type]


# --- what differs ----------------------------------------------------------------------------
# Each of these is a line of the table in deploy/FAULTS.md.


@pytest.mark.parametrize("name", ["create", "put"])
def test_an_unknown_bucket_is_named_when_written_but_by_seaweedfs_and_a_folder(
    place: Place, name: str
) -> None:
    """Those make it, where the keys allow it; a run into a bucket misspelt then succeeds there."""
    if place.server is None:
        assert OPERATIONS[name](place.store) is not False
        return
    store = StoreAddress.of(f"s3://new-{name}/prefix").open()
    if place.name == "seaweed":
        OPERATIONS[name](store)
        assert keys(store) == ["key"]
    else:
        text = told(lambda: OPERATIONS[name](store))
        assert "there is no such bucket (PutObject prefix/key: 404 NoSuchBucket" in text


def test_the_size_of_an_object_in_an_unknown_bucket_is_that_of_no_object(server: S3Server) -> None:
    """An answer to HEAD has no body that could name the bucket: plans are read with GET first."""
    with pytest.raises(NoSuchKey):
        StoreAddress.of("s3://nowhere/prefix").open().size("key")


UNDER_A_WRONG_TAG = {
    "seaweed": "PreconditionFailed",
    "moto": "PreconditionFailed",
    "rclone": None,
    "juicefs": None,
    "swift": "NotImplemented",
}


def test_what_a_lease_does_without_is_not_everywhere(place: Place, store: Store) -> None:
    """If-Match on a write, and an ETag with what is read."""
    store.put("key", b"")
    if place.server is None:
        return
    client = place.server.client()
    asked: Any = {"Bucket": place.server.bucket, "Key": f"{place.uri.split('/', 3)[3]}/key"}
    refused = code(lambda: client.put_object(Body=b"", IfMatch='"0"', **asked))
    assert refused == UNDER_A_WRONG_TAG[place.name]
    assert ("ETag" in client.get_object(**asked)) is (place.name != "juicefs")


def test_a_key_below_another_is_refused_where_keys_are_files(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file system what has a name is a file or a folder; no key of a run lies so."""
    store.put("a", b"")
    if place.name in ("seaweed", "moto", "swift"):
        store.put("a/b", b"x")
        assert keys(store) == ["a", "a/b"]
    elif place.server is not None:
        below = f"{place.uri.split('/', 3)[3]}/a/b"
        put, bucket = place.server.client().put_object, place.server.bucket
        assert code(lambda: put(Bucket=bucket, Key=below, Body=b"")) == "InternalError"
    else:
        assert "File exists" in told(lambda: store.put("a/b", b"x"))


ANONYMOUS = {
    "seaweed": {"list": "AccessDenied", "get": "AccessDenied", "put": "AccessDenied"},
    "moto": {"list": "500", "get": "403", "put": "403"},
    "rclone": dict.fromkeys(("list", "get", "put"), "UnsupportedAlgorithm"),
    "juicefs": dict.fromkeys(("list", "get", "put"), "AccessDenied"),
    "swift": {"list": "412", "get": "", "put": ""},  # an answer of Swift's own, not S3's
}


def test_nobody_is_let_in_without_keys_and_each_server_says_so_in_its_own_way(
    place: Place, store: Store
) -> None:
    """We never ask so: without keys boto3 does not ask at all."""
    store.put("key", b"")
    server = place.server
    if server is None:
        return
    plain = Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1})
    client = boto3.client("s3", endpoint_url=server.endpoint_url, config=plain)
    asked: Any = {"Bucket": server.bucket, "Key": f"{place.uri.split('/', 3)[3]}/key"}
    assert ANONYMOUS[place.name] == {
        "list": code(lambda: client.list_objects_v2(Bucket=server.bucket)),
        "get": code(lambda: client.get_object(**asked)),
        "put": code(lambda: client.put_object(Body=b"", **asked)),
    }


def test_rclone_says_that_a_key_is_not_there_by_a_code_and_without_a_word(place: Place) -> None:
    """So the code is what we read, never the words."""
    if place.server is None:
        return
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        place.server.client().get_object(Bucket=place.server.bucket, Key="none")
    stated = caught.value.response["Error"]
    word = None if place.name == "rclone" else "The specified key does not exist."
    assert (stated["Code"], stated.get("Message")) == ("NoSuchKey", word)


def code(action: Callable[[], object]) -> str | None:
    """The code that the server refuses with; None where it does not."""
    try:
        action()
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]
    return None


# --- what a lease asks for -------------------------------------------------------------------


def test_an_object_is_read_with_its_age_by_the_stores_clock(store: Store) -> None:
    store.put("key", b"first")
    found = store.read("key")
    assert (found.data, 0 <= found.age_s < 60) == (b"first", True)


def test_the_age_of_what_is_not_there_is_not_told(store: Store) -> None:
    with pytest.raises(NoSuchKey):
        store.read("key")
