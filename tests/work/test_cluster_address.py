"""Which cluster is joined, and what is no address of one."""

from pathlib import Path

import pytest

import polyfit
from polyfit.errors import UsageError
from polyfit.work.cluster_address import job_facts, job_server_url, named_cluster


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.0.0.1:", ":6379", "127.0.0.1:-5", "127.0.0.1:0", "127.0.0.1:65536",
        "127.0.0.1:6379/", "::1:6379", "a:1,b:1", "a b:1", "http://127.0.0.1:8265", "tcp://a:1",
        "127.0.0.1:\u0661", "anywhere",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["address", "RAY_ADDRESS"])
def test_what_is_no_address_by_its_form_is_refused_before_anything_is_written(
    sweep_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address if name == "RAY_ADDRESS" else "127.0.0.1:6379")
    named = address if name == "address" else None
    with pytest.raises(UsageError) as refused:
        polyfit.execute(sweep_path, store=tmp_path / "out", address=named)
    assert str(refused.value).startswith(f"{name} {address!r}; allowed: HOST:PORT (")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "address",
    ["a.b:6379", " a.b:6379\n", "[fe80::1%eth0]:1", "ray://a:10001", "auto", "local", ""],
)
def test_a_cluster_is_named_in_one_of_rays_forms(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert named_cluster(address) == (address.strip() or None)


@pytest.mark.parametrize(
    ("address", "api_server", "ray_address", "url"),
    [
        ("http://a:1/", "http://b:2", "http://c:3", "http://a:1"),
        (None, "https://b:2/ray/", "http://c:3", "https://b:2/ray"),
        (None, None, "http://c:3", "http://c:3"),
    ],
)
def test_the_job_server_is_the_first_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    api_server: str | None,
    ray_address: str,
    url: str,
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", api_server or "")
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    assert job_server_url(address) == url


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (None, "--address is missing"),
        ("a:8265", "--address 'a:8265'"),
        ("http://", "--address 'http://'"),
        ("http://a:99999", "--address 'http://a:99999'"),
        ("ray://a:10001", "--address 'ray://a:10001'"),
        ("http://me:word@a:1", "--address 'http://***@a:1'"),
        ("http://a:1?x", "--address 'http://a:1?x'"),
    ],
)
def test_what_is_no_url_of_a_job_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str | None, found: str
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(UsageError) as refused:
        job_server_url(address)
    assert str(refused.value).startswith(f"{found}; allowed: http://HOST:PORT or https://")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (None, {}),
        ("[", {}),
        ("[]", {}),
        ("{}", {}),
        ('{"metadata": {"job_submission_id": "a-1"}}', {"job": "a-1"}),
        (
            '{"metadata": {"job_submission_id": "a-1", "nonce": "f0"}}',
            {"job": "a-1", "nonce": "f0"},
        ),
    ],
)
def test_a_driver_knows_its_job(
    monkeypatch: pytest.MonkeyPatch, config: str | None, found: dict[str, str]
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if config is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", config)
    assert job_facts() == found
