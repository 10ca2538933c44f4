"""Grids, bases, the QR reduction, rates and noise."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev, legendre, polynomial

from polyfit.numerics import elementary
from polyfit.spec.fields import BASES, Optimizer, Rate
from polyfit.spec.problem import (
    Grid,
    curvature,
    design,
    frame,
    functions_at,
    in_powers,
    learning_rate,
    noise,
    noisy,
    reduce,
    stability_limit,
    target_values,
)

GD = Optimizer("gd")
Array = npt.NDArray[np.float64]

GRIDS = st.builds(
    lambda low, width, points, degree, basis: Grid(low, low + width, points, degree, basis),
    low=st.floats(-4, 2),
    width=st.floats(0.5, 4),
    points=st.integers(11, 200),
    degree=st.integers(0, 10),
    basis=st.sampled_from(BASES),
)
MANY = st.builds(
    lambda seed, count, points, degree, basis: Grid(
        *random_ranges(seed, count), points, degree, basis
    ),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 40),
    points=st.integers(11, 3000),
    degree=st.integers(0, 10),
    basis=st.sampled_from(BASES),
)
FORMULAS = (
    "sin(x)", "exp(x) / tan(x)", "log(x)", "abs(x)**2.5 + x**x", "1 / (1 + 25*x**2)", "x", "2.0",
)  # fmt: skip


def random(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def random_ranges(seed: int, count: int) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    low = draw.uniform(-4, 2, count)
    return low, low + draw.uniform(0.5, 4, count)


def ranges(grid: Grid) -> tuple[Array, Array]:
    return np.asarray(grid.low), np.asarray(grid.high)


def some(grid: Grid, places: list[int] | slice) -> Grid:
    """The named ones of many grids."""
    low, high = ranges(grid)
    return Grid(low[places], high[places], grid.points, grid.degree, grid.basis)


def number(grid: Grid, place: int) -> Grid:
    """One of many grids, its range as two numbers."""
    low, high = ranges(grid)
    return Grid(float(low[place]), float(high[place]), grid.points, grid.degree, grid.basis)


def test_the_points_run_from_low_to_high_in_even_steps() -> None:
    grid = Grid(-1.0, 3.0, 5, 0, "power")
    assert grid.x().tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]
    assert grid.t().tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_many_ranges_have_a_row_of_points_each() -> None:
    grid = Grid(np.array([-1.0, 0.0]), np.array([3.0, 1.0]), 5, 0, "power")
    assert grid.x().tolist() == [[-1.0, 0.0, 1.0, 2.0, 3.0], [0.0, 0.25, 0.5, 0.75, 1.0]]


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6), st.integers(2, 40))
def test_no_point_lies_beyond_the_range(low: float, width: float, points: int) -> None:
    """Also where rounding would put it there: a target may have its end there."""
    high = low + width
    grid = Grid(low, high, points, 0, "power")
    x = grid.x()
    assert low <= x.min() <= x.max() <= high
    np.testing.assert_allclose(x[[0, -1]], [low, high], rtol=1e-15, atol=1e-15 * (abs(low) + width))
    together = Grid(np.array([low, 0.0]), np.array([high, 1.0]), points, 0, "power")
    assert together.x()[0].tolist() == x.tolist()


@pytest.mark.parametrize(
    ("target", "low", "high", "points"),
    [
        ("sqrt(x - 0.1)", 0.1, 1000000.3, 999),
        ("sqrt(x + e) + sqrt(1/3 - x)", -math.e, 1 / 3, 2000),
        ("asin(x)", -0.4402, 1.0, 50),
    ],
)
def test_a_target_that_ends_with_the_range_is_finite(
    target: str, low: float, high: float, points: int
) -> None:
    assert np.isfinite(target_values(target, Grid(low, high, points, 3, "chebyshev"))).all()


def test_a_range_of_two_neighbouring_numbers_has_a_width() -> None:
    grid = Grid(1.0, math.nextafter(1.0, 2.0), 5, 1, "chebyshev")
    assert grid.half > 0.0


def test_the_target_is_taken_at_the_points() -> None:
    grid = Grid(-math.pi, math.pi, 100, 3, "chebyshev")
    np.testing.assert_array_equal(target_values("exp(x)", grid), elementary.exp(grid.x()))
    np.testing.assert_array_equal(target_values("sin(x)", grid), elementary.sin(grid.x()))


# --- reduction -------------------------------------------------------------------------------


@given(GRIDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_reduced_sum_of_squares_is_the_sum_of_squares(grid: Grid, seed: int) -> None:
    problem = design(grid)
    y, c = random(seed, 1, grid.points), random(seed + 1, grid.degree + 1)
    q, rest = reduce(grid.degree, y)
    full = ((problem.functions_MN.T @ c - y[0]) ** 2).sum()
    assert ((problem.R_MM @ c - q[0]) ** 2).sum() + rest[0] == pytest.approx(full, rel=1e-9)


@given(GRIDS)
@settings(max_examples=30, deadline=None)
def test_r_is_upper_triangular_and_has_the_products_of_the_functions(grid: Grid) -> None:
    problem = design(grid)
    gram = problem.functions_MN @ problem.functions_MN.T
    np.testing.assert_array_equal(np.tril(problem.R_MM, -1), 0.0)
    np.testing.assert_allclose(
        problem.R_MM.T @ problem.R_MM, gram, rtol=1e-10, atol=1e-10 * gram.max()
    )


@given(GRIDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_rest_is_the_least_squares_optimum(grid: Grid, seed: int) -> None:
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
def test_as_many_points_as_coefficients_leave_no_rest(degree: int) -> None:
    q, rest = reduce(degree, random(0, 2, degree + 1))
    assert (q.shape, rest.tolist()) == ((2, degree + 1), [0.0, 0.0])


def test_reducing_leaves_the_data_as_it_was() -> None:
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


# --- exact factors ---------------------------------------------------------------------------


def exact_qr(rows: list[list[Decimal]]) -> tuple[list[list[Decimal]], list[list[Decimal]]]:
    """Gram-Schmidt in the current decimal context: orthonormal rows, and R row by row."""
    frame: list[list[Decimal]] = []
    R = [[Decimal(0)] * len(rows) for _ in rows]
    for k, row in enumerate(rows):
        for j, q in enumerate(frame):
            R[j][k] = sum((a * b for a, b in zip(q, row, strict=True)), Decimal(0))
            row = [a - R[j][k] * b for a, b in zip(row, q, strict=True)]
        R[k][k] = sum((a * a for a in row), Decimal(0)).sqrt()
        frame.append([a / R[k][k] for a in row])
    return frame, R


def exact_functions(grid: Grid) -> list[list[Decimal]]:
    """The basis functions at the points; t, the middle and half the width as float64 has them."""
    t = [Decimal(float(value)) for value in grid.t()]
    middle, half = Decimal(float(grid.middle)), Decimal(float(grid.half))
    x = t if grid.basis != "power" else [middle + half * value for value in t]
    rows = [[Decimal(1)] * len(t), x]
    for k in range(1, grid.degree):
        if grid.basis == "power":
            rows.append([a * b for a, b in zip(rows[k], x, strict=True)])
            continue
        a, b, c = (2, 1, 1) if grid.basis == "chebyshev" else (2 * k + 1, k, k + 1)
        rows.append(
            [(a * u * v - b * w) / c for u, v, w in zip(x, rows[k], rows[k - 1], strict=True)]
        )
    return rows


@pytest.mark.parametrize(
    "grid",
    [
        Grid(-1.0, 1.0, 60, 30, "power"),
        Grid(-10.0, 10.0, 60, 30, "power"),
        Grid(0.0, 2.5, 60, 30, "power"),
        Grid(-3.0, -2.0, 60, 30, "power"),
        Grid(1e6, 1e6 + 1, 60, 30, "power"),
        Grid(-1.0, 1.0, 60, 30, "chebyshev"),
        Grid(-1.0, 1.0, 60, 30, "legendre"),
    ],
    ids=str,
)
def test_r_is_the_exact_factor_to_rounding(grid: Grid) -> None:
    """Row by row, also where the design itself is singular in float64."""
    with localcontext(prec=600):
        exact = np.array(exact_qr(exact_functions(grid))[1], dtype=np.float64)
    R = design(grid).R_MM
    signs = np.sign(np.diag(R))[:, None]
    error = np.abs(signs * R - exact).max(axis=1) / np.abs(exact).max(axis=1)
    assert error.max() < 1e-13


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


@given(st.integers(0, 30), st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_a_frame_is_orthonormal_and_spans_the_chebyshev_polynomials(degree: int, more: int) -> None:
    found = frame(degree + 1 + more, degree)
    size = degree + 1
    np.testing.assert_allclose(found.Q_MN @ found.Q_MN.T, np.eye(size), rtol=0, atol=1e-14)
    expected = chebyshev.chebvander(np.linspace(-1, 1, size + more), degree).T
    np.testing.assert_allclose(found.R_MM.T @ found.Q_MN, expected, rtol=0, atol=1e-12)


def test_a_frame_cannot_be_changed_by_who_uses_it() -> None:
    with pytest.raises(ValueError, match="read-only"):
        frame(20, 3).Q_MN[0, 0] = 1.0


# --- promise 3: a problem does not know the others -------------------------------------------


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


@given(MANY, st.data())
@settings(max_examples=60, deadline=None)
def test_a_design_has_the_same_bits_alone_and_among_others(
    grids: Grid, data: st.DataObject
) -> None:
    together = design(grids)
    count = len(ranges(grids)[0])
    order = data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))]
    others = design(some(grids, order))
    np.testing.assert_array_equal(others.R_MM, together.R_MM[order])
    np.testing.assert_array_equal(others.sigma, together.sigma[order])
    np.testing.assert_array_equal(in_powers(some(grids, order)), in_powers(grids)[order])
    alone = design(number(grids, order[0]))
    np.testing.assert_array_equal(alone.R_MM, together.R_MM[order[0]])
    assert alone.sigma == together.sigma[order[0]]
    np.testing.assert_array_equal(alone.functions_MN, together.functions_MN[order[0]])
    np.testing.assert_array_equal(in_powers(number(grids, order[0])), in_powers(grids)[order[0]])


@given(MANY, st.sampled_from(FORMULAS), st.data())
@settings(max_examples=80, deadline=None)
def test_a_target_has_the_same_bits_alone_and_among_others(
    grids: Grid, target: str, data: st.DataObject
) -> None:
    together = target_values(target, grids)
    count = len(ranges(grids)[0])
    order = data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))]
    np.testing.assert_array_equal(target_values(target, some(grids, order)), together[order])
    alone = target_values(target, number(grids, order[0]))
    np.testing.assert_array_equal(alone, together[order[0]])


@given(
    st.integers(1, 2500),
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 3.0]), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    ),
)
@settings(max_examples=60, deadline=None)
def test_noisy_data_have_the_same_bits_alone_and_among_others(
    points: int, rows: list[tuple[int, float, int]]
) -> None:
    clean = random(1, 3, points)
    clean[0, 0] = -0.0  # plus zero times noise it would be 0.0
    of, scale, seeds = (np.array(column) for column in zip(*rows, strict=True))
    y = noisy(clean, of, scale, seeds.astype(np.uint64))
    for row, (which, by, seed) in zip(y, rows, strict=True):
        expected = clean[which]
        if by:
            philox = np.random.Generator(np.random.Philox(key=seed))
            expected = expected + by * philox.standard_normal(points)
        assert row.tobytes() == expected.tobytes()


THREADS = """
import hashlib, numpy as np
from polyfit.spec.problem import Grid, design, reduce
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


# --- bases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("basis", ["chebyshev", "legendre"])
def test_the_orthogonal_bases_share_one_design_for_all_ranges(basis: str) -> None:
    low, high = random_ranges(0, 1000)
    one, many = design(Grid(5.0, 9.0, 50, 4, basis)), design(Grid(low, high, 50, 4, basis))
    for shared in (many.R_MM, many.sigma, many.functions_MN):
        assert shared.strides[0] == 0
    np.testing.assert_array_equal(many.R_MM[7], one.R_MM)
    np.testing.assert_array_equal(many.functions_MN[7], one.functions_MN)


@pytest.mark.parametrize("degree", [0, 1, 2, 10, 30])
def test_chebyshev_functions_have_numpys_values(degree: int) -> None:
    grid = Grid(2.0, 5.0, 101, degree, "chebyshev")
    expected = chebyshev.chebvander(grid.t(), degree).T
    np.testing.assert_allclose(design(grid).functions_MN, expected, atol=1e-12)
    np.testing.assert_allclose(functions_at(grid, grid.x()), expected, atol=1e-11)


@pytest.mark.parametrize("degree", [0, 1, 2, 10, 30])
def test_legendre_functions_have_numpys_values(degree: int) -> None:
    grid = Grid(2.0, 5.0, 101, degree, "legendre")
    expected = legendre.legvander(grid.t(), degree).T
    np.testing.assert_allclose(design(grid).functions_MN, expected, atol=1e-12)
    np.testing.assert_allclose(functions_at(grid, grid.x()), expected, atol=1e-11)


def test_powers_are_powers_of_x() -> None:
    grid = Grid(-2.0, 3.0, 51, 6, "power")
    expected = polynomial.polyvander(grid.x(), 6).T
    np.testing.assert_allclose(design(grid).functions_MN, expected, rtol=1e-14)


@given(GRIDS, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_powers_of_a_polynomial_give_its_values(grid: Grid, seed: int) -> None:
    c = random(seed, grid.degree + 1)
    rows = in_powers(grid)
    powers = (c[:, None] * rows).sum(axis=0)
    largest = np.abs(c) @ np.abs(rows) @ np.abs(polynomial.polyvander(grid.x(), grid.degree).T)
    values = functions_at(grid, grid.x()).T @ c
    error = np.abs(polynomial.polyval(grid.x(), powers) - values)
    assert (error <= 1e-12 * (1 + largest)).all()


def test_powers_in_powers_are_themselves() -> None:
    np.testing.assert_array_equal(in_powers(Grid(-2.0, 5.0, 9, 7, "power")), np.eye(8))


def test_a_design_that_is_not_finite_is_no_exception() -> None:
    found = design(Grid(1e200, 1e201, 20, 4, "power"))
    assert not np.isfinite(found.R_MM).all()
    assert math.isnan(found.sigma)
    assert math.isnan(curvature("sse", found.sigma, 20))


def test_a_design_that_is_not_finite_leaves_the_others_alone() -> None:
    low, high = np.array([-1.0, 1e200, 1e60, -1.0]), np.array([1.0, 1e201, 2e60, 1.0])
    found = design(Grid(low, high, 20, 4, "power"))
    assert np.isnan(found.sigma).tolist() == [False, True, True, False]
    assert np.isfinite(found.R_MM).all(axis=(1, 2)).tolist() == [True, False, True, True]
    assert found.sigma[0] == found.sigma[3] == design(Grid(-1.0, 1.0, 20, 4, "power")).sigma


# --- rates -----------------------------------------------------------------------------------


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


# --- noise -----------------------------------------------------------------------------------


def drawn(seeds: list[int], points: int) -> Array:
    return noise(np.array(seeds, dtype=np.uint64), points)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=6), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_noise_is_numpys_philox_keyed_by_its_seed(seeds: list[int], points: int) -> None:
    seeds = [*seeds, 7, *seeds[::-1]]
    found = drawn(seeds, points)
    for row, seed in zip(found, seeds, strict=True):
        expected = np.random.Generator(np.random.Philox(key=seed)).standard_normal(points)
        np.testing.assert_array_equal(row, expected)


def test_no_seeds_have_no_noise() -> None:
    assert drawn([], 5).shape == (0, 5)


@given(st.integers(0, 2**64 - 1), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_fewer_points_have_a_prefix_of_the_noise(seed: int, points: int, more: int) -> None:
    longer = drawn([seed], points + more)
    np.testing.assert_array_equal(longer[:, :points], drawn([seed], points))


def test_noise_does_not_know_what_is_fitted() -> None:
    """Its two arguments are its seed and the number of points: degree, basis and seed are none."""
    np.random.seed(1)
    first = drawn([3], 20)
    design(Grid(-1.0, 1.0, 20, 5, "legendre"))
    np.random.seed(2)
    np.testing.assert_array_equal(drawn([3], 20), first)


def test_other_seeds_have_other_noise() -> None:
    one, other = drawn([0, 1], 20)
    assert not np.array_equal(one, other)
