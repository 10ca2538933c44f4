"""What a row says of how its fit ended: stalled or not, why, how soon it was near the optimum."""

import json
from typing import Any

import pytest
import yaml
from engines import rows_of

from polyfit.run.schema import REASONS

Row = dict[str, Any]


def row_of(fields: str, **known: Any) -> Row:
    fit = {"points": 60, "steps": 400} | yaml.safe_load(f"{{{fields}}}")
    row: Row = rows_of(f"fit: {json.dumps(fit)}\nrecord: {{every: 1}}").to_pylist()[0]
    assert {name: row[name] for name in known} == known
    return row


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ("target: 1 / x, points: 61", "diverged", "target not finite at x = 0"),
        ("target: 1.0e+39 * x", "diverged", "data beyond the dtype"),
        ("basis: power, range: [0, 1.0e+20]", "diverged", "basis functions beyond the dtype"),
        ("lr: 1.0e+39", "diverged", "rate overflows"),
        ("lr: 1.0e-39", "diverged", "rate underflows"),
        ("lr: {of_limit: 1.5}", "diverged", "rate above the limit"),
        ("lr: {of_limit: 1.001}, steps: 20", "completed", "rate above the limit"),
        ("optimizer: adam, lr: 1.0e+38", "diverged", "no longer finite"),
        ("optimizer: adam, lr: 1.0e+6, steps: 20", "diverged", "loss above ten times the first"),
        ("stop: {gradient: 1}, degree: 9", "stalled", "stopped by gradient far from the optimum"),
        (
            "stop: {loss_change: 0.5}, degree: 9, basis: power",
            "stalled",
            "stopped by loss_change far from the optimum",
        ),
        ("degree: 9, basis: power", "completed", "out of steps far from the optimum"),
        ("stop: {gradient: 1.0e-6}, dtype: float64", "converged", None),
        ("", "completed", None),
        ("optimizer: newton", "converged", None),
        ("objective: huber, stop: {gradient: 10}", "converged", None),
        ("objective: huber, steps: 1", "completed", None),
    ],
)
def test_a_row_says_why_its_fit_ended_so(fields: str, status: str, reason: str | None) -> None:
    row_of(fields, status=status, reason=reason)


def test_a_fit_that_takes_no_step_has_the_first_of_several_reasons() -> None:
    row_of("target: 1.0e+39 / x, points: 61, lr: 1.0e-39", reason=REASONS["target"].format(x=0.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("basis", ["chebyshev", "power"])
@pytest.mark.parametrize("degree", [3, 9, 15])
def test_newton_does_not_stall_where_the_optimum_is_rounding(
    degree: int, basis: str, dtype: str
) -> None:
    """The target is a cubic: the optimum is 0 but for the rounding of data and coefficients."""
    fields = f"target: x - x**3, optimizer: newton, degree: {degree}, basis: {basis}"
    row = row_of(f"{fields}, dtype: {dtype}, range: [-1, 1]", reason=None)
    assert row["status"] == "converged"
    assert row["optimum_loss"] < 1e-25


def test_the_limit_is_that_of_linear_optimizers_alone() -> None:
    text = (
        "fit: {points: 60, steps: 1}\n"
        "sweep: {objective: [sse, mse, huber], optimizer: [gd, momentum], seed: {count: 2}, "
        "lr: [auto, {of_limit: 0.9}]}"
    )
    rows = rows_of(text).to_pylist()
    assert [row["lr_share"] for row in rows] == [0.5, 0.5, 0.9, 0.9] * 6
    assert all(row["lr"] / row["lr_limit"] == pytest.approx(row["lr_share"]) for row in rows)
    for fields in ("optimizer: adam", "optimizer: newton", "objective: l1, lr: 0.1"):
        row_of(fields, lr_limit=None, lr_share=None)


@pytest.mark.parametrize("objective", ["sse", "mse"])
def test_the_first_update_near_the_optimum_is_found_in_the_record(objective: str) -> None:
    row = row_of(f"objective: {objective}, dtype: float64")
    near = [loss <= 1.01 * row["optimum_loss"] for loss in row["loss_history"]]
    assert row["steps_to_1pct"] == near.index(True) > 0
    assert row["history_steps"] == list(range(400))


def test_the_end_counts_where_no_recorded_update_was_near() -> None:
    text = "fit: {points: 60, steps: 300, stop: {gradient: 1.0e-6}, dtype: float64}\nrecord: "
    (late,) = rows_of(text + "{at: [0, 299]}").to_pylist()
    assert late["steps_to_1pct"] == late["steps_taken"] < 299
    assert late["history_steps"] == [0]
    (unknown,) = rows_of(text + "{at: [0], of: [gradient_norm]}").to_pylist()
    assert unknown["steps_to_1pct"] is None


@pytest.mark.parametrize(
    "fields",
    ["lr: {of_limit: 1.5}", "degree: 9, basis: power", "objective: huber", "target: 1 / (x - x)"],
)
def test_a_fit_that_was_never_near_or_has_no_optimum_has_no_such_update(fields: str) -> None:
    row_of(fields, steps_to_1pct=None)
