"""``polyfit submit`` on a real cluster: a head with a token, and two more nodes."""

import http.client
import json
import re
import signal
import subprocess
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from commands import Command
from launch import clean, polyfit_run
from launch import command as words
from limits import HANG_S, wait_for
from proxy import Request, proxied
from servers import ROOT, RayHead, S3Server, ray_node

import polyfit
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work.job_start import STARTING

SWEEP = """\
name: submitted
shard: 50
fit: {steps: 20, points: 40}
sweep: {degree: [1, 3], seed: {count: 100}}
resources: {gpus_per_actor: 0, actors: {min: 2, max: 3}}
"""
LONG = """\
name: stopped
shard: 100
fit: {steps: 20000000}
record: none
sweep: {seed: {count: 800}}
resources: {gpus_per_actor: 0, actors: {max: 1}}
"""


@pytest.fixture(scope="module")
def cluster(ray_cluster: RayHead, seaweed: S3Server) -> Iterator[RayHead]:
    """The head and two more nodes, each with the keys of ``seaweed``."""
    with (
        ray_node(ray_cluster, "127.0.0.2", env=seaweed.env),
        ray_node(ray_cluster, "127.0.0.3", env=seaweed.env),
    ):
        yield ray_cluster


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def store(seaweed: S3Server) -> str:
    return seaweed.fresh_uri()


def shards(server: S3Server, store: str, name: str) -> dict[str, bytes]:
    """The bytes of a run's shards, by their keys below the store."""
    client, prefix = server.client(), store.partition(f"{server.bucket}/")[2]
    found = client.list_objects_v2(Bucket=server.bucket, Prefix=f"{prefix}/{name}/")
    keys = [item["Key"] for item in found.get("Contents", []) if "/shards/" in item["Key"]]
    read = {key: client.get_object(Bucket=server.bucket, Key=key)["Body"].read() for key in keys}
    return {key.removeprefix(prefix): data for key, data in read.items()}


def jobs_info(cluster: RayHead) -> str:
    """All that the job server says of its jobs, over plain HTTP."""
    connection = http.client.HTTPConnection(urlsplit(cluster.dashboard_url).netloc, timeout=HANG_S)
    try:
        connection.request(
            "GET", "/api/jobs/", headers={"Authorization": f"Bearer {cluster.token}"}
        )
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_a_submitted_sweep_has_the_bytes_of_every_other_way_and_no_secret_is_sent(
    command: Command,
    cluster: RayHead,
    seaweed: S3Server,
    store: str,
    sweep: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The submitter's own keys are others than the cluster's: it need not reach the store."""
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_secret_access_key = planted-in-the-profile\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("DATABASE_PASSWORD", "planted-in-the-environment")
    submitted = command(
        *("submit", sweep, "--address", cluster.dashboard_url, "--store", f"{store}/submitted"),
        *("--retry-failed", "--wait", "30"),
    )
    assert submitted.code == 0, submitted.err
    assert submitted.err.startswith(f"polyfit: submitted to {cluster.dashboard_url} as submitted-")
    assert f"\n{STARTING}" in submitted.out
    assert "\n200 fits: 200 completed\n" in submitted.out

    plan = Plan.of(Spec.load(sweep))
    info = jobs_info(cluster)
    (job,) = [
        job for job in json.loads(info) if job["submission_id"] == f"submitted-{plan.run_id}-1"
    ]
    assert job["metadata"]["run"] == f"{store}/submitted/submitted/{plan.run_id}"
    assert job["metadata"]["job_name"] == f"polyfit submitted-{plan.run_id}"
    assert job["metadata"]["owner"]
    assert job["entrypoint"] == (
        f"exec python start_polyfit.py run submitted.yaml --store {store}/submitted --wait 30.0 "
        "--retry-failed"
    )
    secrets = [seaweed.env["AWS_SECRET_ACCESS_KEY"], seaweed.env["AWS_ACCESS_KEY_ID"], "planted-in"]
    for secret in [*secrets, cluster.token]:
        assert secret not in info + submitted.out + submitted.err

    joined = polyfit_run(
        {**seaweed.env, **cluster.env}, "run", str(sweep), "--store", f"{store}/joined"
    )
    assert joined.returncode == 0, joined.stderr
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    polyfit.execute(sweep, store=f"{store}/alone", executor="inline")
    ways = [
        shards(seaweed, f"{store}/{way}", "submitted") for way in ("submitted", "joined", "alone")
    ]
    assert len(ways[0]) == plan.shards
    assert ways[0] == ways[1] == ways[2]


def test_a_job_is_followed_through_a_connection_that_breaks(
    command: Command, cluster: RayHead, store: str, sweep: Path
) -> None:
    """The answer to the submission is lost, and every second one to the question for its log.

    No line of the log is lost or shown twice.
    """
    submissions: list[Request] = []
    asked: Counter[str] = Counter()

    def fault(request: Request) -> str | None:
        if request.method == "POST":
            submissions.append(request)
            return "answer lost"
        kind = "log" if request.path.endswith("/logs") else "state"
        asked[kind] += "/api/jobs/submitted-" in request.path
        if kind == "log":
            return "answer cut off" if asked["log"] % 2 else None
        return "503" if asked["state"] == 3 else None

    with proxied(cluster.dashboard_url, fault) as proxy:
        ended = command("submit", sweep, "--address", proxy.url, "--store", store)
    assert ended.code == 0, ended.err
    assert len(submissions) == 1
    assert set(proxy.counts) == {"answer lost", "answer cut off", "503"}
    assert ended.err.count("; asking again\n") >= 1
    for line in (STARTING, ": running on the Ray cluster", "\n200 fits: 200 completed\n"):
        assert ended.out.count(line) == 1, ended.out


def test_a_job_is_found_left_stopped_and_resumed(
    command: Command,
    cluster: RayHead,
    seaweed: S3Server,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By people of whom only one has keys for the store."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    plan = Plan.of(Spec.load(path))
    ours = ("submit", str(path), "--address", cluster.dashboard_url, "--store", store)
    first = command(*ours, "--no-wait")
    job = f"stopped-{plan.run_id}-1"
    assert (first.code, first.out) == (0, f"{job}\n"), first.err
    assert STARTING in first.err

    auth = {name: value for name, value in cluster.env.items() if "AUTH" in name}
    follower = subprocess.Popen(
        words(*ours), env=clean(auth), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    leaver = subprocess.Popen(
        words(*ours), env=clean(auth), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with follower, leaver:
        assert leaver.stdout is not None
        assert STARTING in "".join(leaver.stdout.readline() for _ in range(3))  # it follows
        leaver.send_signal(signal.SIGINT)
        _, said = leaver.communicate(timeout=HANG_S)
        assert leaver.returncode == 130, said
        assert f"as {job}: following it\n" in said
        assert said.endswith(
            f"polyfit: interrupted; the job {job} goes on: the same command follows it, and with "
            "--stop it stops it\n"
        )
        wait_for(lambda: shards(seaweed, store, "stopped"), "a stored shard", follower)
        same_run = (*ours, "--set", "fit.steps=7", "--run-id", plan.run_id)
        for refused in (command(*same_run), command(*same_run, "--stop")):
            assert refused.code == 2, refused.err
            assert f"the job {job}, submitted by" in refused.err
            assert f"has another plan: {plan.hash[:12]}, and here it is" in refused.err
        with proxied(cluster.dashboard_url, _no_log) as proxy:
            begun = command(
                *("submit", path, "--address", proxy.url, "--store", store, "--wait", "30"),
                "--no-wait",
            )
        assert (begun.code, begun.out) == (0, f"{job}\n"), begun.err
        assert "options and keys that differ from that submission do not count" in begun.err
        assert f"`polyfit status {store}/stopped/{plan.run_id} --log` shows" in begun.err
        for name, value in seaweed.env.items():
            monkeypatch.setenv(name, value)
        stopped = command(*ours, "--stop", "--json")
        out, said = follower.communicate(timeout=HANG_S)
    assert stopped.code == 0, stopped.err
    assert f"{job}: the job was stopped; its driver noted exit code 143" in stopped.err
    assert json.loads(stopped.out) == {
        "job": job,
        "address": cluster.dashboard_url,
        "runs": [f"{store}/stopped/{plan.run_id}"],
        "status": "STOPPED",
        "exit_code": 143,
    }
    assert follower.returncode == 143, said
    assert "cannot be read from here" in said
    assert "exit code 143 is by Ray's word alone" in said
    assert "waiting up to 25 s for running shards" in out
    left = shards(seaweed, store, "stopped")
    assert 0 < len(left) < plan.shards, "the job was not stopped half-way"

    resumed = command(*ours)
    assert resumed.code == 0, resumed.err
    assert f"as stopped-{plan.run_id}-2\n" in resumed.err
    assert f"{len(left)} of {plan.shards} shards are stored already" in resumed.out
    run = StoreAddress.of(f"{store}/stopped/{plan.run_id}", seaweed.endpoint_url)
    attempts = Ledger(run.open(), plan).attempts()
    assert [facts["job"] for facts in attempts] == [job, f"stopped-{plan.run_id}-2"]
    assert len({facts["nonce"] for facts in attempts}) == 2
    nothing = command(*ours, "--stop")
    assert nothing.code == 0
    assert nothing.err.endswith("-2: it has ended by itself, with exit code 0\n")


def _no_log(request: Request) -> str | None:
    """As for a log that is not UTF-8."""
    return "500" if request.path.endswith("/logs") else None


OTHER = """\
import collections, platform, sys
version = collections.namedtuple("version", "major minor micro releaselevel serial")
sys.version_info = version(3, 11, 99, "final", 0)
platform.python_version = lambda: "3.11.99"
"""


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, bare: str) -> str:
    """A Python with polyfit that says that it is another patch release."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = next(Path(bare).parents[1].glob("lib/python*/site-packages")) / "ours.pth"
    (site / "ours.pth").write_text(f"{paths.read_text()}\n{ROOT}\n")
    (site / "sitecustomize.py").write_text(OTHER)
    return str(folder / "bin" / "python")


def test_a_cluster_that_cannot_do_it_says_why(
    command: Command, cluster: RayHead, store: str, sweep: Path, bare: str, other: str
) -> None:
    ours = ("submit", sweep, "--address", cluster.dashboard_url)
    here = ("--store", store, "--python")
    missing, none, another, elsewhere = (
        command(*ours, *here, "/nowhere/python", "--no-wait"),
        command(*ours, *here, bare),
        command(*ours, *here, other),
        command(*ours, "--store", "s3://there-is-no-such-bucket/x"),
    )
    assert (missing.code, missing.out) == (6, ""), "no id of a job that has ended"
    assert missing.err.endswith(
        "the cluster's head has no such program: --python names its Python\n"
    )
    assert none.code == 6
    assert re.search(
        rf"polyfit: the cluster's {bare} \(Python \S+ on \S+\) cannot run polyfit: No module named "
        "'polyfit'; install polyfit and its packages there, or name a Python that has them with "
        "--python\n",
        none.out,
    ), none.out
    assert another.code == 6
    assert "polyfit: it was submitted by another one, with Python 3.11." in another.out
    assert re.search(
        r"polyfit: the Ray cluster at \S+ cannot be used: Version mismatch: .*Python: 3\.11\.99",
        another.out,
    ), another.out
    assert elsewhere.code == 5, "the code of the run"
    assert "there-is-no-such-bucket" in elsewhere.out
    assert "Traceback" not in "".join(one.out + one.err for one in (missing, none, another))


def test_a_job_that_is_not_there_is_not_stopped(
    command: Command, cluster: RayHead, store: str, sweep: Path
) -> None:
    ended = command("submit", sweep, "--address", cluster.dashboard_url, "--store", store, "--stop")
    assert ended.code == 2
    assert f"polyfit: no job of {store}/submitted/" in ended.err


def test_a_cluster_that_asks_for_a_token_says_so(cluster: RayHead, store: str, sweep: Path) -> None:
    for token, said in {
        "f" * 64: f"polyfit: the Ray cluster at {cluster.dashboard_url} asks for a token",
        "\u65e5\u672c": "cannot be sent: it holds letters beyond ASCII; set RAY_AUTH_TOKEN",
    }.items():
        ended = polyfit_run(
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
            "submit", str(sweep), "--address", cluster.dashboard_url, "--store", store,
        )  # fmt: skip
        assert ended.returncode == 6, ended.stderr
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_a_token_that_is_missing_here_is_no_fault_of_the_cluster(
    sweep: Path, tmp_path: Path
) -> None:
    for env, said in (
        ({}, "couldn't find an authentication token"),
        ({"RAY_AUTH_TOKEN_PATH": "/no/token"}, "cannot be opened or is empty: /no/token"),
    ):
        ended = polyfit_run(
            {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path), **env},
            "submit", str(sweep), "--address", "http://127.0.0.1:9", "--store", "s3://a/b",
        )  # fmt: skip
        assert ended.returncode == 6
        assert "nothing was sent to the Ray cluster at http://127.0.0.1:9: " in ended.stderr
        assert f"{said}; with RAY_AUTH_MODE=token this machine needs" in ended.stderr
        assert ended.stderr.endswith(", or ~/.ray/auth_token\n")


def test_where_no_job_server_answers_it_says_so(command: Command, store: str, sweep: Path) -> None:
    ours: tuple[Any, ...] = ("submit", sweep, "--store", store, "--address")
    nobody = command(*ours, "http://127.0.0.1:9")
    with proxied("http://127.0.0.1:9", lambda request: "500") as proxy:
        other = command(*ours, proxy.url)
    assert (nobody.code, other.code) == (6, 6)
    assert nobody.err.startswith("polyfit: the job server at http://127.0.0.1:9: Failed to connect")
    assert other.err.startswith(f"polyfit: the job server at {proxy.url}: 500 Server Error: ")
    assert (nobody.err.count("\n"), other.err.count("\n")) == (1, 1)


def test_what_is_wrong_is_found_before_anything_is_sent(command: Command, tmp_path: Path) -> None:
    """No server is asked: there is none."""
    (tmp_path / "bad.yaml").write_text("name: a\nfit: {degre: 3}\n")
    (tmp_path / "leaky.yaml").write_text("name: a\n# AKIAIOSFODNN7EXAMPLE\n")
    nowhere = ("--address", "http://127.0.0.1:9", "--store", "s3://bucket/x")
    for ended, message in (
        (command("submit", "bad.yaml", *nowhere), "bad.yaml:2: fit.degre"),
        (command("submit", "leaky.yaml", *nowhere), "leaky.yaml:2 holds an AWS access key id"),
        (command("submit", "bad.yaml"), "--address is missing; allowed: http://HOST:PORT"),
        (command("submit", "bad.yaml", *nowhere, "--no-wait", "--stop"), "exclude each other"),
    ):
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err
