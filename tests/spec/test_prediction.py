"""What is predicted of fits, beside what came of them."""

import json
from typing import Any

import numpy as np
import pytest
from engines import CPU, plan_of, rows_of

from polyfit.engine.initial import initial_values
from polyfit.numerics.arrays import Array, Index
from polyfit.spec.future import Future, Kind
from polyfit.spec.plan import Plan
from polyfit.spec.prediction import Prediction

FITS, STEPS = 2000, 2000


def random_problems(random: np.random.Generator) -> str:
    """A spec of problems that differ in all fields, at 0.02 to 1 or 1.02 to 2 times the limit."""
    stable = random.random(FITS) < 0.7
    share = np.where(stable, random.uniform(0.02, 1, FITS), random.uniform(1.02, 2, FITS))
    low, momentum = random.uniform(-3, 2, FITS), {"momentum": {"beta": 0.9}}
    targets = ["sin(3*x)", "exp(x)", "abs(x)", "1 / (1 + 5*x**2)", "x**3 - x", "cos(7*x) + 2"]
    fields: dict[str, list[Any]] = {
        "degree": random.choice([1, 3], FITS).tolist(),
        "basis": random.choice(["chebyshev", "legendre", "power"], FITS).tolist(),
        "range": np.stack([low, low + random.uniform(0.5, 4, FITS)], axis=1).tolist(),
        "objective": random.choice(["sse", "mse"], FITS).tolist(),
        "target": random.choice(targets, FITS).tolist(),
        "noise": random.choice([0.0, 0.1, 1.0], FITS).tolist(),
        "noise_seed": random.integers(99, size=FITS).tolist(),
        "optimizer": ["gd" if first else momentum for first in random.random(FITS) < 0.5],
        "lr": [{"of_limit": float(value)} for value in share],
        "seed": random.integers(2**32, size=FITS).tolist(),
    }
    return (
        f"fit: {{points: 40, dtype: float64, steps: {STEPS}}}\n"
        f"sweep: {{zip: [{json.dumps(fields)}]}}\nrecord: {{every: 1}}"
    )


def drawn(plan: Plan, fits: Index, size: int) -> Array:
    """The start values that the engine draws."""
    seeds = plan.sweep.column("seed", fits).array(np.int64)
    return initial_values(seeds, size, False, CPU).astype(np.float64)


Outcomes = list[tuple[dict[str, Any], Kind]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Rows of random problems, each with what was predicted of it from its own start."""
    text = random_problems(np.random.default_rng(11))
    plan = plan_of(text, "compiled")
    found = Prediction.of(
        plan.sweep, max_cost=10**12, start_of=lambda fits, size: drawn(plan, fits, size)
    )
    columns = ["status", "steps_to_1pct", "lr_limit", "lr_share", "optimum_loss"]
    rows = rows_of(text, "compiled").select(columns).to_pylist()
    return list(zip(rows, found.kinds, strict=True))


@pytest.mark.slow
def test_below_the_limit_no_fit_diverges_and_beyond_2_percent_all_do(outcomes: Outcomes) -> None:
    stable = {row["status"] for row, kind in outcomes if kind.share is not None and kind.share <= 1}
    unstable = [(row, kind) for row, kind in outcomes if row["lr_share"] >= 1.02]
    assert stable == {"completed"}
    assert {(row["status"], kind.future) for row, kind in unstable} == {
        ("diverged", Future.DIVERGES)
    }
    assert 400 < len(unstable) < FITS - 400


@pytest.mark.slow
def test_limit_and_share_are_those_of_the_rows(outcomes: Outcomes) -> None:
    for row, kind in outcomes:
        assert (kind.limit, kind.share) == (row["lr_limit"], row["lr_share"])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["gd", "momentum"])
def test_the_updates_to_the_optimum_are_those_seen_within_10_percent(
    outcomes: Outcomes, optimizer: str
) -> None:
    """Where the optimum is 0 but for rounding, the last updates are rounding too: no claim."""
    pairs = [
        (row["steps_to_1pct"], kind.updates)
        for row, kind in outcomes
        if kind.values["optimizer"].name == optimizer and kind.future != Future.DIVERGES
        if row["optimum_loss"] > 1e-20
    ]
    arrived = [(seen, predicted) for seen, predicted in pairs if seen is not None]
    assert len(arrived) > 400
    for seen, predicted in arrived:
        assert predicted == pytest.approx(seen, rel=0.1)
    assert all(predicted is None or predicted > STEPS for seen, predicted in pairs if seen is None)


def test_without_its_start_a_kind_is_predicted_as_its_median_seed() -> None:
    text = (
        "fit: {points: 100, dtype: float64, steps: 3000}\nsweep: {degree: [1, 3, 6], "
        "basis: [chebyshev, power], range: [[-1, 1], [0, 3]], optimizer: [gd, momentum], "
        "seed: {count: 40}}\nrecord: {every: 1}"
    )
    kinds = Prediction.of(plan_of(text, "compiled").sweep).kinds
    seen = rows_of(text, "compiled")["steps_to_1pct"].to_pylist()
    ratios = [
        kind.updates / np.median(np.array(seen[kind.fit : kind.fit + 40], dtype=np.float64))
        for kind in kinds
        if kind.updates is not None and kind.future == Future.CONVERGES
    ]
    assert len(ratios) > 12
    assert 0.9 < min(ratios) <= max(ratios) < 1.5


NEAR_THE_LIMIT = """\
fit: {points: 100, steps: %d}
sweep:
  degree: [2, 4]
  basis: [chebyshev, power]
  optimizer: [gd, momentum]
  lr: {of_limit: [0.9, 0.9999, 1, 1.0001, 1.001, 1.01, 1.02]}
  seed: {count: 50}
"""


@pytest.mark.parametrize("steps", [20, 500])
def test_near_the_limit_nothing_is_predicted_that_a_start_does_not_keep(steps: int) -> None:
    text = NEAR_THE_LIMIT % steps
    rows = rows_of(text, "compiled").select(["status", "steps_to_1pct"]).to_pylist()
    seen: dict[Future, set[str]] = {}
    for kind in Prediction.of(plan_of(text, "compiled").sweep).kinds:
        own = rows[kind.fit : kind.fit + 50]
        seen.setdefault(kind.future, set()).update(row["status"] for row in own)
        if kind.share is not None and kind.share >= 1:  # few start so near that they stay there
            assert sum(row["steps_to_1pct"] is not None for row in own) < 10
    assert seen[Future.GROWS] == seen[Future.CONVERGES] == {"completed"}
    assert seen[Future.UNSTABLE] == {"completed", "diverged"}
    assert seen[Future.AT_LIMIT] >= {"completed"}
    assert seen.get(Future.DIVERGES, {"diverged"}) == {"diverged"}


@pytest.mark.slow
def test_newtons_method_needs_at_most_20_updates_where_it_is_the_remedy() -> None:
    text = (
        "fit: {points: 100, steps: 30%s}\nsweep: {degree: [6, 16], basis: [power], "
        "range: [[-1, 1], [-3, 3]], dtype: [float32, float64], seed: {count: 3}}\n"
        "record: {every: 1}"
    )
    kinds = of(text % "").kinds
    seen = rows_of(text % ", optimizer: newton", "compiled")["steps_to_1pct"].to_pylist()
    advised = {kind.remedy: kind for kind in kinds}
    assert {"optimizer: newton (1 to 20)", None} <= set(advised)
    for kind in kinds:
        if kind.remedy and "newton" in kind.remedy:
            assert max(seen[kind.fit : kind.fit + 3]) <= 20


def of(text: str, **limits: Any) -> Prediction:
    return Prediction.of(plan_of(text, "auto").sweep, **limits)


@pytest.mark.parametrize(
    ("text", "future", "remedy"),
    [
        ("fit: {}", Future.CONVERGES, None),
        ("fit: {lr: {of_limit: 1.1}}", Future.DIVERGES, "lr: auto (~23)"),
        ("fit: {lr: {of_limit: 1}}", Future.AT_LIMIT, "lr: auto (~23)"),
        ("fit: {lr: {of_limit: 1.0e+0}, optimizer: momentum}", Future.AT_LIMIT, "lr: auto (~99)"),
        (
            "fit: {lr: {of_limit: 1.001}, steps: 10}",
            Future.GROWS,
            "optimizer: newton, lr: auto (1 to 20)",
        ),
        (
            "fit: {lr: {of_limit: 1.1}, steps: 20}",
            Future.UNSTABLE,
            "optimizer: newton, lr: auto (1 to 20)",
        ),
        ("fit: {basis: power}", Future.CONVERGES, None),
        ("fit: {basis: power, degree: 7}", Future.TOO_SLOW, "basis: chebyshev (~100)"),
        (
            "fit: {basis: power, degree: 7, lr: {of_limit: 2}}",
            Future.DIVERGES,
            "basis: chebyshev, lr: auto (~100)",
        ),
        (
            "fit: {basis: power, degree: 7, steps: 9}",
            Future.TOO_SLOW,
            "optimizer: newton (1 to 20)",
        ),
        (
            "fit: {basis: power, degree: 30, range: [0, 9], dtype: float64, steps: 9}",
            Future.TOO_SLOW,
            None,
        ),
        ("fit: {optimizer: newton}", Future.ENDS, None),
        ("fit: {optimizer: adam}", Future.UNKNOWN, None),
        ("fit: {objective: l1, lr: 0.1}", Future.UNKNOWN, None),
        ("fit: {objective: huber}", Future.STABLE, None),
        ("fit: {objective: log_cosh, lr: {of_limit: 2}}", Future.UNSTABLE, None),
        ("fit: {target: 1 / x, points: 101}", Future.CANNOT_START, None),
        ("fit: {lr: 1.0e-50}", Future.CANNOT_START, None),
    ],
)
def test_a_kind_has_its_future_and_a_remedy(text: str, future: Future, remedy: str | None) -> None:
    (kind,) = of(text).kinds
    assert (kind.future, kind.remedy) == (future, remedy)


def test_seeds_make_no_kinds_and_all_fits_are_counted() -> None:
    found = of(
        "fit: {noise: 0.1}\nsweep: [{degree: [1, 2], seed: {count: 1000000000}}, "
        "{degree: [3], noise_seed: {count: 7}, lr: [0.0001, auto]}]"
    )
    assert [kind.fits for kind in found.kinds] == [10**9, 10**9, 7, 7]
    assert (found.fits, found.unchecked) == (2 * 10**9 + 14, 0)
    assert [kind.fit for kind in found.kinds] == [0, 10**9, 2 * 10**9, 2 * 10**9 + 1]


@pytest.mark.parametrize("limits", [{"max_kinds": 3}, {"max_cost": 1_200_000}], ids=str)
def test_what_was_not_looked_at_is_counted(limits: dict[str, int]) -> None:
    found = of(
        "fit: {points: 50}\nsweep: {degree: [1, 2, 3, 4, 5, 6], seed: {count: 10}}", **limits
    )
    assert 0 < found.unchecked < 60
    assert found.unchecked + sum(kind.fits for kind in found.kinds) == 60


def test_of_too_many_kinds_a_sample_of_all_is_looked_at() -> None:
    """Each field by itself: no value of an axis is left out because of its place."""
    text = (
        "fit: {points: 100}\nsweep: {degree: {start: 0, stop: 31}, basis: [chebyshev, power], "
        "noise: {linspace: [0, 1, 5000]}, lr: [auto, {of_limit: 0.9}], "
        "steps: {start: 100, stop: 1000000}, seed: {count: 10}}\n"
        "exclude: [degree == 3 and steps > 1000]\nshard: 1000000000"
    )
    found = of(text)
    assert 100 < len(found.kinds) == len({kind.fit for kind in found.kinds})
    assert all(kind.fits == 10 for kind in found.kinds)
    assert found.unchecked == found.fits - 10 * len(found.kinds)
    degrees = {kind.values["degree"] for kind in found.kinds}
    assert degrees | {3} == set(range(31))
    for name, least, most in (("basis", 0.4, 0.6), ("lr", 0.4, 0.6)):
        first = found.kinds[0].values[name]
        share = np.mean([kind.values[name] == first for kind in found.kinds])
        assert least < share < most
    for name, middle in (("noise", 0.5), ("steps", 500_000)):
        values = [kind.values[name] for kind in found.kinds]
        assert np.median(values) == pytest.approx(middle, rel=0.2)


def test_a_million_kinds_and_the_largest_problems_are_bounded() -> None:
    many = of("sweep: {noise: {linspace: [0, 1, 90000]}, degree: [0, 30], points: [1000000]}")
    assert many.unchecked > 0
