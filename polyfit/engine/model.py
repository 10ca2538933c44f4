"""The mathematics of one update: objectives, their gradient by autograd, and optimizers.

Shapes: ``B`` fits in a batch, ``M`` = degree + 1 coefficients, ``N`` points, ``P`` problems. A
batch's state is M separate vectors of shape (B,): arithmetic on fits is elementwise over the
batch, or a sum along one fit's own points, and every kernel runs on one thread, so that a fit has
the same bits alone and in any batch. Left out for that reason, each seen to make a fit depend on
its place in the batch: matrix products, sums across the batch, ``alpha=``, addcdiv, lerp,
softplus, cosh, pow.

An objective is made of small functions, its pieces. Torch runs them one operation at a time; the
emitter writes them into a loop, each with the gradient that autograd finds for it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit.numerics.basis import functions_on
from polyfit.numerics.elementary import power
from polyfit.numerics.grid import Grid
from polyfit.spec.fit import SQUARED, Stop
from polyfit.spec.optimizer import Optimizer

__all__ = [
    "MOMENTS",
    "WRITTEN",
    "Array",
    "BatchConfig",
    "Coefficients",
    "Hyperparameters",
    "Objective",
    "Problems",
    "gradient",
    "norm",
    "pointwise",
    "predicted",
    "residual",
    "root",
    "squared",
    "squared_loss",
    "unbiasing",
    "updated",
]

Array = npt.NDArray[np.float64]
Coefficients = list[Tensor]
Objective = Callable[[Coefficients], Tensor]
Scalar = Tensor | float


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """What all fits of a batch share."""

    degree: int
    points: int
    objective: str
    optimizer: Optimizer
    steps: int
    stop: Stop | None
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """M, the number of coefficients."""
        return self.degree + 1

    @property
    def squared(self) -> bool:
        return self.objective in SQUARED

    @property
    def halved(self) -> bool:
        """Whether updates take half the gradient, and twice the rate.

        The coefficients have the same bits, as factors of two are exact, and no residual is
        doubled on the way. Adam's and Newton's updates need the gradient itself.
        """
        return self.squared and self.optimizer.name in ("gd", "momentum")


@dataclass(frozen=True, slots=True, eq=False)
class Problems:
    """The problems of a batch in float64, and which one each fit has.

    ``of_B`` (int64) maps fits to problems. A squared objective needs the reduction ``R_PMM``,
    ``q_PM``, ``rest_P``; the others need all points: the basis of ``grid``, on one range or on one
    for each problem, and the data ``y_PN``, where a first axis of length 1 serves every problem.
    """

    of_B: npt.NDArray[np.int64]
    R_PMM: Array
    q_PM: Array
    rest_P: Array
    grid: Grid
    y_PN: Array

    @property
    def functions_PMN(self) -> Array:
        """The basis functions at the points; a first axis of length 1 serves every problem."""
        functions = functions_on(self.grid)
        return functions[None] if functions.ndim == 2 else functions


# --- objectives ------------------------------------------------------------------------------


def squared(
    R: Sequence[Tensor],
    q: Sequence[Tensor],
    rest: Tensor,
    points: Scalar | None,
    halved: bool = False,
) -> Objective:
    """The reduced sum of squares as a function of the coefficients; see ``squared_loss``."""
    return lambda c: squared_loss(_directly, R, q, rest, points, c, halved)


def squared_loss(
    apply: Callable[..., Any],
    R: Sequence[Any],
    q: Sequence[Any],
    rest: Any,
    points: Any,
    c: Sequence[Any],
    halved: bool = False,
) -> Any:
    """The reduced sum of squares: M rows of at most M terms.

    Args:
        apply: calls a piece, its first argument, with values, the others.
        R: the upper triangle, row by row; scalars, or vectors of shape (B,).
        q: the M right-hand sides.
        rest: what no coefficient changes; added last, so that its rounding stays out of the
            gradient.
        points: N for the mean (mse), None for the sum (sse).
        c: the M coefficients.
        halved: whether autograd is to find half the gradient.
    """
    entries, squares = iter(R), _square_of_half_slope if halved else _square
    total = None
    for i in range(len(q)):
        row = apply(_term, next(entries), c[i])
        for value in c[i + 1 :]:
            row = apply(_and_term, row, next(entries), value)
        square = apply(squares, row, q[i])
        total = square if total is None else apply(_sum, total, square)
    total = apply(_sum, total, rest)
    return total if points is None else apply(_share, total, points)


def _directly(piece: Callable[..., Tensor], *values: Tensor) -> Tensor:
    return piece(*values)


def _term(entry: Tensor, value: Tensor) -> Tensor:
    return entry * value


def _and_term(total: Tensor, entry: Tensor, value: Tensor) -> Tensor:
    return total + entry * value


def _square(total: Tensor, q: Tensor) -> Tensor:
    difference = total - q
    return difference * difference


def _square_of_half_slope(total: Tensor, q: Tensor) -> Tensor:
    difference = total - q
    return difference.detach() * difference  # one of the two is held fixed


def _sum(total: Tensor, more: Tensor) -> Tensor:
    return total + more


def _share(total: Tensor, points: Tensor) -> Tensor:
    return total / points


def _difference(value: Tensor, y: Tensor) -> Tensor:
    return value - y


def pointwise(
    objective: str, functions: Sequence[Tensor], y: Tensor, smooth: bool = False
) -> Objective:
    """Objectives that need every point: one row of N residuals per fit.

    Args:
        objective: its name.
        functions: the M basis functions at the points, shape (N,) or (B, N).
        y: the data, shape (N,) or (B, N).
        smooth: whether second derivatives are asked for.
    """
    of = _SMOOTH[objective] if smooth and objective in _SMOOTH else _PENALTIES[objective]

    def loss(c: Coefficients) -> Tensor:
        total: Tensor = of(predicted(c, functions) - y).sum(dim=1)
        return total

    return loss


def predicted(c: Coefficients, functions: Sequence[Tensor]) -> Tensor:
    """The polynomials at the points, shape (B, N).

    The first basis function is 1 in every basis, and gives no more than its shape.
    """
    value = c[0].unsqueeze(1)
    if len(c) == 1:
        value = value.expand(-1, functions[0].shape[-1])
    for coefficient, function in zip(c[1:], functions[1:], strict=True):
        value = value + coefficient.unsqueeze(1) * function
    return value


def residual(apply: Callable[..., Any], c: Sequence[Any], functions: Sequence[Any], y: Any) -> Any:
    """The polynomial at one point less its datum; ``functions`` are all but the first, which is 1.

    The same operations as those of ``predicted``, on values of any kind; see ``squared_loss``.
    """
    value = c[0]
    for coefficient, function in zip(c[1:], functions, strict=True):
        value = apply(_and_term, value, coefficient, function)
    return apply(_difference, value, y)


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


def _l1(residual: Tensor) -> Tensor:
    # The sign: the least number above 0 becomes more than 1, NaN and 0 stay what they are.
    large = 2.0 ** (100 if residual.dtype == torch.float32 else 600)
    return (residual * large * large).clamp(-1.0, 1.0).detach() * residual


def _log_cosh(residual: Tensor) -> Tensor:
    return _of_slope(residual, torch.tanh(residual), _smooth_log_cosh(residual))


def _of_slope(residual: Tensor, slope: Tensor, value: Tensor) -> Tensor:
    """``value``, whose derivative is ``slope``."""
    linear = slope.detach() * residual
    return linear - (linear - value).detach()


def _smooth_log_cosh(residual: Tensor) -> Tensor:
    # log cosh r = |r| + log(1 + e^(-2|r|)) - log 2, which cannot overflow.
    size = residual.abs()
    return size + torch.log1p(torch.exp(size * -2.0)) - _LOG_2


def _written_log_cosh(residual: Tensor) -> Tensor:
    """The same in operations that every machine rounds alike."""
    size = residual.abs()
    power = _exponential(size * -2.0)
    value = size - _log_of_share(power)
    if residual.dtype == torch.float32:
        return _of_slope(residual, _rational_tanh(residual), value)
    large = (1.0 - power) / (1.0 + power)
    large = torch.where(residual < 0.0, -large, large)
    return _of_slope(residual, torch.where(size < 0.625, _small_tanh(residual), large), value)


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
_PENALTIES: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sse": lambda residual: residual * residual,
    "huber": _huber,
    "log_cosh": _log_cosh,
    "l1": _l1,
}
_SMOOTH: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "huber": _smooth_huber,
    "log_cosh": _smooth_log_cosh,
}
WRITTEN: Final = {**_PENALTIES, "log_cosh": _written_log_cosh}
"""The penalties of one residual as the emitter takes them: arithmetic alone."""


def gradient(objective: Objective, c: Coefficients) -> tuple[Tensor, Coefficients]:
    """Losses, shape (B,), and the gradient by autograd, M vectors of shape (B,)."""
    for value in c:
        value.requires_grad_()
    losses = objective(c)
    # Of a sum over fits each fit's own gradient is left, times exactly 1; the sum itself, which
    # depends on the batch, goes nowhere. Ones for a vector-Jacobian product would give the same
    # bits, but to compare their shape torch imports sympy, half a second of every actor's start.
    found = torch.autograd.grad(losses.sum(), c)
    for value in c:
        value.requires_grad_(False)
    return losses.detach(), list(found)


def norm(vectors: Coefficients) -> Tensor:
    """The Euclidean norm of each fit's M numbers, shape (B,)."""
    total = vectors[0] * vectors[0]
    for vector in vectors[1:]:
        total = total + vector * vector
    return root(total)


def root(values: Tensor) -> Tensor:
    """The correctly rounded square root."""
    # Torch's own is not, in every kernel; numpy's is the processor's.
    if values.device.type != "cpu":
        return values.to(torch.float64).sqrt().to(values.dtype)
    return torch.from_numpy(np.sqrt(values.numpy()))


# --- optimizers ------------------------------------------------------------------------------

MOMENTS: Final = {"gd": 0, "momentum": 1, "adam": 2, "newton": 0}
"""Vectors beside each coefficient that an optimizer carries from update to update."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What an update needs besides the gradient; Adam's divisors depend on the update."""

    name: str
    beta: Scalar
    unbias_1: Scalar = 1.0
    unbias_2: Scalar = 1.0
    root: Callable[[Tensor], Tensor] = root


def updated(
    hyper: Hyperparameters,
    c: Coefficients,
    moments: list[Coefficients],
    lr: Tensor,
    g: Coefficients,
) -> tuple[Coefficients, list[Coefficients]]:
    """Coefficients and moments after one update with gradient ``g``."""
    match hyper.name:
        case "gd":
            return [v - lr * d for v, d in zip(c, g, strict=True)], []
        case "momentum":
            velocity = [hyper.beta * v + d for v, d in zip(moments[0], g, strict=True)]
            return [v - lr * d for v, d in zip(c, velocity, strict=True)], [velocity]
        case "adam":
            return _adam(hyper, c, moments, lr, g)
    raise NotImplementedError(hyper.name)


ADAM_BETAS: Final = (0.9, 0.999)
ADAM_EPSILON: Final = 1e-8


def _adam(
    hyper: Hyperparameters,
    c: Coefficients,
    moments: list[Coefficients],
    lr: Tensor,
    g: Coefficients,
) -> tuple[Coefficients, list[Coefficients]]:
    """Kingma and Ba, Adam: a method for stochastic optimization (2015), algorithm 1."""
    beta_1, beta_2 = ADAM_BETAS
    first = [beta_1 * m + (1.0 - beta_1) * d for m, d in zip(moments[0], g, strict=True)]
    second = [beta_2 * v + (1.0 - beta_2) * (d * d) for v, d in zip(moments[1], g, strict=True)]
    return [
        value - lr * ((m / hyper.unbias_1) / (hyper.root(v / hyper.unbias_2) + ADAM_EPSILON))
        for value, m, v in zip(c, first, second, strict=True)
    ], [first, second]


def unbiasing(update: int) -> tuple[float, float]:
    """Adam's divisors at ``update``, counted from 0."""
    block, place = divmod(update, _UNBIASED)
    first, second = _unbiasing_of(block)[place].tolist()
    return first, second


_UNBIASED: Final = 1024
"""Updates whose divisors are computed at a time."""


@lru_cache(maxsize=64)
def _unbiasing_of(block: int) -> Array:
    updates = np.arange(block * _UNBIASED, (block + 1) * _UNBIASED)
    return 1.0 - np.stack([power(beta, updates + 1.0) for beta in ADAM_BETAS], axis=1)
