"""What is said where a store refuses, points elsewhere, or is none."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from odd import Answer, Asked, OddS3, odd_s3, refusal
from proxy import proxied
from servers import S3Server

from polyfit.cli import app as cli
from polyfit.errors import Exit, StoreError
from polyfit.store import s3, s3_client
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store

OPERATIONS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "create": ("PutObject p/key", lambda store: store.create("key", b"x")),
    "put": ("PutObject p/key", lambda store: store.put("key", b"x")),
    "get": ("GetObject p/key", lambda store: store.get("key")),
    "part": ("GetObject p/key", lambda store: store.get("key", 2, 3)),
    "read": ("GetObject p/key", lambda store: store.get_with_age("key")),
    "size": ("HeadObject p/key", lambda store: store.size("key")),
    "list": ("ListObjectsV2 p/shards/", lambda store: list(store.list("shards/"))),
}
every = pytest.mark.parametrize("name", OPERATIONS)
with_body = pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "size"])

Serve = Callable[[Answer], tuple[OddS3, Store]]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")


@pytest.fixture(scope="module")
def once() -> Iterator[tuple[OddS3, Store]]:
    """One server, and one client that never asks again, for most tests: a client takes time."""
    with pytest.MonkeyPatch.context() as patch, odd_s3(lambda asked: Answer()) as odd:
        patch.setattr(s3_client, "ATTEMPTS", 1)
        patch.setattr(s3, "READ_ATTEMPTS", 1)
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        yield odd, StoreAddress.of("s3://bucket/p", odd.url).open()


@pytest.fixture
def serve(once: tuple[OddS3, Store]) -> Serve:
    """Answer every request the same."""

    def start(answer: Answer) -> tuple[OddS3, Store]:
        once[0].asked.clear()
        once[0].answer = lambda asked: answer
        return once

    return start


def error_of(name: str, store: Store) -> StoreError:
    with pytest.raises(StoreError) as caught:
        OPERATIONS[name][1](store)
    assert str(caught.value).isprintable()
    return caught.value


DENY = "User u is not authorized to perform s3:PutObject on r with an explicit deny in a policy"


@with_body
def test_a_refusal_is_passed_on_with_call_key_status_code_and_sentence(
    serve: Serve, name: str
) -> None:
    odd, store = serve(refusal(403, "AccessDenied", DENY))
    error = error_of(name, store)
    assert str(error) == (
        f"bucket 'bucket' at {odd.url}: the store does not allow this with these keys "
        f'({OPERATIONS[name][0]}: 403 AccessDenied: "{DENY}"); '
        "a run needs s3:PutObject, s3:GetObject and s3:ListBucket there"
    )
    assert not error.transient


def test_a_key_that_may_not_be_used_is_distinguished_from_a_bucket(serve: Serve) -> None:
    _, store = serve(refusal(403, "AccessDenied", "not authorized to perform kms:GenerateDataKey"))
    assert str(error_of("put", store)).endswith(
        "; sse: aws:kms needs kms:GenerateDataKey and kms:Decrypt of its key"
    )


def test_an_answer_without_a_body_is_passed_on_too(serve: Serve) -> None:
    _, store = serve(refusal(403, "AccessDenied", DENY))
    text = str(error_of("size", store))
    assert "does not allow this with these keys (HeadObject p/key: 403 Forbidden);" in text


@pytest.mark.parametrize(
    ("status", "code", "said", "transient"),
    [
        (400, "InvalidStorageClass", "the store refuses this (", False),
        (400, "ExpiredToken", "the session token of these keys is no longer good (", False),
        (
            403,
            "RequestTimeTooSkewed",
            "the clocks of this machine and of the store differ (",
            False,
        ),
        (405, "MethodNotAllowed", "what answers there does not do what S3 does (", False),
        (501, "Unheard", "the store refuses this (", False),
        (409, "OperationAborted", "the store fails (", True),
        (400, "RequestTimeout", "the store fails (", True),
        (429, "TooManyRequests", "the store fails (", True),
        (500, "InternalError", "the store fails (", True),
        (503, "SlowDown", "the store fails (", True),
    ],
)
def test_transient_errors_are_distinguished_from_lasting_ones(
    serve: Serve, status: int, code: str, said: str, transient: bool
) -> None:
    _, store = serve(refusal(status, code, "The store's own\n  sentence."))
    error = error_of("put", store)
    assert said in str(error)
    assert f'(PutObject p/key: {status} {code}: "The store\'s own sentence.")' in str(error)
    assert error.transient is transient


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (
            500,
            "InternalError",
            "We encountered an internal error: write x: No space left on device",
        ),
        (500, "InternalError", "open x: disk quota exceeded"),
        (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
        (507, "Odd", ""),
        (403, "QuotaExceeded", ""),
    ],
)
def test_a_full_store_is_no_transient_error(
    serve: Serve, status: int, code: str, sentence: str
) -> None:
    _, store = serve(refusal(status, code, sentence))
    error = error_of("create", store)
    assert f": the store is full (PutObject p/key: {status} {code}" in str(error)
    assert str(error).endswith("; make room there, or choose another store")
    assert not error.transient


def test_a_second_page_of_a_listing_that_fails_is_reported_with_the_call(serve: Serve) -> None:
    odd, store = serve(Answer())
    item = "<Contents><Key>p/shards/1</Key><Size>1</Size></Contents>"
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"
    first = Answer(body=f"<ListBucketResult>{item}{more}</ListBucketResult>".encode())
    second = refusal(500, "InternalError", "We encountered an internal error. Please try again.")
    odd.answer = lambda asked: second if "continuation-token" in asked.path else first
    error = error_of("list", store)
    assert "the store fails (ListObjectsV2 p/shards/: 500 InternalError: " in str(error)
    assert len(odd.asked) == 2


def test_a_sentence_of_any_length_and_kind_is_one_line(serve: Serve) -> None:
    _, store = serve(refusal(400, "Odd", "a\tb\x85&#x202e;" + "word " * 10_000))
    text = str(error_of("get", store))
    assert '400 Odd: "a b word word' in text
    assert text.endswith(' ...")')
    assert len(text) < 700


@every
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_reported_with_its_target(serve: Serve, name: str, status: int) -> None:
    page = {"Location": "https://u:pw@s3.example:9000/x?token=t", "Content-Type": "text/html"}
    odd, store = serve(Answer(status, page, b"<html>Moved</html>"))
    text = str(error_of(name, store))
    assert f"at {odd.url}: the store redirects to https://s3.example:9000/x (" in text
    assert f"({OPERATIONS[name][0]}: {status} " in text
    assert text.endswith("; if you trust it, set endpoint_url to https://s3.example:9000")
    assert len(odd.asked) <= 2  # itself, and HEAD of the bucket for its region


ELSEWHERE = refusal(301, "PermanentRedirect", "Elsewhere.", **{"x-amz-bucket-region": "eu-north-1"})


@pytest.mark.parametrize("location", ["", "/login", "same"])
def test_a_redirect_to_nowhere_else_leads_back_to_the_endpoint(serve: Serve, location: str) -> None:
    odd, store = serve(Answer(307, {}))
    if location:
        where = f"{odd.url}/login" if location == "same" else location
        odd.answer = lambda asked: Answer(307, {"Location": where})
    text = str(error_of("get", store))
    assert "the store redirects" in text
    assert "; check the endpoint (" in text


def test_an_endpoint_that_cannot_be_read_is_not_repeated(serve: Serve) -> None:
    more = "<Endpoint>http://[</Endpoint>"
    _, store = serve(refusal(400, "PermanentRedirect", "Elsewhere.", more))
    assert "the store redirects, and does not say where to (" in str(error_of("get", store))


def test_a_bucket_of_another_region_is_asked_there() -> None:
    """As on Amazon's: the first answer names the region, by which the next request is signed."""

    def answer(asked: Asked) -> Answer:
        there = "/eu-north-1/s3/" in asked.headers["authorization"]
        return Answer(200, {"ETag": '"x"'}, b"found") if there else ELSEWHERE

    with odd_s3(answer) as odd:
        assert StoreAddress.of("s3://bucket/p", odd.url).open().get("key") == b"found"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["put", "get", "size", "list"])
def test_a_region_that_does_not_help_is_named(name: str) -> None:
    with odd_s3(lambda asked: ELSEWHERE) as odd:
        text = str(error_of(name, StoreAddress.of("s3://bucket/p", odd.url).open()))
    assert "the bucket is in region eu-north-1 (" in text
    assert text.endswith("; set AWS_DEFAULT_REGION=eu-north-1")


PAGES = {
    "bare": b"<html>Sign in</html>",
    "titled": b"<!DOCTYPE html>\n<head><meta x><title>\nSign &amp; in</title></head><br></html>",
    "a part": b"<br><p>Sign in</p>",
}
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("name", "status", "page"),
    [
        *((name, 200, "bare") for name in OPERATIONS),
        *(
            (name, status, "titled")
            for name in ("put", "get", "list")
            for status in (200, 403, 404)
        ),
        *((name, 200, "a part") for name in ("put", "get", "list")),
    ],
)
def test_a_web_page_is_called_one(serve: Serve, name: str, status: int, page: str) -> None:
    odd, store = serve(Answer(status, HTML, PAGES[page]))
    error = error_of(name, store)
    assert f"at {odd.url}: a web page of HTML answers there, not S3 (" in str(error)
    assert f"({OPERATIONS[name][0]}: {status} " in str(error)
    if name != "size":
        assert ("Sign & in" if page == "titled" else "Sign in") in str(error)
    assert "; check the endpoint (endpoint_url" in str(error)
    assert not error.transient


def test_a_web_page_of_a_server_that_is_busy_is_asked_again(serve: Serve) -> None:
    _, store = serve(Answer(503, HTML, PAGES["titled"]))
    error = error_of("get", store)
    assert "(GetObject p/key: 503 Service Unavailable, a web page of HTML)" in str(error)
    assert error.transient


def test_html_that_was_written_as_an_object_is_read(seaweed: S3Server, monkeypatch: Any) -> None:
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    store = StoreAddress.of(seaweed.fresh_uri()).open()
    store.put("report.html", PAGES["titled"])
    assert store.get("report.html") == store.get_with_age("report.html").data == PAGES["titled"]
    assert store.size("report.html") == len(PAGES["titled"])


@pytest.mark.parametrize("name", ["list", "put"])
def test_an_answer_that_is_not_s3s_is_reported_at_once(name: str) -> None:
    answer = Answer(200, {"Content-Type": "application/json"}, b'{"ok": true}')
    with odd_s3(lambda asked: answer) as odd:
        text = str(error_of(name, StoreAddress.of("s3://bucket/p", odd.url).open()))
    assert ": something else answers there, not S3 (" in text
    assert """: 200 OK: "{"ok": true}"); check the endpoint""" in text
    assert len(odd.asked) == 1


@pytest.mark.parametrize("name", ["get", "part", "read", "size"])
@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b""), (204, b""), (200, b'{"ok": true}')],
    ids=["empty", "204", "json"],
)
def test_an_answer_that_no_s3_server_gives_is_no_object(
    serve: Serve, name: str, status: int, body: bytes
) -> None:
    odd, store = serve(Answer(status, {"Content-Type": "application/json"}, body))
    text = str(error_of(name, store))
    assert f"at {odd.url}: something else answers there, not S3 ({OPERATIONS[name][0]}" in text
    assert "; check the endpoint (endpoint_url" in text


def test_a_network_that_asks_for_a_login_says_so(serve: Serve) -> None:
    odd, store = serve(Answer(511, HTML, PAGES["titled"]))
    error = error_of("get", store)
    assert f"at {odd.url}: the network asks for a login before it lets anything through" in str(
        error
    )
    assert str(error).endswith("; log in there first")
    assert not error.transient


@pytest.mark.slow
def test_no_tls_an_authority_that_is_missing_and_a_proxy_that_is_none_are_reported(
    once: tuple[OddS3, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    monkeypatch.setattr(s3, "READ_ATTEMPTS", 1)
    secure = once[0].url.replace("http://", "https://")
    plain = StoreAddress.of("s3://bucket/p", secure).open()
    assert str(error_of("get", plain)).endswith("; an endpoint without TLS begins with http://")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_CA_BUNDLE", "/no/such.pem")
        trusting = StoreAddress.of("s3://bucket/p", secure).open()
        assert "the file that AWS_CA_BUNDLE, " in str(error_of("get", trusting))
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "::")
    proxied = StoreAddress.of("s3://bucket/p", "http://s3.example").open()
    assert "and the proxies (HTTPS_PROXY" in str(error_of("get", proxied))


@pytest.mark.parametrize("name", ["get", "part", "read", "size"])
def test_a_key_that_is_not_there_is_no_refusal(serve: Serve, name: str) -> None:
    _, store = serve(refusal(404, "NoSuchKey", "The key does not exist."))
    with pytest.raises(NoSuchKey, match="key"):
        OPERATIONS[name][1](store)


def test_a_run_into_a_web_page_ends_with_5_and_nothing_to_remove(
    serve: Serve, tmp_path: Path
) -> None:
    odd, _ = serve(Answer(200, {**HTML, "ETag": '"x"'}, PAGES["titled"]))
    spec = tmp_path / "a.yaml"
    spec.write_text(f"name: a\nstore: {{uri: s3://bucket/p, endpoint_url: {odd.url}}}")
    ended = CliRunner().invoke(cli.cli, ["run", str(spec)])
    assert isinstance(ended.exception, StoreError)
    assert ended.exception.exit_code == Exit.STORAGE
    assert "a web page of HTML answers there" in str(ended.exception)
    assert "remove" not in str(ended.exception)


def test_a_real_stores_sentence_arrives(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    with proxied(moto.endpoint_url, lambda request: None) as proxy:
        store = StoreAddress.of("s3://nowhere/p", proxy.url).open()
        text = str(error_of("list", store))
    assert (
        "there is no such bucket (ListObjectsV2 p/shards/: 404 NoSuchBucket: "
        '"The specified bucket does not exist"); correct its name or create it' in text
    )


def test_a_store_that_keeps_nothing_ends_a_run_with_5(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answer:
        kept = asked.method == "PUT"
        return Answer(200, {"ETag": '"x"'}) if kept else refusal(404, "NoSuchKey", "None there.")

    spec = tmp_path / "a.yaml"
    with odd_s3(answer) as odd:
        spec.write_text(f"name: a\nstore: {{uri: s3://bucket/p, endpoint_url: {odd.url}}}")
        ended = CliRunner().invoke(cli.cli, ["run", str(spec)])
    assert isinstance(ended.exception, StoreError)
    assert "plan.json was written and is not there: " in str(ended.exception)
