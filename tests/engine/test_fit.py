"""The engine: the tutorial's numbers, a fit that does not know its batch-mates, closed forms."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from engines import CPU, IN_POWERS, KINDS, KindOfFit, plan_of, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyfit.engine import eager as eager_engine
from polyfit.engine import evaluation, fit, optimizer, penalty
from polyfit.engine.initial import initial_values
from polyfit.numerics import elementary
from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noise, target_values
from polyfit.spec.fit import BASES, OBJECTIVES, SQUARED
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.work import batches
from polyfit.work.fitting import compute

pytestmark = pytest.mark.slow


@pytest.fixture(params=["eager", "compiled"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that iterates."""
    return str(request.param)


# --- the tutorial ----------------------------------------------------------------------------


def tutorial(
    start: npt.NDArray[np.float32], dtype: torch.dtype
) -> tuple[list[tuple[int, float]], list[float]]:
    """PyTorch's tutorial, step by step; only the start values come from outside."""
    x = torch.linspace(-math.pi, math.pi, 2000, dtype=dtype)
    y = torch.sin(x)
    a, b, c, d = (torch.tensor(value.item(), dtype=dtype, requires_grad=True) for value in start)
    learning_rate = 1e-6
    printed = []
    for t in range(2000):
        y_pred = a + b * x + c * x**2 + d * x**3
        loss = (y_pred - y).pow(2).sum()
        if t % 100 == 99:
            printed.append((t, loss.item()))
        loss.backward()
        with torch.no_grad():
            for weight in (a, b, c, d):
                assert weight.grad is not None
                weight -= learning_rate * weight.grad
                weight.grad = None
    return printed, [weight.item() for weight in (a, b, c, d)]


@cache
def tutorial_of(seed: int, dtype: torch.dtype) -> tuple[list[tuple[int, float]], list[float]]:
    """The tutorial from the start values of ``seed``; once for all engines."""
    torch.manual_seed(seed)
    start = np.array([torch.randn(()).item() for _ in range(4)], dtype=np.float32)
    return tutorial(start, dtype)


@pytest.mark.parametrize("engine", ["eager", "compiled", "affine"], indirect=True)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)], ids=["float32", "float64"]
)
def test_the_tutorials_job_has_the_tutorials_numbers(
    engine: str, dtype: str, tolerance: float
) -> None:
    with open("jobs/sine.yaml", encoding="utf-8") as file:
        text = file.read().replace("float32", dtype)
    plan = Plan.of(Spec.parse(f"{text}sweep: {{seed: {{count: 5}}}}\nengine: {engine}"))
    rows = compute(plan, Shard(0, 0, 5), CPU).to_pylist()
    updates = plan.record.updates(2000)
    for seed, row in enumerate(rows):
        printed, coefficients = tutorial_of(seed, getattr(torch, dtype))
        assert [t for t, _ in printed] == updates
        np.testing.assert_allclose(
            row["loss_history"], [loss for _, loss in printed], rtol=tolerance
        )
        np.testing.assert_allclose(row["coefficients"], coefficients, rtol=tolerance)
        np.testing.assert_allclose(row["power_coefficients"], coefficients, rtol=tolerance)


def test_start_values_are_torchs_one_by_one() -> None:
    seeds = [0, 1, 7, 2**31, 2**32 - 1]
    drawn = initial_values(np.array(seeds), 31, compiled=False)
    for row, seed in zip(drawn, seeds, strict=True):
        torch.manual_seed(seed)
        assert row.tolist() == [torch.randn(()).item() for _ in range(31)]


def test_a_lower_degrees_start_is_a_prefix_of_a_higher_ones() -> None:
    low, high = (
        initial_values(np.array([5]), 4, compiled=False),
        initial_values(np.array([5]), 20, compiled=False),
    )
    assert np.array_equal(low[0], high[0, :4])


# --- promise 3: a fit does not know its batch-mates ------------------------------------------

# The fixture chooses the engine; it holds nothing that a test could change.
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MEASURED = (
    "status", "steps_taken", "lr", "loss", "optimum_loss", "excess_loss", "gradient_norm", "rmse",
    "max_error", "coefficients", "power_coefficients", "loss_history", "gradient_norm_history",
    "coefficients_history",
)  # fmt: skip

mixed = st.fixed_dictionaries(
    {
        "degree": st.lists(st.integers(0, 9), min_size=1, max_size=2, unique=True),
        "points": st.lists(st.sampled_from([11, 64, 257]), min_size=1, max_size=2, unique=True),
        "basis": st.lists(st.sampled_from(BASES), min_size=1, max_size=3, unique=True),
        "range": st.lists(
            st.sampled_from([[-3.0, 3.0], [-1.0, 1.0], [0.0, 2.5]]),
            min_size=1,
            max_size=2,
            unique_by=tuple,
        ),
        "objective": st.lists(st.sampled_from(OBJECTIVES), min_size=1, max_size=5, unique=True),
        "dtype": st.lists(st.sampled_from(["float32", "float64"]), min_size=1, unique=True),
        "noise_seed": st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=2, unique=True),
        "optimizer": st.lists(
            st.sampled_from(["gd", "adam", "momentum"]), min_size=1, max_size=3, unique=True
        ),
        "lr": st.lists(st.sampled_from([1e-4, 3e-3, 0.05]), min_size=1, max_size=2, unique=True),
        "stop": st.lists(
            st.sampled_from(["none", "{gradient: 0.5}", "{loss_change: 0.01}"]),
            min_size=1,
            max_size=2,
            unique=True,
        ),
        "seed": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5, unique=True),
    }
)


def zipped(kinds: list[KindOfFit]) -> str:
    """An entry of a spec's zip with these kinds of fit."""
    columns = {f.name: [getattr(kind, f.name) for kind in kinds] for f in fields(KindOfFit)}
    return f"{{{', '.join(f'{name}: [{joined(values)}]' for name, values in columns.items())}}}"


def joined(values: list[Any]) -> str:
    return ", ".join(map(str, values))


@st.composite
def planned(draw: st.DrawFn, engine: str) -> Plan:
    """A plan of fits of several kinds, with a record at any updates of anything."""
    steps = draw(st.integers(1, 35))
    of = draw(
        st.lists(
            st.sampled_from(["loss", "gradient_norm", "coefficients"]), min_size=1, unique=True
        )
    )
    at = draw(st.lists(st.integers(0, steps - 1), min_size=1, max_size=9, unique=True).map(sorted))
    when = draw(st.sampled_from([f"at: [{joined(at)}]", f"every: {draw(st.integers(1, 12))}"]))
    sweep: Any = draw(mixed)
    return plan_of(
        f"fit: {{steps: {steps}, noise: 0.1}}\n"
        f"record: {{{when}, of: [{joined(of)}]}}\n"
        "sweep:\n" + "\n".join(f"  {name}: [{joined(values)}]" for name, values in sweep.items()),
        engine,
    )


def same_bits(one: pa.Table, other: pa.Table) -> bool:
    """Equal rows, numbers compared by their bits; Arrow's equality would tell NaN from NaN."""
    assert one.column_names == other.column_names
    names = [name for name in MEASURED if name in one.column_names]
    return all(one[name].to_pylist() == other[name].to_pylist() for name in names)


@settings(max_examples=12, deadline=None, suppress_health_check=FIXTURES)
@given(data=st.data())
def test_every_fit_of_a_mixed_batch_equals_the_same_fit_alone(
    engine: str, data: st.DataObject
) -> None:
    plan = data.draw(planned(engine))
    size = min(plan.fits, 200)
    start = data.draw(st.integers(0, plan.fits - size))
    together = compute(plan, Shard(0, start, start + size), CPU)
    for place in data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=6)):
        alone = compute(plan, Shard(0, start + place, start + place + 1), CPU)
        assert same_bits(together.slice(place, 1), alone), plan.sweep.fit(start + place)


EAGER_KINDS = [
    KindOfFit(4, objective, optimizer, dtype)
    for objective in OBJECTIVES
    for optimizer in ("gd", "adam", "momentum")
    for dtype in ("float32", "float64")
]


@pytest.mark.parametrize(
    ("engine", "kind"),
    [("eager", kind) for kind in EAGER_KINDS] + [("compiled", kind) for kind in KINDS],
    ids=str,
    indirect=["engine"],
)
def test_place_in_a_vector_changes_no_bit(engine: str, kind: KindOfFit) -> None:
    """Full vector registers, their remainders and single fits run the same arithmetic."""
    plan = plan_of(
        f"fit: {{{kind}, steps: 30, points: 50, lr: 0.003}}\nsweep: {{seed: {{count: 37}}}}\n"
        "record: {every: 5, of: [loss, gradient_norm, coefficients]}",
        engine,
    )
    together = compute(plan, Shard(0, 0, 37), CPU)
    for place in (0, 1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 36):
        alone = compute(plan, Shard(0, place, place + 1), CPU)
        assert same_bits(together.slice(place, 1), alone), place


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("size", [2, 15, 16, 17, 33, 300])
def test_the_padding_of_a_compiled_batch_changes_no_bit(kind: KindOfFit, size: int) -> None:
    plan = plan_of(
        f"fit: {{{kind}, steps: 13, points: 21, lr: 0.003, noise: 0.5}}\n"
        "sweep: {noise_seed: {count: 4}, seed: {count: 75}}",
        "compiled",
    )
    whole, part = (compute(plan, Shard(0, 0, count), CPU) for count in (300, size))
    assert same_bits(whole.slice(0, size), part)


@settings(max_examples=6, deadline=None, suppress_health_check=FIXTURES)
@given(data=st.data())
def test_a_shard_equals_its_two_halves_however_they_are_cut_into_batches(
    engine: str, data: st.DataObject
) -> None:
    """Neither how many fits or problems a batch holds, nor how many are evaluated at a time."""
    plan = data.draw(planned(engine))
    size = min(plan.fits, 150)
    cut = data.draw(st.integers(0, size))
    whole = compute(plan, Shard(0, 0, size), CPU)
    with pytest.MonkeyPatch.context() as patch:
        fits, numbers = data.draw(st.integers(1, 50)), data.draw(st.integers(8, 5000))
        patch.setitem(batches.BATCH_LIMITS, engine, batches.BatchLimits(fits, numbers))
        patch.setattr(batches, "PROBLEM_NUMBERS", data.draw(st.integers(8, 5000)))
        patch.setattr(evaluation, "_CHUNK_NUMBERS", data.draw(st.integers(8, 5000)))
        halves = [
            compute(plan, Shard(0, low, high), CPU)
            for low, high in ((0, cut), (cut, size))
            if low < high
        ]
    joined = pa.concat_tables([half.unify_dictionaries() for half in halves])
    assert same_bits(whole, joined)


@pytest.mark.parametrize("kind", IN_POWERS, ids=str)
def test_problems_of_their_own_change_no_bit(engine: str, kind: KindOfFit) -> None:
    """In powers of x each range has its own design; alone, or beside its like, a fit shares it."""
    plan = plan_of(
        f"fit: {{{kind}, basis: power, points: 40, steps: 25, noise: 0.3}}\n"
        "sweep: {range: [[-1, 1], [0, 2], [-2, 3]], noise_seed: [3, 5], seed: {count: 7}, "
        "lr: [1.0e-4, {of_limit: 0.3}]}\n"
        "record: {every: 4, of: [loss, gradient_norm, coefficients]}",
        engine,
    )
    together = compute(plan, Shard(0, 0, plan.fits), CPU)
    parts = [(i, i + 1) for i in range(plan.fits)] + [(0, 14), (14, 28), (10, 40)]
    for low, high in parts:
        assert same_bits(together.slice(low, high - low), compute(plan, Shard(0, low, high), CPU))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.stop != "none"], ids=str)
def test_fits_moved_together_when_others_have_ended_keep_their_bits(
    engine: str, kind: KindOfFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some end after ten updates, some never: the batch is made smaller again and again."""
    held: Counter[str] = Counter()
    monkeypatch.setattr(eager_engine.Eager, "_hold", counted(held, eager_engine.Eager._hold))
    plan = plan_of(
        f"fit: {{{kind}, points: 40, steps: 995, noise: 0.3}}\n"
        "sweep: {noise_seed: [3, 5], seed: {count: 5}, lr: "
        "[1.0e-7, {of_limit: 0.003}, {of_limit: 0.01}, {of_limit: 0.03}, {of_limit: 0.2}]}\n"
        "record: {every: 7, of: [loss, gradient_norm, coefficients]}",
        engine,
    )
    together = compute(plan, Shard(0, 0, plan.fits), CPU)
    assert held["_hold"] >= 4 or engine == "compiled"  # there a fit keeps its place
    steps = set(together["steps_taken"].to_pylist())
    assert len(steps) >= 5
    assert "converged" in together["status"].to_pylist()
    for place in range(0, plan.fits, 3):
        alone = compute(plan, Shard(0, place, place + 1), CPU)
        assert same_bits(together.slice(place, 1), alone), place


@pytest.mark.parametrize(
    "fit_of",
    [
        *(f"{kind}, noise: 0.3" for kind in KINDS if kind.stop != "none"),
        f"{KindOfFit(3, 'sse')}, lr: {{of_limit: 1.2}}",
        f"{KindOfFit(3, 'sse', 'momentum')}, lr: {{of_limit: 1.2}}",
        "degree: 3, objective: huber, optimizer: newton, noise: 0.3",
    ],
)
def test_who_looks_late_at_what_has_ended_sees_the_same(
    fit_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator, for which a look has to wait."""
    lr = "" if "lr" in fit_of or "newton" in fit_of else ", lr: [{of_limit: 0.01}, {of_limit: 0.2}]"
    plan = plan_of(
        f"fit: {{{fit_of}, points: 40, steps: 995}}\nsweep: {{seed: {{count: 20}}{lr}}}\n"
        "record: {at: [0, 5, 130, 200, 470], of: [loss, gradient_norm, coefficients]}",
        "eager",
    )
    shard = Shard(0, 0, plan.fits)
    early = compute(plan, shard, CPU)
    assert {"converged", "diverged"} & set(early["status"].to_pylist())
    monkeypatch.setattr(eager_engine, "_asynchronous", lambda device: True)
    assert same_bits(early, compute(plan, shard, CPU))


def test_a_device_that_torch_was_built_for_and_the_machine_lacks_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def built_for(check_available: bool = False) -> torch.device | None:
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", built_for)
    assert fit.pick_device(accelerated=True) == CPU


def test_adams_corrections_are_computed_until_they_stay_one() -> None:
    steps = 50_000
    kept = optimizer.bias_corrections("adam", steps)
    updates = np.arange(steps)
    wanted = [1.0 - elementary.power(beta, updates + 1.0) for beta in (0.9, 0.999)]
    assert np.array_equal(kept[np.minimum(updates, len(kept) - 1)].T, wanted)
    assert len(kept) < steps
    assert len(optimizer.bias_corrections("adam", 20)) == 20
    assert len(optimizer.bias_corrections("gd", 20)) == 1


def counted(calls: Counter[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, its calls counted."""

    def call(*arguments: Any) -> Any:
        calls[function.__name__] += 1
        return function(*arguments)

    return call


def test_threads_change_no_bit(engine: str) -> None:
    """Batches side by side, on as many threads as an actor has cores, are the same batches."""
    kinds = [KindOfFit(3, "sse"), KindOfFit(1, "huber"), KindOfFit(3, "sse", dtype="float64")]
    plan = plan_of(
        f"fit: {{steps: 25, lr: 0.0001}}\nsweep: {{zip: [{zipped(kinds)}], "
        "range: [[-1, 1], [0, 1]], basis: [chebyshev, legendre], seed: {count: 20}}",
        engine,
    )
    shard = Shard(0, 0, plan.fits)
    one, three = compute(plan, shard, CPU, threads=1), compute(plan, shard, CPU, threads=3)
    assert one.equals(three)


# --- two engines, one iteration --------------------------------------------------------------


def long(kind: KindOfFit, lr: str) -> str:
    """203 updates of 80 fits, recorded at the ends and in the middle of blocks."""
    return (
        f"fit: {{{kind}, steps: 203, lr: {lr}, points: 200, noise: 0.3, target: 2 * sin(x)}}\n"
        "sweep: {noise_seed: {count: 4}, seed: {count: 20}}\n"
        "record: {at: [0, 3, 9, 50, 59, 111, 199], of: [loss, gradient_norm, coefficients]}"
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k.objective in SQUARED], ids=str)
def test_compiled_updates_of_a_squared_objective_have_the_bits_of_eager_ones(
    kind: KindOfFit,
) -> None:
    text = long(kind, "auto")
    eager, compiled = (rows_of(text, engine) for engine in ("eager", "compiled"))
    for name in MEASURED:
        assert eager[name].to_pylist() == compiled[name].to_pylist(), name


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k.objective not in SQUARED and k.stop == "none"], ids=str
)
def test_compiled_updates_over_all_points_come_to_the_same_loss(kind: KindOfFit) -> None:
    """Sums over all points are added in another order, and logarithms are another library's.

    A sum of 200 terms then differs by a few units in its last place. Descent contracts, so that
    this does not grow, and near the optimum it hardly shows in the loss. Of l1 one flipped sign
    moves coefficients by up to twice the rate, here 0.002, along slopes of about 5 under losses
    of about 50.
    """
    text = long(kind, "0.001" if kind.objective == "l1" else "auto")
    eager, compiled = (rows_of(text, engine) for engine in ("eager", "compiled"))
    for name in ("status", "steps_taken", "lr"):
        assert eager[name].to_pylist() == compiled[name].to_pylist(), name
    start = [[row[0] for row in rows["loss_history"].to_pylist()] for rows in (compiled, eager)]
    np.testing.assert_allclose(start[0], start[1], rtol=1e-6)
    tolerance = 1e-3 if kind.objective == "l1" else 1e-6
    np.testing.assert_allclose(flat(compiled, "loss"), flat(eager, "loss"), rtol=tolerance)


def test_the_rational_tanh_of_compiled_kernels_is_tanh() -> None:
    some = torch.linspace(-12, 12, 1_000_001, dtype=torch.float32)
    near = torch.logspace(-30, 0, 100_001, dtype=torch.float32)
    x = torch.cat([some, near, -near, torch.tensor([0.0, math.inf, -math.inf])])
    found, true = penalty._rational_tanh(x).double(), torch.tanh(x.double())
    assert (found - true).abs().le(4e-7 * true.abs()).all()
    assert penalty._rational_tanh(torch.tensor([math.nan])).isnan().all()


def flat(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column's numbers, those of lists one after the other."""
    column = rows[name].combine_chunks()
    return np.asarray(column if pa.types.is_floating(column.type) else column.flatten()).astype(
        np.float64
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k.objective in SQUARED], ids=str)
def test_what_overflows_ends_at_the_same_update_in_either_engine(kind: KindOfFit) -> None:
    rates = "{of_limit: 0.5}, {of_limit: 1.01}, {of_limit: 1.2}, {of_limit: 3}, {of_limit: 1.0e+4}"
    if kind.optimizer == "adam":  # its steps are no longer than its rate
        rates = "0.1, 1.0e+4, 1.0e+18, " + ("1.0e+37" if "32" in kind.dtype else "1.0e+300")
    text = (
        f"fit: {{{kind}, points: 50, steps: 777}}\nsweep: {{seed: {{count: 3}}, lr: [{rates}]}}\n"
        "record: {every: 1, of: [loss]}"
    )
    eager, compiled = (rows_of(text, engine) for engine in ("eager", "compiled"))
    for name in ("status", "steps_taken", "loss_history"):
        assert eager[name].to_pylist() == compiled[name].to_pylist(), name
    rows = compiled.to_pylist()
    overflowed = [r for r in rows if r["status"] == "diverged" and r["steps_taken"] < 777]
    assert 0 < len(overflowed) < len(rows)
    for row in rows:
        assert len(row["loss_history"]) == row["steps_taken"]
    for row in overflowed:
        assert row["steps_taken"] % 10 == 0
        assert row["loss_history"][-10] is not None  # at the test before the last it was sound


@pytest.mark.parametrize("size", ["1e18", "3e18", "1e22"])
def test_a_loss_that_overflows_at_first_is_diverged_though_it_would_sink(size: str) -> None:
    """It was tested after ten updates, though after a hundred it may be finite again."""
    text = (
        f"fit: {{degree: 3, points: 50, steps: 200, target: {size}*(x+sin(x)), range: [0, 1]}}\n"
        "sweep: {seed: {count: 20}, lr: [auto, {of_limit: 0.01}]}\n"
        "record: {at: [0, 5, 99, 199], of: [loss, coefficients]}"
    )
    eager, compiled = (rows_of(text, engine) for engine in ("eager", "compiled"))
    for name in ("status", "steps_taken", "loss_history", "coefficients", "coefficients_history"):
        assert eager[name].to_pylist() == compiled[name].to_pylist(), name
    taken = {"1e18": {200}, "3e18": {10, 200}, "1e22": {10}}[size]
    assert set(compiled["steps_taken"].to_pylist()) == taken


# --- closed forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["gd", "momentum"])
@pytest.mark.parametrize(
    ("engine", "degree"),
    [*(("eager", degree) for degree in range(1, 7)), ("compiled", 3)],
    indirect=["engine"],
)
@pytest.mark.parametrize("basis", ["chebyshev", "legendre"])
def test_gradient_descent_on_a_quadratic_is_an_affine_map(
    basis: str, engine: str, degree: int, optimizer: str
) -> None:
    """The float64 trajectory is that of the map's powers, worked out here from normal equations."""
    momentum = "{momentum: {beta: 0.8}}"
    text = (
        f"fit: {{basis: {basis}, degree: {degree}, dtype: float64, steps: 200, points: 300, "
        f"range: [-1, 2], optimizer: {momentum if optimizer == 'momentum' else 'gd'}, seed: 3}}\n"
        "record: {every: 1, of: [coefficients]}"
    )
    (row,) = rows_of(text, engine).to_pylist()
    grid = Grid(-1.0, 2.0, 300, degree, basis)
    V = design(grid).functions_MN
    A, b = 2 * V @ V.T, 2 * V @ target_values("sin(x)", grid)
    lr, beta = row["lr"], 0.8 if optimizer == "momentum" else 0.0
    size = degree + 1
    # State (c, v): v' = beta v + A c - b, c' = c - lr v'. Around its fixed point it is linear.
    step = np.block([[np.eye(size) - lr * A, -lr * beta * np.eye(size)], [A, beta * np.eye(size)]])
    fixed = np.concatenate([np.linalg.solve(A, b), np.zeros(size)])
    state = np.concatenate(
        [initial_values(np.array([3]), size, compiled=False)[0].astype(np.float64), np.zeros(size)]
    )
    for update in range(200):
        expected = fixed + np.linalg.matrix_power(step, update) @ (state - fixed)
        np.testing.assert_allclose(
            row["coefficients_history"][update], expected[:size], rtol=1e-10, atol=1e-10
        )
    last = fixed + np.linalg.matrix_power(step, 200) @ (state - fixed)
    np.testing.assert_allclose(row["coefficients"], last[:size], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("basis", ["chebyshev", "legendre"])
def test_at_the_automatic_rate_the_loss_reaches_least_squares(basis: str) -> None:
    text = (
        f"fit: {{basis: {basis}, dtype: float64, lr: auto, steps: 1000}}\n"
        "sweep: {degree: [1, 2, 6, 10], target: [sin(x), exp(x)]}"
    )
    for row in rows_of(text).to_pylist():
        grid = Grid(row["range_low"], row["range_high"], row["points"], row["degree"], basis)
        V = design(grid).functions_MN.T
        y = target_values(row["target"], grid)
        solution = np.linalg.lstsq(V, y, rcond=None)[0]
        best = float(((V @ solution - y) ** 2).sum())
        assert row["loss"] == pytest.approx(best, rel=1e-9, abs=1e-20)
        assert row["optimum_loss"] == pytest.approx(best, rel=1e-9, abs=1e-20)
        assert 0 <= row["excess_loss"] <= 1e-9 * best + 1e-20


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("optimizer", ["gd", "adam", "momentum"])
def test_each_step_is_that_of_a_literal_loop(objective: str, optimizer: str) -> None:
    """One fit on all points with torch's own losses and optimizers, float64."""
    text = (
        f"fit: {{basis: power, degree: 3, objective: {objective}, optimizer: {optimizer}, "
        "dtype: float64, range: [-2, 2], points: 100, lr: 0.0005, steps: 60, seed: 11, "
        "target: 3 * sin(x)}\nrecord: {every: 1, of: [loss, gradient_norm]}"
    )
    (row,) = rows_of(text).to_pylist()
    x = torch.linspace(-2, 2, 100, dtype=torch.float64)
    y = 3 * torch.sin(x)
    c = torch.tensor(
        initial_values(np.array([11]), 4, compiled=False)[0].astype(np.float64), requires_grad=True
    )
    stepper: torch.optim.Optimizer
    if optimizer == "adam":
        stepper = torch.optim.Adam([c], lr=0.0005)
    else:
        stepper = torch.optim.SGD([c], lr=0.0005, momentum=0.9 if optimizer == "momentum" else 0)
    for update in range(60):
        residual = c[0] + c[1] * x + c[2] * x**2 + c[3] * x**3 - y
        penalty: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "sse": lambda r: r.pow(2).sum(),
            "mse": lambda r: r.pow(2).mean(),
            "huber": lambda r: torch.nn.functional.huber_loss(r, 0 * r, reduction="sum"),
            "log_cosh": lambda r: torch.log(torch.cosh(r)).sum(),
            "l1": lambda r: r.abs().sum(),
        }
        loss = penalty[objective](residual)
        stepper.zero_grad()
        torch.autograd.backward(loss)
        assert c.grad is not None
        assert row["loss_history"][update] == pytest.approx(loss.item(), rel=1e-9)
        norm = c.grad.norm().item()
        assert row["gradient_norm_history"][update] == pytest.approx(norm, rel=1e-8, abs=1e-9)
        stepper.step()
    np.testing.assert_allclose(row["coefficients"], c.detach().numpy(), rtol=1e-9)


# --- promise 4: every fit has a row and a status ---------------------------------------------


def test_above_the_stability_limit_fits_diverge_and_below_they_do_not() -> None:
    text = (
        "fit: {steps: 400}\n"
        "sweep: {optimizer: [gd, momentum], lr: [{of_limit: 0.9}, {of_limit: 1.1}]}"
    )
    assert rows_of(text)["status"].to_pylist() == ["completed", "diverged"] * 2


def test_a_fit_that_overflows_ends_with_nulls_and_keeps_what_was_finite() -> None:
    (row,) = rows_of("fit: {lr: 1.0, steps: 500}\nrecord: {every: 1, of: [loss]}").to_pylist()
    assert row["status"] == "diverged"
    assert row["steps_taken"] % 10 == 0
    assert 0 < row["steps_taken"] < 500
    assert len(row["loss_history"]) == row["steps_taken"]
    assert row["loss_history"][0] is not None
    assert row["loss_history"][-1] is None
    assert row["excess_loss"] is None or row["excess_loss"] > 1e30


@pytest.mark.parametrize(
    "fit",
    [
        "{lr: 1.0e-300}",  # the rate underflows in float32
        "{lr: 1.0e+300}",  # it overflows
        "{basis: power, degree: 9, range: [-1.0e-9, 1.0e-9], lr: 0.1}",  # a pivot of R underflows
        "{basis: power, degree: 9, range: [-1.0e+9, 1.0e+9], lr: 0.1}",  # R overflows
        "{target: 1/x, range: [0, 1]}",  # data that are not finite
        "{target: log(x), range: [-1, 1]}",
        "{basis: power, degree: 30, range: [-1.0e+20, 1.0e+20], dtype: float64}",  # no finite lr
    ],
)
def test_what_dtype_cannot_hold_is_diverged_at_once(fit: str) -> None:
    (row,) = rows_of(f"fit: {fit}").to_pylist()
    assert (row["status"], row["steps_taken"]) == ("diverged", 0)
    assert row["loss_history"] == []
    assert all(value is not None for value in row["coefficients"])


@pytest.mark.parametrize("stop", ["{gradient: 1.0e-3}", "{loss_change: 1.0e-6}"])
def test_a_stop_rule_ends_each_fit_at_its_own_tenth_update(stop: str) -> None:
    text = (
        f"fit: {{stop: {stop}, dtype: float64, steps: 1995}}\n"
        "sweep: {basis: [chebyshev, legendre], seed: {count: 5}}\n"
        "record: {every: 1, of: [loss, gradient_norm]}"
    )
    rows = rows_of(text).to_pylist()
    assert {row["status"] for row in rows} == {"converged"}
    assert len({row["steps_taken"] for row in rows}) > 1
    for row in rows:
        taken = row["steps_taken"]
        assert taken % 10 == 0
        assert len(row["loss_history"]) == taken
        norms = row["gradient_norm_history"]
        if "gradient" in stop:
            assert row["gradient_norm"] <= 1e-3 * (1 + 1e-9)
            assert all(norms[u] > 1e-3 for u in range(10, taken, 10))


def test_a_stop_not_met_is_completed_and_steps_need_be_no_multiple_of_ten() -> None:
    (row,) = rows_of("fit: {stop: {gradient: 1.0e-30}, steps: 17}").to_pylist()
    assert (row["status"], row["steps_taken"]) == ("completed", 17)


def test_a_record_at_updates_holds_the_loss_before_each() -> None:
    every = rows_of("fit: {steps: 12}\nrecord: {every: 1, of: [loss]}").to_pylist()[0]
    some = rows_of("fit: {steps: 12}\nrecord: {at: [0, 3, 11], of: [loss]}").to_pylist()[0]
    history = every["loss_history"]
    assert some["loss_history"] == [history[0], history[3], history[11]]


def test_nothing_recorded_leaves_no_column() -> None:
    assert "loss_history" not in rows_of("fit: {steps: 3}\nrecord: none").column_names


def test_the_row_judges_the_final_coefficients_on_all_points() -> None:
    text = (
        "fit: {noise: 0.2, noise_seed: 4, degree: 4, points: 90, steps: 40, lr: 0.001}\n"
        "sweep: {objective: [sse, mse, huber, log_cosh, l1], dtype: [float32, float64]}"
    )
    for row in rows_of(text).to_pylist():
        t = np.linspace(-1, 1, 90)
        clean = np.sin(np.pi * t)
        noise = np.random.Generator(np.random.Philox(key=4)).standard_normal(90)
        predicted = np.polynomial.chebyshev.chebval(t, np.array(row["coefficients"]))
        residual = predicted - (clean + 0.2 * noise)
        size = np.abs(residual)
        loss = {
            "sse": (residual**2).sum(),
            "mse": (residual**2).mean(),
            "huber": np.where(size <= 1, residual**2 / 2, size - 0.5).sum(),
            "log_cosh": np.log(np.cosh(residual)).sum(),
            "l1": size.sum(),
        }[row["objective"]]
        assert row["loss"] == pytest.approx(loss, rel=1e-10)
        assert row["rmse"] == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-10)
        assert row["max_error"] == pytest.approx(np.abs(predicted - clean).max(), rel=1e-10)
        assert (row["optimum_loss"] is None) == (row["objective"] not in ("sse", "mse"))
        in_x = np.polyval(row["power_coefficients"][::-1], np.pi * t)
        np.testing.assert_allclose(in_x, predicted, atol=1e-5)


def test_power_coefficients_are_null_where_converting_changes_predictions() -> None:
    text = (
        "fit: {degree: 20, steps: 50, dtype: float64}\nsweep: {range: [[-1, 1], [1.0e+6, 1000001]]}"
    )
    near, far = rows_of(text).to_pylist()
    assert near["power_coefficients"] is not None
    assert far["power_coefficients"] is None
    assert far["coefficients"] is not None


DEGREE_30 = ((-1.0, 1.0), (1e6, 1e6 + 1), (-10.0, 10.0))


NUM_POINTS = 120


def degree_30(basis: str, span: tuple[float, float], optimizer: str, steps: int) -> dict[str, Any]:
    text = (
        f"fit: {{degree: 30, basis: {basis}, range: [{span[0]!r}, {span[1]!r}], "
        f"points: {NUM_POINTS}, target: 'sin(3 * x)', noise: 0.1, dtype: float64, "
        f"optimizer: {optimizer}, steps: {steps}}}\n"
        "record: none"
    )
    (row,) = rows_of(text).to_pylist()
    return dict(row)


def data_30(span: tuple[float, float]) -> npt.NDArray[np.float64]:
    data = target_values("sin(3 * x)", Grid(*span, NUM_POINTS, 30, "power"))
    data += 0.1 * noise(np.zeros(1, dtype=np.uint64), NUM_POINTS)[0]
    return data


@pytest.mark.parametrize("span", DEGREE_30, ids=str)
@pytest.mark.parametrize("basis", ["chebyshev", "legendre"])
def test_degree_30_comes_to_least_squares_on_any_range(
    basis: str, span: tuple[float, float]
) -> None:
    row = degree_30(basis, span, "newton", 100)
    vander = {"chebyshev": np.polynomial.chebyshev.chebvander}.get(
        basis, np.polynomial.legendre.legvander
    )
    V, y = vander(np.linspace(-1, 1, NUM_POINTS), 30), data_30(span)
    best = float(((V @ np.linalg.lstsq(V, y, rcond=None)[0] - y) ** 2).sum())
    assert row["status"] in ("completed", "converged")
    assert row["optimum_loss"] == pytest.approx(best, rel=1e-8)
    assert row["loss"] == pytest.approx(best, rel=1e-8)
    found = float(((V @ np.array(row["coefficients"]) - y) ** 2).sum())
    assert row["loss"] == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize("optimizer", ["gd", "newton"])
@pytest.mark.parametrize("span", DEGREE_30, ids=str)
def test_degree_30_in_powers_of_x_is_right_or_says_that_it_is_not(
    span: tuple[float, float], optimizer: str
) -> None:
    """The loss in the row is that of its coefficients in exact arithmetic; else it is null."""
    row = degree_30("power", span, optimizer, 40)
    if any(value is None for value in row["coefficients"]):
        assert row["status"] == "diverged"
        assert row["loss"] is None
        return
    half = (span[1] - span[0]) / 2
    x = [Fraction(value) for value in (span[0] + half) + half * np.linspace(-1, 1, NUM_POINTS)]
    c = [Fraction(value) for value in row["coefficients"]]
    total = Fraction(0)
    for point, datum in zip(x, data_30(span).tolist(), strict=True):
        total += (sum(a * point**k for k, a in enumerate(c)) - Fraction(datum)) ** 2
    if row["loss"] is not None:
        assert row["loss"] == pytest.approx(float(total), rel=1e-6)
    if row["status"] != "diverged":
        assert row["loss"] is not None


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_start_beside_the_optimum_does_not_diverge(objective: str, engine: str) -> None:
    """The first coefficient is 1.5409961: a loss that is wrong by a rounding is compared with 0."""
    rows = rows_of(
        f"fit: {{degree: 0, points: 10, steps: 20, range: [-1, 1], objective: {objective}, "
        "lr: 1.0e-4}\nrecord: {every: 1}\n"
        "sweep: {dtype: [float32, float64], target: ['1.5409', '1.54098', '1.54099', '1.540996', "
        "'1.54099607', '1.540996074', '1.540996076', '1.540997', '1.54101', '1.5411']}",
        engine,
    )
    assert {*rows["status"].to_pylist()} == {"completed"}
    assert min(rows["loss"].to_pylist()) >= 0.0
    assert min(min(history) for history in rows["loss_history"].to_pylist()) >= 0.0
