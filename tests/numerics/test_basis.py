"""Basis functions."""

import numpy as np
import pytest
from grids import GRIDS, random
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev, legendre, polynomial

from polyfit.numerics.basis import functions_at, in_powers
from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid


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
