"""Rows whose bits any machine must reproduce: one digest for each kind of fit, kept in golden.json.

A change of bits is a change of ENGINE, a new column one of SCHEMA. To write the file anew:
 `python tests/engine/test_golden.py`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import CPU, rows_of

from polyfit.spec.plan import ENGINE

GOLDEN = Path(__file__).with_name("golden.json")
SWEEP = (
    "sweep: {basis: [chebyshev, legendre, power], dtype: [float32, float64], "
    "range: [[-pi, pi], [0, 2]], noise: [0, 0.1], seed: {count: 40}}\n"
    "record: {every: 10, of: [loss, coefficients, gradient_norm]}\n"
)
KINDS = {
    f"{objective} {optimizer}": (
        f"fit: {{objective: {objective}, optimizer: {optimizer}, degree: 4, points: 100, "
        f"steps: 35, lr: {'0.001' if objective == 'l1' else 'auto'}}}\n{SWEEP}"
    )
    for objective in ("sse", "mse", "huber", "log_cosh", "l1")
    for optimizer in ("gd", "{momentum: {beta: 0.9}}", "adam")
}
STOPS = (
    "fit: {degree: 3, steps: 300, points: 50, stop: {gradient: 0.5}}\nsweep: {seed: {count: 99}}"
    "\nrecord: {every: 100}"
)
TARGETS = (
    "fit: {degree: 3, points: 60, steps: 20, range: [0.5, 1]}\n"
    "sweep: {target: [exp(x), log(x), tan(x), asin(x), acos(x), atan(x), sinh(x), cosh(x), "
    "tanh(x), x**2.5, 2**x, sign(x - 0.7) * sqrt(x), sin(x), cos(1e7 * x)], seed: {count: 3}}"
    "\nrecord: {every: 100}"
)
NEWTON = KINDS["sse gd"].replace("optimizer: gd", "optimizer: newton")
CASES = {
    **{kind: ("compiled", text) for kind, text in KINDS.items()},
    "stop": ("compiled", STOPS),
    "targets": ("compiled", TARGETS),
    "newton": ("compiled", NEWTON),
    "affine": ("affine", KINDS["sse gd"]),
}
FOLLOWS = ["lr_limit", "lr_share", "reason", "steps_to_1pct", "history_steps"]
"""Columns that follow from the others and from the data."""


def digest(case: str, device: torch.device = CPU, few: int = 0) -> str:
    """SHA-256 of all rows of a case, every number by its bits; ``FOLLOWS`` left out.

    To an engine a fit that stalled has converged.
    """
    engine, text = CASES[case]
    rows = rows_of(text, engine, device, few).drop_columns(FOLLOWS).to_pylist()
    for row in rows:
        row["status"] = row["status"].replace("stalled", "converged")
    return hashlib.sha256(json.dumps(bits(rows)).encode()).hexdigest()


def bits(value: Any) -> Any:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, list):
        return [bits(one) for one in value]
    return {name: bits(one) for name, one in value.items()} if isinstance(value, dict) else value


def test_the_digests_are_those_of_this_engine() -> None:
    assert json.loads(GOLDEN.read_text())["ENGINE"] == ENGINE


@pytest.mark.parametrize("few", [0, 10**9], ids=["kernels", "few"])
@pytest.mark.parametrize("case", CASES)
def test_rows_have_the_bits_that_they_have_everywhere(case: str, few: int) -> None:
    """Few fits are evaluated, and their data reduced, without kernels."""
    assert digest(case, few=few) == json.loads(GOLDEN.read_text())[case], (
        "python tests/engine/test_golden.py"
    )


if __name__ == "__main__":
    made = {"ENGINE": ENGINE, **{case: digest(case) for case in CASES}}
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
