"""Fits that cannot start: what is reported before a run is what its rows say after it."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.errors import SpecError
from polyfit.numerics.design import frame
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.precheck import Precheck
from polyfit.spec.spec import Spec
from polyfit.spec.sweep import Sweep
from polyfit.work.fitting import compute


def spec_of(text: str) -> Spec:
    return Spec.parse(f"name: test\nengine: eager\nrecord: none\n{text}", "job.yaml")


def lines(text: str, **limits: int) -> list[str]:
    spec = spec_of(text)
    return Precheck.of(Sweep.of(spec), **limits).lines(spec)


def rows_not_started(spec: Spec) -> list[bool]:
    """Of each fit, whether its row says that it ended before its first update."""
    plan = Plan.of(spec)
    rows = compute(plan, Shard(0, 0, plan.fits), torch.device("cpu"))
    taken = np.array(rows["steps_taken"]) == 0
    diverged = np.array([str(status) == "diverged" for status in rows["status"]])
    assert diverged[taken].all()
    return [bool(value) for value in taken]


def found_not_started(spec: Spec) -> list[bool]:
    """The same before anything is fitted, each fit looked at for itself."""
    sweep = Sweep.of(spec)
    alone = [Precheck.of(Sweep((ParameterGrid(sweep.fit(i), ()),))) for i in range(sweep.size)]
    assert {found.unchecked for found in alone} == {0}
    return [found.cannot_start == 1 for found in alone]


# --- agreement with the rows -----------------------------------------------------------------

NASTY: dict[str, list[Any]] = {
    "target": ["sin(x)", "log(x)", "sqrt(x)", "1/x", "exp(x)", "x**30", "asin(x)", "3e38", "1e38*x",
               "exp(x) - exp(x)", "log(x - 1)", "1e308*x", "tan(x)", "2e37 + 0*x"],
    "range": [[-1, 1], [0, 1], [1, 2], [0, 100], [0, 1000], [-1e10, 1e10], [1e-3, 2e-3],
              [-1e-20, 1e-20], [0, 1e160], [1e6, 1000001], ["-pi", "pi"]],
    "degree": [0, 1, 2, 3, 5, 12, 30],
    "points": [31, 32, 40, 101],
    "basis": ["chebyshev", "legendre", "power"],
    "dtype": ["float32", "float64"],
    "objective": ["sse", "mse", "huber"],
    "optimizer": ["gd", "adam", {"momentum": {"beta": 0.99}}, "newton"],
    "lr": ["auto", 0.1, 1e-38, 1.2e-38, 1e-50, 1e39, 1e300, 5e-324, {"of_limit": 0.5},
           {"of_limit": 1e-30}, {"of_limit": 1e-36}, {"of_limit": 1e38}, {"of_limit": 1e300}],
    "noise": [0, 0.5, 1e30, 3e36, 1e37, 5e37, 1e38, 1e300, 1.7e308],
    "noise_seed": [0, 1, 2, 3, 4],
    "steps": [1, 2],
    "seed": [0, 1],
}  # fmt: skip


@st.composite
def nasty(draw: st.DrawFn) -> Spec:
    """A sweep of a few fields over values that are at the edge, or beyond it."""
    names = draw(st.lists(st.sampled_from(list(NASTY)), min_size=2, max_size=5, unique=True))
    fit = {name: draw(st.sampled_from(NASTY[name])) for name in names[::2]}
    sweep: dict[str, Any] = {}
    for name in names[1:]:
        some = st.lists(st.sampled_from(NASTY[name]), min_size=1, max_size=3, unique_by=str)
        sweep[name] = draw(some)
    if draw(st.booleans()):
        zipped = [sorted(sweep)[-2:]] if len(sweep) > 1 else []
        for one, other in zipped:
            count = min(len(sweep[one]), len(sweep[other]))
            sweep["zip"] = [{name: sweep.pop(name)[:count] for name in (one, other)}]
    fit = {"points": 31, "basis": "power", "steps": 2, **fit}
    source = {"name": "nasty", "engine": "eager", "record": "none", "fit": fit, "sweep": sweep}
    try:
        return Spec.parse(json.dumps(source))
    except SpecError:  # adam and newton have no stability limit
        source["fit"] = {**fit, "optimizer": "gd"}
        source["sweep"] = {name: values for name, values in sweep.items() if name == "range"}
        return Spec.parse(json.dumps(source))


@given(nasty())
@settings(max_examples=40)
def test_the_fits_named_are_those_whose_rows_took_no_update(spec: Spec) -> None:
    expected = rows_not_started(spec)
    assert found_not_started(spec) == expected
    found = Precheck.of(Sweep.of(spec))
    assert (found.cannot_start, found.unchecked) == (sum(expected), 0)
    if not found.more:
        assert sum(cause.fits for cause in found.causes) == found.cannot_start


def test_a_whole_sweep_of_many_causes_agrees_with_its_rows() -> None:
    spec = spec_of(
        "fit: {points: 40, steps: 2}\n"
        "sweep:\n"
        "  target: [sin(x), log(x), exp(x), 1e38*x]\n"
        "  range: [[0, 1], [1, 2], [0, 100], [-1e-20, 1e-20], [-1e10, 1e10]]\n"
        "  basis: [power, chebyshev]\n"
        "  degree: [1, 5]\n"
        "  dtype: [float32, float64]\n"
        "  lr: [auto, 0.1, 1e-50]\n"
        "  seed: {count: 2}\n"
    )
    rows, found = rows_not_started(spec), Precheck.of(Sweep.of(spec))
    assert (found.fits, found.cannot_start, found.unchecked) == (len(rows), sum(rows), 0)
    assert 0 < sum(rows) < len(rows)
    first = Sweep.of(spec).fit(rows.index(True))
    assert {name: getattr(first, name) for name in found.causes[0].values} == found.causes[0].values


@pytest.mark.parametrize("degree", range(31))
def test_the_pivots_of_chebyshev_polynomials_are_above_their_bound(
    degree: int,
) -> None:
    points = [degree + 1, degree + 2, 2 * degree + 2, 100, 1000]
    found = [frame(n, degree).R_MM for n in points if n > degree]
    assert min(float(np.abs(np.diagonal(R)).min()) for R in found) > 1e-3


# --- messages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fit: {target: log(x), range: [-1, 1]}\nsweep: {seed: {count: 7}}",
            "job.yaml:4: fit.target: target log(x) is not finite on range [-1, 1]: first nan at "
            "x = -1, in all at 1,000 of 2,000 points: 7 of 7 fits cannot start",
        ),
        (
            "fit: {target: asin(x), range: [-1.0000001, 1], points: 50}",
            "job.yaml:4: fit.target: target asin(x) is not finite on range [-1.0000001, 1]: first "
            "nan at x = -1.0000001, in all at 1 of 50 points: 1 of 1 fits cannot start",
        ),
        (
            "fit: {points: 11}\nsweep:\n  target: [sin(x),\n    1/x]\n  range: [[0, 1], [1, 2]]",
            "job.yaml:7: sweep.target[1]: target 1 / x is not finite on range [0, 1]: first inf at "
            "x = 0, in all at 1 of 11 points: 1 of 4 fits cannot start",
        ),
        (
            "sweep:\n  zip:\n  - target: [exp(x), sin(x)]\n    range: [[0, 100], [0, 1]]",
            "job.yaml:6: sweep.zip[0].target[0]: target exp(x) on range [0, 100] is beyond float32 "
            "(1.18e-38 to 3.4e+38): up to 2.69e+43: 1 of 2 fits cannot start",
        ),
        (
            "fit: {basis: power}\n"
            "sweep: {range: [[-1, 1], [-1e20, 1e20]], dtype: [float32, float64]}",
            "job.yaml:5: sweep.range[1]: the functions of basis power up to degree 3 on range "
            "[-1e+20, 1e+20] are too large or too small for float32 (1.18e-38 to 3.4e+38): "
            "1 of 4 fits cannot start",
        ),
        (
            "fit: {basis: power, range: [-1e12, 1e12], optimizer: newton}",
            "job.yaml:4: fit.range: the functions of basis power up to degree 3 on range "
            "[-1e+12, 1e+12], squared, are too large or too small for float32 (1.18e-38 to "
            "3.4e+38): 1 of 1 fits cannot start",
        ),
        (
            "sweep: {lr: {logspace: [-60, -1, 60]}}",
            "job.yaml:4: sweep.lr: lr 1e-60 is beyond float32 (1.18e-38 to 3.4e+38): "
            "1 of 60 fits cannot start",
        ),
        (
            "fit: {basis: power, degree: 12, range: [-1000, 1000]}",
            "job.yaml:4: fit.range: lr auto is 6.18e-75 on range [-1000, 1000] with basis power of "
            "degree 12, beyond float32 (1.18e-38 to 3.4e+38): 1 of 1 fits cannot start",
        ),
        (
            "fit: {noise: 1e39}",
            "job.yaml:4: fit.noise: target sin(x) on range [-3.14159, 3.14159] is beyond float32 "
            "(1.18e-38 to 3.4e+38): up to 1, with noise 1e+39: 1 of 1 fits cannot start",
        ),
    ],
)
def test_a_cause_is_reported_with_its_place_and_its_fits(text: str, message: str) -> None:
    assert lines(text)[0] == message


def test_of_many_causes_the_first_are_reported_and_the_others_counted() -> None:
    ranges = ", ".join(f"[{-n}, 1]" for n in range(1, 31))
    found = lines(
        f"fit: {{target: log(x), points: 40}}\nsweep: {{range: [{ranges}], degree: [1, 2]}}"
    )
    assert len(found) == 12
    assert found[9].endswith("2 of 60 fits cannot start")
    assert found[10:] == [
        "job.yaml: 20 more causes like these",
        "job.yaml: in all 60 of 60 fits cannot start",
    ]


def test_a_sweep_whose_fits_all_start_has_no_message() -> None:
    assert (
        lines("sweep: {seed: {count: 1000000000}, degree: [1, 30], noise_seed: {count: 9}}") == []
    )


# --- bounds of the work ----------------------------------------------------------------------

HALF = "fit: {target: log(x), points: 100}\nsweep: {range: [[-1, 1], [1, 2], [2, 3], [-2, 1]]}"


def test_fits_that_were_not_checked_are_counted() -> None:
    found = Precheck.of(Sweep.of(spec_of(HALF)), max_kinds=3)
    assert (found.cannot_start, found.unchecked) == (1, 1)
    assert lines(HALF, max_kinds=3)[-1] == (
        "job.yaml: 1 of 4 fits were not checked: the check is limited to about a second of work"
    )
    assert Precheck.of(Sweep.of(spec_of(HALF)), max_cost=0).unchecked == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "sweep",
    [
        "{seed: {count: 4000000000}, noise: {count: 1000, step: 0.001}, noise_seed: {count: 9}}",
        "{noise: [0, 1.0e+30], noise_seed: {count: 1000000000000}}",
        "{points: {start: 100, stop: 20000}, lr: [auto, {of_limit: 1.0e-30}]}",
        "{lr: {logspace: [-300, 0, 1000]}, noise: {linspace: [0, 1, 10000]}}",
    ],
)
def test_of_a_huge_sweep_each_fit_starts_or_not_or_is_counted_as_unchecked(
    sweep: str,
) -> None:
    found = Precheck.of(Sweep.of(spec_of(f"fit: {{basis: power, degree: 5}}\nsweep: {sweep}")))
    assert 0 <= found.cannot_start <= found.fits - found.unchecked
    assert found.unchecked < found.fits


def test_it_is_found_without_torch() -> None:
    code = (
        "import sys\nfrom polyfit.spec.precheck import Precheck\n"
        "from polyfit.spec.spec import Spec\n"
        "from polyfit.spec.sweep import Sweep\n"
        "assert Precheck.of(Sweep.of(Spec.parse('name: a\\nfit: {target: log(x)}'))).cannot_start\n"
        "assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
