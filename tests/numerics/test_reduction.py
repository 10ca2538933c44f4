"""Reducing a sum of squares to a few rows."""

import os
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from grids import GRIDS, MANY, exact_functions, exact_qr, random, ranges
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values
from polyfit.numerics.reduction import reduce


@given(GRIDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_reduced_sum_of_squares_is_the_sum_of_squares(grid: Grid, seed: int) -> None:
    problem = design(grid)
    y, c = random(seed, 1, grid.points), random(seed + 1, grid.degree + 1)
    q, rest = reduce(grid.degree, y)
    full = ((problem.functions_MN.T @ c - y[0]) ** 2).sum()
    assert ((problem.R_MM @ c - q[0]) ** 2).sum() + rest[0] == pytest.approx(full, rel=1e-9)


@given(GRIDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_residual_is_the_least_squares_optimum(grid: Grid, seed: int) -> None:
    problem = design(grid)
    y = random(seed, 1, grid.points)
    best = np.linalg.lstsq(problem.functions_MN.T, y[0], rcond=None)[0]
    expected = ((problem.functions_MN.T @ best - y[0]) ** 2).sum()
    _, (rest,) = reduce(grid.degree, y)
    condition = float(np.linalg.cond(problem.functions_MN))  # lstsq's own error grows with it
    assert rest == pytest.approx(expected, rel=1e-9, abs=1e-13 * condition * float((y * y).sum()))


@given(GRIDS, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_rc_equals_q_at_the_least_squares_solution(grid: Grid, seed: int) -> None:
    problem = design(grid)
    y = random(seed, 1, grid.points)
    c = np.linalg.solve(problem.R_MM, reduce(grid.degree, y)[0][0])
    best = np.linalg.lstsq(problem.functions_MN.T, y[0], rcond=None)[0]
    functions = problem.functions_MN.T
    condition = float(np.linalg.cond(functions))  # lstsq's own error grows with it
    np.testing.assert_allclose(functions @ c, functions @ best, rtol=1e-9, atol=1e-13 * condition)


@given(MANY, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_reduction_holds_for_each_of_many_ranges(grids: Grid, seed: int) -> None:
    problems = design(grids)
    count = len(ranges(grids)[0])
    y, c = random(seed, count, grids.points), random(seed + 1, count, grids.degree + 1)
    q, rest = reduce(grids.degree, y)
    full = ((np.einsum("pm,pmn->pn", c, problems.functions_MN) - y) ** 2).sum(axis=1)
    reduced = ((np.einsum("pij,pj->pi", problems.R_MM, c) - q) ** 2).sum(axis=1) + rest
    np.testing.assert_allclose(reduced, full, rtol=1e-9)


@pytest.mark.parametrize("degree", [0, 3, 30])
def test_as_many_points_as_coefficients_leave_no_residual(degree: int) -> None:
    q, rest = reduce(degree, random(0, 2, degree + 1))
    assert (q.shape, rest.tolist()) == ((2, degree + 1), [0.0, 0.0])


def test_reducing_does_not_change_the_data() -> None:
    y = random(0, 2, 20)
    kept = y.copy()
    reduce(3, y)
    np.testing.assert_array_equal(y, kept)


def test_data_that_are_not_finite_are_no_exception() -> None:
    y = np.array([[1.0, np.inf, 2.0, 3.0], [1e200, 1.0, 2.0, -1e200], [1.0, 2.0, 3.0, 4.0]])
    q, rest = reduce(1, y)
    assert not np.isfinite(q[0]).any()
    assert np.isfinite(q[1]).all()
    assert rest[1] == np.inf
    assert rest[2] == pytest.approx(0.0, abs=1e-28)


@pytest.mark.parametrize("target", ["sin(x)", "exp(x)", "abs(x)", "1 / (1 + 25*x**2)", "x**7"])
@pytest.mark.parametrize("degree", [3, 9, 30])
def test_q_and_the_rest_are_exact_to_the_rounding_of_the_data(target: str, degree: int) -> None:
    """One pass of orthogonalisation is enough, where next to nothing is left as well."""
    grid = Grid(-3.0, 3.0, 80, degree, "chebyshev")
    y = target_values(target, grid)
    with localcontext(prec=60):
        rows, _ = exact_qr(exact_functions(grid))
        data = [Decimal(float(value)) for value in y]
        q = [sum((a * b for a, b in zip(row, data, strict=True)), Decimal(0)) for row in rows]
        rest = float(sum((a * a for a in data), Decimal(0)) - sum((a * a for a in q), Decimal(0)))
        exact = np.array(q, dtype=np.float64)
    found, (found_rest,) = reduce(degree, y[None])
    norm = float(np.sqrt((y * y).sum()))
    signs = np.sign(np.diag(design(grid).R_MM))
    np.testing.assert_allclose(signs * found[0], exact, rtol=0, atol=2e-15 * norm)
    assert np.sqrt(found_rest) == pytest.approx(np.sqrt(rest), rel=1e-14, abs=1e-15 * norm)


@given(
    st.integers(0, 10),
    st.integers(11, 20_000),
    st.integers(1, 40),
    st.integers(0, 2**32),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_problem_is_reduced_to_the_same_bits_alone_and_among_others(
    degree: int, points: int, problems: int, seed: int, data: st.DataObject
) -> None:
    y = random(seed, problems, points)
    q, rest = reduce(degree, y)
    order = data.draw(st.permutations(range(problems)))[: data.draw(st.integers(1, problems))]
    other_q, other_rest = reduce(degree, y[order])
    np.testing.assert_array_equal(other_q, q[order])
    np.testing.assert_array_equal(other_rest, rest[order])
    for place in {0, problems // 2, problems - 1}:
        alone_q, alone_rest = reduce(degree, y[place : place + 1])
        np.testing.assert_array_equal(alone_q[0], q[place])
        assert alone_rest[0] == rest[place]


THREADS = """
import hashlib, numpy as np
from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid
from polyfit.numerics.reduction import reduce
digest = hashlib.sha256()
for degree in (3, 30):
    for points in (2_000, 9_300, 50_001):
        q, rest = reduce(degree, np.random.default_rng(degree).standard_normal((3, points)))
        digest.update(q.tobytes() + rest.tobytes())
    many = design(Grid(np.linspace(-3, -1, 50), np.linspace(1, 2, 50), 100, degree, "power"))
    digest.update(many.R_MM.tobytes() + many.sigma.tobytes())
print(digest.hexdigest())
"""


def test_the_number_of_blas_threads_changes_no_bit() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", THREADS],
            env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads)},
            check=True,
            capture_output=True,
        ).stdout
        for threads in (1, 2, 4)
    }
    assert len(found) == 1
