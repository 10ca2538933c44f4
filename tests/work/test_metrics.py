"""What a run on Ray says of itself: metrics for Prometheus, and names in Ray's dashboard."""

import re
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from launch import SMALL
from limits import wait_for
from ray.job_submission import JobSubmissionClient
from ray.util import list_named_actors
from servers import ROOT, RayHead, S3Server

import polyfit
from polyfit.work import metrics
from polyfit.work.progress import Progress
from polyfit.work.ray_executor import RayExecutor
from polyfit.work.task import Task, TaskResult

LINE = re.compile(r'ray_(polyfit_\w+)\{.*run="([^"]*)".*\} (\S+)')
NAMES = {
    "polyfit_fits_total",
    "polyfit_shards_stored_total",
    "polyfit_shards_left",
    "polyfit_actors_ready",
    "polyfit_actors_wanted",
    "polyfit_last_shard_timestamp_seconds",
    "polyfit_store_seconds_count",
}
"""Those that every run has; retries and failures are counted from the first one on."""


def test_the_page_of_the_code_has_every_metric() -> None:
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r'"(polyfit_\w+)"', source))
    counters = set(re.findall(r'(?:counter|Counter)\(\s*"(polyfit_\w+)"', source))
    page = (ROOT / "polyfit" / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"\| `(polyfit_\w+)` \| (ray_\w+) \|", page))
    assert listed == {one: f"ray_{one}{'_total' if one in counters else ''}" for one in named}
    assert len(counters) == 5


def test_the_time_of_the_last_shard_is_set_again_while_none_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray forgets a gauge some seconds after it was set, and the alert on no progress needs it."""
    times: list[float] = []
    clock = iter([100.0, 200.0, 300.0])
    ours = SimpleNamespace(time=lambda: next(clock))
    monkeypatch.setattr("polyfit.work.metrics.time", ours)
    one = metrics.RunMetrics("test/run")
    monkeypatch.setattr(one._last_shard, "set", times.append)
    for done in (3, 3, 4, 4):
        one.update(Progress(5, done, 50, 10 * done, 0))
    assert times == [100.0, 100.0, 200.0, 200.0]


def scraped(port: int, run: str) -> dict[str, float]:
    """The metrics of a run as Prometheus would see them; of several processes the sums."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, label, value in LINE.findall(text):
        if label == run:
            found[name] = found.get(name, 0) + float(value)
    return found


def test_a_run_on_ray_is_seen_from_outside(
    seaweed: S3Server,
    ray_cluster: RayHead,
    s3_keys: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A name of its own: the cluster goes on showing what other tests' runs have counted.
    spec = polyfit.Spec.parse(SMALL.replace("name: small", "name: watched"))
    run = f"watched/{polyfit.Plan.of(spec).run_id}"
    seen: dict[str, Any] = {}
    stored, whole = 3, RayExecutor.run

    def look() -> None:
        (node,) = [node for node in ray.nodes() if node["Alive"]]
        seen["port"] = node["MetricsExportPort"]
        seen["actors"] = list_named_actors(all_namespaces=False)
        client = JobSubmissionClient(ray_cluster.dashboard_url)
        seen["jobs"] = [(job.metadata or {}).get("job_name") for job in client.list_jobs()]

        def exported() -> dict[str, float]:
            found = scraped(seen["port"], run)
            as_far = found.get("polyfit_shards_stored_total") == stored
            return found if as_far and found.keys() >= NAMES else {}

        seen["metrics"] = wait_for(exported, "the metrics of the run")

    def held(self: RayExecutor, todo: deque[Task]) -> Iterator[TaskResult | None]:
        """The run waits between two shards, while its heartbeat goes on."""
        count = 0
        for result in whole(self, todo):
            yield result
            count += result is not None
            if count == stored and not seen:
                look()

    monkeypatch.setattr(RayExecutor, "run", held)
    done = polyfit.execute(spec, store=seaweed.fresh_uri(), address=ray_cluster.address)
    assert done.complete
    found = seen["metrics"]
    assert found["polyfit_fits_total"] == 100 * stored
    assert found["polyfit_shards_left"] == 5 - stored
    assert 1 <= found["polyfit_actors_ready"] <= found["polyfit_actors_wanted"] <= 2
    assert found["polyfit_last_shard_timestamp_seconds"] > 1.7e9
    assert found["polyfit_store_seconds_count"] > 3 * stored
    assert f"polyfit {run}" in seen["jobs"]
    assert all(re.fullmatch(rf"polyfit {run} [0-9a-f]{{8}}-\d", name) for name in seen["actors"])
    assert seen["actors"]

    def ended() -> bool:
        left = scraped(seen["port"], run)
        return not left.get("polyfit_actors_wanted")

    wait_for(ended, "no actor is wanted after the run")
