"""Sine and cosine: close to the true values everywhere, and the same bits by numpy and by torch."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from polyfit import trigonometry
from polyfit.trigonometry import LIMIT, cos, cos_within, sin, sin_within

Function = Callable[[Any], Any]

ULPS = 2.5
"""What the module promises."""

PI = Fraction(314159265358979323846264338327950288419716939937510582097494, 10**59)
"""To 59 decimals."""


def true_sine(x: float, quarters: int) -> Fraction:
    """sin(x + ``quarters`` pi / 2) to some fifty digits, by Taylor's series."""
    angle = Fraction(x) + quarters * PI / 2
    angle -= round(angle / (2 * PI)) * 2 * PI
    total, term, k = Fraction(0), angle, 1
    while abs(term) > Fraction(1, 10**45):
        total, k = total + term, k + 2
        term = Fraction(round(-term * angle * angle / ((k - 1) * k) * 10**70), 10**70)
    return total


def points() -> npt.NDArray[np.float64]:
    random = np.random.default_rng(0)
    near = np.arange(-40, 41) * (math.pi / 4)
    far = np.round(random.uniform(-LIMIT, LIMIT, 60) / math.pi) * math.pi
    spread = [random.uniform(-size, size, 150) for size in (1e-6, 1.0, 4.0, 1e3, LIMIT)]
    return np.concatenate([near, np.nextafter(near, 9), far, far + math.pi / 2, *spread])


@pytest.mark.parametrize(("function", "quarters"), [(sin, 0), (cos, 1)])
def test_they_are_within_the_promised_ulps_of_the_true_values(
    function: Function, quarters: int
) -> None:
    for x, value in zip(points(), function(points()), strict=True):
        true = true_sine(float(x), quarters)
        ulp = Fraction(math.ulp(float(true)))
        assert abs(Fraction(float(value)) - true) <= Fraction(ULPS) * ulp, x


@pytest.mark.parametrize(("within", "function"), [(sin_within, sin), (cos_within, cos)])
def test_torch_and_numpy_find_the_same_bits(within: Function, function: Function) -> None:
    x = np.append(points(), [0.0, LIMIT, -LIMIT])
    np.testing.assert_array_equal(within(torch.tensor(x)).numpy(), function(x))


@pytest.mark.parametrize(("function", "numpys"), [(sin, np.sin), (cos, np.cos)])
def test_beyond_the_limit_they_are_numpys(function: Function, numpys: Function) -> None:
    x = np.array([1.0, 2.0 * LIMIT, -1e22, 1e300])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(function(x)[1:], numpys(x)[1:])
        assert function(np.float64(1e22)) == numpys(1e22)
        assert function(x)[0] == function(np.float64(1.0))
        assert np.isnan(function(np.array([np.nan, np.inf, -np.inf]))).all()


def test_the_first_parts_of_pi_leave_room_for_the_number_of_turns() -> None:
    parts = [Fraction(part) for part in trigonometry._PI]
    assert abs(sum(parts) - PI) < Fraction(1, 2**119)
    for part in parts[:2]:
        assert part.numerator.bit_length() <= 33
    assert round(2 * LIMIT / math.pi).bit_length() <= 20
