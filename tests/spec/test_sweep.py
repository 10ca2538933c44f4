"""Index <-> parameters, over random sweeps."""

import itertools
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import spec_of, specs

from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.spec.sweep import Sweep


def sweep_of(text: str) -> Sweep:
    return Sweep.of(Spec.parse(f"name: test\n{text}"))


def index_of(sweep: Sweep, fit: Fit) -> int:
    """The inverse of ``Sweep.fit``."""
    index = 0
    for axis in sweep.grids[0].axes:
        columns = [values.items for values in axis.values]
        row = tuple(getattr(fit, field) for field in axis.fields)
        one = len(row) == 1
        digit = columns[0].index(row[0]) if one else [*zip(*columns, strict=True)].index(row)
        index = index * len(axis) + digit
    return index


@given(specs())
@settings(max_examples=60, deadline=None)
def test_index_to_fit_to_index_is_a_bijection(source: dict[str, Any]) -> None:
    sweep = Sweep.of(spec_of(source))
    fits = [sweep.fit(i) for i in range(sweep.size)]
    assert [index_of(sweep, fit) for fit in fits] == list(range(sweep.size))
    assert len(set(fits)) == sweep.size


@given(specs())
@settings(max_examples=60, deadline=None)
def test_the_fits_are_the_product_of_the_axes_in_canonical_order(source: dict[str, Any]) -> None:
    spec = spec_of(source)
    place = CANONICAL_ORDER.index
    axes = sorted(spec.grids[0].axes, key=lambda axis: min(place(name) for name in axis.fields))
    rows = [
        [
            dict(zip(axis.fields, row, strict=True))
            for row in zip(*(v.items for v in axis.values), strict=True)
        ]
        for axis in axes
    ]
    base = {name: getattr(spec.fit, name) for name in CANONICAL_ORDER}
    sweep = Sweep.of(spec)
    found = (sweep.fit(i) for i in range(sweep.size))
    for parts, fit in zip(itertools.product(*rows), found, strict=True):
        merged = dict(base)
        for part in parts:
            merged.update(part)
        assert fit == Fit(**merged)


@given(specs(), st.data())
@settings(max_examples=60, deadline=None)
def test_columns_hold_the_values_of_the_fits(source: dict[str, Any], data: st.DataObject) -> None:
    sweep = Sweep.of(spec_of(source))
    indices = data.draw(st.lists(st.integers(0, sweep.size - 1), min_size=1, max_size=20))
    for name in CANONICAL_ORDER:
        column = sweep.column(name, np.array(indices))
        expected = [getattr(sweep.fit(i), name) for i in indices]
        assert [column.items[code] for code in column.codes] == expected
        compact = column.compact()
        assert [compact.items[code] for code in compact.codes] == expected
        assert sorted(map(str, compact.items)) == sorted(set(map(str, expected)))
        assert set(expected) <= set(sweep.values(name))
        if FIELDS[name].integer:
            dtype = np.uint64 if name == "noise_seed" else np.int64
            assert column.array(dtype).tolist() == expected


@given(specs())
@settings(max_examples=60, deadline=None)
def test_a_sweep_survives_json(source: dict[str, Any]) -> None:
    sweep = Sweep.of(spec_of(source))
    assert Sweep.restore(json.loads(json.dumps(sweep.canonical(), sort_keys=True))) == sweep


def test_seeds_vary_fastest_and_degrees_slowest() -> None:
    sweep = sweep_of("sweep: {seed: {count: 2}, lr: [1, 2], degree: [1, 2]}")
    found = [(f.degree, f.lr.value, f.seed) for f in map(sweep.fit, range(sweep.size))]
    assert found == list(itertools.product((1, 2), (1.0, 2.0), (0, 1)))


def test_a_zip_stands_where_its_slowest_field_stands() -> None:
    sweep = sweep_of("sweep: {basis: [power, legendre], zip: [{seed: [8, 9], degree: [1, 2]}]}")
    found = [(f.degree, f.seed, f.basis) for f in map(sweep.fit, range(sweep.size))]
    assert found == [(1, 8, "power"), (1, 8, "legendre"), (2, 9, "power"), (2, 9, "legendre")]


def test_no_sweep_is_one_fit() -> None:
    sweep = sweep_of("fit: {degree: 5}")
    assert (sweep.size, sweep.fit(0).degree) == (1, 5)


@pytest.mark.parametrize("index", [-1, 6, 10**30])
def test_an_index_beyond_the_sweep_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"fit {index} of 6"):
        sweep_of("sweep: {seed: {count: 6}}").fit(index)


def test_the_size_is_exact_beyond_64_bits() -> None:
    sweep = sweep_of("sweep: {seed: {count: 4294967296}, noise_seed: {count: 4294967296, step: 3}}")
    assert sweep.size == 2**64
    last = sweep.fit(2**64 - 1)
    assert (last.seed, last.noise_seed) == (2**32 - 1, 3 * (2**32 - 1))
    assert index_of(sweep, last) == 2**64 - 1


@pytest.mark.parametrize("shard", ["auto", "1000"])
def test_a_sweep_of_a_thousand_million_fits_is_planned_in_bounded_memory(shard: str) -> None:
    text = (
        "name: huge\nfit: {points: 100}\n"
        "sweep: {degree: {count: 10}, steps: [100, 200], seed: {count: 50000000}}\n"
        f"shard: {shard}\n"
    )
    Plan.of(Spec.parse("name: warm"))  # what the first plan of a process leaves behind
    tracemalloc.start()
    try:
        plan = Plan.of(Spec.parse(text))
        order = plan.costly_first(range(plan.shards))
        last = plan.shard(plan.shards - 1)
        plan.to_json()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (plan.fits, last.stop, len(order)) == (10**9, 10**9, plan.shards)
    assert peak < 50_000_000
