"""`make monitoring-check`: a real Prometheus scrapes a real run by deploy/monitoring.

Every query of the dashboard must have data, and the alert on a run without progress must fire, with
its half hour made a second. The panels are drawn as they were then, for the page of deploy. Takes
four minutes, and leaves nothing running.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import yaml
from deployed import text
from launch import clean, command
from limits import HANG_S, wait_for
from prometheus import BIN
from servers import HOST, seaweedfs

from polyfit.charts import marks
from polyfit.charts.theme import THEMES, themed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))  # scripts, not a package

from local_s3 import free_port

PICTURES = Path(__file__).resolve().parents[1] / "deploy" / "monitoring" / "pictures"

UNITS = {"s": "seconds"}
"""Those of the dashboard that are shown; the others count."""

DRAWN_S = 180
"""Seconds of the run that the picture shows."""

SPEC = """
name: watched
shard: 50
fit: {steps: 4000000}
record: none
sweep: {seed: {count: 200000}}
resources: {actors: {max: 2}}
"""


def main() -> None:
    """Run, scrape, ask; ends this program where something is missing."""
    with tempfile.TemporaryDirectory(prefix="pf", dir="/tmp") as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with seaweedfs(folder / "s3") as store:
            port = free_port()
            (folder / "watched.yaml").write_text(SPEC)
            run = command("run", str(folder / "watched.yaml"), "--store", store.fresh_uri())
            with (
                ended(subprocess.Popen([*run, "--metrics-port", str(port)], env=clean(store.env))),
                prometheus(folder, port) as address,
            ):
                began = time.time()
                check(address)
                time.sleep(max(0.0, began + DRAWN_S - time.time()))
                draw(address, began)
    print(f"Every panel has data, and an alert fired; see {PICTURES}.")


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)


@contextmanager
def prometheus(folder: Path, port: int) -> Iterator[str]:
    """Prometheus with our configuration, which scrapes this port every five seconds."""
    config = yaml.safe_load(text("monitoring/prometheus.yaml"))
    (machine,) = (it for it in config["scrape_configs"] if it["job_name"] == "polyfit-machine")
    machine["static_configs"] = [{"targets": [f"{HOST}:{port}"]}]
    config["scrape_configs"] = [machine]
    config["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    alerts = text("monitoring/alerts.yaml").replace("> 1800", "> 1").replace("for: 5m", "for: 1s")
    (folder / "alerts.yaml").write_text(alerts)
    address = f"{HOST}:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yaml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
        "log.level": "error",
    }
    words = [str(BIN / "prometheus"), *(f"--{name}={value}" for name, value in options.items())]
    with ended(subprocess.Popen(words)):
        yield f"http://{address}"


def check(address: str) -> None:
    """Wait until each query has data and an alert fires."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$run", ".*")
            found = wait_for(partial(data, address, query), query)
            print(f"{panel['title']}: {found[0]['value'][1]}  ({query})", flush=True)
    fired = wait_for(lambda: firing(address), "an alert")
    print("alert:", fired[0]["annotations"]["summary"])


def panels() -> list[Any]:
    found: list[Any] = json.loads(text("monitoring/dashboard.json"))["panels"]
    return found


def draw(address: str, began: float) -> None:
    """Write the panels over time as pictures, from what Prometheus answers to their queries."""
    charts = [
        alt.Chart(marks.data(series(address, panel, began)), title=panel["title"])
        .mark_line(aria=False)
        .encode(
            alt.X("s:Q", title="seconds", axis=alt.Axis(values=[*range(0, DRAWN_S + 1, 30)])),
            alt.Y("value:Q", title=UNITS.get(panel["fieldConfig"]["defaults"]["unit"])),
            alt.Color("line:N", title=None, legend=alt.Legend(orient="bottom")),
            alt.StrokeDash("line:N", title=None),
        )
        .properties(width=300, height=140)
        for panel in panels()
        if panel["type"] == "timeseries"
    ]
    picture = alt.concat(*charts, columns=2)
    picture = picture.resolve_scale(color="independent", strokeDash="independent")
    PICTURES.mkdir(exist_ok=True)
    for name, theme in THEMES.items():
        themed(picture, replace(theme, background="transparent")).save(PICTURES / f"{name}.svg")


def series(address: str, panel: Any, began: float) -> Iterator[dict[str, Any]]:
    """The lines of a panel: seconds, values, and the legend without the run's name."""
    for target in panel["targets"]:
        words = {"query": target["expr"].replace("$run", ".*"), "start": began, "step": 5}
        query = urllib.parse.urlencode({**words, "end": began + DRAWN_S})
        line = target["legendFormat"].replace("{{run}}", "").strip() or panel["title"].lower()
        for found in answer(address, f"query_range?{query}")["result"]:
            for at, value in found["values"]:
                if math.isfinite(float(value)):
                    yield {"s": round(at - began), "value": float(value), "line": line}


def answer(address: str, path: str) -> Any:
    """What Prometheus answers; nothing while it starts."""
    try:
        with urllib.request.urlopen(f"{address}/api/v1/{path}") as response:
            return json.load(response)["data"]
    except OSError:
        return {}


def data(address: str, query: str) -> list[Any]:
    found = answer(address, "query?" + urllib.parse.urlencode({"query": query})).get("result", [])
    return [it for it in found if math.isfinite(float(it["value"][1]))]


def firing(address: str) -> list[Any]:
    return [it for it in answer(address, "alerts").get("alerts", []) if it["state"] == "firing"]


if __name__ == "__main__":
    main()
