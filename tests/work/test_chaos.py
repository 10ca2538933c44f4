"""Single faults between a real S3 server and its client, and a whole run under many of them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from limits import HANG_S, wait_for
from proxy import Proxy, Request, proxied
from servers import ROOT, RayHead, S3Server

import polyfit
from polyfit.errors import DamagedRun, StoreError
from polyfit.spec.spec import Spec
from polyfit.store import s3_client
from polyfit.store.address import StoreAddress
from polyfit.store.base import Store

SEED = 213  # `make chaos` has fifty others
DATA = bytes(range(256)) * 64


class Table:
    """Faults by the method they befall, each once, in this order."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        self.left = list(faults)

    def __call__(self, request: Request) -> str | None:
        if self.left and self.left[0][0] == request.method:
            return self.left.pop(0)[1]
        return None


Under = Callable[..., tuple[Store, Proxy]]


@pytest.fixture
def under(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Under]:
    """Opens a store behind a proxy with the given faults."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def opened(*faults: tuple[str, str]) -> tuple[Store, Proxy]:
            if "stalled" in dict(faults).values():  # until the client gives the answer up
                monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 10)
            proxy = stack.enter_context(proxied(seaweed.endpoint_url, Table(*faults)))
            return StoreAddress.of(seaweed.fresh_uri(), proxy.url).open(), proxy

        yield opened


def there(store: Store, server: S3Server, key: str) -> bytes | None:
    """An object's bytes past proxy and client."""
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    client = server.client()
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{key}").get("Contents", [])
    if not found:
        return None
    return client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read()


def test_what_is_passed_on_keeps_its_signature(under: Under, seaweed: S3Server) -> None:
    store, _ = under()
    assert store.create("a key/ä", DATA) is True
    assert store.get("a key/ä", 3, 5) == DATA[3:8]
    assert [entry.key for entry in store.list("a")] == ["a key/ä"]
    assert there(store, seaweed, "a key/ä") == DATA


def test_a_lost_answer_of_a_create_finds_its_own_object(under: Under, seaweed: S3Server) -> None:
    """The client asks again by itself, and is told that there is one."""
    store, proxy = under(("PUT", "answer lost"))
    assert store.create("key", DATA) is False
    assert there(store, seaweed, "key") == DATA
    assert proxy.counts == {"answer lost": 1}


def test_what_stalls_is_given_up_and_a_create_that_takes_effect_later_is_there_once(
    under: Under, seaweed: S3Server
) -> None:
    """A create and a get at the same time, since both wait until the client gives them up."""
    store, proxy = under(("GET", "stalled"))
    store.put("other", DATA)
    put, get = Table(("PUT", "stalled")), Table(("GET", "stalled"))
    proxy.choose = lambda request: put(request) or get(request)
    proxy.release.clear()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(store.get, "other")
        assert store.create("key", DATA) is True
        assert other.result() == DATA
    proxy.release.set()
    wait_for(lambda: proxy.late == 2, "the first tries arrive")
    assert there(store, seaweed, "key") == DATA
    assert proxy.counts == {"stalled": 2}


@pytest.mark.parametrize("fault", ["409", "500", "503", "request cut off", "wrong byte there"])
def test_a_create_that_did_not_take_effect_is_tried_again(
    under: Under, seaweed: S3Server, fault: str
) -> None:
    store, proxy = under(("PUT", fault))
    assert store.create("key", DATA) is True
    assert there(store, seaweed, "key") == DATA
    assert proxy.counts == {fault: 1}


@pytest.mark.parametrize("fault", ["request cut off", "wrong byte there"])
def test_what_did_not_arrive_as_it_was_sent_is_not_kept(
    under: Under, seaweed: S3Server, fault: str
) -> None:
    """A server may leave the signed SHA-256 unread, as SeaweedFS does; it reads Content-MD5."""
    store, _ = under(*[("PUT", fault)] * 25)
    with pytest.raises(StoreError) as caught:
        store.put("key", DATA)
    assert caught.value.transient
    assert there(store, seaweed, "key") is None


@pytest.mark.parametrize("fault", ["answer lost", "answer cut off", "500", "503"])
def test_a_get_without_a_whole_answer_is_tried_again(under: Under, fault: str) -> None:
    store, proxy = under(("GET", fault))
    store.put("key", DATA)
    assert store.get("key") == DATA
    assert proxy.counts == {fault: 1}


def test_wrong_bytes_of_a_get_are_found_and_asked_for_again(under: Under) -> None:
    store, proxy = under(*[("GET", "wrong byte back")] * 3)
    store.put("key", DATA)
    assert store.get("key") == DATA
    assert store.get_with_age("key").data == DATA
    assert proxy.counts == {"wrong byte back": 3}


def test_a_server_without_conditions_finds_wrong_bytes_all_the_same(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in rclone.env.items():
        monkeypatch.setenv(name, value)
    faults = Table(("PUT", "wrong byte there"), ("GET", "wrong byte back"))
    with proxied(rclone.endpoint_url, faults) as proxy:
        store = StoreAddress.of(rclone.fresh_uri(), proxy.url).open()
        store.put("key", DATA)
        assert store.get("key") == DATA
        assert proxy.counts.total() == 2


def test_an_object_that_is_always_other_than_written_is_damaged(under: Under) -> None:
    store, _ = under(*[("GET", "wrong byte back")] * 5)
    store.put("key", DATA)
    with pytest.raises(DamagedRun, match="key holds other bytes than were written; remove that"):
        store.get("key")


SPEC = Spec.parse(
    "name: small\nshard: 10\nengine: eager\nfit: {steps: 12, points: 40}\n"
    "sweep: {seed: {count: 30}}\n"
)


def run(store: Store, proxy: Proxy, **options: Any) -> polyfit.Run:
    uri = f"{store.uri}/run"
    return polyfit.execute(SPEC, store=uri, endpoint_url=proxy.url, executor="inline", **options)


def test_no_receipt_is_of_bytes_that_were_wrong_on_the_way(under: Under, seaweed: S3Server) -> None:
    """A page's checksum covers neither its head nor the footer: the digest does."""
    store, proxy = under()
    first = run(store, proxy)
    before = first.manifest
    bucket, _, key = f"{first.uri}/manifest.json".removeprefix("s3://").partition("/")
    seaweed.client().delete_object(Bucket=bucket, Key=key)
    wrong = [True] * 40

    def choose(request: Request) -> str | None:
        shard = request.method == "GET" and request.path.endswith(".parquet") and wrong
        return "wrong byte back" if shard and wrong.pop() and len(wrong) % 3 else None

    proxy.choose = choose
    assert run(store, proxy).manifest == before
    assert proxy.counts["wrong byte back"] > 3


def test_rows_are_read_past_bytes_that_were_wrong_on_the_way(under: Under) -> None:
    store, proxy = under()
    finished = run(store, proxy)
    rows = finished.to_arrow()
    proxy.choose = Table(*[("GET", "wrong byte back")] * 1)
    assert finished.to_arrow().equals(rows)


def test_a_store_that_fails_while_actors_open_it_does_not_end_the_run(
    under: Under, ray_cluster: RayHead, tmp_path: Path
) -> None:
    """An attempt is read once by its driver, then by actors; a call gives up after five tries."""
    store, proxy = under()
    left = [True] * 13 + [False]

    def choose(request: Request) -> str | None:
        opening = request.method == "GET" and "/attempts/" in request.path
        return "500" if opening and left and left.pop() else None

    proxy.choose = choose
    path = tmp_path / "small.yaml"
    path.write_text(SPEC.text + "resources: {actors: {max: 1}}\n")
    where = ("--store", store.uri, "--endpoint-url", proxy.url, "--address", ray_cluster.address)
    done = subprocess.run(
        [sys.executable, "-m", "polyfit", "run", str(path), *where],
        env={**os.environ, **ray_cluster.env},
        cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert proxy.counts == {"500": 13}


def test_a_whole_run_under_faults_has_every_fit_once() -> None:
    """On a cluster that loses an actor and a node, while the store fails in seven ways."""
    done = subprocess.run(
        [sys.executable, "tests/chaos.py", "--at-once", "1", "--seed", str(SEED)],
        cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 runs: every fit once, in all of them" in done.stdout
