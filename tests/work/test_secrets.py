"""A credential stays in its process: it is in nothing that a run writes, says or exports."""

import io
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from commands import Command
from servers import RayHead, S3Server

from polyfit.run.reader import Run
from polyfit.show.progress import ProgressDisplay
from polyfit.work import storing
from polyfit.work.progress import Progress

MARK = "no-secret-but-a-comment"
SPEC = f"""\
name: small # {MARK}
shard: 10
fit: {{steps: 12, points: 40}}
sweep: {{seed: {{count: 40}}}}
"""
PLANTED = {
    "DATABASE_PASSWORD": "planted-in-the-environment",
    "PLANTED_TOKEN": "planted-as-a-token",
}
PROFILE = "planted-in-the-profile"


def as_text(key: str, data: bytes) -> str:
    """An object of the store; rows are compressed, and are read."""
    if not key.endswith(".parquet"):
        return data.decode("utf-8", "replace")
    table = pq.read_table(io.BytesIO(data))
    return f"{table.schema.metadata} {table.to_pylist()}"


def arguments() -> str:
    """The command lines of all processes of this machine that we may see."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue  # it has ended
    return "\n".join(found)


def test_a_planted_secret_is_found_nowhere(
    seaweed: S3Server,
    ray_cluster: RayHead,
    s3_keys: Mapping[str, str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[default]\naws_secret_access_key = {PROFILE}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    (tmp_path / "small.yaml").write_text(SPEC)
    store, texts = seaweed.fresh_uri(), {}

    def run(what: str, *options: object) -> int:
        ended = command("--debug", "run", "small.yaml", "--store", store, *options)
        texts[f"stdout of {what}"], texts[f"stderr of {what}"] = ended.out, ended.err
        return ended.code

    # Refused by the store, then with a shard that fails, then to its end on a cluster.
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", PROFILE)
        assert run("the refused one", "--executor", "inline") == 5
    compute = storing.run_shard

    def broken(plan: Any, number: int, *rest: Any) -> Any:
        if number == 1:
            raise ValueError("planted")
        return compute(plan, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("polyfit.work.worker.run_shard", broken)
        assert run("the failed one", "--executor", "inline", "--log-format", "json") == 3

    def look(display: ProgressDisplay, progress: Progress) -> None:
        if progress.actors and progress.actors[0]:
            texts["arguments of processes"] = arguments()

    monkeypatch.setattr(ProgressDisplay, "update", look)
    ray.init(ray_cluster.address, log_to_driver=False)
    try:
        assert run("the last one", "--retry-failed", "--report", "--executor", "ray") == 0
        (node,) = [node for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url) as answer:
        texts["metrics"] = answer.read().decode()
    assert "ray_polyfit_actors_wanted" in texts["metrics"]
    assert texts["arguments of processes"]
    finished = Run.open("small", store=store)
    opened = finished.address.open()
    for entry in opened.list(""):
        texts[entry.key] = as_text(entry.key, opened.get(entry.key))
    for path in ray_cluster.folder.rglob("*"):
        if path.is_file() and "logs" in path.parts:
            texts[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    for name in ("status", "verify"):
        texts[name] = command(name, finished.uri).out
    texts["status and log"] = command("status", finished.uri, "--log", "--json").out

    named = {key.partition("/")[0] for key in texts}
    assert named >= {"manifest.json", "receipt.json", "report.html", "status.json", "attempts",
                     "failed", "shards", "lease", "plan.json"}  # fmt: skip
    assert sum(key.startswith("attempts/") and key.endswith(".log") for key in texts) == 2
    assert any(key.endswith("/raylet.out") for key in texts), "Ray's logs"
    secrets = [*PLANTED.values(), PROFILE]
    secrets += [s3_keys["AWS_SECRET_ACCESS_KEY"], s3_keys["AWS_ACCESS_KEY_ID"]]

    def places(secret: str) -> list[str]:
        return sorted(key for key, text in texts.items() if secret in text)

    assert places(MARK) == ["report.html", "spec.yaml"], "the search finds what is there"
    assert {secret: places(secret) for secret in secrets} == {secret: [] for secret in secrets}
