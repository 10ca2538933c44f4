"""Whole jobs through real Ray actors into a real S3 server: submitted, stopped, killed, resumed."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
from chaos import actors
from deployed import documents, text
from launch import clean, command, polyfit_run
from limits import HANG_S, wait_for
from manifests import pods
from servers import RayHead, S3Server, descendants

import polyfit
from polyfit.run.keys import lease_key
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

ROOT = Path(__file__).resolve().parents[2]


HUNDRED_THOUSAND = (
    "name: many\nfit: {steps: 100, points: 100}\nsweep: {degree: [2, 3], seed: {count: 50000}}\n"
    "resources: {actors: {max: 2}}\n"
)


def test_100_000_fits_on_two_actors_are_stored_in_s3(
    seaweed: S3Server, s3_keys: Mapping[str, str], ray_cluster: RayHead, tmp_path: Path
) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(HUNDRED_THOUSAND)
    env = {**s3_keys, **ray_cluster.env}
    done = polyfit_run(env, "run", str(path), "--store", seaweed.fresh_uri(), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["fits"] == 100_000
    verdict = polyfit.Run.open(summary["run"]).verify()
    assert (verdict.problems, verdict.fits) == ([], 100_000)
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


LONG = "name: long\nshard: 20\nengine: eager\nfit: {steps: 4000}\nsweep: {seed: {count: 16000}}\n"


def test_a_stopped_job_waits_for_its_shards_and_releases_the_run(
    seaweed: S3Server, ray_cluster: RayHead, tmp_path: Path
) -> None:
    """By the command that ends the head's pod; Ray's own 3 s would be too few.

    Until then it runs with the keys of its node: none comes with it, and none is in its log.
    """
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
    assert "1 GPU and 1 CPU per actor" in log
    assert "waiting up to 25 s for running shards" in log
    assert "ended by SIGTERM; run the same command to resume" in log
    lease = store.get_object(Bucket=seaweed.bucket, Key=f"{home}/{lease_key(1)}")["Body"].read()
    assert json.loads(lease)["released"] is True
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert seaweed.env[name] not in log


def _pre_stop(ray_cluster: RayHead) -> list[str]:
    """The preStop command of the head's pod, less the job, for this cluster."""
    (rayjob,) = documents(text("rayjob/base/rayjob.yaml"))
    (container,) = pods(rayjob)["head"]["containers"]
    ray, *words, _ = container["lifecycle"]["preStop"]["exec"]["command"]
    there = [word.replace("http://127.0.0.1:8265", ray_cluster.dashboard_url) for word in words]
    return [str(Path(sys.executable).with_name(ray)), *there]


def test_kill_9_half_way_then_the_same_spec_fits_only_what_is_missing(
    seaweed: S3Server, s3_keys: Mapping[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "killed.yaml"
    path.write_text(
        "name: killed\nshard: 200\nfit: {steps: 2000000}\nrecord: none\n"
        "sweep: {seed: {count: 3600}}\n"
        "resources: {actors: {max: 2}}\n"
    )
    plan = Plan.of(Spec.load(path))
    uri = seaweed.fresh_uri()
    ours = ("run", str(path), "--store", uri, "--executor", "ray")
    shards = f"{uri.partition('polyfit/')[2]}/killed/{plan.run_id}/shards/"
    with subprocess.Popen(
        command(*ours), env=clean(s3_keys), cwd=ROOT, stderr=subprocess.DEVNULL, text=True
    ) as process:
        client = seaweed.client()
        wait_for(lambda: len(_listed(client, shards)) >= 3, "three stored shards", process)
        family = descendants(process.pid)
        working = actors([process.pid])
        assert working
        process.send_signal(signal.SIGKILL)
    # What its actors compute is still stored, until Ray has ended them.
    for actor in working:
        assert actor.ends_within(HANG_S), f"actor {actor.pid} outlives its driver"
    for member in family:  # Ray's own agents stay behind
        member.signal(signal.SIGKILL)
    left = _listed(client, shards)
    assert 3 <= len(left) < plan.shards, "the driver was not killed half-way"
    messages: list[str] = []
    finished = polyfit.execute(path, store=uri, executor="inline", on_message=messages.append)
    assert f"{len(left)} of {plan.shards} shards are stored already" in messages
    after = _listed(client, shards)
    assert {key: after[key] for key in left} == left, "a stored shard was written again"
    verdict = finished.verify()
    assert (verdict.problems, verdict.fits) == ([], 3600)


def _listed(client: Any, prefix: str) -> dict[str, Any]:
    found = client.list_objects_v2(Bucket="polyfit", Prefix=prefix).get("Contents", [])
    return {item["Key"]: item["LastModified"] for item in found}


def test_an_own_ray_replaces_a_killed_actor_and_drains_on_sigterm(tmp_path: Path) -> None:
    """With its own exit code; the run resumes."""
    path = tmp_path / "drained.yaml"
    path.write_text(
        "name: drained\nshard: 100\nfit: {steps: 2000000}\nrecord: none\n"
        "sweep: {seed: {count: 2000}}\nresources: {actors: {max: 1}}\n"
    )
    runs = tmp_path / "runs"
    ours = command("run", str(path), "--store", str(runs), "--executor", "ray")
    with subprocess.Popen(
        ours, env=clean({}), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: list(runs.rglob("*.parquet")), "a stored shard", process)
        (actor,) = actors([process.pid])
        actor.signal(signal.SIGKILL)
        assert actor.ends_within(HANG_S)
        before = len(list(runs.rglob("*.parquet")))
        wait_for(lambda: len(list(runs.rglob("*.parquet"))) > before, "another one", process)
        process.terminate()
        _, told = process.communicate(timeout=HANG_S)
    assert process.returncode == 143, told
    assert "run the same command to resume" in told
    messages: list[str] = []
    finished = polyfit.execute(path, store=runs, executor="inline", on_message=messages.append)
    assert finished.verify().problems == []
    assert any("shards are stored already" in line for line in messages)


def test_an_actor_with_other_credentials_than_its_driver_says_so(
    moto: S3Server, ray_cluster: RayHead, sweep_path: str
) -> None:
    """The nodes of the cluster have keys of another server."""
    env = {**moto.env, **ray_cluster.env}
    done = polyfit_run(env, "run", sweep_path, "--store", moto.fresh_uri())
    assert done.returncode == 5, done.stderr
    assert re.search(r"polyfit: no actor starts on .* does not know this access key", done.stderr)
    assert "Traceback" not in done.stderr
