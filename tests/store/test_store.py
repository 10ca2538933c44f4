"""One contract for a folder and for S3, and where servers differ."""

import io
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import botocore
import botocore.exceptions
import places
import pytest
from botocore.config import Config
from places import OPERATIONS, Place, error_message

from polyfit.store import s3
from polyfit.store.address import StoreAddress
from polyfit.store.base import Entry, NoSuchKey, Store

BIG = bytes(range(256)) * (9 * 4096)


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
    """A server that ignores the condition overwrites, and answers as after any write."""
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
def test_a_key_that_is_not_there_is_reported(store: Store, read: Callable[[Store], object]) -> None:
    store.put("a/other", b"")
    with pytest.raises(NoSuchKey, match="a/none"):
        read(store)


def test_a_key_in_a_place_that_was_never_written_is_reported(store: Store) -> None:
    with pytest.raises(NoSuchKey):
        store.get("plan.json")


def test_a_place_that_was_never_written_lists_nothing(store: Store) -> None:
    assert keys(store) == keys(store, "shards/") == []


def test_a_listing_has_keys_and_sizes_below_its_prefix(store: Store) -> None:
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


def test_a_listing_goes_beyond_a_page_in_order(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 7)
    wanted = [f"shards/{number:06d}" for number in range(24)]
    for key in reversed(wanted):
        store.put(key, b"")
    assert keys(store, "shards/") == wanted
    if place.server is not None:
        prefix, listed = place.uri.split("/", 3)[3], place.server.client().list_objects_v2
        page = listed(Bucket=place.server.bucket, Prefix=prefix, MaxKeys=7)
        assert (page["KeyCount"], page["IsTruncated"]) == (7, True)


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
    monkeypatch.setattr(places, "_clients", {})
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


def test_integrity_checks_are_found_by_trying(place: Place, store: Store) -> None:
    store.put("key", b"older")
    assert store.probe_integrity("key", b"data") == place.checks
    assert store.get("key") == b"data"


def test_an_object_is_read_with_its_age_by_the_stores_clock(store: Store) -> None:
    store.put("key", b"first")
    found = store.get_with_age("key")
    assert (found.data, 0 <= found.age_s < 60) == (b"first", True)


def test_a_key_that_does_not_exist_has_no_age(store: Store) -> None:
    with pytest.raises(NoSuchKey):
        store.get_with_age("key")


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
        text = error_message(lambda: OPERATIONS[name](store))
        assert "there is no such bucket (PutObject prefix/key: 404 NoSuchBucket" in text


UNDER_A_WRONG_TAG = {
    "seaweed": "PreconditionFailed",
    "moto": "PreconditionFailed",
    "rclone": None,
    "juicefs": None,
    "swift": "NotImplemented",
}


def test_if_match_and_etag_are_not_everywhere(place: Place, store: Store) -> None:
    """If-Match on a write, and an ETag with what is read: a lease needs neither."""
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
        assert "File exists" in error_message(lambda: store.put("a/b", b"x"))


ANONYMOUS = {
    "seaweed": {"list": "AccessDenied", "get": "AccessDenied", "put": "AccessDenied"},
    "moto": {"list": "500", "get": "403", "put": "403"},
    "rclone": dict.fromkeys(("list", "get", "put"), "UnsupportedAlgorithm"),
    "juicefs": dict.fromkeys(("list", "get", "put"), "AccessDenied"),
    "swift": {"list": "412", "get": "", "put": ""},  # an answer of Swift's own, not S3's
}


def test_requests_without_keys_are_refused_by_each_server_in_its_own_way(
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
