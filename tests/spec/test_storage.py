"""The section ``store`` of a spec."""

import pytest
from specs import defects, spec

from polyfit.errors import SpecError
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

STORES = [
    ("s3://bucket//x/", "s3://bucket/x"),
    ("s3:/bucket/x", "s3://bucket/x"),
    ("s3://${BUCKET}/${PREFIX:-x}", "s3://ours/x"),
    ("${HERE}/runs", "/here/runs"),
    ("~/runs", "~/runs"),
]


@pytest.mark.parametrize(("uri", "expected"), STORES)
def test_an_address_has_one_form_and_the_text_of_the_spec_stays(
    uri: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET", "ours")
    monkeypatch.setenv("HERE", "/here")
    found = spec(f'store: {{uri: "{uri}"}}')
    assert found.store is not None
    assert (found.store.uri, found.text) == (expected, f'name: test\nstore: {{uri: "{uri}"}}')


def test_variables_are_filled_in_addresses_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "store: {uri: 's3://b/${WHICH}', endpoint_url: 'http://${WHICH}'}"
    plans = []
    for value in ("one", "two"):
        monkeypatch.setenv("WHICH", value)
        found = spec(text)
        assert found.store is not None
        assert found.store.endpoint_url == f"http://{value}"
        plans.append(Plan.of(found).hash)
    assert plans[0] == plans[1]
    assert "found '${WHICH}'" in defects("engine: '${WHICH}'")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "store: {uri: '${UNSET}/x'}",
            "store.uri: the environment has no UNSET, or an empty one; allowed: ${NAME} of a "
            "variable that is set, or ${NAME:-default}",
        ),
        (
            "store: {uri: $HOME/runs}",
            "store.uri: $HOME is not replaced; allowed: ${NAME} of a variable that is set, or "
            "${NAME:-default}; write ${HOME}",
        ),
        (
            "store: {uri: 's3a://b/x'}",
            "store.uri: found 's3a://b/x'; allowed: a folder or s3://bucket/prefix, without "
            "credentials; write s3://b/x",
        ),
        (
            "store: {uri: 's3://bucket/x', endpoint_url: 'http://host/bucket'}",
            "store.endpoint_url: found 'http://host/bucket', which holds the bucket 'bucket'; "
            "allowed: the server of an s3:// URI alone; write http://host",
        ),
        (
            "store: {uri: bucket/x, endpoint_url: 'http://host'}",
            "store.endpoint_url: found 'http://host', which is of no use to a folder; "
            "allowed: the server of an s3:// URI alone; write s3://bucket/x for a bucket",
        ),
        (
            "store: {uri: 'x', endpoint_url: 'http://key:s3cret@host'}",
            "store.endpoint_url: found 'http://***@host'; allowed: an http:// or https:// URL "
            "without credentials, or null",
        ),
    ],
)
def test_a_malformed_address_is_refused_with_what_is_meant(text: str, message: str) -> None:
    assert defects(text) == [f"job.yaml:2: {message}"]


def test_a_secret_of_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIR", "KEY:SECRET")
    assert "SECRET" not in defects("store: {uri: 's3://${PAIR}@bucket'}")[0]


SECRETS = [
    "s3://KEY:SECRET@bucket/prefix",
    "s3://SECRET@bucket",
    "s3://KEY:SEC/SECRET@bucket/x?y",
    "https://KEY:p@SECRET@host",
    "http://KEY:SECRET@host:9000/" + "x" * 100,
]


@pytest.mark.parametrize("uri", SECRETS)
@pytest.mark.parametrize(
    "text",
    [
        "store: {{uri: '{}'}}\nshard: -1",
        "store: {{uri: a, endpoint_url: '{}'}}\nshard: -1",
        "store: '{}'",
        "store: ['{}']",
        "store: {{uri: a, other: '{}'}}",
        "store: {{uri: a, '{}': b}}",
        "store: {{'{0}': a, '{0}': b}}",
        "'{}': b",
        "name: '{}'",
        "fit: {{target: '{}'}}",
        "fit: {{basis: '{}'}}",
        "sweep: {{basis: ['{}']}}",
        "sweep: {{zip: ['{}']}}",
    ],
)
def test_no_credential_of_a_uri_is_echoed(text: str, uri: str) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse(text.format(uri))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("uri", SECRETS[:2])
def test_a_uri_with_credentials_is_refused(uri: str) -> None:
    assert (
        "allowed: a folder or s3://bucket/prefix, without credentials"
        in defects(f"store: {{uri: '{uri}'}}")[0]
    )


@pytest.mark.parametrize("key", ["k", "alias/our-key", "arn:aws:kms:eu-north-1:1:key/0-a"])
@pytest.mark.parametrize("sse", ["aws:kms", "aws:kms:dsse"])
def test_how_objects_are_written_is_no_part_of_the_plan(sse: str, key: str) -> None:
    found = spec(
        f"store: {{uri: s3://b, sse: {sse}, kms_key_id: {key}, storage_class: GLACIER_IR}}"
    )
    assert found.store is not None
    assert (found.store.sse, found.store.kms_key_id) == (sse, key)
    assert found.store.storage_class == "GLACIER_IR"
    assert Plan.of(found).hash == Plan.of(spec("")).hash
