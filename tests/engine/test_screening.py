"""Screening: blocks that are passed over never hold the largest error."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from engines import CPU, plan_of

from polyfit.engine.batch_data import BatchData
from polyfit.engine.evaluation import evaluate
from polyfit.engine.screening import BLOCK, SCREENED_POINTS, blocks_of
from polyfit.numerics.arrays import Array
from polyfit.spec.plan import Shard
from polyfit.work.fitting import ShardFitting

TARGETS = [
    "sin(x)",
    "exp(-x**2) * 1e6",
    "abs(x) - 0.1",
    "sign(x)",
    "1 / x",
    "sqrt(x)",  # NaN below 0
    "sin(300 * x)",
    "1.5",
]
FITS = 120


def coefficients(target: Array, x: Array, degree: int, random: np.random.Generator) -> Array:
    """Of any size, near the target, equal, zero, and none at all."""
    size = degree + 1
    values = random.normal(size=(FITS, size)) * 10.0 ** random.uniform(-9, 9, (FITS, 1))
    known = np.isfinite(target)
    near = np.linalg.lstsq(np.vander(x[known], size, increasing=True), target[known])[0]
    values[: FITS // 2] = near * (1.0 + 10.0 ** random.uniform(-16, 0, (FITS // 2, 1)))
    values[0], values[1] = near, 0.0
    values[2, 0], values[3, -1], values[4, 0] = np.nan, np.inf, -1e308
    values[5] = 1e300
    return values


@pytest.mark.parametrize("points", [SCREENED_POINTS, SCREENED_POINTS + 1, 1000, 2001])
@pytest.mark.parametrize("degree", [0, 1, 3, 7, 12])
@pytest.mark.parametrize("target", TARGETS)
def test_the_largest_error_has_the_bits_of_a_look_at_every_point(
    target: str, degree: int, points: int
) -> None:
    random = np.random.default_rng(points * 31 + degree)
    for low, high in ((-1.0, 2.0), (1e6, 1e6 + 1.0), (-1e-9, 1e-9)):
        text = (
            f"fit: {{target: {target}, range: [{low}, {high}], degree: {degree}, basis: power, "
            f"points: {points}, steps: 1}}\nsweep: {{seed: {{count: {FITS}}}}}"
        )
        work = ShardFitting(plan_of(text, "compiled"), Shard(0, 0, FITS), CPU)
        (batch,) = work.batches.of(work.to_fit)
        data = BatchData.of(work.columns, batch.at[:1], True)
        config, problems = work.batches.config(batch), data.problems(batch.problem_of, True)
        with np.errstate(all="ignore"):
            final = coefficients(data.clean_CN[0], data.grid.x()[0], degree, random)
        one, other = (
            evaluate(
                config, replace(data, compiled=compiled), problems, final, np.float64
            ).max_error
            for compiled in (True, False)
        )
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("points", [SCREENED_POINTS, SCREENED_POINTS + 1, 999])
def test_a_line_bends_nowhere_and_a_parabola_by_its_second_derivative(points: int) -> None:
    t: npt.NDArray[np.float64] = np.linspace(-1.0, 1.0, points)
    blocks = -(-(points - 1) // BLOCK)
    line, parabola = (blocks_of(t, y)["bend"] for y in (3.0 * t, t * t))
    assert line[:blocks].max() < 1e-11
    width = BLOCK * (t[1] - t[0])
    np.testing.assert_allclose(parabola[: blocks - 1], width**2 / 4, rtol=1e-6)
