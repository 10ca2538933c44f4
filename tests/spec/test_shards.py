"""How a sweep is cut into shards, and which go first."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import plan_of
from sweeps import spec_of, specs

from polyfit.errors import LimitExceeded
from polyfit.spec.cost import nominal_seconds
from polyfit.spec.plan import Plan
from polyfit.spec.shards import MAX_SHARDS, SHARD_BYTES, SHARD_FITS, SHARD_SECONDS


@given(specs(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_shards_partition_the_fits(source: dict[str, Any], shard: int) -> None:
    plan = Plan.of(spec_of({**source, "shard": shard}))
    shards = [plan.shard(number) for number in range(plan.shards)]
    assert [i for s in shards for i in range(s.start, s.stop)] == list(range(plan.fits))
    assert [s.number for s in shards] == list(range(plan.shards))
    assert all(0 < s.fits == s.stop - s.start <= shard for s in shards)


@pytest.mark.parametrize("number", [-1, 4])
def test_a_shard_beyond_the_plan_is_refused(number: int) -> None:
    with pytest.raises(IndexError, match=f"shard {number} of 4"):
        plan_of("sweep: {seed: {count: 10}}\nshard: 3").shard(number)


@given(specs(), st.integers(1, 5), st.data())
@settings(max_examples=40, deadline=None)
def test_costly_shards_go_first_and_every_shard_goes_once(
    source: dict[str, Any], shard: int, data: st.DataObject
) -> None:
    plan = Plan.of(spec_of({**source, "shard": shard}))
    numbers = data.draw(st.lists(st.integers(0, plan.shards - 1), unique=True, max_size=20))

    def cost(number: int) -> float:
        fit = plan.sweep.fit(plan.shard(number).start)
        return nominal_seconds(
            fit.degree, fit.points, fit.objective, fit.optimizer, fit.steps, engine=plan.engine
        )

    assert plan.costly_first(numbers).tolist() == sorted(numbers, key=lambda n: -cost(n))


def test_a_million_shards_are_put_in_order() -> None:
    plan = plan_of("fit: {steps: 1}\nsweep: {degree: [1, 3], seed: {count: 500000}}\nshard: 1")
    half = np.arange(500_000)
    expected = np.concatenate([half + 500_000, half])
    np.testing.assert_array_equal(plan.costly_first(range(plan.shards)), expected)


@given(
    degree=st.integers(0, 30),
    points=st.sampled_from([31, 2000, 100_000]),
    steps=st.sampled_from([10, 2000, 1_000_000]),
    objective=st.sampled_from(["sse", "huber"]),
    record=st.sampled_from(["none", "{every: 100}", "{every: 100, of: [loss, coefficients]}"]),
    seeds=st.sampled_from([1, 100, 4_095, 4_096, 100_000, 4_000_000]),
)
@settings(max_examples=100, deadline=None)
def test_an_automatic_shard_is_the_largest_power_of_two_within_time_bytes_and_spread(
    degree: int, points: int, steps: int, objective: str, record: str, seeds: int
) -> None:
    fit = f"fit: {{degree: {degree}, points: {points}, steps: {steps}, objective: {objective}}}"
    if steps == 1_000_000:
        record = record.replace("100", "10000")
    text = f"{fit}\nsweep: {{seed: {{count: {seeds}}}}}\nrecord: {record}"
    try:
        plan = plan_of(text)
    except LimitExceeded:
        return
    one = plan.sweep.fit(0)
    seconds = nominal_seconds(degree, points, objective, one.optimizer, steps, engine=plan.engine)
    size = plan.projected_bytes / plan.fits

    def within(n: int) -> bool:
        spread = seeds < 4_096 or -(-seeds // n) >= 16
        return n * seconds < SHARD_SECONDS and n * size < SHARD_BYTES and n <= SHARD_FITS and spread

    n = plan.shard_fits
    assert n & (n - 1) == 0
    assert n == 1 or within(n) or -(-seeds // (n // 2)) > MAX_SHARDS
    assert not within(2 * n)


def test_an_automatic_shard_goes_by_the_costliest_fit() -> None:
    cheap = "fit: {steps: 10}\nsweep: {seed: {count: 4000}, degree: [1, 2]}"
    assert plan_of(cheap.replace("[1, 2]", "[1, 30]")).shard_fits <= plan_of(cheap).shard_fits
    dear = "sweep: {points: [100, 1000000], seed: {count: 1000}}\nfit: {objective: huber}"
    alone = "fit: {points: 1000000, objective: huber}\nsweep: {seed: {count: 2000}}"
    assert plan_of(dear).shard_fits == plan_of(alone).shard_fits


def test_an_automatic_shard_does_not_depend_on_the_cluster() -> None:
    text = "sweep: {seed: {count: 100000}}\n"
    asked = text + "resources: {gpus_per_actor: 1, cpus_per_actor: 8, actors: {min: 9, max: 99}}"
    assert plan_of(asked).shard_fits == plan_of(text).shard_fits


def test_a_stated_shard_is_kept() -> None:
    assert plan_of("sweep: {seed: {count: 100}}\nshard: 7").shard_fits == 7


def test_the_largest_plan_is_put_in_order() -> None:
    plan = plan_of("sweep: {seed: {count: 262144}, noise_seed: {count: 1000000}}")
    assert plan.costly_first([0, plan.shards - 1]).tolist() == [0, plan.shards - 1]
