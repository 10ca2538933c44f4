"""A Ray of our own: how it starts, what it needs, what it leaves behind."""

import json
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from launch import clean, command, elsewhere
from limits import HANG_S

from polyfit.errors import ClusterError
from polyfit.work import cluster
from polyfit.work.cluster import Connection, connect, ending_beside

ROOT = Path(__file__).resolve().parents[2]


def test_an_own_ray_starts_without_an_stderr_and_leaves_no_token(
    sweep_path: str, tmp_path: Path
) -> None:
    """A token in the home folder would turn authentication on for the next `ray start`."""
    home = tempfile.mkdtemp(prefix="pf", dir="/tmp")  # Ray's sockets need short paths
    try:
        ours = command("run", sweep_path, "--store", str(tmp_path), "--executor", "ray", "--json")
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 2>&-', "sh", *ours],
            env=clean({"HOME": home, "RAY_TMPDIR": home}), cwd=ROOT, text=True,
            capture_output=True, timeout=HANG_S, check=False,
        )  # fmt: skip
        assert (done.returncode, json.loads(done.stdout)["shards"] > 0) == (0, True)
        assert not Path(home, ".ray").exists()
    finally:
        shutil.rmtree(home)


def test_a_ray_that_does_not_start_says_why_and_where_its_logs_lie(
    sweep_path: str, tmp_path: Path
) -> None:
    """Its first process ends at once, and the limit on address space may be why."""
    home = tempfile.mkdtemp(prefix="pf", dir="/tmp")
    broken = {"RAY_gcs_storage": "nowhere", "RAY_gcs_server_port_wait_time_s": "1"}
    try:
        ours = command("run", sweep_path, "--store", str(tmp_path), "--executor", "ray")
        done = subprocess.run(
            ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", *ours],
            env=clean({"RAY_TMPDIR": home, **broken}), cwd=ROOT, text=True, capture_output=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 6, done.stderr
        (session,) = Path(home).glob("ray/session_2*")
        last = done.stderr.splitlines()[-1]
        assert last.startswith("polyfit: a Ray cluster on this machine cannot be used: ")
        assert f"Ray's logs are in {session}/logs" in last
        assert "4.1 GB of address space (ulimit -v)" in last
    finally:
        shutil.rmtree(home)


def test_whatever_ray_raises_as_it_starts_is_a_cluster_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exception itself is among it, where there is too little address space."""
    ended: list[bool] = []

    def init(**options: Any) -> None:
        raise Exception("timed out\nduring startup")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    with pytest.raises(ClusterError, match="cannot be used: timed out during startup; Ray's logs"):
        connect(None)
    assert ended, "what had been started is left"


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_relative_folder_for_ray_is_refused_before_ray_starts(
    sweep_path: str, tmp_path: Path, name: str
) -> None:
    ours = ("run", sweep_path, "--store", str(tmp_path), "--executor", "ray")
    done = elsewhere({name: "here"}, tmp_path, *ours)
    assert done.returncode == 6, done.stderr
    assert f"no Ray starts with {name}=here" in done.stderr
    assert not (tmp_path / "here").exists()


def test_a_cluster_of_our_own_that_nobody_serves_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gcs = f"127.0.0.1:{server.getsockname()[1]}"
        own = Connection(own_cluster=True, opened=True, gcs=gcs)
        assert not own.has_ended()
    assert own.has_ended()
    assert not replace(own, own_cluster=False).has_ended()
    assert not replace(own, gcs=None).has_ended()


def test_a_question_to_a_cluster_that_has_ended_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "LOOK_EVERY_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = Connection(own_cluster=True, opened=True, gcs=f"127.0.0.1:{server.getsockname()[1]}")
        assert own.ask(lambda: 3) == 3
    answered = threading.Event()
    with pytest.raises(ClusterError, match="the Ray that this run started has ended"):
        own.ask(lambda: answered.wait(HANG_S))
    answered.set()


@pytest.mark.parametrize("failing", [False, True])
def test_results_are_read_while_ray_ends_and_nothing_goes_on_before_it_has(
    monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    read, order = threading.Event(), []

    def shutdown() -> None:
        assert read.wait(HANG_S)
        order.append("ended")

    monkeypatch.setattr(ray, "shutdown", shutdown)
    with suppress(ClusterError), ending_beside():
        Connection(own_cluster=True, opened=True).close()
        order.append("read")
        read.set()
        if failing:
            raise ClusterError("a reason")
    assert order == ["read", "ended"]
    Connection(own_cluster=True, opened=True).close()
    assert order == ["read", "ended", "ended"], "outside it ends before close returns"
