"""Whether a Ray head answers at an address, found out soon."""

import socket
from pathlib import Path

import pytest
from launch import polyfit_run
from limits import HANG_S
from servers import RayHead

from polyfit.errors import ClusterError
from polyfit.work import head_check
from polyfit.work.cluster import connect


def test_an_address_where_something_else_answers_is_found_out(
    ray_cluster: RayHead, sweep_path: str, tmp_path: Path
) -> None:
    """Ray itself would ask it again and again, for minutes."""
    dashboard = ray_cluster.dashboard_url.removeprefix("http://")
    env = {k: v for k, v in ray_cluster.env.items() if k.startswith("RAY_AUTH")}
    done = polyfit_run(env, "run", sweep_path, "--store", str(tmp_path), "--address", dashboard)
    assert done.returncode == 6, done.stderr
    assert f"{dashboard} is not the address of a Ray cluster" in done.stderr
    assert "RAY_AUTH" not in done.stderr


def test_an_address_that_listens_and_says_nothing_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert head_check.HEAD_TIMEOUT_S <= 10
    monkeypatch.setattr(head_check, "HEAD_TIMEOUT_S", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterError, match="no Ray answers there"),
    ):
        connect(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_name_that_no_host_can_have_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be reached"):
        connect(f"{'a' * 64}.example:6379")


def test_a_wrong_token_is_reported_as_such(
    ray_cluster: RayHead, sweep_path: str, tmp_path: Path
) -> None:
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    ours = ("run", sweep_path, "--store", str(tmp_path), "--address", ray_cluster.address)
    done = polyfit_run(env, *ours)
    assert done.returncode == 6, done.stderr
    assert "asks for a token, and does not accept this one" in done.stderr
    none = polyfit_run({"HOME": str(tmp_path)}, *ours)
    assert none.returncode == 6, none.stderr
    assert "asks for a token: set RAY_AUTH_MODE=token" in none.stderr


def test_a_cluster_that_is_not_there_is_reported_in_one_line(
    sweep_path: str, tmp_path: Path
) -> None:
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = polyfit_run(
        env, "run", sweep_path, "--store", str(tmp_path), "--address", "127.0.0.1:1", timeout=HANG_S
    )
    assert done.returncode == 6, done.stderr
    assert "polyfit: the Ray cluster at 127.0.0.1:1 cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
