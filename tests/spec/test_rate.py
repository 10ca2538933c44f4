"""Curvature, stability limits and learning rates."""

import math

import numpy as np
import pytest
from grids import GRIDS
from hypothesis import given, settings

from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid
from polyfit.spec.fit import Rate
from polyfit.spec.optimizer import Optimizer
from polyfit.spec.rate import curvature, learning_rate, stability_limit

GD = Optimizer("gd")


@pytest.mark.parametrize(
    ("degree", "limit"), [(3, 3.56e-6), (4, 4.64e-7), (5, 5.75e-8), (6, 6.9e-9)]
)
def test_powers_on_the_tutorials_grid_have_the_known_stability_limits(
    degree: int, limit: float
) -> None:
    sigma = design(Grid(-math.pi, math.pi, 2000, degree, "power")).sigma
    found = stability_limit(GD, curvature("sse", sigma, 2000))
    assert found == pytest.approx(limit, rel=8e-3 if degree == 6 else 2e-3)


@given(GRIDS)
@settings(max_examples=30, deadline=None)
def test_the_curvature_of_sse_is_the_largest_eigenvalue_of_its_hessian(grid: Grid) -> None:
    problem = design(grid)
    hessian = 2 * problem.functions_MN @ problem.functions_MN.T
    largest = float(np.linalg.eigvalsh(hessian)[-1])
    assert curvature("sse", problem.sigma, grid.points) == pytest.approx(largest, rel=1e-10)


def test_the_curvatures_of_the_objectives_are_those_of_their_sums() -> None:
    sigma = np.array([3.0, 1.0, np.nan, 1e200])
    found = {name: curvature(name, sigma, 10) for name in ("sse", "mse", "huber", "log_cosh")}
    for name, share in {"sse": 2.0, "mse": 0.2, "huber": 1.0, "log_cosh": 1.0}.items():
        np.testing.assert_allclose(found[name], [9 * share, share, np.nan, np.inf], rtol=1e-15)
    assert np.isnan(curvature("l1", sigma, 10)).all()


def test_momentum_has_a_larger_stability_limit() -> None:
    assert stability_limit(Optimizer("momentum", 0.5), np.array([4.0])) == 2 * 1.5 / 4.0


@pytest.mark.parametrize(
    ("rate", "optimizer", "expected"),
    [
        (Rate("auto"), GD, 0.25),
        (Rate("auto"), Optimizer("momentum", 0.5), 0.375),
        (Rate("auto"), Optimizer("adam"), 0.01),
        (Rate("of_limit", 0.9), GD, 0.45),
        (Rate("number", 7.0), GD, 7.0),
        (Rate("number", 7.0), Optimizer("adam"), 7.0),
    ],
    ids=str,
)
def test_a_rate_becomes_the_number_used(rate: Rate, optimizer: Optimizer, expected: float) -> None:
    (found,) = learning_rate([rate], np.array([0]), optimizer, np.array([4.0]))
    assert found == pytest.approx(expected, rel=1e-15)


def test_each_fit_has_the_rate_it_asks_for() -> None:
    rates = [Rate("auto"), Rate("number", 7.0), Rate("of_limit", 0.9)]
    bound = np.array([4.0, 4.0, 2.0, 1.0])
    found = learning_rate(rates, np.array([2, 1, 0, 0]), GD, bound)
    np.testing.assert_allclose(found, [0.45, 7.0, 0.5, 1.0], rtol=1e-15)


@pytest.mark.parametrize("bound", [0.0, math.inf, math.nan])
def test_a_rate_that_is_no_number_is_no_exception(bound: float) -> None:
    (found,) = learning_rate([Rate("auto")], np.array([0]), GD, np.array([bound]))
    assert not 0 < found < math.inf
