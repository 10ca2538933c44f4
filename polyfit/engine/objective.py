"""Objectives as functions of the coefficients, and their gradient by autograd.

Shapes: B fits in a batch, M = degree + 1 coefficients, N points. The coefficients of a batch are M
separate vectors of shape (B,): arithmetic on fits is elementwise over the batch, or a sum along
one fit's own points, and every kernel runs on one thread. So a fit has the same bits alone and in
any batch. The following are not used because each was seen to make a fit depend on its place in
the batch: matrix products, sums across the batch, ``alpha=``, addcdiv, lerp, softplus, cosh, pow.

An objective is composed of small elementwise functions, its pieces. The eager engine calls them;
the compiled engine traces each, with the gradient that autograd finds for it.
"""

from collections.abc import Callable, Sequence
from operator import add, mul, sub, truediv
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Coefficients",
    "Objective",
    "gradient",
    "norm",
    "polynomial",
    "residual",
    "root",
    "squared_loss",
]

Coefficients = list[Tensor]
Objective = Callable[[Coefficients], Tensor]


def squared_loss(
    apply: Callable[..., Any],
    objective: str,
    R: Sequence[Any],
    q: Sequence[Any],
    rest: Any,
    points: Any,
    c: Sequence[Any],
    halved: bool = False,
) -> Any:
    """The reduced sum of squares: M rows of at most M terms.

    Args:
        apply: calls a piece, its first argument, with values, its other arguments.
        objective: its name: "sse", or "mse", the sum divided by N.
        R: the upper triangle, row by row; scalars, or vectors of shape (B,).
        q: the M right-hand sides.
        rest: the residual sum of squares, which no coefficient changes; added last, so that its
            rounding does not reach the gradient.
        points: N.
        c: the M coefficients.
        halved: whether autograd is to find half the gradient.
    """
    entries = iter(R)
    square = _squared_difference_of_half_slope if halved else _squared_difference
    total = None
    for i in range(len(q)):
        row = apply(mul, next(entries), c[i])
        for value in c[i + 1 :]:
            row = apply(_add_product, row, next(entries), value)
        term = apply(square, row, q[i])
        total = term if total is None else apply(add, total, term)
    total = apply(add, total, rest)
    return apply(truediv, total, points) if objective == "mse" else total


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return total + one * other


def _squared_difference(total: Tensor, q: Tensor) -> Tensor:
    difference = total - q
    return difference * difference


def _squared_difference_of_half_slope(total: Tensor, q: Tensor) -> Tensor:
    difference = total - q
    return difference.detach() * difference  # autograd sees one of the two factors


def residual(apply: Callable[..., Any], c: Sequence[Any], functions: Sequence[Any], y: Any) -> Any:
    """The polynomial less the data, of all points or of one.

    ``functions`` are all basis functions but the first, which is 1 in every basis; for ``apply``
    see ``squared_loss``.
    """
    return apply(sub, polynomial(apply, c[0], c[1:], functions), y)


def polynomial(apply: Callable[..., Any], first: Any, c: Sequence[Any], functions: Any) -> Any:
    """``first`` and the products of coefficients with basis functions, added one by one."""
    value = first
    for coefficient, function in zip(c, functions, strict=True):
        value = apply(_add_product, value, coefficient, function)
    return value


def gradient(objective: Objective, c: Coefficients) -> tuple[Tensor, Coefficients]:
    """Losses, shape (B,), and the gradient by autograd, M vectors of shape (B,)."""
    for value in c:
        value.requires_grad_()
    losses = objective(c)
    # The gradient of a sum over fits is each fit's own gradient, times exactly 1; the value of the
    # sum is not used. A vector-Jacobian product with ones would give the same bits, but to compare
    # shapes torch imports sympy, which takes half a second at every actor's start.
    slopes = torch.autograd.grad(losses.sum(), c)
    for value in c:
        value.requires_grad_(False)
    return losses.detach(), list(slopes)


def norm(vectors: Coefficients) -> Tensor:
    """The Euclidean norm of each fit's M numbers, shape (B,)."""
    total = vectors[0] * vectors[0]
    for vector in vectors[1:]:
        total = total + vector * vector
    return root(total)


def root(values: Tensor) -> Tensor:
    """The correctly rounded square root."""
    # Torch's root is not correctly rounded in every kernel; numpy uses the processor's.
    if values.device.type != "cpu":
        return values.to(torch.float64).sqrt().to(values.dtype)
    return torch.from_numpy(np.sqrt(values.numpy()))
