"""Specs as text, and what is wrong in them."""

import pytest

from polyfit.errors import SpecError
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

__all__ = ["defects", "plan_of", "spec"]


def spec(text: str) -> Spec:
    return Spec.parse(f"name: test\n{text}", "job.yaml")


def defects(text: str) -> list[str]:
    """The defects of a spec whose second line and those after are ``text``."""
    with pytest.raises(SpecError) as caught:
        spec(text)
    return caught.value.problems


def plan_of(text: str) -> Plan:
    return Plan.of(Spec.parse(f"name: test\n{text}"))
