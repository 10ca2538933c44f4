"""Design matrices and their QR factors."""

import math
from decimal import localcontext

import numpy as np
import pytest
from grids import GRIDS, MANY, exact_functions, exact_qr, number, random_ranges, ranges, some
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev

from polyfit.numerics.basis import in_powers
from polyfit.numerics.design import design, frame
from polyfit.numerics.grid import Grid
from polyfit.spec.rate import curvature


@given(GRIDS)
@settings(max_examples=30, deadline=None)
def test_r_is_upper_triangular_and_has_the_products_of_the_functions(grid: Grid) -> None:
    problem = design(grid)
    gram = problem.functions_MN @ problem.functions_MN.T
    np.testing.assert_array_equal(np.tril(problem.R_MM, -1), 0.0)
    np.testing.assert_allclose(
        problem.R_MM.T @ problem.R_MM, gram, rtol=1e-10, atol=1e-10 * gram.max()
    )


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


@given(st.integers(0, 30), st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_a_frame_is_orthonormal_and_spans_the_chebyshev_polynomials(degree: int, more: int) -> None:
    found = frame(degree + 1 + more, degree)
    size = degree + 1
    np.testing.assert_allclose(found.Q_MN @ found.Q_MN.T, np.eye(size), rtol=0, atol=1e-14)
    expected = chebyshev.chebvander(np.linspace(-1, 1, size + more), degree).T
    np.testing.assert_allclose(found.R_MM.T @ found.Q_MN, expected, rtol=0, atol=1e-12)


def test_a_frame_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        frame(20, 3).Q_MN[0, 0] = 1.0


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


@pytest.mark.parametrize("basis", ["chebyshev", "legendre"])
def test_the_orthogonal_bases_share_one_design_for_all_ranges(basis: str) -> None:
    low, high = random_ranges(0, 1000)
    one, many = design(Grid(5.0, 9.0, 50, 4, basis)), design(Grid(low, high, 50, 4, basis))
    for shared in (many.R_MM, many.sigma, many.functions_MN):
        assert shared.strides[0] == 0
    np.testing.assert_array_equal(many.R_MM[7], one.R_MM)
    np.testing.assert_array_equal(many.functions_MN[7], one.functions_MN)


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
