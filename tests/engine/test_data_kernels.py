"""Data and their evaluation by kernels have the bits of numpy's."""

import numpy as np
import pytest
from engines import rows_of

from polyfit.engine.data_kernels import reduce_compiled, target_compiled
from polyfit.numerics import elementary
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.fit import OBJECTIVES, SQUARED

POINTS = (1, 2, 3, 15, 16, 17, 31, 32, 33, 100)


@pytest.mark.parametrize("points", POINTS)
def test_the_compiled_reduction_has_the_bits_of_numpys(points: int) -> None:
    y = (
        np.random.default_rng(points).standard_normal((7, points))
        * 10.0 ** np.arange(-3, 4)[:, None]
    )
    y[5, points // 2], y[6, 0] = np.inf, np.nan
    for degree in (0, 1, 8, 14):
        if degree < points:
            for one, other in zip(reduce_compiled(degree, y), reduce(degree, y), strict=True):
                np.testing.assert_array_equal(one, other)
                assert one[:5].tobytes() == other[:5].tobytes()


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize(
    "target",
    ["sin(x)", "2 / 3 - cos(1.7 * x) / 3 * sin(0.1)", "sqrt(abs(x)) + x / (x - 1)", "x - 5"],
)
def test_compiled_targets_have_the_bits_of_numpys(target: str, points: int) -> None:
    low = np.linspace(-3, 1, 9)
    grid = Grid(low, low + np.linspace(0.1, 4, 9), points, 3, "power")
    with np.errstate(all="ignore"):
        want = target_values(target, grid)
    y, scale, reach = target_compiled(target, grid)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(scale, np.abs(want).max(axis=1))
    if target == "sin(x)":
        np.testing.assert_array_equal(reach, np.abs(grid.x()).max(axis=1))


def test_arguments_beyond_the_sines_limit_are_told() -> None:
    grid = Grid(np.array([0.0, -1.0]), np.array([1.0, 2 * elementary.LIMIT]), 5, 0, "power")
    reach = target_compiled("sin(x)", grid)[2]
    assert (reach <= elementary.LIMIT).tolist() == [True, False]


@pytest.mark.parametrize("basis", ["chebyshev", "power"])
def test_the_compiled_evaluation_is_the_eager_one(basis: str) -> None:
    """Of the same coefficients: a step of 1e-30 moves none. Sums are added in another order."""
    text = (
        f"fit: {{degree: 1, basis: {basis}, steps: 1, lr: 1.0e-30, dtype: float64, noise: 0.3}}\n"
        f"sweep: {{objective: [{', '.join(OBJECTIVES)}], points: {[*POINTS[1:]]}, "
        "range: [[-1, 1], [0, 3]], seed: {count: 3}}\nrecord: none"
    )
    found, want = rows_of(text, "compiled"), rows_of(text, "eager")
    for name in set(want.column_names) - {"loss", "gradient_norm"}:
        assert found[name].equals(want[name]), name
    squared = np.isin(want["objective"].to_pylist(), SQUARED)
    for name in ("loss", "gradient_norm"):
        one, other = found[name].to_numpy(), want[name].to_numpy()
        np.testing.assert_array_equal(one[squared], other[squared])
        np.testing.assert_allclose(one, other, rtol=1e-12)
