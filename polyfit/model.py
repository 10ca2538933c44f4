"""The mathematics of one update: objectives, their gradient by autograd, and optimizers.

Shapes: ``B`` fits in a batch, ``M`` = degree + 1 coefficients, ``N`` points, ``P`` problems. A
batch's state is M separate vectors of shape (B,): arithmetic on fits is elementwise over the
batch, or a sum along one fit's own contiguous row, and every kernel runs on one thread, so that a
fit has the same bits alone and in any batch. Left out for that reason, each seen to make a fit
depend on its place in the batch or on the build of a kernel: matrix products, sums across the
batch, ``alpha=``, addcdiv, lerp, softplus, cosh, pow.

The same functions are run one operation at a time, and compiled into one kernel.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit.fields import SQUARED, Optimizer, Stop

__all__ = [
    "MOMENTS",
    "Array",
    "Coefficients",
    "Hyper",
    "Kind",
    "Objective",
    "Problems",
    "compiled_root",
    "gradient",
    "norm",
    "pointwise",
    "predicted",
    "root",
    "squared",
    "traced_gradient",
    "unbiasing",
    "updated",
]

Array = npt.NDArray[np.float64]
Coefficients = list[Tensor]
Objective = Callable[[Coefficients], Tensor]
Scalar = Tensor | float


@dataclass(frozen=True, slots=True)
class Kind:
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


@dataclass(frozen=True, slots=True)
class Problems:
    """The problems of a batch in float64, and which one each fit has.

    ``of_B`` (int64) maps fits to problems. A squared objective needs the reduction ``R_PMM``,
    ``q_PM``, ``rest_P``; the others need all points: ``functions_PMN`` and ``y_PN``, where a
    first axis of length 1 serves every problem.
    """

    of_B: npt.NDArray[np.int64]
    R_PMM: Array
    q_PM: Array
    rest_P: Array
    functions_PMN: Array
    y_PN: Array


# --- objectives ------------------------------------------------------------------------------


def squared(
    R: Sequence[Tensor], q: Sequence[Tensor], rest: Tensor, points: Scalar | None
) -> Objective:
    """The reduced sum of squares: M rows of at most M terms, written out.

    Args:
        R: the upper triangle, row by row; scalars, or vectors of shape (B,).
        q: the M right-hand sides.
        rest: what no coefficient changes; added last, so that its rounding stays out of the
            gradient.
        points: N for the mean (mse), None for the sum (sse).
    """
    size = len(q)
    entries = iter(R)
    rows = [[next(entries) for _ in range(i, size)] for i in range(size)]

    def loss(c: Coefficients) -> Tensor:
        total: Tensor | None = None
        for i, row in enumerate(rows):
            residual = row[0] * c[i]
            for entry, value in zip(row[1:], c[i + 1 :], strict=True):
                residual = residual + entry * value
            residual = residual - q[i]
            square = residual * residual
            total = square if total is None else total + square
        assert total is not None
        total = total + rest
        return total if points is None else total / points

    return loss


def pointwise(
    objective: str,
    functions: Sequence[Tensor],
    y: Tensor,
    smooth: bool = False,
    compiled: bool = False,
) -> Objective:
    """Objectives that need every point: one row of N residuals per fit.

    Args:
        objective: its name.
        functions: the M basis functions at the points, shape (N,) or (B, N).
        y: the data, shape (N,) or (B, N).
        smooth: whether second derivatives are asked for.
        compiled: whether this is compiled into one loop, where arithmetic costs less than calls.
    """
    forms = _SMOOTH if smooth else _COMPILED if compiled else {}
    penalty = forms.get(objective) or _PENALTIES[objective]

    def loss(c: Coefficients) -> Tensor:
        total: Tensor = penalty(predicted(c, functions) - y).sum(dim=1)
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


def _log_cosh(residual: Tensor, tanh: Callable[[Tensor], Tensor] = torch.tanh) -> Tensor:
    inner = tanh(residual).detach()
    value = inner * residual
    return value - (value - _smooth_log_cosh(residual)).detach()


def _smooth_log_cosh(residual: Tensor) -> Tensor:
    # log cosh r = |r| + log(1 + e^(-2|r|)) - log 2, which cannot overflow.
    size = residual.abs()
    return size + torch.log1p(torch.exp(size * -2.0)) - _LOG_2


def _rational_tanh(x: Tensor) -> Tensor:
    """tanh to 4e-7 of its value, for float32, where a call would cost more than the arithmetic.

    x P(x^2) / Q(x^2) with the least largest relative error, 6e-9, on |x| <= 7.9, found by
    reweighted least squares (Sanathanan and Koerner 1963; Lawson 1961); beyond it is 1 - 6e-8.
    """
    if x.dtype != torch.float32:
        return torch.tanh(x)
    x = x.clamp(-_FLAT, _FLAT)
    square = x * x
    above, below = (
        functools.reduce(lambda value, one: value * square + one, rest, torch.full_like(x, first))
        for first, *rest in (_ABOVE, _BELOW)
    )
    return x * above / below


_FLAT: Final = 7.9
_ABOVE: Final = (
    1.5428012645202216e-08, 2.2023274141247384e-05, 0.0035789937246590853, 0.1345062255859375, 1.0,
)  # fmt: skip
_BELOW: Final = (
    8.598796625847172e-07, 0.00034236532519571483, 0.02619224414229393, 0.4678395092487335, 1.0,
)  # fmt: skip
_LOG_2: Final = 0.6931471805599453
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
_COMPILED: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "log_cosh": functools.partial(_log_cosh, tanh=_rational_tanh),
}


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


def traced_gradient(objective: Objective, c: Coefficients) -> tuple[Tensor, Coefficients]:
    """The same as a function without side effects, which can be compiled."""
    found = torch.func.vjp(lambda *values: objective(list(values)), *c)
    losses, pull = found[0], found[1]
    return losses, list(pull(torch.ones_like(losses)))


def norm(vectors: Coefficients) -> Tensor:
    """The Euclidean norm of each fit's M numbers, shape (B,)."""
    total = vectors[0] * vectors[0]
    for vector in vectors[1:]:
        total = total + vector * vector
    return root(total)


def root(values: Tensor) -> Tensor:
    """The correctly rounded square root."""
    # float32's own is not correctly rounded in every eager kernel; float64's, cast, is.
    return values.to(torch.float64).sqrt().to(values.dtype)


def compiled_root(values: Tensor) -> Tensor:
    """The square root in compiled code, which is the processor's, correctly rounded."""
    return values.sqrt()


# --- optimizers ------------------------------------------------------------------------------

MOMENTS: Final = {"gd": 0, "momentum": 1, "adam": 2, "newton": 0}
"""Vectors beside each coefficient that an optimizer carries from update to update."""


@dataclass(frozen=True, slots=True)
class Hyper:
    """What an update needs besides the gradient; Adam's divisors depend on the update."""

    name: str
    beta: Scalar
    unbias_1: Scalar = 1.0
    unbias_2: Scalar = 1.0
    root: Callable[[Tensor], Tensor] = root


def updated(
    hyper: Hyper, c: Coefficients, moments: list[Coefficients], lr: Tensor, g: Coefficients
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
    hyper: Hyper, c: Coefficients, moments: list[Coefficients], lr: Tensor, g: Coefficients
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
    beta_1, beta_2 = ADAM_BETAS
    return 1.0 - beta_1 ** (update + 1), 1.0 - beta_2 ** (update + 1)
