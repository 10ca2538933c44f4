"""What is compiled: blocks of updates, each one kernel, and the names they are kept under.

A block takes a batch's state through ``count`` updates. It tests at its start, where asked to,
whether fits have ended; those keep the state they have. Shapes as in ``model``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from polyfit import expression, model, trigonometry
from polyfit.expression import PLAIN, Formula, Functions
from polyfit.kernels import LANES, Recipe
from polyfit.model import (
    MOMENTS,
    Coefficients,
    Hyper,
    Kind,
    Objective,
    compiled_root,
    norm,
    pointwise,
    squared,
    traced_gradient,
    updated,
)

__all__ = [
    "BETA",
    "CHECK",
    "LEAP_LANES",
    "PARAMETERS",
    "POINTS",
    "TOLERANCE",
    "Block",
    "Ends",
    "Leap",
    "Targets",
    "finite",
    "stopped",
    "unrolled",
]

PARAMETERS: Final = 4
POINTS, BETA, TOLERANCE, CHECK = range(PARAMETERS)
"""Places in a block's vector of parameters; CHECK is 1 where fits may end at the block's start."""

_SOURCES: Final = (str(model.__file__), __file__)
_FORMULAS: Final = (str(expression.__file__), str(trigonometry.__file__))
_UNROLLED_WORK: Final = 200
"""Bounds the time to compile: updates per block times the square of the coefficients."""

LEAP_LANES: Final = 16
"""The batch of a leap is a multiple of it."""

_FEW: Final = 4
"""Vectors of a state of which several copies, and what comes between, find room in registers."""

_B: Final = 4128
_B_POINTWISE: Final = 272
_N: Final = 1999


def unrolled(kind: Kind) -> int:
    """Updates per block of a squared objective: a divisor of 10, so that tests fall on starts.

    They keep a state in registers for the updates that follow. Of a larger state no more than two:
    a longer chain of dependent operations is more than a processor looks ahead, and only lengthens
    the time to compile.
    """
    if _small(kind):
        return 5
    return 2 if 2 * kind.size**2 <= _UNROLLED_WORK else 1


def _small(kind: Kind) -> bool:
    """Whether a few states find room in registers, side by side."""
    vectors = kind.size * (1 + MOMENTS[kind.optimizer.name])
    return kind.squared and kind.dtype == torch.float32 and vectors <= _FEW


@dataclass(frozen=True, slots=True)
class Block:
    """One kernel's kind.

    Args:
        kind: of the fits; its points, steps, beta and tolerance do not matter.
        count: updates; above 1 for squared objectives alone.
        shared: (functions or R, data): whether one serves all fits of the batch. The data of a
            squared objective are always one per fit.
        testing: whether losses are made and ends tested; a block without is leaner where every
            point counts.

    Inputs, each vector of shape (B,), where B is a multiple of LANES for a squared objective: M
    coefficients, M for each moment, lr, going (1 or 0), the loss at the last test; then R (T,) or
    (T, B), row by row, q (M, B), rest (B,); or, over all points, the functions (M, N) or (M, B, N)
    and the data (1, N) or (B, N); the parameters; Adam's divisors (count, 2).

    Outputs: M coefficients, their moments; where testing, going, and the loss before the first
    update.
    """

    kind: Kind
    count: int = 1
    shared: tuple[bool, bool] = (True, False)
    testing: bool = True

    @property
    def vectors(self) -> int:
        """M (1 + moments): vectors of the state."""
        return self.kind.size * (1 + MOMENTS[self.kind.optimizer.name])

    def recipe(self) -> Recipe:
        """How to compile this block."""
        kind, stop = self.kind, self.kind.stop
        words = (
            "block", kind.degree, kind.objective, kind.optimizer.name, kind.dtype, self.count,
            *self.shared, self.testing, stop.kind if stop and self.testing else None,
        )  # fmt: skip
        return Recipe(
            " ".join(map(str, words)),
            _SOURCES,
            lambda: (self._run, self._examples()),
            fused=not kind.squared,  # those of a squared objective have the bits of eager torch
            long=_small(kind),
            multiple=LANES if kind.squared else 1,
            clamped=True,
        )

    def _examples(self) -> list[Tensor]:
        size, dtype = self.kind.size, self.kind.dtype
        batch = _B if self.kind.squared else _B_POINTWISE
        first, second = self.shared

        def some(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=dtype)

        if self.kind.squared:
            terms = size * (size + 1) // 2
            data = [some(terms) if first else some(terms, batch), some(size, batch), some(batch)]
        else:
            functions = some(size, _N) if first else some(size, batch, _N)
            data = [functions, some(1 if second else batch, _N)]
        vectors = [some(batch) for _ in range(self.vectors + 3)]
        return [*vectors, *data, some(PARAMETERS), some(self.count, 2)]

    def _run(self, *inputs: Tensor) -> Sequence[Tensor]:
        lr, going, last, *data, parameters, unbias = inputs[self.vectors :]
        objective = self._objective(data, parameters)
        c, moments = self._unpacked(inputs)
        running = going > 0.5
        first = going
        for step in range(self.count):
            losses, g = traced_gradient(objective, c)
            if step == 0 and self.testing:
                first = losses
                ended = self._ended(c, losses, g, last, parameters) & (parameters[CHECK] > 0.5)
                running = running & ~ended
            hyper = Hyper(
                self.kind.optimizer.name, parameters[BETA], unbias[step, 0], unbias[step, 1],
                compiled_root,
            )  # fmt: skip
            c, moments = updated(hyper, c, moments, lr, g)
        new = [*c, *(vector for moment in moments for vector in moment)]
        kept = [
            torch.where(running, now, before)
            for now, before in zip(new, inputs[: self.vectors], strict=True)
        ]
        if not self.testing:
            return kept
        return [*kept, torch.where(running, torch.ones_like(lr), torch.zeros_like(lr)), first]

    def _unpacked(self, inputs: Sequence[Tensor]) -> tuple[Coefficients, list[Coefficients]]:
        size = self.kind.size
        parts = [list(inputs[at : at + size]) for at in range(0, self.vectors, size)]
        return parts[0], parts[1:]

    def _objective(self, data: Sequence[Tensor], parameters: Tensor) -> Objective:
        if self.kind.squared:
            points = parameters[POINTS] if self.kind.objective == "mse" else None
            return squared(data[0].unbind(0), data[1].unbind(0), data[2], points)
        return pointwise(self.kind.objective, data[0].unbind(0), data[1], compiled=True)

    def _ended(
        self, c: Coefficients, losses: Tensor, g: Coefficients, last: Tensor, parameters: Tensor
    ) -> Tensor:
        ended = ~finite(c, losses)
        if self.kind.stop is not None:
            ended = ended | stopped(self.kind.stop.kind, losses, last, g, parameters[TOLERANCE])
        return ended


@dataclass(frozen=True, slots=True)
class Leap:
    """The kernel that takes a batch over many updates at once, in float64, and tells of its state.

    Args:
        kind: of the fits; a squared objective, gd or momentum.
        shared: whether one affine map, one R, and one q and rest serve all fits of the batch.
        told: what is told of the state after the leap, of "loss", "gradient_norm", "coefficients";
            of the norm its square, in float64, because torch's own root may differ from the
            processor's in the last bit.
        dtype: in which losses and coefficients are told.

    Inputs: S = M (1 + moments) vectors of the state, and the extreme so far, each of shape (B,),
    where B is a multiple of LEAP_LANES; the map's matrix (S S,) or (S S, B), row by row, and its
    offset (S,) or (S, B); R (T,) or (T, B), q (M,) or (M, B) and rest (1,) or (1, B); the
    parameters.

    Outputs, each of shape (B,): the S vectors after the leap; the extreme, which is the largest of
    the former, of these and of the loss in size, NaN if one is; what is told, in its order, the
    coefficients as M vectors.
    """

    kind: Kind
    shared: tuple[bool, bool, bool]
    told: tuple[str, ...] = ("loss",)
    dtype: torch.dtype = torch.float64

    @property
    def vectors(self) -> int:
        """S, the vectors of the state."""
        return self.kind.size * (1 + MOMENTS[self.kind.optimizer.name])

    @property
    def own(self) -> int:
        """The numbers of its map and its problem that a fit does not share."""
        size, vectors, (one_map, one_R, one_q) = self.kind.size, self.vectors, self.shared
        rows = vectors * (vectors + 1), size * (size + 1) // 2, size + 1
        return sum(
            count for count, one in zip(rows, (one_map, one_R, one_q), strict=True) if not one
        )

    def recipe(self) -> Recipe:
        """How to compile this kernel."""
        words = (
            "leap", self.kind.degree, self.kind.objective, self.vectors, *self.shared, *self.told,
            self.dtype,
        )  # fmt: skip
        return Recipe(
            " ".join(map(str, words)),
            _SOURCES,
            lambda: (self._run, self._examples()),
            multiple=LEAP_LANES,
        )

    def _examples(self) -> list[Tensor]:
        size, vectors, (one_map, one_R, one_q) = self.kind.size, self.vectors, self.shared

        def some(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=torch.float64)

        def spread(count: int, one: bool) -> Tensor:
            return some(count) if one else some(count, _B)

        return [
            *(some(_B) for _ in range(vectors + 1)),
            spread(vectors * vectors, one_map),
            spread(vectors, one_map),
            spread(size * (size + 1) // 2, one_R),
            spread(size, one_q),
            spread(1, one_q),
            some(PARAMETERS),
        ]

    def _run(self, *inputs: Tensor) -> Sequence[Tensor]:
        count = self.vectors
        state, extreme = inputs[:count], inputs[count]
        matrix, offset, R, q, rest, parameters = inputs[count + 1 :]
        entries, offsets = matrix.unbind(0), offset.unbind(0)
        leapt = []
        for i in range(count):
            value = offsets[i]
            for j in range(count):
                value = value + entries[i * count + j] * state[j]
            leapt.append(value)
        points = parameters[POINTS] if self.kind.objective == "mse" else None
        objective = squared(R.unbind(0), q.unbind(0), rest[0], points)
        c = leapt[: self.kind.size]
        losses = objective(c)
        extreme = torch.maximum(extreme, losses)
        for value in leapt:
            extreme = torch.maximum(extreme, value.abs())
        return [*leapt, extreme, *self._told(objective, c, losses)]

    def _told(self, objective: Objective, c: Coefficients, losses: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for name in self.told:
            if name == "loss":
                found.append(losses.to(self.dtype))
            elif name == "gradient_norm":
                g = traced_gradient(objective, c)[1]
                found.append(sum((d * d for d in g[1:]), start=g[0] * g[0]))
            else:  # a copy: the vectors of the state are outputs too
                found += [value.to(self.dtype, copy=True) for value in c]
        return found


@dataclass(frozen=True, slots=True)
class Ends:
    """The kernel that judges fits on their points, in float64: one loop over the points of a fit.

    Args:
        degree: of the fits.
        in_x: whether their basis is that of the powers of x.
        shared: whether all are one problem.
        with_data: whether data are given, and residuals asked for.

    Inputs: M coefficients, each of shape (B,); in another basis than x's the M coefficients of
    the powers of x too, and the basis functions (M, N); for one problem x (1, N), for several the
    middle and the half width of each range (B,) and t (N,); the clean target (1, N) or (B, N);
    the data likewise.

    Outputs, each of shape (B,): the largest error against the clean target; the largest change of
    a prediction by the power form; the sum of squared residuals against the data.
    """

    degree: int
    in_x: bool
    shared: bool
    with_data: bool

    def recipe(self) -> Recipe:
        """How to compile this kernel."""
        words = ("ends", self.degree, self.in_x, self.shared, self.with_data)
        return Recipe(" ".join(map(str, words)), _SOURCES, lambda: (self._run, self._examples()))

    def _examples(self) -> list[Tensor]:
        size = self.degree + 1

        def some(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=torch.float64)

        vectors = [some(_B_POINTWISE) for _ in range(size if self.in_x else 2 * size)]
        table = [] if self.in_x else [some(size, _N)]
        rows = 1 if self.shared else _B_POINTWISE
        x = [some(1, _N)] if self.shared else [some(rows), some(rows), some(_N)]
        return [*vectors, *table, *x, *(some(rows, _N) for _ in range(1 + self.with_data))]

    def _run(self, *inputs: Tensor) -> Sequence[Tensor]:
        size, rest = self.degree + 1, list(inputs)

        def take(count: int) -> list[Tensor]:
            taken = rest[:count]
            del rest[:count]
            return taken

        c = take(size)
        powers = c if self.in_x else take(size)
        table = [] if self.in_x else take(1)[0].unbind(0)
        if self.shared:
            (x,) = take(1)
        else:
            middle, half, t = take(3)
            x = middle.unsqueeze(1) + half.unsqueeze(1) * t
        in_powers = _horner(powers, x)
        predicted, told = in_powers, []
        if not self.in_x:
            predicted = model.predicted(c, table)
            told = [_largest(in_powers - predicted)]
        clean, *data = rest
        found = [_largest(predicted - clean), *told]
        if data:
            residual = predicted - data[0]
            found.append((residual * residual).sum(dim=1))
        return found


def _largest(values_BN: Tensor) -> Tensor:
    """The largest of each row in size, float64, shape (B,); NaN if one is.

    Sizes are compared as the integers that their bits are: these have the same order, with NaN
    above infinity, and a processor compares them in one instruction.
    """
    return values_BN.abs().view(torch.int64).amax(dim=1).view(torch.float64)


def _horner(powers: Coefficients, x: Tensor) -> Tensor:
    """The polynomials at ``x``, shape (B, N)."""
    value = powers[-1].unsqueeze(1).expand(-1, x.shape[1])
    for power in reversed(powers[:-1]):
        value = value * x + power.unsqueeze(1)
    return value


@dataclass(frozen=True, slots=True)
class Targets:
    """The kernel that makes the data of many ranges, in float64: one loop over their points.

    Args:
        text: a plain formula.

    Inputs: the middle and the half width of each range (P,); t (N,).

    Outputs: the formula at the points (P, N); the largest of them in size (P,), NaN if one is;
    the largest argument of a sine or cosine in size (P,), likewise: beyond trigonometry.LIMIT the
    values are not what they should be.
    """

    text: str

    def recipe(self) -> Recipe:
        """How to compile this kernel."""
        sizes = _B_POINTWISE, _B_POINTWISE, _N
        example = [torch.ones(size, dtype=torch.float64) for size in sizes]
        return Recipe(f"targets {self.text}", (*_SOURCES, *_FORMULAS), lambda: (self._run, example))

    def _run(self, *inputs: Tensor) -> Sequence[Tensor]:
        middle, half, t = inputs
        x = middle.unsqueeze(1) + half.unsqueeze(1) * t
        turned: list[Tensor] = []
        y = Formula(self.text).of(x, _tensors(turned))
        reach = torch.zeros_like(half)
        for argument in turned:
            reach = torch.maximum(reach, _largest(argument))
        return [y, _largest(y), reach]


def _tensors(turned: list[Tensor]) -> Functions:
    """The plain functions, of tensors too; how far sines and cosines reach is kept."""

    def by(name: str, function: Callable[[Tensor], Tensor], turns: bool) -> Callable[[Any], Any]:
        def value(argument: Any) -> Any:
            if not isinstance(argument, Tensor):
                return PLAIN[name](argument)
            if turns:
                turned.append(argument)
            return function(argument)

        return value

    return {
        "sin": by("sin", trigonometry.sin_within, True),
        "cos": by("cos", trigonometry.cos_within, True),
        "sqrt": by("sqrt", torch.sqrt, False),
        "abs": by("abs", torch.abs, False),
    }


def finite(c: Coefficients, losses: Tensor) -> Tensor:
    """Which fits have a finite loss and finite coefficients, shape (B,), bool."""
    sound = torch.isfinite(losses)
    for value in c:
        sound = sound & torch.isfinite(value)
    return sound


def stopped(
    rule: str, losses: Tensor, last: Tensor, g: Coefficients, tolerance: Tensor | float
) -> Tensor:
    """Which fits meet the stop rule, shape (B,), bool."""
    if rule == "gradient":
        return norm(g) <= tolerance
    return (last - losses).abs() <= tolerance * last.abs()
