"""Scraping, alerts and dashboard: by Prometheus' own judge, and by the names of the metrics."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from deployed import ROOT, text
from prometheus import BIN, require

METRIC = re.compile(r"\bray_polyfit_\w+")


def promtool(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    require()
    return subprocess.run([BIN / "promtool", *words], capture_output=True, text=True, check=False)


def exported() -> set[str]:
    """The metrics that the page of the code lists, by the names that Prometheus sees."""
    page = (ROOT / "polyfit" / "README.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^\| `polyfit_\w+` \| (ray_polyfit_\w+) \|", page, re.MULTILINE))
    return names | {f"ray_polyfit_store_seconds_{it}" for it in ("bucket", "count", "sum")}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A folder with the alerts and their tests."""
    (tmp_path / "alerts.yaml").write_text(text("monitoring/alerts.yaml"))
    cases = Path(__file__).with_name("alerts_test.yaml").read_text(encoding="utf-8")
    (tmp_path / "test.yaml").write_text(cases)
    return tmp_path


def test_the_alerts_fire_when_they_should_and_not_before(rules: Path) -> None:
    checked = promtool("check", "rules", rules / "alerts.yaml")
    tested = promtool("test", "rules", rules / "test.yaml")

    assert checked.returncode == 0, checked.stderr
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('condition="true"', 'condition="false"'),
        ("ray_polyfit_shards_failed_total) > 0", "ray_polyfit_shards_failed_total) > 2"),
        ("> 26 * 3600", "> 27 * 3600"),
        ("unless on", "and on"),
        ("> 1800", "> 2400"),
        ("and max by (run) (ray_polyfit_shards_left) > 0", ""),
        ("for: 5m", "for: 10m"),
        ("ray_polyfit_actors_ready) == 0", "ray_polyfit_actors_ready) == 1"),
    ],
)
def test_a_fault_in_an_alert_is_found(rules: Path, right: str, wrong: str) -> None:
    path = rules / "alerts.yaml"
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))

    assert promtool("test", "rules", rules / "test.yaml").returncode != 0


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    (group,) = yaml.safe_load(text("monitoring/alerts.yaml"))["groups"]
    cases = yaml.safe_load(Path(__file__).with_name("alerts_test.yaml").read_text("utf-8"))
    fired = {
        case["alertname"]
        for test in cases["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }

    assert fired == {rule["alert"] for rule in group["rules"]}


def test_prometheus_can_read_where_to_scrape(rules: Path) -> None:
    """But for Kubernetes' discovery, which Debian's Prometheus is built without."""
    config = yaml.safe_load(text("monitoring/prometheus.yaml"))
    for job in config["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)
    (rules / "prometheus.yaml").write_text(yaml.safe_dump(config))
    checked = promtool("check", "config", rules / "prometheus.yaml")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pods_are_scraped_where_they_and_their_policy_are() -> None:
    (pods,) = (
        job
        for job in yaml.safe_load(text("monitoring/prometheus.yaml"))["scrape_configs"]
        if job["job_name"] == "polyfit-pods"
    )
    ports = [it["replacement"] for it in pods["relabel_configs"] if "replacement" in it]

    assert ports == ["$1:8080"]  # the command's port is a rule of every Job
    for policy in ("pod/components/network-policy/policy.yaml", "rayjob/accounts/policy.yaml"):
        assert "{protocol: TCP, port: 8080}" in text(policy)


@pytest.mark.parametrize("name", ["alerts.yaml", "dashboard.json"])
def test_what_is_asked_of_prometheus_is_exported(name: str) -> None:
    asked = set(METRIC.findall(text(f"monitoring/{name}")))

    assert asked
    assert asked <= exported()


def test_the_dashboard_shows_every_metric_and_has_no_two_panels_in_one_place() -> None:
    dashboard = json.loads(text("monitoring/dashboard.json"))
    shown = set(METRIC.findall(text("monitoring/dashboard.json")))
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    bases = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    assert bases == {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported()}
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
