"""Specs as text, and what is wrong in them."""

import pytest

from polyfit.errors import SpecError
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

__all__ = ["EXAMPLE", "defects", "plan_of", "spec"]

EXAMPLE = """\
name: sine-sweep
fit:
  target: sin(x)
  range: [-pi, pi]
  points: 2000
  degree: 3
  basis: power
  objective: sse
  optimizer: gd
  lr: 1.0e-6
  steps: 2000
  dtype: float32
  seed: 0
  noise: 0.0
  noise_seed: 0
sweep:
  degree: [1, 3, 5]
  range: [[-pi, pi], [-1, 1]]
  seed: {count: 1000}
  zip: [{optimizer: [gd, adam], lr: [auto, 0.01]}]
record: {every: 100, of: [loss]}
engine: auto
shard: auto
run_id: null
store: {uri: s3://bucket/prefix, endpoint_url: null}
resources: {gpus_per_actor: auto, cpus_per_actor: 1, actors: {min: 1, max: auto}}
limits: {fits: null, core_hours: null, bytes: null}
"""
"""Every section of a spec."""


def spec(text: str) -> Spec:
    return Spec.parse(f"name: test\n{text}", "job.yaml")


def defects(text: str) -> list[str]:
    """The defects of a spec whose second line and those after are ``text``."""
    with pytest.raises(SpecError) as caught:
        spec(text)
    return caught.value.problems


def plan_of(text: str) -> Plan:
    return Plan.of(Spec.parse(f"name: test\n{text}"))
