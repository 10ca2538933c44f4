"""What holds on an accelerator: `make gpu-check` on a machine that has one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from polyfit.fit import pick_device
from polyfit.plan import Plan, Shard
from polyfit.spec import Spec
from polyfit.worker import compute

pytestmark = pytest.mark.skipif(
    not torch.accelerator.is_available(), reason="this machine has no accelerator"
)
CPU = torch.device("cpu")
JOBS = Path(__file__).resolve().parent.parent / "jobs"


def both(text: str) -> tuple[pa.Table, pa.Table]:
    """All rows of a spec, from the CPU and from the accelerator."""
    plan = Plan.of(Spec.parse(text))
    shard = Shard(0, 0, plan.fits)
    return compute(plan, shard, CPU), compute(plan, shard, pick_device(accelerated=True))


def close(one: pa.Table, other: pa.Table, tolerance: float) -> None:
    assert one["status"].to_pylist() == other["status"].to_pylist()
    for name in ("loss", "coefficients", "loss_history"):
        for a, b in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True):
            np.testing.assert_allclose(b, a, rtol=tolerance)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
def test_the_tutorials_job_has_the_numbers_it_has_on_the_cpu(
    engine: str, dtype: str, tolerance: float
) -> None:
    text = (JOBS / "sine.yaml").read_text().replace("float32", dtype)
    close(*both(f"{text}engine: {engine}\nsweep: {{seed: {{count: 10}}}}\n"), tolerance)


@pytest.mark.parametrize("objective", ["sse", "huber", "log_cosh"])
@pytest.mark.parametrize("optimizer", ["gd", "momentum", "adam"])
def test_a_fit_alone_is_the_fit_in_a_batch_to_rounding(objective: str, optimizer: str) -> None:
    plan = Plan.of(
        Spec.parse(
            f"name: test\nengine: compiled\nfit: {{objective: {objective}, optimizer: {optimizer}, "
            "dtype: float64, steps: 100}\nsweep: {seed: {count: 37}}\n"
        )
    )
    device = pick_device(accelerated=True)
    together = compute(plan, Shard(0, 0, 37), device)
    for place in (0, 17, 36):
        close(together.slice(place, 1), compute(plan, Shard(0, place, place + 1), device), 1e-11)
