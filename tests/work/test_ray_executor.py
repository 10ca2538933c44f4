"""Actors of a real Ray: placed, replaced, followed as the cluster grows and shrinks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from launch import SMALL, clean, command, plant_nodes, polyfit_run, quick
from limits import HANG_S, wait_for
from servers import RayHead, S3Server

import polyfit
from polyfit.engine import cpu
from polyfit.engine.twister_kernel import TwisterKernel
from polyfit.errors import ClusterError
from polyfit.spec.schema import Resources
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work.cluster import Connection
from polyfit.work.ray_executor import ActorHandle, RayExecutor
from polyfit.work.task import Job, Task

ROOT = Path(__file__).resolve().parents[2]


def opened(summary: str, store: S3Server) -> polyfit.Run:
    return polyfit.Run.open(json.loads(summary)["run"], store.endpoint_url)


def test_a_log_says_that_actors_compile_and_that_ray_was_ended_with_the_run(
    tmp_path: Path,
) -> None:
    """Kept machine code comes through a pipe, for which the actor has to wait until SIGTERM goes to
    the whole process group, as by `timeout`."""
    cache, path = tmp_path / "cache", tmp_path / "compiled.yaml"
    cache.mkdir(mode=0o700)
    pipe = cache / f"{cpu._named(TwisterKernel(), cpu.HOST.register_bytes)}.o"
    os.mkfifo(pipe)
    path.write_text(
        "name: compiled\nengine: compiled\nfit: {steps: 20}\nsweep: {seed: {count: 40}}\n"
        "resources: {actors: {max: 1}}\n"
    )
    running = subprocess.Popen(
        quick("run", str(path), "--store", str(tmp_path / "runs"), "--executor", "ray"),
        env=clean({"POLYFIT_CACHE": str(cache)}),
        cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    with running as process:
        try:
            assert process.stderr is not None
            stage = "0 of 40 fits, 0 of 1 shard stored; compiling on 1 of 1 actors"
            assert any(stage in line for line in process.stderr), "it ended without a word of it"
            (status,) = tmp_path.rglob("status.json")
            wait_for(
                lambda: json.loads(status.read_bytes())["stage"] == "compiling on 1 of 1 actors",
                "its status, which is written after the line",
                process,
            )
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == 143, errors
    assert errors.endswith("polyfit: ended by SIGTERM; run the same command to resume\n")
    assert json.loads(status.read_bytes())["state"] == "ended"


def test_an_executor_says_that_it_waits_for_room() -> None:
    executor = object.__new__(RayExecutor)
    executor._handles = [ActorHandle(None, None), ActorHandle(None, None)]
    assert executor.stage() == "waiting for room: 0 of 2 actors ready"
    executor._handles[0].placed = True
    assert executor.stage() is None
    executor._handles[0].compiling = True
    assert executor.stage() == "compiling on 1 of 1 actors"


@pytest.fixture(scope="module")
def joined(
    seaweed: S3Server, ray_cluster: RayHead, tmp_path_factory: pytest.TempPathFactory
) -> "subprocess.CompletedProcess[str]":
    """A run of ``SMALL`` on the cluster, of whose GPUs each actor asks for a share."""
    path = tmp_path_factory.mktemp("joined") / "small.yaml"
    path.write_text(SMALL + "resources: {gpus_per_actor: 0.5, cpus_per_actor: 0.5}\n")
    env = {name: value for name, value in ray_cluster.env.items() if name != "RAY_ADDRESS"}
    done = polyfit_run(
        {**seaweed.env, **env}, "run", str(path), "--store", seaweed.fresh_uri(), "--json",
        "--address", ray_cluster.address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_no_credential_is_left_in_the_store(
    seaweed: S3Server, s3_keys: Mapping[str, str], joined: "subprocess.CompletedProcess[str]"
) -> None:
    bucket, _, prefix = json.loads(joined.stdout)["run"].removeprefix("s3://").partition("/")
    client = seaweed.client()
    listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert len(listed) > 8
    for item in listed:
        data = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        assert s3_keys["AWS_SECRET_ACCESS_KEY"].encode() not in data
        assert s3_keys["AWS_ACCESS_KEY_ID"].encode() not in data


def test_actors_on_ray_make_the_bytes_that_this_process_makes(
    seaweed: S3Server,
    s3_keys: Mapping[str, str],
    joined: "subprocess.CompletedProcess[str]",
    tmp_path: Path,
) -> None:
    there = opened(joined.stdout, seaweed)
    here = polyfit.execute(Spec.parse(SMALL), store=str(tmp_path / "here"), executor="inline")
    assert there.manifest == here.manifest


def test_a_run_joins_a_cluster_whose_actors_hold_shares_of_its_gpus(
    seaweed: S3Server, s3_keys: Mapping[str, str], joined: "subprocess.CompletedProcess[str]"
) -> None:
    assert "on the Ray cluster: 0.5 GPU and 0.5 CPU per actor" in joined.stderr
    assert opened(joined.stdout, seaweed).verify().problems == []


def test_a_machine_that_does_not_see_the_folder_is_named(
    ray_cluster: RayHead, sweep_path: str, tmp_path: Path
) -> None:
    """The driver in a mount namespace of its own, where another file system covers the folder."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    inside = f'mount -t tmpfs none {hidden} && exec "$@"'
    probe = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {hidden}"],
        capture_output=True, check=False,
    )  # fmt: skip
    if probe.returncode:
        pytest.skip("needs the right to make a mount namespace (root)")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, "sh",
         *command("run", sweep_path, "--store", str(hidden))],
        env=clean(ray_cluster.env), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "is not the driver's folder" in done.stderr
    assert "a folder must be shared by all machines, or use s3://" in done.stderr


def test_a_cluster_without_room_is_given_up_with_what_was_asked_and_what_there_is(
    ray_cluster: RayHead, tmp_path: Path
) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(SMALL + "resources: {gpus_per_actor: 8}\n")
    done = polyfit_run(
        ray_cluster.env, "run", str(path), "--store", str(tmp_path), "--placement-timeout", "1"
    )
    assert done.returncode == 6, done.stderr
    assert "each asks for 8 GPU and 1 CPU" in done.stderr
    assert "2 of 2 GPU free" in done.stderr


def test_an_actor_whose_process_does_not_start_is_mentioned_where_there_is_room(
    two_nodes: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "available_resources", lambda: {})
    two_nodes._handles = [ActorHandle(None, None)]
    assert "actors of this run whose process does not start" in two_nodes._no_room()
    two_nodes._resources = Resources(cpus_per_actor=100)
    assert two_nodes._no_room().endswith("0 of 4 CPU free")


def test_a_turn_with_nothing_to_wait_for_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a node's pause lasts there is no actor at all."""
    waits: list[float] = []
    plant_nodes(monkeypatch, "one")
    monkeypatch.setattr(time, "sleep", waits.append)
    job = Job(StoreAddress("/nowhere"), "attempt")
    executor = RayExecutor(job, Resources(), Connection(own_cluster=False, opened=True), 600)
    executor._note_failure("one", ClusterError("killed"), False, time.monotonic())
    failure = executor._failures._failures["one"]
    executor._failures._failures["one"] = replace(failure, until=float("inf"))
    turns = executor.run(deque([Task("compute", 0)]))
    for turn in range(3):
        assert next(turns) is None
        assert len(waits) == turn + 1
        assert min(waits) > 0


def test_an_own_ray_without_a_gpu_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_nodes(monkeypatch, "one")
    monkeypatch.setattr(ray, "available_resources", ray.cluster_resources)
    connection = Connection(own_cluster=True, opened=True)
    job, resources = Job(StoreAddress("/nowhere"), "attempt"), Resources(gpus_per_actor=1)
    turns = RayExecutor(job, resources, connection, 600).run(deque([Task("compute", 0)]))
    with pytest.raises(ClusterError, match=r"placed: each asks for 1 GPU and 1 CPU.* 0 of 0 GPU"):
        next(turns)


ELASTIC = """
    import json, signal, sys
    from chaos import actors
    from ray.cluster_utils import Cluster
    import polyfit
    from polyfit.work import ray_executor
    from polyfit.work.ray_executor import RayExecutor

    ray_executor.SCALE_EVERY_S = 0.5
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    happened, handles, sizes = [], set(), []
    held = 14  # tasks that nobody gets before all has happened that is to happen before them
    scale, send = RayExecutor._scale, RayExecutor._send

    def scaled(self, todo):
        scale(self, todo)
        handles.update(self._handles)
        sizes.append(len(self._handles))

    def sent(self, handle, todo):
        if len(todo) > held:
            send(self, handle, todo)

    RayExecutor._scale, RayExecutor._send = scaled, sent

    def follow(progress):
        global held, node, started
        if not happened and progress.shards_done >= 2:
            assert max(sizes) == 1
            happened.append("a node is added")
            node = cluster.add_node(num_cpus=2)
        if len(happened) == 1 and progress.actors == (3, 3):
            happened.append("an actor is killed")
            started = len(handles)
            actors(cluster_processes())[0].signal(signal.SIGKILL)
            held = 5  # each gets two: it is found dead
        if len(happened) == 2 and len(handles) > started and progress.actors == (3, 3):
            happened.append("the node is lost")
            held = 0
            cluster.remove_node(node, allow_graceful=False)  # kills its raylet

    def cluster_processes():
        return [one.all_processes["raylet"][0].process.pid for one in cluster.list_all_nodes()]

    try:
        run = polyfit.execute(
            polyfit.Spec.load(sys.argv[1]), store=sys.argv[2], executor="ray",
            address=cluster.address, on_progress=follow,
        )
        facts = {"happened": happened, "last": sizes[-1], "problems": run.verify().problems}
        print("FACTS", json.dumps(facts))
    finally:
        cluster.shutdown()
"""


def test_actors_follow_a_cluster_that_grows_loses_an_actor_and_then_a_node(tmp_path: Path) -> None:
    """What was in flight on them is fitted by others, in the same attempt."""
    path = tmp_path / "elastic.yaml"
    path.write_text(
        "name: elastic\nshard: 100\nengine: eager\nfit: {steps: 1000}\n"
        "sweep: {seed: {count: 1800}}\n"
    )
    soon = {"RAY_health_check_period_ms": "1000"}  # a dead node is found sooner
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ELASTIC), str(path), str(tmp_path / "runs")],
        env=clean({"PYTHONPATH": str(ROOT / "tests"), **soon}),
        cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FACTS "))
    assert json.loads(line.removeprefix("FACTS ")) == {
        "happened": ["a node is added", "an actor is killed", "the node is lost"],
        "last": 0,
        "problems": [],
    }
