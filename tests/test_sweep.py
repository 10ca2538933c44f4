"""Index <-> parameters, over random sweeps."""

import itertools
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.fields import CANONICAL_ORDER, FIELDS, Fit
from polyfit.plan import Plan
from polyfit.spec import Spec
from polyfit.sweep import Sweep

# Plain values of each field of which any two may be combined.
VALUES: dict[str, list[Any]] = {
    "degree": [0, 1, 2, 3, 5],
    "points": [6, 10, 100, 2000],
    "basis": ["chebyshev", "legendre", "power"],
    "range": [[-1, 1], ["-pi", "pi"], [0, "2*pi"], [0.5, 0.75]],
    "objective": ["sse", "mse", "huber", "log_cosh"],
    "dtype": ["float32", "float64"],
    "target": ["sin(x)", "x**3", "exp(-x)", "1"],
    "noise": [0, 0.1, 0.5, 1e-6],
    "noise_seed": [0, 1, 7, 2**64 - 1],
    "steps": [1, 100, 2000],
    "stop": ["none", {"gradient": 1e-6}, {"loss_change": 1e-3}, {"gradient": 1e-3}],
    "optimizer": ["gd", "adam", {"momentum": {"beta": 0.9}}, {"momentum": {"beta": 0.5}}],
    "lr": ["auto", 1e-6, 0.01, 1],
    "seed": [0, 1, 5, 2**32 - 1],
}
GENERATORS: dict[str, Any] = {
    "degree": {"count": 3},
    "points": {"start": 10, "stop": 40, "step": 10},
    "noise": {"linspace": [0, 1, 5]},
    "noise_seed": {"count": 4, "start": 2**64 - 4},
    "steps": {"logspace": [0, 3, 4]},
    "lr": {"logspace": [-3, -1, 3]},
    "seed": {"count": 5, "start": 9, "step": -2},
}


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec as plain values: some fields fixed, some swept, some zipped."""
    names = draw(st.permutations(CANONICAL_ORDER))
    swept = names[: draw(st.integers(0, 6))]
    zipped = swept[: draw(st.sampled_from([0, 0, 2, 3, 4]))] if len(swept) >= 4 else []
    sweep: dict[str, Any] = {}
    for name in swept[len(zipped) :]:
        lists = st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=3, unique_by=str)
        generator = [st.just(GENERATORS[name])] if name in GENERATORS else []
        sweep[name] = draw(st.one_of(lists, *generator))
    if zipped:
        groups = [zipped[:2], zipped[2:]] if len(zipped) == 4 else [zipped]
        sweep["zip"] = [draw(entries(group)) for group in groups]
    fixed = names[len(swept) :][: draw(st.integers(0, 4))]
    fit = {name: draw(st.sampled_from(VALUES[name])) for name in fixed}
    record = draw(st.sampled_from(["none", {"every": 10, "of": ["loss", "coefficients"]}]))
    return {"name": "test", "fit": fit, "sweep": sweep, "record": record}


def entries(names: list[str]) -> st.SearchStrategy[dict[str, list[Any]]]:
    """A zip entry: rows of values of these fields, each row once."""
    row = st.tuples(*(st.sampled_from(VALUES[name]) for name in names))
    rows = st.lists(row, min_size=1, max_size=3, unique_by=str)
    return rows.map(lambda rows: {n: [r[i] for r in rows] for i, n in enumerate(names)})


def spec_of(source: dict[str, Any]) -> Spec:
    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Spec.parse(yaml.dump(source, Dumper=NoAliases, sort_keys=False))


def sweep_of(text: str) -> Sweep:
    return Sweep.of(Spec.parse(f"name: test\n{text}"))


@given(specs())
@settings(max_examples=60, deadline=None)
def test_index_to_fit_to_index_is_a_bijection(source: dict[str, Any]) -> None:
    sweep = Sweep.of(spec_of(source))
    fits = [sweep.fit(i) for i in range(sweep.size)]
    assert [sweep.index(fit) for fit in fits] == list(range(sweep.size))
    assert len(set(fits)) == sweep.size


@given(specs())
@settings(max_examples=60, deadline=None)
def test_the_fits_are_the_product_of_the_axes_in_canonical_order(source: dict[str, Any]) -> None:
    spec = spec_of(source)
    place = CANONICAL_ORDER.index
    axes = sorted(spec.axes, key=lambda axis: min(place(name) for name in axis.fields))
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


@pytest.mark.parametrize("other", [Fit(seed=7), Fit(seed=2, degree=4), Fit(seed=2, noise=1.0)])
def test_a_fit_that_is_not_in_the_sweep_has_no_index(other: Fit) -> None:
    with pytest.raises(ValueError, match=r"not in|no such fit"):
        sweep_of("sweep: {seed: {count: 6}}").index(other)


def test_the_size_is_exact_beyond_64_bits() -> None:
    sweep = sweep_of("sweep: {seed: {count: 4294967296}, noise_seed: {count: 4294967296, step: 3}}")
    assert sweep.size == 2**64
    last = sweep.fit(2**64 - 1)
    assert (last.seed, last.noise_seed) == (2**32 - 1, 3 * (2**32 - 1))
    assert sweep.index(last) == 2**64 - 1


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
