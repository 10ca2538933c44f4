"""Sine and cosine of float64 as sums and products, each rounded as IEEE 754 says.

So whoever computes them, numpy number by number or a compiled loop, finds the same bits. They are
within 2.5 ulp of the true values. Written with operators alone, for arrays and for tensors.

Cody and Waite, Software Manual for the Elementary Functions, chapter 8: x less the nearest
multiple of pi, then a polynomial.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["LIMIT", "cos", "cos_within", "sin", "sin_within"]

Array = npt.NDArray[np.float64]

LIMIT: Final = 1.6e6
"""Of |x|: up to here twice its multiple of pi is a number of 20 bits."""

_PI: Final = tuple(
    map(float.fromhex, ("0x1.921fb544p+1", "0x1.0b4611a6p-33", "0x1.3198a2e037073p-68"))
)
"""Pi in three parts; the first two have 33 bits, so that each times a number of 20 is exact."""

_SERIES: Final = (
    -0.16666666666666666,
    0.008333333333333316,
    -0.00019841269841254974,
    2.755731921916323e-06,
    -2.505210761699557e-08,
    1.605897731242445e-10,
    -7.643970295533013e-13,
    2.7314447512062796e-15,
)
"""(sin(r) / r - 1) / r^2 as a polynomial in r^2, interpolated at Chebyshev's points for |r| up to
pi / 2: its error is 1.3e-18 of sin(r)."""


def sin(x: Any) -> Any:
    """The sine of ``x``, an array or a number of float64; beyond LIMIT numpy's."""
    return _anywhere(x, sin_within, np.sin)


def cos(x: Any) -> Any:
    """The cosine of ``x``, an array or a number of float64; beyond LIMIT numpy's."""
    return _anywhere(x, cos_within, np.cos)


def sin_within(x: Any) -> Any:
    """The sine where |x| is at most LIMIT; NaN for NaN and infinities."""
    return _sine_less(x, (x * (1.0 / np.pi)).round())


def cos_within(x: Any) -> Any:
    """The cosine where |x| is at most LIMIT, as the sine a quarter turn on."""
    return _sine_less(x, (x * (1.0 / np.pi) + 0.5).round() - 0.5, 0.5)


def _sine_less(x: Any, turns: Any, quarter: float = 0.0) -> Any:
    """The sine of x - ``turns`` pi, with the sign of an even or odd number of half turns."""
    r = ((x - turns * _PI[0]) - turns * _PI[1]) - turns * _PI[2]
    whole = turns + quarter
    odd = whole - 2.0 * (whole * 0.5 - 0.25).round()
    z = r * r
    series: Any = _SERIES[-1]
    for coefficient in _SERIES[-2::-1]:
        series = series * z + coefficient
    return (r + r * (z * series)) * (1.0 - 2.0 * odd)


def _anywhere(x: Any, within: Any, numpys: Any) -> Any:
    value = within(x)
    far = ~(np.abs(x) <= LIMIT)
    return np.where(far, numpys(np.where(far, x, 0.0)), value) if np.any(far) else value
