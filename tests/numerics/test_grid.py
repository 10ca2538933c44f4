"""The points of a grid."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polyfit.numerics.grid import Grid


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


def test_a_range_of_two_neighbouring_numbers_has_a_width() -> None:
    grid = Grid(1.0, math.nextafter(1.0, 2.0), 5, 1, "chebyshev")
    assert grid.half > 0.0
