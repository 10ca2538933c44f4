"""Kinds of fit that tests of the engines go through."""

from dataclasses import asdict, dataclass
from unittest.mock import patch

import pyarrow as pa
import torch

from polyfit.engine import batch_data
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.work import fitting

__all__ = ["CPU", "IN_POWERS", "KINDS", "KindOfFit", "plan_of", "rows_of"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class KindOfFit:
    """What decides which kernel iterates, as words of a spec."""

    degree: int
    objective: str
    optimizer: str = "gd"
    dtype: str = "float32"
    stop: str = "none"

    def __str__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in asdict(self).items())


KINDS = (
    KindOfFit(10, "sse"),
    KindOfFit(3, "sse"),
    KindOfFit(1, "sse"),
    KindOfFit(3, "sse", dtype="float64"),
    KindOfFit(3, "sse", "momentum"),
    KindOfFit(3, "sse", "momentum", dtype="float64"),
    KindOfFit(3, "sse", "adam"),
    KindOfFit(3, "sse", "adam", dtype="float64"),
    KindOfFit(3, "sse", stop="{gradient: 0.5}"),
    KindOfFit(3, "sse", stop="{loss_change: 0.01}"),
    KindOfFit(3, "mse"),
    KindOfFit(3, "huber"),
    KindOfFit(1, "huber"),
    KindOfFit(3, "huber", "momentum"),
    KindOfFit(3, "huber", "adam"),
    KindOfFit(3, "huber", stop="{gradient: 0.5}"),
    KindOfFit(3, "log_cosh"),
    KindOfFit(3, "l1"),
)
IN_POWERS = (KindOfFit(3, "sse"), KindOfFit(3, "huber"))
"""Those that are fitted in powers of x too, where each range has a design of its own."""


def plan_of(text: str, engine: str) -> Plan:
    return Plan.of(Spec.parse(f"name: test\nengine: {engine}\n{text}"))


def rows_of(text: str, engine: str = "eager", device: torch.device = CPU, few: int = 0) -> pa.Table:
    """All rows of a spec's plan, computed here as one shard; below ``few`` without kernels."""
    plan = plan_of(text, engine)
    with patch.object(batch_data, "MIN_COMPILED", few):
        return fitting.compute(plan, Shard(0, 0, plan.fits), device)
