"""Which cluster is joined, and what is no address of one."""

from pathlib import Path

import pytest

import polyfit
from polyfit.errors import UsageError
from polyfit.work.cluster_address import named_cluster


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
