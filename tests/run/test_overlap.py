"""Which fits two sweeps have in common."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import GENERATORS, VALUES, entries, spec_of, specs

from polyfit.run.overlap import Overlap
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.sweep import Sweep


@st.composite
def related(draw: st.DrawFn) -> tuple[Sweep, Sweep]:
    """Two sweeps that differ in a few fields, so that they often have fits in common."""
    first = draw(specs())
    sweep = {name: values for name, values in first["sweep"].items() if name != "zip"}
    zips = []
    for entry in first["sweep"].get("zip", ()):
        match draw(st.sampled_from(["as it is", "other rows", "each for itself", "apart"])):
            case "as it is":
                zips.append(entry)
            case "other rows":
                zips.append(draw(entries(list(entry))))
            case "each for itself":
                sweep |= {name: once(values) for name, values in entry.items()}
    zipped = {name for entry in zips for name in entry}
    for name in draw(st.lists(st.sampled_from(CANONICAL_ORDER), max_size=2, unique=True)):
        if name not in zipped:
            values = st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=4, unique_by=str)
            generator = [st.just(GENERATORS[name])] if name in GENERATORS else []
            sweep[name] = draw(st.one_of(values, *generator))
    second = {**first, "sweep": {**sweep, **({"zip": zips} if zips else {})}}
    pair = Sweep.of(spec_of(first)), Sweep.of(spec_of(second))
    return pair if draw(st.booleans()) else pair[::-1]


def once(values: list[Any]) -> list[Any]:
    return list({str(value): value for value in values}.values())


@given(related())
def test_a_fits_index_in_the_other_sweep_is_that_of_the_fit_with_its_fields(
    pair: tuple[Sweep, Sweep],
) -> None:
    new, old = pair
    index = {old.fit(i): i for i in range(old.size)}
    expected = [index.get(new.fit(i), -1) for i in range(new.size)]
    assert Overlap(new, old).indices(np.arange(new.size)).tolist() == expected


SEEDS = st.builds(
    lambda start, step, count, down: range(start, start + step * count, step)[:: -1 if down else 1],
    st.integers(0, 50), st.integers(1, 12), st.integers(1, 30), st.booleans(),
)  # fmt: skip


def axis_of(items: range) -> dict[str, int]:
    return {"count": len(items), "start": items.start, "step": items.step}


def sweep_of(fit: dict[str, Any] | None = None, **sweep: Any) -> Sweep:
    return Sweep.of(spec_of({"name": "test", "fit": fit or {}, "sweep": sweep}))


@given(SEEDS, SEEDS, st.sampled_from(["range", "list"]), st.sampled_from(["range", "list"]))
def test_seeds_by_a_generator_are_those_of_a_list(
    one: range, other: range, this: str, that: str
) -> None:
    forms: dict[str, Callable[[range], Any]] = {"range": axis_of, "list": list}
    new, old = sweep_of(seed=forms[this](one)), sweep_of(seed=forms[that](other))
    expected = [other.index(seed) if seed in other else -1 for seed in one]
    assert Overlap(new, old).indices(np.arange(new.size)).tolist() == expected


@pytest.mark.parametrize("down", [False, True])
def test_noise_seeds_up_to_the_last_are_found(down: bool) -> None:
    top = 2**64 - 1
    new = sweep_of(noise_seed={"count": 6, "start": top, "step": -2})
    old = sweep_of(
        noise_seed={"count": 8, "start": top - 7 * (not down), "step": -1 if down else 1}
    )
    found = [0, 2, 4, 6, -1, -1] if down else [7, 5, 3, 1, -1, -1]
    assert Overlap(new, old).indices(np.arange(6)).tolist() == found


def test_a_thousand_million_seeds_in_a_zip_are_never_listed() -> None:
    both = {"seed": {"count": 10**9}, "noise_seed": {"count": 10**9, "start": 5}}
    old = sweep_of(degree=[1, 2], zip=[both])
    new = sweep_of(degree=[2, 3], zip=[both])
    overlap = Overlap(new, old)
    fits = np.array([0, 7, 10**9 - 1, 10**9])
    assert overlap.indices(fits).tolist() == [10**9, 10**9 + 7, 2 * 10**9 - 1, -1]
    apart = sweep_of(degree=[2], seed={"count": 10**9}, noise_seed=[5, 6])
    assert Overlap(apart, old).indices(np.array([0, 3, 10**9, 10**9 + 1])).tolist() == [
        10**9, -1, -1, 10**9 + 1,
    ]  # fmt: skip
    both_axes = sweep_of(seed={"count": 10**9}, noise_seed={"count": 10**6})
    assert Overlap(sweep_of(), both_axes).indices(np.arange(1)).tolist() == [0]


@pytest.mark.parametrize(
    ("fit", "other"),
    [
        ({"lr": "auto"}, {"lr": 0.01}),
        ({"lr": {"of_limit": 0.5}}, {"lr": "auto"}),  # the same rate, asked for otherwise
        ({"noise_seed": 1}, {"noise_seed": 2}),
        ({"seed": 1}, {"seed": 2}),
        ({"stop": {"gradient": 1e-6}}, {}),
        ({"optimizer": {"momentum": {"beta": 0.9}}}, {"optimizer": {"momentum": {"beta": 0.8}}}),
        ({"range": [-1, 1]}, {"range": [-1, 1.5]}),
    ],
)
def test_a_fit_that_differs_in_one_field_is_another(
    fit: dict[str, Any], other: dict[str, Any]
) -> None:
    assert Overlap(sweep_of(fit), sweep_of(other)).indices(np.arange(1)).tolist() == [-1]
    assert Overlap(sweep_of(fit), sweep_of(fit)).indices(np.arange(1)).tolist() == [0]
