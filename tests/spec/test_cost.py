"""Projected times and sizes."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from specs import plan_of
from sweeps import spec_of, specs

from polyfit.spec.cost import nominal_seconds
from polyfit.spec.plan import Plan


@given(specs())
@settings(max_examples=40, deadline=None)
def test_the_projected_time_is_that_of_all_fits_and_of_the_shards_batches(
    source: dict[str, Any],
) -> None:
    plan = Plan.of(spec_of(source))
    fits = [plan.sweep.fit(i) for i in range(plan.fits)]
    expected = sum(
        nominal_seconds(f.degree, f.points, f.objective, f.optimizer, f.steps, engine=plan.engine)
        for f in fits
    )
    if plan.engine != "eager":
        assert plan.seconds >= expected
        return
    calls = [f.steps * 1e-4 for f in fits]
    assert plan.seconds >= expected + plan.shards * min(calls)
    if plan.fits > 1:
        once, twice = (
            dataclasses.replace(plan, shard_fits=-(-plan.fits // shards)).seconds
            for shards in (1, 2)
        )
        assert once - (twice - once) == pytest.approx(expected, rel=1e-6)


def test_a_run_of_little_work_needs_no_ray_and_one_of_much_is_shared_by_cores() -> None:
    little, much = (plan_of(f"sweep: {{seed: {{count: {count}}}}}") for count in (1, 10**7))
    assert little.inline
    assert little.wall_seconds(16) == little.wall_seconds(1) > little.seconds
    assert not much.inline
    starts = {much.wall_seconds(n) - much.seconds / n for n in (1, 2, 16)}
    assert max(starts) - min(starts) < 1e-6
    assert much.wall_seconds(10**6) == much.wall_seconds(much.shards)


def test_every_kind_of_fit_is_compiled_apart() -> None:
    """Some seconds for a hundred kinds, and more for those of a high degree."""
    one, many, high = (
        plan_of(f"fit: {{steps: 1}}\nsweep: {{{sweep}}}").seconds
        for sweep in (
            "degree: [3]",
            "degree: [3, 4], objective: [sse, mse, huber], optimizer: [gd, adam]",
            "degree: [29, 30], objective: [sse, mse, huber], optimizer: [gd, adam]",
        )
    )
    assert one < many < high


def test_the_projected_bytes_grow_with_what_is_recorded() -> None:
    texts = ["none", "{every: 100}", "{every: 10}", "{every: 10, of: [loss, coefficients]}"]
    sizes = [plan_of(f"record: {text}").projected_bytes for text in texts]
    assert sizes == sorted(set(sizes))
