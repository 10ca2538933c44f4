"""One form for one place, and what is meant where an address is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyfit.store.uri import (
    AddressError,
    expand_variables,
    is_s3,
    mask_credentials,
    normalize_endpoint,
    normalize_uri,
)


def wrong(uri: str) -> tuple[str, str]:
    """What is said of an address that is refused, and what to write."""
    with pytest.raises(AddressError) as caught:
        normalize_uri(uri)
    return str(caught.value), caught.value.advice.removeprefix("; write ")


# --- places ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket//", "s3://bucket"),
        ("s3://bucket//prefix", "s3://bucket/prefix"),
        ("s3://bucket/a//b///c/", "s3://bucket/a/b/c"),
        ("s3://bucket/./a/.", "s3://bucket/a"),
        ("s3:/bucket/x", "s3://bucket/x"),
        ("S3://bucket/x", "s3://bucket/x"),
        ("s3://bucket/x ", "s3://bucket/x"),
        (" s3://bucket/x", "s3://bucket/x"),
        ("s3://bucket/..a/b..", "s3://bucket/..a/b.."),
        ("s3://bucket/mail@host/$1", "s3://bucket/mail@host/$1"),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name//x",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/x",
        ),
        ("runs", "runs"),
        ("./runs", "./runs"),
        ("/a/b", "/a/b"),
        ("~/runs", "~/runs"),
        ("runs:2024", "runs:2024"),
        ("s3/runs", "s3/runs"),
        ("a b", "a b"),
    ],
)
def test_a_place_has_one_form(uri: str, expected: str) -> None:
    assert normalize_uri(uri) == expected
    assert is_s3(expected) is expected.startswith("s3://")


@pytest.mark.parametrize(
    ("uri", "defect", "meant"),
    [
        ("", "is empty", ""),
        (" ", "is empty", ""),
        ("runs ", "begins or ends with a blank", "runs"),
        (" ./runs", "begins or ends with a blank", "./runs"),
        ("s3://arn:aws:s3:::bucket/x", "is no bucket", "s3://bucket/x"),
        ("s3://arn:aws-cn:s3:::bucket", "is no bucket", "s3://bucket"),
        ("s3://arn:aws:s3:eu-west-1:123456789012/x", "is no bucket", ""),
        ("s3://buck et/x", "is no bucket", ""),
        ("s3://buc%6Bet/x", "is no bucket", ""),
        ("a\nb", "is no store", ""),
        ("s3://", "is no bucket", ""),
        ("s3:///x", "is no bucket", ""),
        ("s3://bucket?x=1", "is no bucket", ""),
        ("s3://bucket/a#b", "is no bucket", ""),
        ("s3:bucket/x", "is no store", "s3://bucket/x"),
        ("s3//bucket/x", "is no store", "s3://bucket/x"),
        ("s3a://bucket/x", "is no store", "s3://bucket/x"),
        ("://bucket", "is no store", ""),
        ("//bucket/x", "is no store", ""),
        ("s3://b\uff20c", "is no bucket", ""),
        ("S3N://bucket/x", "is no store", "s3://bucket/x"),
        ("arn:aws:s3:::bucket/x", "is no store", "s3://bucket/x"),
        (
            "arn:aws:s3:eu-west-1:1:accesspoint/a/x",
            "is no store",
            "s3://arn:aws:s3:eu-west-1:1:accesspoint/a/x",
        ),
        ("file:///tmp/runs", "is no store", "/tmp/runs"),
        ("file:/tmp/runs", "is no store", "/tmp/runs"),
        ("gs://bucket/x", "is no store", ""),
        ("gs:/bucket/x", "is no store", ""),
        ("https://host/b", "is no store", "s3://bucket/prefix, and the server as endpoint"),
        (
            "s3://localhost:8333/b/x",
            "names a server",
            "s3://bucket/prefix, and http://localhost:8333 as endpoint",
        ),
        ("s3://bucket/a/../b", "has '..' in its prefix", "s3://bucket/b"),
        ("s3://bucket/../b", "has '..' in its prefix", ""),
        ("s3://key:secret@bucket/x", "holds credentials; boto3's own chain finds them", ""),
        ("s3:/key:secret@bucket/x", "holds credentials; boto3's own chain finds them", ""),
        ("s3://key:sec/ret@bucket/x", "is no bucket", ""),
        ("runs/{day}", "holds {day}, which nothing replaces", "{date}"),
        ("runs/{date:%Y}", "holds {date:%Y}, which nothing replaces", "{date}"),
        ("runs/{{date}}", "holds {{date}}, which nothing replaces", "{date}"),
        ("s3://bucket/{ date }", "holds { date }, which nothing replaces", "{date}"),
        ("runs/{date}/{date!r}", "holds {date!r}, which nothing replaces", "{date}"),
        ("$HOME/runs", "holds $HOME, which nothing replaces here", "its value"),
        ("s3://${BUCKET}/x", "holds ${BUCKET}, which nothing replaces here", "its value"),
        ("s3://${BUCKET-a}/x", "holds ${, which nothing replaces here", "its value"),
    ],
)
def test_an_invalid_uri_is_refused_with_a_correction(uri: str, defect: str, meant: str) -> None:
    assert wrong(uri) == (defect, meant)


@given(st.text(st.sampled_from("s3:/ab.@$~{}? "), max_size=12))
def test_what_is_accepted_is_in_its_one_form(uri: str) -> None:
    try:
        once = normalize_uri(uri)
    except AddressError:
        return
    assert normalize_uri(once) == once
    assert "//" not in once.removeprefix("s3://") or not is_s3(once)


# --- endpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8333", "http://127.0.0.1:8333"),
        ("https://s3.example/", "https://s3.example"),
        ("https://host/storage/v1/s3/", "https://host/storage/v1/s3"),
        ("https://bucket.example.com", "https://bucket.example.com"),
        ("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com",) * 2,
        ("http://bucket:9000", "http://bucket:9000"),
        ("https://s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"),
    ],
)
def test_an_endpoint_has_one_form(url: str, expected: str) -> None:
    assert normalize_endpoint(url, "s3://bucket/x") == normalize_endpoint(url) == expected


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://127.0.0.1:8333/bucket", "http://127.0.0.1:8333"),
        ("https://host/s3/bucket/", "https://host/s3"),
        ("https://id.r2.cloudflarestorage.com/bucket", "https://id.r2.cloudflarestorage.com"),
        ("https://bucket.id.r2.cloudflarestorage.com", "https://id.r2.cloudflarestorage.com"),
        ("https://bucket.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"),
        ("https://bucket.s3-eu-west-1.amazonaws.com", "https://s3-eu-west-1.amazonaws.com"),
        ("https://bucket.s3.us-west-004.backblazeb2.com", "https://s3.us-west-004.backblazeb2.com"),
        ("https://bucket.nyc3.digitaloceanspaces.com", "https://nyc3.digitaloceanspaces.com"),
        ("https://bucket.storage.googleapis.com", "https://storage.googleapis.com"),
        ("http://bucket.s3.localhost:8333", "http://s3.localhost:8333"),
    ],
)
def test_an_endpoint_that_holds_the_bucket_is_refused_with_the_server_alone(
    url: str, meant: str
) -> None:
    with pytest.raises(AddressError, match="holds the bucket 'bucket'") as caught:
        normalize_endpoint(url, "s3://bucket/x")
    assert caught.value.advice == f"; write {meant}"
    assert normalize_endpoint(meant, "s3://bucket/x") == meant
    assert normalize_endpoint(url, "s3://another/x")


@pytest.mark.parametrize(
    ("url", "defect"),
    [
        ("", "is no endpoint"),
        ("localhost:8333", "is no endpoint"),
        ("ftp://host", "is no endpoint"),
        ("http://", "is no endpoint"),
        ("http://[::1", "is no endpoint"),
        ("http://host:99999", "is no endpoint"),
        ("http://host:0", "is no endpoint"),
        ("http://host?x", "is no endpoint"),
        ("http://ho st", "is no endpoint"),
        ("http://{date}", "is no endpoint"),
        ("http://host/{date}", "is no endpoint"),
        ("http://key:secret@host", "holds credentials; boto3's own chain finds them"),
    ],
)
def test_what_is_no_endpoint_is_refused(url: str, defect: str) -> None:
    with pytest.raises(AddressError) as caught:
        normalize_endpoint(url)
    assert str(caught.value) == defect


def test_a_folder_has_no_endpoint() -> None:
    with pytest.raises(AddressError, match="of no use to a folder") as caught:
        normalize_endpoint("http://host", "bucket/x")
    assert caught.value.advice == "; write s3://bucket/x for a bucket"


# --- variables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://${BUCKET}/x", "s3://ours/x"),
        ("s3://${BUCKET:-other}/${PREFIX:-x/y}", "s3://ours/x/y"),
        ("${EMPTY:-a}", "a"),
        ("${TOKENS_BUCKET:-b}", "b"),
        *(
            (f"${{{name}:-b}}", "b")
            for name in ("PATTERN", "KMS_KEY", "KMS_KEY_ID", "PWD", "PASSAGE")
        ),
        ("${BUCKET}${BUCKET}", "oursours"),
        ("${HOLDS}", "${BUCKET}"),
        ("a$", "a$"),
        ("$1/$$", "$1/$$"),
    ],
)
def test_a_variable_is_replaced_once(text: str, expected: str) -> None:
    environment = {"BUCKET": "ours", "EMPTY": "", "HOLDS": "${BUCKET}"}
    assert expand_variables(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "defect", "meant"),
    [
        ("s3://${BUCKET}/x", "the environment has no BUCKET, or an empty one", ""),
        ("${EMPTY}", "the environment has no EMPTY, or an empty one", ""),
        ("${EMPTY:-}", "the environment has no EMPTY, or an empty one", ""),
        ("$HOME/runs", "$HOME is not replaced", "; write ${HOME}"),
        ("${HOME-x}", "${ is not replaced", ""),
        ("${}", "${ is not replaced", ""),
        ("${HOME", "${ is not replaced", ""),
        ("${A:-${HOME}}", "${ is not replaced", ""),
        (
            "s3://b/${AWS_SECRET_ACCESS_KEY}",
            "${AWS_SECRET_ACCESS_KEY} would put a credential into an address",
            "",
        ),
        *(
            (f"${{{name}:-x}}", f"${{{name}}} would put a credential into an address", "")
            for name in ("MY_TOKEN", "GITHUB_PAT", "PASS", "PGPASSWORD", "DB_PWD", "KEY", "API_KEY")
        ),
    ],
)
def test_a_variable_without_a_value_or_of_another_form_is_refused(
    text: str, defect: str, meant: str
) -> None:
    with pytest.raises(AddressError) as caught:
        expand_variables(text, {"HOME": "/home/a", "EMPTY": "", "AWS_SECRET_ACCESS_KEY": "s3cret"})
    assert (str(caught.value), caught.value.advice) == (defect, meant)


# --- credentials -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "s3://KEY:SECRET@bucket/x",
        "found 's3:/KEY:SECRET@bucket'; allowed",
        "s3:KEY:SECRET@bucket",
        "//SECRET@host",
        "{'a':'s3://KEY:p@SECRET@host'}",
    ],
)
def test_what_is_before_an_at_sign_is_not_shown(text: str) -> None:
    assert "SECRET" not in mask_credentials(text)
    assert "***@" in mask_credentials(text)


@pytest.mark.parametrize("text", ["s3://bucket/x", "a@b", "job.yaml:3: store.uri: found 'a'"])
def test_what_holds_no_credential_is_shown_as_it_is(text: str) -> None:
    assert mask_credentials(text) == text
