"""Newton's method: the optimum that others find, within few updates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from engines import CPU, plan_of, rows_of
from numpy.polynomial.chebyshev import chebvander
from scipy.optimize import linprog, minimize

from polyfit.numerics.formula import Formula
from polyfit.spec.plan import Shard
from polyfit.work.fitting import compute

pytestmark = pytest.mark.slow

Array = npt.NDArray[np.float64]
OBJECTIVES = ("sse", "mse", "huber", "log_cosh")
Losses = dict[str, Callable[[Array], tuple[Array, Array, Array]]]

RANDOM = (
    "fit: {optimizer: newton, dtype: float64, steps: 200, points: 60, objective: OBJECTIVE}\n"
    "sweep: {degree: {start: 1, stop: 11}, range: [[-1, 1], [0, 10], [1.0e+6, 1000001]], "
    "target: [sin(x), 30 * cos(3*x), exp(-x**2) + tan(x/40), 100 / (1 + 25*sin(x)**2)], "
    "zip: [{noise: [0, 0.01, 0.3, 1, 1, 1, 3, 30, 30], noise_seed: [1, 2, 3, 4, 5, 6, 7, 8, 9], "
    "seed: [1, 2, 3, 4, 5, 6, 7, 8, 9]}]}"
)
"""1,080 fits whose residuals are far below 1, about 1, or mostly far above."""

# Of each residual: its share of the loss, and that share's first and second derivative.
PENALTIES: Losses = {
    "huber": lambda r: (
        np.where(np.abs(r) <= 1, r * r / 2, np.abs(r) - 0.5),
        np.clip(r, -1, 1),
        (np.abs(r) <= 1).astype(np.float64),
    ),
    "log_cosh": lambda r: (
        np.logaddexp(r, -r) - np.log(2),
        np.tanh(r),
        1 - np.tanh(r) ** 2,
    ),
}


def data_of(row: dict[str, Any]) -> tuple[Array, Array]:
    """The Chebyshev polynomials at the points, shape (N, M), and the data, shape (N,)."""
    t = np.linspace(-1, 1, row["points"])
    low, high = row["range_low"], row["range_high"]
    y = Formula(row["target"])((low + high) / 2 + (high - low) / 2 * t)
    noise = np.random.Generator(np.random.Philox(key=row["noise_seed"])).standard_normal(len(t))
    return np.asarray(chebvander(t, row["degree"]), dtype=np.float64), y + row["noise"] * noise


def best_loss(objective: str, V: Array, y: Array) -> float:
    """The least loss of any polynomial, by LAPACK or by SciPy's trust-region Newton method."""
    start = np.linalg.lstsq(V, y, rcond=None)[0]
    if objective not in PENALTIES:
        squares = (V @ start - y) ** 2
        return float(squares.sum() if objective == "sse" else squares.mean())
    penalty = PENALTIES[objective]
    found = minimize(
        lambda c: penalty(V @ c - y)[0].sum(),
        start,
        jac=lambda c: V.T @ penalty(V @ c - y)[1],
        hess=lambda c: V.T @ (penalty(V @ c - y)[2][:, None] * V),
        method="trust-exact",
        options={"gtol": 1e-7},
    )
    return float(found.fun)


def loss_at_zero(objective: str, y: Array) -> float:
    if objective in PENALTIES:
        return float(PENALTIES[objective](y)[0].sum())
    return float((y * y).sum() if objective == "sse" else (y * y).mean())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_finds_the_optimum_that_others_find(objective: str) -> None:
    rows = rows_of(RANDOM.replace("OBJECTIVE", objective)).to_pylist()
    assert len(rows) >= 1000
    assert {row["status"] for row in rows} == {"converged"}
    for row in rows:
        V, y = data_of(row)
        best = best_loss(objective, V, y)
        # Below the second term rounding decides: of data that a polynomial fits exactly, say.
        assert row["loss"] <= best * (1 + 1e-6) + 1e-9 * loss_at_zero(objective, y), row


MIXED = (
    "fit: {optimizer: newton, steps: 14, noise: 0.4}\n"
    "record: {every: 3, of: [loss, gradient_norm, coefficients]}\n"
    "sweep: {degree: [0, 4], points: [9, 40], objective: [sse, mse, huber, log_cosh], "
    "basis: [chebyshev, power], range: [[-1, 1], [0, 3]], noise_seed: [5, 6], "
    "dtype: [float32, float64], lr: [auto, 0.5], stop: [none, {gradient: 0.1}], seed: [0, 1]}"
)


def test_a_fit_does_not_know_its_batch_mates() -> None:
    plan = plan_of(MIXED, "eager")
    together = compute(plan, Shard(0, 0, plan.fits), CPU).to_pylist()
    middle = plan.fits // 3
    halves = [compute(plan, Shard(0, *ends), CPU) for ends in ((0, middle), (middle, plan.fits))]
    assert [row for half in halves for row in half.to_pylist()] == together
    for place in range(0, plan.fits, 61):
        alone = compute(plan, Shard(0, place, place + 1), CPU).to_pylist()
        assert alone == together[place : place + 1]


def test_it_iterates_in_one_way_whatever_the_engine() -> None:
    text = MIXED.replace("[0, 4]", "[1, 3]").replace("[chebyshev, power]", "[legendre]")
    eager, compiled = (rows_of(text, engine) for engine in ("eager", "compiled"))
    for name in set(eager.column_names) - {"loss", "gradient_norm"}:
        assert eager[name].to_pylist() == compiled[name].to_pylist(), name
    # The final loss and gradient over all points are summed by a kernel: in another order.
    squared = np.isin(eager["objective"].to_pylist(), ["sse", "mse"])
    for name in ("loss", "gradient_norm"):
        one, other = (rows[name].to_numpy() for rows in (eager, compiled))
        np.testing.assert_array_equal(other[squared], one[squared])
        np.testing.assert_allclose(other[~squared], one[~squared], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_its_record_falls_to_the_optimum_and_ends_with_the_fit(objective: str) -> None:
    text = (
        f"fit: {{optimizer: newton, objective: {objective}, dtype: float64, noise: 0.3}}\n"
        "sweep: {degree: [0, 3, 9], seed: {count: 4}}\nrecord: {every: 1, of: [loss]}"
    )
    for row in rows_of(text).to_pylist():
        history = row["loss_history"]
        assert row["status"] == "converged"
        assert len(history) == row["steps_taken"] < 100
        assert history == sorted(history, reverse=True)
        assert history[-1] == pytest.approx(row["loss"], rel=1e-12)
        assert row["gradient_norm"] < 1e-6 * history[0]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_basis_spans_the_same_polynomials(objective: str) -> None:
    text = (
        f"fit: {{optimizer: newton, objective: {objective}, dtype: float64, degree: 5, "
        "points: 80, noise: 0.5}\nsweep: {basis: [chebyshev, legendre, power]}"
    )
    rows = rows_of(text).to_pylist()
    assert {row["status"] for row in rows} == {"converged"}
    for row in rows:
        assert row["loss"] == pytest.approx(rows[0]["loss"], rel=1e-10)
        np.testing.assert_allclose(
            row["power_coefficients"], rows[0]["power_coefficients"], rtol=1e-5, atol=1e-8
        )


def test_of_degree_0_it_finds_the_mean() -> None:
    text = (
        "fit: {optimizer: newton, degree: 0, dtype: float64, target: exp(x), range: [-1, 1]}\n"
        "sweep: {objective: [sse, mse], points: [1, 2, 101]}"
    )
    for row in rows_of(text).to_pylist():
        _, y = data_of(row)
        assert row["coefficients"] == [pytest.approx(y.mean(), rel=1e-12)]


def test_a_rate_below_1_shortens_its_steps() -> None:
    """On a quadratic half a step leaves half the way, and a quarter of the excess."""
    text = (
        "fit: {optimizer: newton, dtype: float64, lr: 0.5, steps: 9}\n"
        "sweep: {seed: {count: 5}}\nrecord: {every: 1, of: [loss]}"
    )
    for row in rows_of(text).to_pylist():
        excess = np.array(row["loss_history"]) - row["optimum_loss"]
        # Up to the damping, which begins at a thousandth.
        np.testing.assert_allclose(excess[1:] / excess[:-1], 0.25, rtol=5e-3)


@pytest.mark.parametrize("objective", ["huber", "log_cosh"])
def test_it_says_converged_only_where_it_is(objective: str) -> None:
    """Far from data this large both are straight, and at first no step seems to lessen them.

    Larger data are not judged: their own last place is more than 1, where both begin to bend.
    """
    text = (
        f"fit: {{optimizer: newton, objective: {objective}, dtype: float64, steps: 400, "
        "points: 50}\nsweep: {target: [1.0e+9 * sin(x), 1.0e+12 * sin(x), 1.0e+14 * sin(x)]}"
    )
    converged = [row for row in rows_of(text).to_pylist() if row["status"] == "converged"]
    for row in converged:
        assert row["loss"] == pytest.approx(least_absolute(*data_of(row)), rel=1e-6)
    assert converged


def least_absolute(V: Array, y: Array) -> float:
    """The least sum of absolute residuals, as a linear program in c and a bound of each."""
    points, size = V.shape
    scale = np.abs(y).max()
    bounds = np.eye(points)
    found = linprog(
        np.repeat([0.0, 1.0], [size, points]),
        A_ub=np.block([[V, -bounds], [-V, -bounds]]),
        b_ub=np.concatenate([y, -y]) / scale,
        bounds=[(None, None)] * (size + points),
    )
    return float(found.fun * scale)


def test_what_it_cannot_square_is_diverged_at_once() -> None:
    text = (
        "fit: {optimizer: newton, basis: power, degree: 30, dtype: float64, points: 50}\n"
        "sweep: {objective: [sse, huber], range: [[1.0e+6, 1000001], [-1.0e+30, 1]]}"
    )
    for row in rows_of(text).to_pylist():
        assert (row["status"], row["steps_taken"]) == ("diverged", 0)
