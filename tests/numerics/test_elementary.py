"""Elementary functions: close to the true values everywhere, and the same bits in a kernel."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pytest

from polyfit.engine.data_kernels import target_compiled
from polyfit.numerics import elementary
from polyfit.numerics.elementary import LIMIT, ULPS, cos, power, sin, tan
from polyfit.numerics.formula import FUNCTIONS, Formula
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values

Array = npt.NDArray[np.float64]

RANDOM = np.random.default_rng(0)


def spread(*ends: float, count: int = 300) -> Array:
    return np.concatenate([RANDOM.uniform(-end, end, count) for end in ends])


def sizes(low: float, high: float, count: int = 300) -> Array:
    """Numbers of both signs from 10^low to 10^high in size."""
    signs = RANDOM.choice([-1.0, 1.0], count)
    return np.asarray(signs * 10.0 ** RANDOM.uniform(low, high, count))


TURNS = np.concatenate(
    [
        np.arange(-40, 41) * (math.pi / 4),
        np.nextafter(np.arange(-40, 41) * (math.pi / 4), 9.0),
        np.round(RANDOM.uniform(-LIMIT, LIMIT, 60) / math.pi) * math.pi,
        spread(1e-6, 1.0, 4.0, 1e3, LIMIT),
        sizes(6.0, 16.0),
    ]
)
UNIT = np.concatenate([spread(1.0), 1.0 - 10.0 ** RANDOM.uniform(-16, 0, 100), sizes(-300, -1)])
CURVED = np.concatenate([spread(1.0, 30.0, 700.0), sizes(-300, 0)])
POINTS: dict[str, Array] = {
    "sin": TURNS,
    "cos": TURNS,
    "tan": TURNS,
    "asin": UNIT,
    "acos": UNIT,
    "atan": np.concatenate([spread(1.0, 3.0), sizes(-300, 300)]),
    "sinh": CURVED,
    "cosh": CURVED,
    "tanh": CURVED,
    "exp": np.concatenate([spread(1.0, 5.0, 700.0), [709.7, -744.4, 0.0]]),
    "log": np.abs(np.concatenate([spread(2.0), 1.0 + sizes(-16, -1), sizes(-323, 308)])),
}


def off(value: float, true: Any) -> float:
    """By how many units in the last place ``value`` is off."""
    return float(abs(mpmath.mpf(value) - true) / mpmath.mpf(math.ulp(float(true))))


@pytest.mark.parametrize("name", POINTS)
def test_functions_are_within_the_promised_ulps_of_the_true_values(name: str) -> None:
    with mpmath.workdps(60), np.errstate(all="ignore"):
        for x, value in zip(POINTS[name], FUNCTIONS[name](POINTS[name]), strict=True):
            assert off(float(value), getattr(mpmath, name)(mpmath.mpf(float(x)))) <= ULPS, x


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_the_largest_arguments_are_reduced_exactly(name: str) -> None:
    x = np.concatenate([sizes(6.2, 16.0), sizes(16.0, 308.0)])
    turns = np.round(sizes(6.2, 15.0) / math.pi)
    x = np.concatenate([x, turns * math.pi, (turns + 0.5) * math.pi])
    with mpmath.workdps(380), np.errstate(all="ignore"):
        for one, value in zip(x, FUNCTIONS[name](x), strict=True):
            assert off(float(value), getattr(mpmath, name)(mpmath.mpf(float(one)))) <= ULPS, one


def test_powers_are_within_the_promised_ulps_of_the_true_values() -> None:
    x = np.abs(np.concatenate([sizes(-3, 3), sizes(-300, 300), RANDOM.uniform(0.5, 2, 300)]))
    y = np.concatenate([spread(50.0), spread(1.0), spread(900.0)])
    far = np.exp(RANDOM.uniform(-1.5, 1.5, 900))  # results up to the ends of float64
    x, y = np.concatenate([x, far]), np.concatenate([y, RANDOM.uniform(-700, 700) / np.log(far)])
    with mpmath.workdps(60), np.errstate(all="ignore"):
        for one, other, value in zip(x, y, power(x, y), strict=True):
            true = mpmath.power(mpmath.mpf(float(one)), mpmath.mpf(float(other)))
            assert off(float(value), true) <= ULPS, (one, other)


@pytest.mark.parametrize("y", [-1.0, 1.0, 2.0, 3.0, 4.0])
def test_small_powers_are_multiplied_out(y: float) -> None:
    x = sizes(-50, 50)
    product = 1.0 / x if y < 0 else np.prod([x] * int(y), axis=0)
    np.testing.assert_allclose(power(x, np.float64(y)), product, rtol=2**-51)
    assert (power(x, np.float64(y)) == x).all() == (y == 1.0)


SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, np.inf, -np.inf, np.nan, 1e300, -1e300,
    1e-300, 5e-324, -1e-320, 9.0, 1.5, 2.0**53, 2.0**60,
]  # fmt: skip


def alike(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    same = a == b or abs(a - b) <= 1e-14 * abs(b)
    return same and math.copysign(1.0, a) == math.copysign(1.0, b)


def of_c(x: float, y: float) -> float:
    """C's pow, which Python has with exceptions for some of its values."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return math.inf if x > 0.0 or y % 2.0 != 1.0 else -math.inf
    except ValueError:
        if x != 0.0:
            return math.nan
        return math.copysign(math.inf, x) if y % 2.0 == 1.0 else math.inf


@pytest.mark.parametrize("y", SPECIAL)
def test_powers_at_the_ends_are_those_of_c(y: float) -> None:
    x = np.array(SPECIAL)
    with np.errstate(all="ignore"):
        arrays = [power(x, np.full_like(x, y)), power(x, np.float64(y))]
    for values in arrays:
        for one, value in zip(SPECIAL, values.tolist(), strict=True):
            assert alike(value, of_c(one, y)), one


@pytest.mark.parametrize("name", [*POINTS, "sign"])
def test_at_the_ends_of_the_domain_and_beyond_values_are_as_numpys(name: str) -> None:
    x = np.array(SPECIAL)
    numpys = getattr(np, name.replace("a", "arc", 1) if name in ("asin", "acos", "atan") else name)
    with np.errstate(all="ignore"):
        ours, theirs = FUNCTIONS[name](x), numpys(x)
    if name in ("sign", "sin", "tan"):  # of -0.0 they may be 0.0
        ours, theirs = ours + 0.0, theirs + 0.0
    assert all(alike(a, b) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True))


@pytest.mark.parametrize("x", [0.5, -2.0, 1e22])
def test_numbers_have_the_bits_of_arrays(x: float) -> None:
    for name, function in FUNCTIONS.items():
        with np.errstate(all="ignore"):
            one, many = function(np.float64(x)), function(np.array([x, x]))
        assert float(one) == many[0] or float(one) != float(one), name


FORMULAS = [
    *(f"{name}(x)" for name in FUNCTIONS),
    "exp(-x**2)", "x**2.5", "2**x", "abs(x)**x", "x**5", "x**-3", "+x", "-x", "3",
    "e**1*x + sin(2)",
    "tanh(exp(sin(x) * log(abs(x)))**-3)", "exp(acos(2) * x)", "sinh(x + 0 / 0)", "x**(x + 0 / 0)",
    "tanh(log(-1) * x)", "sin(0 / 0 * x)",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_kernel_finds_the_bits_of_numpy(text: str) -> None:
    low = np.array([-3.0, 0.5, -1000.0, 1e-300, -0.99, 0.0, -1e-320])
    high = np.array([3.0, 700.0, 1000.0, 1e-290, 0.99, 1e5, 1e-310])
    grid, formula = Grid(low, high, 101, 0, "power"), Formula.parse(text).text
    found, expected = target_compiled(formula, grid)[0], target_values(formula, grid)
    np.testing.assert_array_equal(found, expected)
    number = ~np.isnan(expected)
    assert (np.signbit(found) == np.signbit(expected))[number].all()


Within = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("function", "within"),
    [(sin, elementary.sin_within), (cos, elementary.cos_within), (tan, elementary.tan_within)],
)
def test_within_the_limit_the_short_functions_have_the_same_bits(
    function: Within, within: Within
) -> None:
    x = TURNS[np.abs(TURNS) <= LIMIT]
    np.testing.assert_array_equal(function(x), within(x))


def test_the_first_parts_of_pi_leave_room_for_the_number_of_turns() -> None:
    parts = [Fraction(part) for part in elementary._PI_PARTS]
    with mpmath.workdps(60):
        pi = Fraction(int(mpmath.floor(mpmath.pi * mpmath.mpf(10) ** 50)), 10**50)
    assert abs(sum(parts) - pi) < Fraction(1, 2**119)
    for part in parts[:2]:
        assert part.numerator.bit_length() <= 33
    assert round(2 * LIMIT / math.pi).bit_length() <= 20
