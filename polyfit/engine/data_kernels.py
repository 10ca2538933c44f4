"""The data of many ranges, and their reduction, by kernels whose lanes are points."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from polyfit.engine import cpu
from polyfit.engine.emit import Emitter
from polyfit.engine.kernel import Kernel
from polyfit.engine.loops import LANES, Points, over_points
from polyfit.engine.symbolic import SymbolicArray
from polyfit.numerics import elementary
from polyfit.numerics.arrays import Array
from polyfit.numerics.design import frame
from polyfit.numerics.formula import FUNCTIONS, Formula, Functions
from polyfit.numerics.grid import Grid

__all__ = ["ReductionKernel", "TargetKernel", "reduce_compiled", "target_compiled"]


@dataclass(frozen=True)
class TargetKernel(Kernel):
    """A formula at the points of many ranges.

    Arrays of float64: ``middle`` and ``half`` (C,), t (N,); results ``y`` (C, N), ``scale`` (C,),
    the largest of them in size, NaN if one is, and ``reach`` (C,), the largest argument of a sine,
    cosine or tangent in size: beyond elementary.LIMIT the values are not what they should be.
    """

    text: str

    arrays: ClassVar = ("middle", "half", "t", "y", "scale", "reach")
    integers: ClassVar = ("points",)

    def step(self, lanes: int) -> int:
        return 1

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        middle, half = (e.load_uniform(a[name], b) for name in ("middle", "half"))
        row = e.integer("mul", a["points"], b)

        def terms(points: Points) -> list[str]:
            x = e.add(middle, e.mul(half, points.load(a["t"])))
            turned: list[str] = []
            with np.errstate(all="ignore"):  # of its constants
                value = Formula(self.text).of(SymbolicArray(e, x), _functions(turned))
            y = value.text if isinstance(value, SymbolicArray) else e.constant(float(value))
            points.store(y, a["y"], row)
            reach = e.constant(0.0)
            for argument in turned:
                reach = e.max_absolute(reach, argument)
            return [y, reach]

        found = over_points(e, a["points"], terms, [e.max_absolute] * 2)
        for name, value in zip(("scale", "reach"), found, strict=True):
            e.store(value, a[name], b)


def _functions(turned: list[str]) -> Functions:
    """The functions of formulas; of symbols that turn, the arguments are kept."""

    def kept(name: str, within: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def value(argument: Any) -> Any:
            if not isinstance(argument, SymbolicArray):
                return FUNCTIONS[name](argument)
            turned.append(argument.text)
            return within(argument)

        return value

    return {
        **FUNCTIONS,
        "sin": kept("sin", elementary.sin_within),
        "cos": kept("cos", elementary.cos_within),
        "tan": kept("tan", elementary.tan_within),
    }


@dataclass(frozen=True)
class ReductionKernel(Kernel):
    """Sums of squares over N points reduced to M rows; see ``problem.reduce``.

    Arrays of float64: ``y`` (D, N), the frame's ``Q`` (M, N); results ``q`` (D, M), ``rest`` (D,).
    """

    degree: int

    arrays: ClassVar = ("y", "Q", "q", "rest")
    integers: ClassVar = ("points",)

    def step(self, lanes: int) -> int:
        return 1

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        return [e.integer("mul", a["points"], k) for k in range(self.degree + 1)]

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        row, size = e.integer("mul", a["points"], b), self.degree + 1
        found: list[str] = []
        for some in (shared[k : k + _TOGETHER] for k in range(0, size, _TOGETHER)):

            def products(points: Points, rows: list[str] = some) -> list[str]:
                y = points.load(a["y"], row)
                return [e.mul(y, points.load(a["Q"], at)) for at in rows]

            found += over_points(e, a["points"], products, [e.add_unfused] * len(some))
        spread = [*map(e.broadcast, found)]

        def squares(points: Points) -> list[str]:
            left = points.load(a["y"], row)
            for value, at in zip(spread, shared, strict=True):
                left = e.sub(left, e.mul(value, points.load(a["Q"], at)))
            return [e.mul(left, left)]

        (rest,) = over_points(e, a["points"], squares, [e.add_unfused])
        at = e.integer("mul", b, size)
        for k, value in enumerate(found):
            e.store(value, a["q"], e.integer("add", at, k))
        e.store(rest, a["rest"], b)


_TOGETHER: Final = 8
"""Sums that are made in one pass over the data: as many as registers hold."""


def target_compiled(text: str, grid: Grid) -> tuple[Array, Array, Array]:
    """A formula on the ranges of ``grid``: values (C, N), largest sizes and reach (C,)."""
    middle, half = (np.ascontiguousarray(np.ravel(v)) for v in (grid.middle, grid.half))
    count = len(half)
    y, scale, reach = np.empty((count, grid.points)), np.empty(count), np.empty(count)
    arrays = dict(middle=middle, half=half, t=grid.t(), y=y, scale=scale, reach=reach)
    cpu.load(TargetKernel(text), LANES).bind({**arrays, "points": grid.points})(begin=0, end=count)
    return y, scale, reach


def reduce_compiled(degree: int, y_DN: Array) -> tuple[Array, Array]:
    """``problem.reduce`` by a kernel."""
    y_DN = np.ascontiguousarray(y_DN)
    count, points = y_DN.shape
    q, rest = np.empty((count, degree + 1)), np.empty(count)
    arrays = dict(y=y_DN, Q=frame(points, degree).Q_MN, q=q, rest=rest)
    cpu.load(ReductionKernel(degree), LANES).bind({**arrays, "points": points})(begin=0, end=count)
    if points == degree + 1:  # nothing is left
        rest[:] = 0.0
    return q, rest
