"""Elementary functions of float64, made of operations that IEEE 754 rounds in one way only.

So numpy and the kernels find the same bits on every machine. The operations are numpy's
arithmetic, comparisons, ``where``, ``rint``, ``sqrt``, ``copysign``, ``frexp`` and ``ldexp``. Each
function takes a number of float64, an array of any shape, or an object with these operations, and
gives the same. Outside of a function's domain the value is NaN or infinite; nothing is raised, but
numpy may warn. Each is within ``ULPS`` units in the last place.

Cody and Waite, Software Manual for the Elementary Functions (1980): the reductions of arguments.
Dekker, A floating-point technique for extending the available precision (1971): exact products.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np

__all__ = [
    "LIMIT",
    "ULPS",
    "acos",
    "asin",
    "atan",
    "cos",
    "cos_within",
    "cosh",
    "exp",
    "log",
    "power",
    "sign",
    "sin",
    "sin_within",
    "sinh",
    "tan",
    "tan_within",
    "tanh",
]

ULPS: Final = 6
"""Bound of the error of a value, in units in the last place."""

LIMIT: Final = 1.6e6
"""Bound of |x| for ``sin_within`` and its like: x / pi, in halves, has 20 bits up to here."""

_PI_LOW: Final = float.fromhex("0x1.1a62633145c07p-53")
"""Pi less the float64 nearest to it."""

_PI_LEAST: Final = float.fromhex("-0x1.f1976b7ed8fbcp-109")
"""Pi less the two above."""


def _polynomial(coefficients: tuple[float, ...], z: Any) -> Any:
    """c[0] + c[1] z + c[2] z^2 + ... by Horner's rule."""
    value: Any = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * z + coefficient
    return value


# --- sine, cosine, tangent -------------------------------------------------------------------

_PI_PARTS: Final = tuple(
    map(float.fromhex, ("0x1.921fb544p+1", "0x1.0b4611a6p-33", "0x1.3198a2e037073p-68"))
)
"""Pi in three parts; the first two have 33 bits: times a number of 20 bits they are exact."""

_SINE: Final = (
    -0.16666666666666666,
    0.008333333333333316,
    -0.00019841269841254974,
    2.755731921916323e-06,
    -2.505210761699557e-08,
    1.605897731242445e-10,
    -7.643970295533013e-13,
    2.7314447512062796e-15,
)
"""(sin(r) / r - 1) / r^2 as a polynomial in r^2, interpolated at the Chebyshev points for |r| up
to pi / 2: its error is 1.3e-18 of sin(r)."""


def sin(x: Any) -> Any:
    return _near_or_far(x, sin_within, 0)


def cos(x: Any) -> Any:
    return _near_or_far(x, cos_within, 1)


def tan(x: Any) -> Any:
    return sin(x) / cos(x)


def sin_within(x: Any) -> Any:
    """The sine where |x| is at most LIMIT; NaN for NaN and infinities."""
    return _reduced_sine(x, np.rint(x * (1.0 / np.pi)))


def cos_within(x: Any) -> Any:
    """The cosine where |x| is at most LIMIT: the sine of x + pi / 2."""
    return _reduced_sine(x, np.rint(x * (1.0 / np.pi) + 0.5) - 0.5, 0.5)


def tan_within(x: Any) -> Any:
    """The tangent where |x| is at most LIMIT."""
    return sin_within(x) / cos_within(x)


def _reduced_sine(x: Any, turns: Any, quarter: float = 0.0) -> Any:
    """The sine of x + ``quarter`` pi, by x - ``turns`` pi, which is small."""
    r = ((x - turns * _PI_PARTS[0]) - turns * _PI_PARTS[1]) - turns * _PI_PARTS[2]
    return _sine_after_turns(r, turns + quarter)


def _sine_after_turns(r: Any, half_turns: Any) -> Any:
    """The sine of r + ``half_turns`` pi, a whole number: an odd one changes the sign."""
    odd = half_turns - 2.0 * np.rint(half_turns * 0.5 - 0.25)
    return _sine(r) * (1.0 - 2.0 * odd)


def _sine(r: Any) -> Any:
    z = r * r
    return r + r * (z * _polynomial(_SINE, z))


def _near_or_far(x: Any, within: Any, quarters: int) -> Any:
    value = within(x)
    far = (np.abs(x) > LIMIT) & (np.abs(x) < np.inf)
    if not np.any(far):
        return value
    value = np.array(value)
    value[far] = _sine_far(np.asarray(x)[far], quarters)
    return value


def _sine_far(x: Any, quarters: int) -> Any:
    """sin(x + ``quarters`` pi / 2) for an array of finite numbers beyond LIMIT."""
    quarter = 0.5 * quarters
    turns = np.rint(x * (1.0 / np.pi) + quarter) - quarter
    product, lost = _exact_product(turns, np.pi)
    more, least = _exact_product(turns, _PI_LOW)
    total, first = _exact_sum(x - product, -lost)  # the difference is exact
    total, second = _exact_sum(total, -more)
    r = total + ((first + second) - (least + turns * _PI_LEAST))
    value = _sine_after_turns(r, turns + quarter)
    beyond = np.abs(x) > _FAR_IN_FLOATS
    if np.any(beyond):
        value[beyond] = [_sine_in_integers(one, quarters) for one in x[beyond].tolist()]
    return value


_FAR_IN_FLOATS: Final = 1e15
"""Up to here x / pi, in halves, has 50 bits."""


def _sine_in_integers(x: float, quarters: int) -> float:
    """sin(x + ``quarters`` pi / 2) in integers, which hold any float64 and enough of pi."""
    numerator, denominator = x.as_integer_ratio()
    half = _pi_scaled() // 2
    scaled = (numerator << _BITS) // denominator + quarters * half
    turns, rest = divmod(scaled + half, _pi_scaled())
    value = float(_sine((rest - half) / (1 << _BITS)))
    return -value if turns % 2 else value


_BITS: Final = 1200
"""Bits of pi after the point: the largest float64 has 1024 before it."""


@lru_cache(maxsize=1)
def _pi_scaled() -> int:
    """Pi times 2^_BITS, by Machin's formula."""

    def arctangent(divisor: int) -> int:
        total, term, k = 0, (1 << (_BITS + 32)) // divisor, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (divisor * divisor), k + 2
        return total

    return (16 * arctangent(5) - 4 * arctangent(239)) >> 32


# --- exponential, logarithm, powers ----------------------------------------------------------

_LOG_2_PARTS: Final = (
    float.fromhex("0x1.62e42fee00000p-1"),
    float.fromhex("0x1.a39ef35793c76p-33"),
)
"""Log 2 in two parts; the first has 33 bits: its product with an exponent is exact."""

_EXPONENTIAL: Final = tuple(1.0 / float(np.prod(range(1, k + 1))) for k in range(2, 14))
"""(exp(r) - 1 - r) / r^2 by Taylor, for |r| up to log(2) / 2: its error is 4e-18."""

_LOGARITHM: Final = tuple(2.0 / (2 * k + 5) for k in range(10))
"""(2 artanh(s) - 2 s - 2/3 s^3) / s^5 in s^2 by Taylor, for |s| up to 0.172."""

_TWO_THIRDS: Final = 2.0 / 3.0
_TWO_THIRDS_LOW: Final = float.fromhex("0x1.5555555555555p-55")
"""2/3 less the float64 nearest to it."""

_SPLIT: Final = 134217729.0
"""2^27 + 1: Dekker's constant, which splits the bits of a number in halves."""

_MAX_EXPONENT: Final = 800.0
"""The exponential of this is infinite, that of its negative is 0."""


def exp(x: Any) -> Any:
    return _exponential(x, 0.0)


def _exponential(x: Any, more: Any) -> Any:
    """exp(x + ``more``), where ``more`` is small."""
    p, turns = _reduced_exponential(_clamped(x, _MAX_EXPONENT), more)
    half = np.rint(turns * 0.5)
    return (1.0 + p) * _two_to(half) * _two_to(turns - half)


def _reduced_exponential(x: Any, more: Any = 0.0) -> tuple[Any, Any]:
    """p and a whole n with exp(x + ``more``) = (1 + p) 2^n, for |x| up to ``_MAX_EXPONENT``."""
    turns = np.rint(x * (1.0 / np.log(2.0)))
    r = ((x - turns * _LOG_2_PARTS[0]) - turns * _LOG_2_PARTS[1]) + more
    return r + r * r * _polynomial(_EXPONENTIAL, r), turns


def _clamped(x: Any, most: float) -> Any:
    """``x`` clamped to -``most`` and ``most``; NaN stays NaN."""
    return np.where(x > most, most, np.where(x < -most, -most, x))


def _two_to(n: Any) -> Any:
    return np.ldexp(1.0, n.astype(np.int32))


def log(x: Any) -> Any:
    usual = (x > 0.0) & (x < np.inf)
    value = np.where(usual, _logarithm(np.where(usual, x, 1.0))[0], np.where(x > 0.0, x, np.nan))
    return np.where(x == 0.0, -np.inf, value)


def _logarithm(x: Any) -> tuple[Any, Any]:
    """The logarithm of finite positive numbers as a sum of two, to some 65 bits.

    Twice the inverse hyperbolic tangent of (m - 1) / (m + 1) for x = m 2^n with m near 1.
    """
    small = x < 2.0**-1022
    m, n = np.frexp(np.where(small, x * 2.0**54, x))
    n = n.astype(np.float64) - np.where(small, 54.0, 0.0)
    low = m < np.sqrt(0.5)
    m, n = np.where(low, m + m, m), np.where(low, n - 1.0, n)
    f = m - 1.0
    d = 2.0 + f
    s = f / d
    product, lost = _exact_product(s, d)
    s_low = (((f - product) - lost) - s * ((2.0 - d) + f)) / d
    # 2 s, 2/3 s^3 and the rest: the first two as sums of two numbers.
    z, z_low = _exact_product(s, s)
    cube, cube_low = _exact_product(s, z)
    third, third_low = _exact_product(cube, _TWO_THIRDS)
    third_low = third_low + (_TWO_THIRDS * (cube_low + s * z_low) + _TWO_THIRDS_LOW * cube)
    low = 2.0 * s_low * (1.0 + z) + (third_low + cube * z * _polynomial(_LOGARITHM, z))
    high, first = _exact_sum(n * _LOG_2_PARTS[0], 2.0 * s)
    high, second = _exact_sum(high, third)
    return _exact_sum(high, (first + second) + (low + n * _LOG_2_PARTS[1]))


def _exact_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b as a sum of two numbers, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _exact_product(a: Any, b: Any) -> tuple[Any, Any]:
    """a b as a sum of two numbers, exactly."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def _split(a: Any) -> tuple[Any, Any]:
    scaled = a * _SPLIT
    high = scaled - (scaled - a)
    return high, a - high


def power(x: Any, y: Any) -> Any:
    """``x`` to the power of ``y``, with C's answers for 0, 1, infinities and NaN."""
    if isinstance(y, float | np.ndarray) and np.ndim(y) == 0 and float(y) in _PRODUCTS:
        return _PRODUCTS[float(y)](x)
    size = np.abs(x)
    usual = (size > 0.0) & (size < np.inf)
    high, low = _logarithm(np.where(usual, size, 1.0))
    times = _clamped(y, 1e20)  # even, and far enough for any x but 1
    product, lost = _exact_product(times, high)
    in_range = np.abs(product) < _MAX_EXPONENT  # else the clamped value alone decides
    value = _exponential(product, np.where(in_range, lost + times * low, 0.0))
    end = np.where(y > 0.0, np.where(size > 0.0, np.inf, 0.0), np.where(size > 0.0, 0.0, np.inf))
    value = np.where(usual, value, end)
    whole = np.rint(times) == times
    odd = whole & (np.rint(times * 0.5) != times * 0.5)
    negative = np.copysign(1.0, x) < 0.0
    value = np.where(negative & odd, -value, value)
    value = np.where((x < 0.0) & usual & ~whole, np.nan, value)
    value = np.where((x != x) | (y != y), np.nan, value)
    return np.where((x == 1.0) | (y == 0.0), 1.0, value)


_PRODUCTS: Final = {
    -1.0: lambda x: 1.0 / x,
    1.0: lambda x: x,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    4.0: lambda x: (x * x) * (x * x),
}
"""Powers that few multiplications make."""


# --- the others ------------------------------------------------------------------------------

_ARCTANGENT: Final = tuple((-1.0) ** k / (2 * k + 1) for k in range(1, 15))
"""(atan(u) / u - 1) / u^2 in u^2 by Taylor, for |u| up to tan(pi / 12)."""

_ROOT_3: Final = float(np.sqrt(3.0))


def atan(x: Any) -> Any:
    size = np.abs(x)
    beyond = size > 1.0
    t = np.where(beyond, 1.0 / size, size)
    turned = t > 2.0 - _ROOT_3
    part = (((t * (_ROOT_3 - 1.0) - 0.5) - 0.5) + t) / (t + _ROOT_3)  # tan(atan t - pi / 6)
    u = np.where(turned, part, t)
    z = u * u
    value = np.where(turned, np.pi / 6.0, 0.0) + (u + u * (z * _polynomial(_ARCTANGENT, z)))
    value = np.where(beyond, (np.pi / 2.0 - value) + _PI_LOW / 2.0, value)
    return np.copysign(value, x)


def asin(x: Any) -> Any:
    return atan(x / np.sqrt((1.0 - x) * (1.0 + x)))


def acos(x: Any) -> Any:
    return 2.0 * atan(np.sqrt((1.0 - x) / (1.0 + x)))


def sinh(x: Any) -> Any:
    size = np.abs(x)
    grown = _exp_less_one(size)
    near = 0.5 * (grown + grown / (grown + 1.0))
    return np.copysign(np.where(size < _FAR, near, _half_exponential(size)), x)


def cosh(x: Any) -> Any:
    value = _half_exponential(np.abs(x))
    return value + 0.25 / value


def tanh(x: Any) -> Any:
    grown = _exp_less_one(2.0 * np.abs(x))
    return np.copysign(grown / (grown + 2.0), x)


_FAR: Final = 22.0
"""From here on 1 + exp(-2 x) rounds to 1."""


def _exp_less_one(x: Any) -> Any:
    """exp(x) - 1 for x from 0; beyond 2 ``_FAR`` as at 2 ``_FAR``."""
    p, turns = _reduced_exponential(_clamped(x, 2.0 * _FAR))
    scale = _two_to(turns)
    return p * scale + (scale - 1.0)


def _half_exponential(x: Any) -> Any:
    """exp(x) / 2, which may be finite where exp(x) is not."""
    root = exp(0.5 * x)
    return 0.5 * root * root


def sign(x: Any) -> Any:
    return np.where(x > 0.0, 1.0, np.where(x < 0.0, -1.0, x))
