"""Targets and noise."""

import math

import numpy as np
import pytest
from grids import MANY, number, random, ranges, some
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.numerics import elementary
from polyfit.numerics.arrays import Array
from polyfit.numerics.design import design
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noise, noisy, target_values

FORMULAS = (
    "sin(x)", "exp(x) / tan(x)", "log(x)", "abs(x)**2.5 + x**x", "1 / (1 + 25*x**2)", "x", "2.0",
)  # fmt: skip


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


def test_the_target_is_taken_at_the_points() -> None:
    grid = Grid(-math.pi, math.pi, 100, 3, "chebyshev")
    np.testing.assert_array_equal(target_values("exp(x)", grid), elementary.exp(grid.x()))
    np.testing.assert_array_equal(target_values("sin(x)", grid), elementary.sin(grid.x()))


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


def test_no_seeds_give_no_rows_of_noise() -> None:
    assert drawn([], 5).shape == (0, 5)


@given(st.integers(0, 2**64 - 1), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_fewer_points_have_a_prefix_of_the_noise(seed: int, points: int, more: int) -> None:
    longer = drawn([seed], points + more)
    np.testing.assert_array_equal(longer[:, :points], drawn([seed], points))


def test_noise_does_not_depend_on_what_is_fitted() -> None:
    """Its two arguments are its seed and the number of points: degree, basis and seed are none."""
    np.random.seed(1)
    first = drawn([3], 20)
    design(Grid(-1.0, 1.0, 20, 5, "legendre"))
    np.random.seed(2)
    np.testing.assert_array_equal(drawn([3], 20), first)


def test_other_seeds_have_other_noise() -> None:
    one, other = drawn([0, 1], 20)
    assert not np.array_equal(one, other)
