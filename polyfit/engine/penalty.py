"""Penalties: the loss of one residual under each objective.

Elementwise functions of a tensor of residuals, written so that autograd finds the gradient in few
operations.
"""

import math
from collections.abc import Callable, Sequence
from operator import mul
from typing import Final

import torch
from torch import Tensor

__all__ = ["ELEMENTARY_PENALTIES", "PENALTIES", "SMOOTH_PENALTIES"]

# Each of these penalties is the maximum over s of s r - f(s): Huber's over |s| <= 1 with
# f = s^2 / 2, |r| over |s| <= 1 with f = 0, log cosh r with f so that the maximiser is tanh r. The
# maximiser is held fixed: where a maximum is differentiated its own derivative vanishes (the
# envelope theorem), and the gradient that autograd finds is the maximiser itself.


def _huber(residual: Tensor) -> Tensor:
    inner = residual.clamp(-1.0, 1.0).detach()
    return inner * (residual - inner * 0.5)


def _smooth_huber(residual: Tensor) -> Tensor:
    inner = residual.clamp(-1.0, 1.0)
    return inner * (residual - inner * 0.5)


def _log_cosh(residual: Tensor) -> Tensor:
    return _of_slope(residual, torch.tanh(residual), _smooth_log_cosh(residual))


def _of_slope(residual: Tensor, slope: Tensor, value: Tensor) -> Tensor:
    """``value``, whose derivative is ``slope``."""
    linear = slope.detach() * residual
    return linear - (linear - value).detach()


def _smooth_log_cosh(residual: Tensor) -> Tensor:
    # log cosh r = |r| + log(1 + e^(-2|r|)) - log 2, which cannot overflow.
    size = residual.abs()
    far = size + torch.log1p(torch.exp(size * -2.0)) - _LOG_2
    return torch.where(size < _NEAR, _near_log_cosh(residual), far)


def _near_log_cosh(residual: Tensor) -> Tensor:
    """log cosh r of |r| < 0.625, where the other formulas cancel: Taylor's series in r^2."""
    inner = residual.clamp(-_NEAR, _NEAR)  # finite, and so is its derivative
    square = inner * inner
    single = residual.dtype == torch.float32
    return square * _polynomial(square, _LOG_COSH[-10:] if single else _LOG_COSH)


def _elementary_log_cosh(residual: Tensor) -> Tensor:
    """The same in operations that every machine rounds alike."""
    size = residual.abs()
    power = _exponential(size * -2.0)
    near = size < _NEAR
    value = torch.where(near, _near_log_cosh(residual), size - _log_of_share(power))
    if residual.dtype == torch.float32:
        return _of_slope(residual, _rational_tanh(residual), value)
    large = (1.0 - power) / (1.0 + power)
    large = torch.where(residual < 0.0, -large, large)
    return _of_slope(residual, torch.where(near, _small_tanh(residual), large), value)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """By Horner's rule, from the highest power down."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _exponential(x: Tensor) -> Tensor:
    """e to the power of ``x`` <= 0, to a few units in the last place; at least 1e-34.

    Cody and Waite, Software Manual for the Elementary Functions, chapter 6; the series is Taylor's.
    """
    single = x.dtype == torch.float32
    x = x.clamp(-78.0, 0.0)
    turns = (x * (1.0 / _LOG_2)).round()
    x = (x - turns * _LOG_2_HIGH) - turns * _LOG_2_LOW
    return _polynomial(x, _TAYLOR[-8:] if single else _TAYLOR) * torch.exp2(turns)


def _log_of_share(x: Tensor) -> Tensor:
    """log(2 / (1 + ``x``)) for 0 <= x <= 1: twice the inverse hyperbolic tangent of
    (1 - x) / (3 + x). Of 1 it is exactly 0, as the loss of a residual of 0 must be."""
    ratio = (1.0 - x) / (x + 3.0)
    series = _ODD[-8:] if x.dtype == torch.float32 else _ODD
    return 2.0 * ratio * _polynomial(ratio * ratio, series)


def _small_tanh(x: Tensor) -> Tensor:
    """tanh of |x| < 0.625 in float64: Moshier's Cephes library, tanh.c."""
    square = x * x
    return x + x * square * (_polynomial(square, _CEPHES_P) / _polynomial(square, _CEPHES_Q))


def _rational_tanh(x: Tensor) -> Tensor:
    """tanh to 4e-7 of its value, for float32, where a call would cost more than the arithmetic.

    x P(x^2) / Q(x^2) with the least largest relative error, 6e-9, on |x| <= 7.9, found by
    reweighted least squares (Sanathanan and Koerner 1963; Lawson 1961); beyond it is 1 - 6e-8.
    """
    x = x.clamp(-_FLAT, _FLAT)
    square = x * x
    return x * _polynomial(square, _ABOVE) / _polynomial(square, _BELOW)


def _log_cosh_series(count: int) -> tuple[float, ...]:
    """Coefficients of log cosh r in r^2, r^4, ..., from the highest power down.

    Its derivative t = tanh has t' = 1 - t^2, which gives the coefficients of t one by one.
    """
    tanh = [1.0]
    for k in range(1, count):
        tanh.append(-sum(map(mul, tanh, reversed(tanh))) / (2 * k + 1))
    return tuple(one / (2 * k + 2) for k, one in enumerate(tanh))[::-1]


_NEAR: Final = 0.625
_LOG_COSH: Final = _log_cosh_series(20)
_LOG_2: Final = 0.6931471805599453
_LOG_2_HIGH: Final = 355.0 / 512.0
_LOG_2_LOW: Final = -2.121944400546905827679e-4
_TAYLOR: Final = tuple(1.0 / math.factorial(k) for k in reversed(range(14)))
_ODD: Final = tuple(1.0 / (2 * k + 1) for k in reversed(range(17)))
_CEPHES_P: Final = (-0.964399179425052238628, -99.2877231001918586564, -1614.68768441708447952)
_CEPHES_Q: Final = (1.0, 112.811678491632931402, 2235.48839060100448583, 4844.06305325125486048)
_FLAT: Final = 7.9
_ABOVE: Final = (
    1.5428012645202216e-08, 2.2023274141247384e-05, 0.0035789937246590853, 0.1345062255859375, 1.0,
)  # fmt: skip
_BELOW: Final = (
    8.598796625847172e-07, 0.00034236532519571483, 0.02619224414229393, 0.4678395092487335, 1.0,
)  # fmt: skip
PENALTIES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sse": lambda residual: residual * residual,
    "huber": _huber,
    "log_cosh": _log_cosh,
    "l1": torch.abs,
}
"""The loss of one residual, by objective."""

SMOOTH_PENALTIES: Final = {**PENALTIES, "huber": _smooth_huber, "log_cosh": _smooth_log_cosh}
"""The same where autograd is asked for second derivatives too."""

ELEMENTARY_PENALTIES: Final = {**PENALTIES, "log_cosh": _elementary_log_cosh}
"""The same in arithmetic that every machine rounds alike, as the emitter takes it."""
