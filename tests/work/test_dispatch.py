"""Through real Ray actors into a real S3 server, as processes, the three ways a user runs a job."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
import venv
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from deployed import documents, pod_templates, text
from limits import HANG_S, wait_for
from servers import RayHead, S3Server, descendants, ray_head, ray_node

import polyfit
from polyfit.engine import cpu
from polyfit.engine.initial import TwisterKernel
from polyfit.errors import ClusterError, PolyfitError, StoreError, UsageError
from polyfit.run.keys import lease_key
from polyfit.spec.plan import Plan
from polyfit.spec.schema import Resources
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work import dispatch
from polyfit.work.dispatch import (
    _RAYLET_POLLS,
    Connection,
    Job,
    RayExecutor,
    Task,
    _Worker,
    connect,
    named_cluster,
)

ROOT = Path(__file__).resolve().parents[2]
SMALL = "name: small\nshard: 100\nfit: {steps: 20}\nsweep: {degree: [1, 3], seed: {count: 250}}\n"
HUNDRED_THOUSAND = (
    "name: many\nfit: {steps: 100, points: 100}\nsweep: {degree: [2, 3], seed: {count: 50000}}\n"
    "resources: {actors: {max: 2}}\n"
)


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without a cluster's or a store's, plus ``env``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **env}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "polyfit", *arguments]


def polyfit_run(
    env: Mapping[str, str], *arguments: str, timeout: float = HANG_S
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=clean(env), cwd=ROOT, text=True, capture_output=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def opened(summary: str, store: S3Server) -> polyfit.Run:
    return polyfit.Run.open(json.loads(summary)["run"], store.endpoint_url)


@pytest.fixture
def keys(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The store's keys, in this process too."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    return seaweed.env


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def test_100_000_fits_on_two_actors_of_an_own_ray_come_to_rest_in_s3(
    seaweed: S3Server, keys: Mapping[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(HUNDRED_THOUSAND)
    uri = seaweed.fresh_uri()
    done = polyfit_run(keys, "run", str(path), "--store", uri, "--executor", "ray", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["fits"] == 100_000
    verified = polyfit_run(keys, "verify", summary["run"], "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["fits"] == 100_000
    host = seaweed.endpoint_url.removeprefix("http://")
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        folder = tmp_path / "copy"
        _download(seaweed, summary["run"], folder)
        found = connection.execute(
            "select count(*), count(distinct fit), min(fit), max(fit) "
            f"from read_parquet('{folder}/*.parquet')"
        ).fetchone()
    assert found == (100_000, 100_000, 0, 99_999), host


def _download(server: S3Server, uri: str, folder: Path) -> None:
    """The shards as files: DuckDB's own S3 client is an extension that has to be fetched."""
    folder.mkdir()
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = server.client()
    listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/shards/")
    for item in listed["Contents"]:
        client.download_file(bucket, item["Key"], str(folder / Path(item["Key"]).name))


def test_a_log_says_while_actors_compile_that_they_do(tmp_path: Path) -> None:
    """With kept machine code that comes through a pipe, for which the actor has to wait."""
    cache, path = tmp_path / "cache", tmp_path / "compiled.yaml"
    cache.mkdir(mode=0o700)
    pipe = cache / f"{cpu._named(TwisterKernel(), cpu.HOST.register_bytes)}.o"
    os.mkfifo(pipe)
    path.write_text(
        "name: compiled\nengine: compiled\nfit: {steps: 20}\nsweep: {seed: {count: 40}}\n"
        "resources: {actors: {max: 1}}\n"
    )
    running = subprocess.Popen(
        command("run", str(path), "--store", str(tmp_path / "runs"), "--executor", "ray"),
        env=clean({"POLYFIT_CACHE": str(cache)}),
        cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
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
            with suppress(OSError):  # nobody reads it any more
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            _, told = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, told


def test_an_executor_says_that_it_waits_for_room() -> None:
    executor = object.__new__(RayExecutor)
    executor._workers = [_Worker(None, None), _Worker(None, None)]
    assert executor.at() == "waiting for room: 0 of 2 actors ready"
    executor._workers[0].placed = True
    assert executor.at() is None
    executor._workers[0].compiling = True
    assert executor.at() == "compiling on 1 of 1 actors"


def test_actors_on_ray_make_the_bytes_that_this_process_makes(
    seaweed: S3Server, keys: Mapping[str, str], ray_cluster: RayHead, small: str, tmp_path: Path
) -> None:
    done = polyfit_run(
        {**keys, **ray_cluster.env}, "run", small, "--store", seaweed.fresh_uri(), "--json"
    )
    assert done.returncode == 0, done.stderr
    there = opened(done.stdout, seaweed)
    here = polyfit.execute(Spec.parse(SMALL), store=str(tmp_path / "here"), executor="inline")
    assert there.manifest == here.manifest


def test_a_run_joins_a_cluster_whose_actors_hold_shares_of_its_gpus(
    seaweed: S3Server, keys: Mapping[str, str], ray_cluster: RayHead, tmp_path: Path
) -> None:
    path = tmp_path / "shares.yaml"
    path.write_text(SMALL + "resources: {gpus_per_actor: 0.5, cpus_per_actor: 0.5}\n")
    env = {k: v for k, v in ray_cluster.env.items() if k != "RAY_ADDRESS"}
    done = polyfit_run(
        {**keys, **env}, "run", str(path), "--store", seaweed.fresh_uri(), "--json",
        "--address", ray_cluster.address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on the Ray cluster: 0.5 GPU and 0.5 CPU per actor" in done.stderr
    assert opened(done.stdout, seaweed).verify().problems == []


def test_a_submitted_job_runs_with_the_nodes_own_keys(
    seaweed: S3Server, keys: Mapping[str, str], ray_cluster: RayHead, tmp_path: Path
) -> None:
    """`ray job submit --working-dir .` with token authentication; no key travels."""
    uri = seaweed.fresh_uri()
    plan = Plan.of(Spec.load(ROOT / "jobs" / "stability.yaml"))
    submitter = {
        k: v for k, v in ray_cluster.env.items() if k.startswith(("RAY_AUTH", "RAY_API_SERVER"))
    }
    job = [
        str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", ".",
        "--runtime-env-json", '{"excludes": [".venv", ".local", ".git", "runs"]}', "--",
        "python", "-m", "polyfit", "run", "jobs/stability.yaml", "--store", uri,
    ]  # fmt: skip
    done = subprocess.run(
        job, env=clean(submitter), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 GPU and 1 CPU per actor" in done.stdout
    run = polyfit.Run.open(f"{uri}/stability/{plan.run_id}", seaweed.endpoint_url)
    assert run.verify().problems == []
    for secret in (keys["AWS_SECRET_ACCESS_KEY"], keys["AWS_ACCESS_KEY_ID"]):
        assert secret not in done.stdout + done.stderr


LONG = "name: long\nshard: 20\nengine: eager\nfit: {steps: 20000}\nsweep: {seed: {count: 8000}}\n"


def test_a_stopped_job_lets_its_shards_come_to_rest_and_the_run_go(
    seaweed: S3Server, ray_cluster: RayHead, tmp_path: Path
) -> None:
    """By the command that ends the head's pod; Ray's own 3 s would be too few."""
    from ray.job_submission import JobSubmissionClient

    spec = tmp_path / "long.yaml"
    spec.write_text(LONG)
    uri = seaweed.fresh_uri()
    home = f"{uri.partition('polyfit/')[2]}/long/{Plan.of(Spec.load(spec)).run_id}"
    jobs, store = JobSubmissionClient(ray_cluster.dashboard_url), seaweed.client()
    job = jobs.submit_job(
        entrypoint=shlex.join(command("run", str(spec), "--store", uri)),
        runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(int(HANG_S))}},
    )
    while not _listed(store, f"{home}/shards/"):  # from then on others are in flight
        assert not jobs.get_job_status(job).is_terminal(), jobs.get_job_logs(job)
        time.sleep(0.2)

    stopped = subprocess.run(
        [*_pre_stop(ray_cluster), job], env=clean(ray_cluster.env), text=True, capture_output=True,
        timeout=HANG_S, check=False,
    )  # fmt: skip

    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    log = jobs.get_job_logs(job)
    assert "shards in flight have 25 s to come to rest" in log
    assert "ended by SIGTERM; the same command goes on from here" in log
    lease = store.get_object(Bucket=seaweed.bucket, Key=f"{home}/{lease_key(1)}")["Body"].read()
    assert json.loads(lease)["released"] is True


def _pre_stop(ray_cluster: RayHead) -> list[str]:
    """The preStop command of the head's pod, less the job, for this cluster."""
    (rayjob,) = documents(text("rayjob.yaml"))
    (container,) = pod_templates(rayjob)["head"]["containers"]
    ray, *words, _ = container["lifecycle"]["preStop"]["exec"]["command"]
    there = [word.replace("http://127.0.0.1:8265", ray_cluster.dashboard_url) for word in words]
    return [str(Path(sys.executable).with_name(ray)), *there]


def test_no_credential_is_left_in_the_store(
    seaweed: S3Server, keys: Mapping[str, str], ray_cluster: RayHead, small: str
) -> None:
    uri = seaweed.fresh_uri()
    done = polyfit_run({**keys, **ray_cluster.env}, "run", small, "--store", uri)
    assert done.returncode == 0, done.stderr
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = seaweed.client()
    listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert len(listed) > 8
    for item in listed:
        data = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        assert keys["AWS_SECRET_ACCESS_KEY"].encode() not in data
        assert keys["AWS_ACCESS_KEY_ID"].encode() not in data


def test_kill_9_half_way_then_the_same_command_fits_only_what_is_missing(
    seaweed: S3Server, keys: Mapping[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "killed.yaml"
    path.write_text(
        "name: killed\nshard: 400\nfit: {steps: 2000000}\nrecord: none\n"
        "sweep: {seed: {count: 12000}}\n"
        "resources: {actors: {max: 2}}\n"
    )
    plan = Plan.of(Spec.load(path))
    uri = seaweed.fresh_uri()
    ours = ("run", str(path), "--store", uri, "--executor", "ray")
    shards = f"{uri.partition('polyfit/')[2]}/killed/{plan.run_id}/shards/"
    with subprocess.Popen(
        command(*ours), env=clean(keys), cwd=ROOT, stderr=subprocess.DEVNULL, text=True
    ) as process:
        client = seaweed.client()
        wait_for(lambda: len(_listed(client, shards)) >= 5, "five shards at rest", process)
        family = descendants(process.pid)
        actors = [member.pid for member in family if b"_Actor" in _title(member.pid)]
        assert actors
        process.send_signal(signal.SIGKILL)
    # What its actors have in hand still comes to rest, until Ray has ended them.
    for member in family:
        if member.pid in actors:
            assert member.ends_within(HANG_S), f"actor {member.pid} outlives its driver"
    for member in family:  # Ray's own agents stay behind
        member.signal(signal.SIGKILL)
    left = _listed(client, shards)
    assert 5 <= len(left) < plan.shards, "the driver was not killed half-way"
    done = polyfit_run(keys, *ours)
    assert done.returncode == 0, done.stderr
    assert f"{len(left)} of {plan.shards} shards are at rest already" in done.stderr
    after = _listed(client, shards)
    assert {key: after[key] for key in left} == left, "a shard at rest was written again"
    verified = polyfit_run(keys, "verify", f"{uri}/killed/{plan.run_id}")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("intact: 12,000 fits, each once")


def _title(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _listed(client: Any, prefix: str) -> dict[str, Any]:
    found = client.list_objects_v2(Bucket="polyfit", Prefix=prefix).get("Contents", [])
    return {item["Key"]: item["LastModified"] for item in found}


def test_sigterm_drains_with_its_own_exit_code_and_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "drained.yaml"
    path.write_text(
        "name: drained\nshard: 100\nfit: {steps: 2000000}\nrecord: none\n"
        "sweep: {seed: {count: 3000}}\n"
    )
    ours = command("run", str(path), "--store", str(tmp_path / "runs"), "--executor", "ray")
    with subprocess.Popen(
        ours, env=clean({}), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: list(tmp_path.rglob("*.parquet")), "a shard at rest", process)
        process.terminate()
        _, told = process.communicate(timeout=HANG_S)
    assert process.returncode == 143, told
    assert "the same command goes on from here" in told
    again = polyfit_run({}, *ours[3:])
    assert again.returncode == 0, again.stderr
    assert "shards are at rest already" in again.stderr


def test_an_actor_that_has_no_credentials_says_so(
    seaweed: S3Server, keys: Mapping[str, str], small: str
) -> None:
    """The driver has keys, the nodes of the cluster have none."""
    with ray_head(num_cpus=1, num_gpus=0) as head:
        done = polyfit_run({**keys, **head.env}, "run", small, "--store", seaweed.fresh_uri())
    assert done.returncode == 5, done.stderr
    assert "no credentials on this machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_that_does_not_see_the_folder_is_told_of(
    ray_cluster: RayHead, small: str, tmp_path: Path
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
         *command("run", small, "--store", str(hidden))],
        env=clean(ray_cluster.env), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "is not the driver's on" in done.stderr
    assert "a folder must be shared by all machines, or use s3://" in done.stderr


def test_a_cluster_without_room_is_given_up_with_what_was_asked_and_what_there_is(
    ray_cluster: RayHead, tmp_path: Path
) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(SMALL + "resources: {gpus_per_actor: 8}\n")
    done = polyfit_run(
        ray_cluster.env, "run", str(path), "--store", str(tmp_path), "--placement-timeout", "3"
    )
    assert done.returncode == 6, done.stderr
    assert "each asks for 8 GPU and 1 CPU" in done.stderr
    assert "2 of 2 GPU free" in done.stderr


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with all packages of ours but polyfit."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    # Those that are installed in place are named by files like this one, which do not nest.
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))
    return str(folder / "bin" / "python")


def test_a_node_without_polyfit_is_named_and_the_run_goes_on_where_there_is_another(
    bare: str, small: str, tmp_path: Path
) -> None:
    with ray_head(num_cpus=1, num_gpus=0, python=bare) as head:
        alone = elsewhere(head.env, tmp_path, "run", small, "--store", str(tmp_path / "alone"))
        with ray_node(head, "127.0.0.2"):
            done = elsewhere(head.env, tmp_path, "run", small, "--store", str(tmp_path / "two"))
    missing = rf"no actor starts on node \S+ \({re.escape(socket.gethostname())}\): "
    missing += r"ModuleNotFoundError: No module named 'polyfit'"
    assert alone.returncode == 6, alone.stderr
    assert re.search(f"^polyfit: {missing}$", alone.stderr, re.MULTILINE), alone.stderr
    assert "free" not in alone.stderr
    assert done.returncode == 0, done.stderr
    assert len(re.findall(f"{missing}; going on without it$", done.stderr, re.MULTILINE)) == 1
    assert "Traceback" not in alone.stderr + done.stderr


def elsewhere(
    env: Mapping[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """As users run it: not in our repository, whose folder Ray would pass on to the nodes."""
    return subprocess.run(
        command(*arguments), env=clean(env), cwd=folder, text=True, capture_output=True,
        timeout=HANG_S, check=False,
    )  # fmt: skip


def test_a_node_short_of_memory_is_tried_again_and_then_named(small: str, tmp_path: Path) -> None:
    env = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    done = polyfit_run(env, "run", small, "--store", str(tmp_path), "--executor", "ray")
    assert done.returncode == 6, done.stderr
    cause = r"no actor starts on node \S+ \(.*\): killed for memory: Memory on the node .* limit"
    assert len(re.findall(rf"{cause} .*; trying again$", done.stderr, re.MULTILINE)) == 1
    assert re.search(f"^polyfit: {cause}", done.stderr, re.MULTILINE), done.stderr


FULL = """\
import os, sys
from collections import deque
from polyfit.work.dispatch import Job, RayExecutor, Task, connect
from polyfit.errors import ClusterError
from polyfit.spec.schema import Resources
from polyfit.store.address import StoreAddress

connection = connect(None)
try:
    with open(f"{os.environ['RAY_TMPDIR']}/fill", "wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
except OSError:
    pass
job = Job(StoreAddress("/nowhere"), "attempt")
executor = RayExecutor(job, Resources(actors={"max": 1}), connection, on_message=print)
try:
    for outcome in executor.run(deque([Task("compute", 0)])):
        assert outcome is None, outcome
except ClusterError as error:
    print(error)
"""


def test_a_node_whose_disk_is_full_is_named(tmp_path: Path) -> None:
    """Ray's temporary folder on a small disk of its own, in a mount namespace."""
    disk = tempfile.mkdtemp(prefix="pf", dir="/tmp")
    mount = f"mount -t tmpfs -o size=64m none {disk}"
    try:
        probe = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False
        )
        if probe.returncode:
            pytest.skip("needs the right to make a mount namespace (root)")
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh",
             sys.executable, "-c", FULL],
            env=clean({"RAY_TMPDIR": disk}), cwd=tmp_path, text=True, capture_output=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
    finally:
        Path(disk).rmdir()
    told = [line for line in done.stdout.splitlines() if line.startswith("no actor starts on")]
    assert len(told) == 2, done.stdout + done.stderr
    for line in told:
        cause = rf"node \S+ \(.*\): the disk of Ray's temporary folder {disk}/ray/\S+ is full: "
        assert re.search(cause, line), line
    assert told[0].endswith("; trying again")


def nodes(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """A cluster of these nodes; nothing runs on them."""
    import ray

    found = [
        {"NodeID": f"id-{address}", "NodeManagerAddress": address, "Alive": True,
         "NodeManagerHostname": "host", "Resources": {"CPU": 2.0}}
        for address in addresses
    ]  # fmt: skip
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0 * len(addresses)})


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> RayExecutor:
    nodes(monkeypatch, "one", "other")
    job = Job(StoreAddress("/nowhere"), "attempt")
    return RayExecutor(job, Resources(), Connection(ours=False, began=True), on_message=told.append)


def test_what_may_pass_is_tried_again_with_growing_pauses_and_told_once(
    two_nodes: RayExecutor, told: list[str]
) -> None:
    pauses = []
    for _ in range(dispatch.START_TRIES - 1):
        assert two_nodes._wanted(100, []) in (2, 4)
        two_nodes._note_trouble("one", ClusterError("killed"), False, time.monotonic())
        trouble = two_nodes._troubles["one"]
        pauses.append(trouble.until - trouble.at)
        assert two_nodes._wanted(100, []) == 2, "an actor is wanted where none starts"
        # One that was started before that failure says nothing more.
        two_nodes._note_trouble("one", ClusterError("killed"), False, trouble.at - 1)
    assert pauses == pytest.approx([1.0, 2.0, 4.0])
    assert told == ["no actor starts on node one (host): killed; trying again"]
    two_nodes._note_trouble("one", ClusterError("killed"), False, time.monotonic())
    assert told[1:] == ["no actor starts on node one (host): killed; going on without it"]
    assert two_nodes._troubles["one"].until == float("inf")


def test_a_node_that_has_held_an_actor_is_tried_for_as_long_as_the_run_waits(
    two_nodes: RayExecutor,
) -> None:
    two_nodes._note_ready(dispatch._Ready("id-one", "cpu"))
    for _ in range(20):
        two_nodes._note_trouble("one", ClusterError("killed"), False, time.monotonic())
    trouble = two_nodes._troubles["one"]
    assert trouble.until - trouble.at == pytest.approx(dispatch.START_LONGEST_PAUSE_S)
    two_nodes._note_ready(dispatch._Ready("id-one", "cpu"))
    assert two_nodes._troubles == {}


@pytest.mark.parametrize(
    ("errors", "kind"),
    [((ClusterError, ClusterError), ClusterError), ((StoreError, StoreError), StoreError),
     ((StoreError, ClusterError), ClusterError)],
)  # fmt: skip
def test_where_no_node_can_start_an_actor_the_run_ends_with_every_cause(
    two_nodes: RayExecutor, errors: tuple[type[PolyfitError], ...], kind: type[PolyfitError]
) -> None:
    for address, error in zip(("one", "other"), errors, strict=True):
        assert two_nodes._wanted(100, []) > 0
        two_nodes._note_trouble(address, error(f"cause {address}"), True, time.monotonic())
    with pytest.raises(kind) as caught:
        two_nodes._wanted(100, [])
    assert type(caught.value) is kind
    assert str(caught.value).splitlines() == [
        "no actor starts on node one (host): cause one",
        "no actor starts on node other (host): cause other",
    ]


def test_an_actor_whose_process_does_not_come_up_is_thought_of_where_there_is_room(
    two_nodes: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "available_resources", lambda: {})
    two_nodes._workers = [_Worker(None, None)]
    assert "actors of this run whose process does not come up" in two_nodes._no_room()
    two_nodes._resources = Resources(cpus_per_actor=100)
    assert two_nodes._no_room().endswith("0 of 4 CPU free")


def test_a_turn_with_nothing_to_wait_for_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a node's pause lasts there is no actor at all."""
    waits: list[float] = []
    nodes(monkeypatch, "one")
    monkeypatch.setattr(time, "sleep", waits.append)
    job = Job(StoreAddress("/nowhere"), "attempt")
    executor = RayExecutor(job, Resources(), Connection(ours=False, began=True))
    executor._note_trouble("one", ClusterError("killed"), False, time.monotonic())
    executor._troubles["one"].until = float("inf")
    turns = executor.run(deque([Task("compute", 0)]))
    for turn in range(3):
        assert next(turns) is None
        assert len(waits) == turn + 1
        assert min(waits) > 0


def test_an_address_where_something_else_answers_is_found_out(
    ray_cluster: RayHead, small: str, tmp_path: Path
) -> None:
    """Ray itself would ask it again and again, for minutes."""
    dashboard = ray_cluster.dashboard_url.removeprefix("http://")
    env = {k: v for k, v in ray_cluster.env.items() if k.startswith("RAY_AUTH")}
    done = polyfit_run(env, "run", small, "--store", str(tmp_path), "--address", dashboard)
    assert done.returncode == 6, done.stderr
    assert f"{dashboard} is not the address of a Ray cluster" in done.stderr
    assert "RAY_AUTH" not in done.stderr


def test_an_address_that_listens_and_says_nothing_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert dispatch.KNOCK_TIMEOUT_S <= 10
    monkeypatch.setattr(dispatch, "KNOCK_TIMEOUT_S", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterError, match="no Ray answers there"),
    ):
        connect(f"127.0.0.1:{server.getsockname()[1]}")


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
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address if name == "RAY_ADDRESS" else "127.0.0.1:6379")
    named = address if name == "address" else None
    with pytest.raises(UsageError) as refused:
        polyfit.execute(small, store=tmp_path / "out", address=named)
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


def test_a_name_that_no_host_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be reached"):
        connect(f"{'a' * 64}.example:6379")


def test_an_own_ray_starts_without_an_stderr(small: str, tmp_path: Path) -> None:
    ours = command("run", small, "--store", str(tmp_path), "--executor", "ray", "--json")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *ours],
        env=clean({}), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["shards"] > 0) == (0, True)


def test_a_wrong_token_is_told_as_such(ray_cluster: RayHead, small: str, tmp_path: Path) -> None:
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    ours = ("run", small, "--store", str(tmp_path), "--address", ray_cluster.address)
    done = polyfit_run(env, *ours)
    assert done.returncode == 6, done.stderr
    assert "asks for a token, and not for this one" in done.stderr
    none = polyfit_run({"HOME": str(tmp_path)}, *ours)
    assert none.returncode == 6, none.stderr
    assert "asks for a token: set RAY_AUTH_MODE=token" in none.stderr


def test_a_ray_that_does_not_start_says_why_and_where_its_logs_lie(
    small: str, tmp_path: Path
) -> None:
    """Too little address space: Ray's own words for that are a bare Exception's."""
    home = tempfile.mkdtemp(prefix="pf", dir="/tmp")
    try:
        ours = command("run", small, "--store", str(tmp_path), "--executor", "ray")
        done = subprocess.run(
            ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", *ours],
            env=clean({"RAY_TMPDIR": home}), cwd=ROOT, text=True, capture_output=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 6, done.stderr
        (session,) = Path(home).glob("ray/session_2*")
        last = done.stderr.splitlines()[-1]
        assert last.startswith("polyfit: a Ray cluster on this machine cannot be used: ")
        assert f"Ray's logs lie in {session}/logs" in last
        assert "4.1 GB of address space (ulimit -v)" in last
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_relative_folder_for_ray_is_refused_before_ray_starts(
    small: str, tmp_path: Path, name: str
) -> None:
    ours = ("run", small, "--store", str(tmp_path), "--executor", "ray")
    done = elsewhere({name: "here"}, tmp_path, *ours)
    assert done.returncode == 6, done.stderr
    assert f"no Ray starts with {name}=here" in done.stderr
    assert not (tmp_path / "here").exists()


def test_an_own_ray_without_a_gpu_says_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "gpu.yaml"
    path.write_text(SMALL + "resources: {gpus_per_actor: 1}\n")
    done = polyfit_run({}, "run", str(path), "--store", str(tmp_path), "--executor", "ray")
    assert done.returncode == 6, done.stderr
    assert "no actor could be placed: each asks for 1 GPU and 1 CPU" in done.stderr


def test_a_cluster_that_is_not_there_is_told_in_one_line(small: str, tmp_path: Path) -> None:
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = polyfit_run(
        env, "run", small, "--store", str(tmp_path), "--address", "127.0.0.1:1", timeout=HANG_S
    )
    assert done.returncode == 6, done.stderr
    assert "polyfit: the Ray cluster at 127.0.0.1:1 cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_ray_ends_beside_what_the_caller_does_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is disconnected, and so prints nothing any more, when ``close`` returns."""
    disconnected, let, ended = threading.Event(), threading.Event(), threading.Event()

    def shutdown() -> None:
        disconnected.set()
        let.wait(HANG_S)
        ended.set()

    ray = SimpleNamespace(shutdown=shutdown, is_initialized=lambda: not disconnected.is_set())
    monkeypatch.setitem(sys.modules, "ray", ray)
    with ExitStack() as closing:
        Connection(ours=True, began=True).close(closing)
        assert disconnected.is_set()
        assert not ended.is_set()
        let.set()
    assert ended.is_set()


def test_an_own_ray_leaves_no_token_behind(tmp_path: Path, small: str) -> None:
    """A token in the home folder would turn authentication on for the next `ray start`."""
    home = tmp_path / "home"
    home.mkdir()
    done = polyfit_run(
        {"HOME": str(home)}, "run", small, "--store", str(tmp_path / "r"), "--executor", "ray"
    )
    assert done.returncode == 0, done.stderr
    assert not (home / ".ray").exists()


STARTING = """\
import json, os, sys
from pathlib import Path
from polyfit.work.dispatch import connect

sys.path.insert(0, "tests")
from servers import descendants

def settings(environ):
    return {k: v for k, v in environ.items() if k.startswith("RAY_raylet_client_")}

before = settings(os.environ)
connection = connect(None)
assert settings(os.environ) == before
told = []
for child in descendants(os.getpid()):
    process = Path(f"/proc/{child.pid}")
    if process.joinpath("cmdline").read_text().split("\\0")[0].endswith("/raylet"):
        pairs = process.joinpath("environ").read_text().split("\\0")
        told.append(settings(dict(pair.partition("=")[::2] for pair in pairs)))
connection.close()
print(json.dumps(told))
"""


@pytest.mark.parametrize("set_by_user", [{}, {"RAY_raylet_client_num_connect_attempts": "77"}])
def test_an_own_ray_is_asked_often_whether_it_is_there_and_the_users_settings_stay(
    set_by_user: dict[str, str],
) -> None:
    """One of two settings that only together are a time is not joined by the other."""
    done = subprocess.run(
        [sys.executable, "-c", STARTING], env=clean(set_by_user), cwd=ROOT, text=True,
        capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [set_by_user or _RAYLET_POLLS]


def test_an_actor_that_dies_is_replaced_and_its_shard_fitted_once(tmp_path: Path) -> None:
    """A worker process killed from outside, on a Ray of the test's own process."""
    script = tmp_path / "killer.py"
    script.write_text(
        "import os, pathlib, signal, sys\n"
        "import polyfit\n"
        "from polyfit.spec.spec import Spec\n"
        "killed = []\n"
        "def parent(pid):\n"
        "    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()\n"
        "    return int(stat.rpartition(')')[2].split()[1])\n"
        "def ours(pid):\n"
        "    while pid > 1:\n"
        "        if pid == os.getpid(): return True\n"
        "        pid = parent(pid)\n"
        "def kill(progress):\n"
        "    if progress.shards_done < 3 or killed: return\n"
        "    for folder in pathlib.Path('/proc').glob('[0-9]*'):\n"
        "        try:\n"
        "            actor = b'_Actor' in (folder / 'cmdline').read_bytes()\n"
        "            if actor and ours(int(folder.name)):\n"
        "                os.kill(int(folder.name), signal.SIGKILL)\n"
        "                killed.append(folder.name)\n"
        "                return\n"
        "        except OSError: pass\n"
        "spec = Spec.load(sys.argv[1])\n"
        "run = polyfit.execute(spec, store=sys.argv[2], executor='ray', on_progress=kill)\n"
        "assert killed, 'no actor was found'\n"
        "assert run.verify().problems == []\n"
        "print(run.plan.fits)\n"
    )
    path = tmp_path / "dying.yaml"
    path.write_text("name: dying\nshard: 200\nfit: {steps: 2000}\nsweep: {seed: {count: 4000}}\n")
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(tmp_path / "runs")],
        env=clean({}), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "4000"


ELASTIC = """
    import json, sys
    from ray.cluster_utils import Cluster
    import polyfit
    from polyfit.work.dispatch import RayExecutor

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    nodes, sizes, seen = [], [], []
    scale = RayExecutor._scale

    def scaled(self, todo):
        scale(self, todo)
        sizes.append(len(self._workers))

    RayExecutor._scale = scaled

    def follow(progress):
        if not nodes and progress.shards_done >= 2:
            nodes.append(cluster.add_node(num_cpus=2))
            seen.append(max(sizes))
        if len(nodes) == 1 and len(seen) == 1 and sizes[-1] == 3 and progress.shards_done >= 8:
            seen.append(sizes[-1])
            cluster.remove_node(nodes[0], allow_graceful=False)  # kills its raylet

    try:
        run = polyfit.execute(
            polyfit.Spec.load(sys.argv[1]), store=sys.argv[2], executor="ray",
            address=cluster.address, on_progress=follow,
        )
        told = {"seen": seen, "last": sizes[-1], "problems": run.verify().problems}
        print("TOLD", json.dumps(told))
    finally:
        cluster.shutdown()
"""


def test_actors_follow_a_cluster_that_grows_and_loses_a_node(tmp_path: Path) -> None:
    path = tmp_path / "elastic.yaml"
    path.write_text(
        "name: elastic\nshard: 200\nengine: eager\nfit: {steps: 3000}\n"
        "sweep: {seed: {count: 10000}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ELASTIC), str(path), str(tmp_path / "runs")],
        env=clean({}), cwd=ROOT, text=True, capture_output=True, timeout=HANG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    told = json.loads(line.removeprefix("TOLD "))
    assert told == {"seen": [1, 3], "last": 0, "problems": []}
