"""The keys of every JSON output, in order: programs depend on them."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from polyfit.run.reader import Run

RUN = ["run", "endpoint_url", "plan_hash"]
KEYS = {
    "plan": [
        "name", "fits", "shards", "fits_per_shard", "axes", "grids", "engine", "projected_bytes",
        "projected_core_seconds", "projected_seconds", "projected_actors", "plan_hash", "run_id",
        "cannot_start", "prediction", "reusable",
    ],
    "run": ["name", *RUN, "fits", "shards", "statuses", "groups"],
    "status": [
        *RUN, "state", "stage", "shards", "shards_done", "shards_failed", "fits", "fits_done",
        "fits_per_s", "seconds_left", "bytes", "updated_at", "last_event_at", "driver", "receipt",
        "exit_code",
    ],
    "results": [*RUN, "complete", "rows"],
    "show": [*RUN, "fit", "shard", "row", "equation", "equation_in_x", "recomputed"],
    "verify": [*RUN, "intact", "shards", "fits", "bytes", "statuses", "problems"],
}  # fmt: skip
GROUP = [
    "degree", "fits", "best_loss", "p10_loss", "median_loss", "p90_loss", "median_max_error",
    "median_steps", "median_steps_to_1pct", "with_optimum", "above_optimum", "statuses",
]  # fmt: skip
RECOMPUTED = [
    "same_bits", "differing", "damaged", "here", "there", "torch", "tolerance", "within",
    "loss_off", "coefficients_off", "row",
]  # fmt: skip
ONE = "name: one\nfit: {steps: 5, points: 20}\n"


def facts(command: Command, *arguments: object) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(command(*arguments, "--json").out)
    return loaded


@pytest.mark.parametrize("name", ["status", "results", "verify"])
def test_a_command_on_a_run_has_its_keys(command: Command, small_run: Run, name: str) -> None:
    assert list(facts(command, name, small_run.uri)) == KEYS[name]


def test_show_has_its_keys(command: Command, small_run: Run) -> None:
    shown = facts(command, "show", small_run.uri, 0, "--recompute")
    assert list(shown) == KEYS["show"]
    assert list(shown["shard"]) == ["number", "key", "fits", "footer"]
    assert list(shown["recomputed"]) == RECOMPUTED


def test_plan_has_its_keys(command: Command, small_spec: Path) -> None:
    planned = facts(command, "plan", small_spec)
    assert list(planned) == KEYS["plan"]
    assert list(planned["cannot_start"]) == ["fits", "unchecked", "causes"]
    assert list(planned["prediction"]) == ["fits", "unchecked", "kinds"]


def test_run_has_its_keys(command: Command, small_spec: Path) -> None:
    summary = facts(command, "run", small_spec)
    assert list(summary) == KEYS["run"]
    assert [list(group) for group in summary["groups"]] == [GROUP, GROUP]
    again = facts(command, "run", small_spec, "--run-id", "again", "--reuse", summary["run"])
    assert list(again) == [*KEYS["run"], "fits_reused"]


def test_a_run_of_one_fit_has_its_row(command: Command, small_spec: Path) -> None:
    small_spec.write_text(ONE)
    assert list(facts(command, "run", small_spec)) == [*KEYS["run"], "fit"]


def test_listed_runs_have_their_keys(command: Command, small_run: Run) -> None:
    store = small_run.uri.rpartition("/small/")[0]
    (listed,) = facts(command, "list", store)["runs"]
    assert list(listed) == [
        "run", "endpoint_url", "name", "run_id", "date", "state", "fits", "bytes",
        "core_seconds", "attempts_unknown", "changed",
    ]  # fmt: skip
