"""The loss of a block of fits and its gradient, emitted for the iteration.

Shapes: B fits, M = degree + 1 coefficients, N points.
"""

from typing import Final

from polyfit.engine.batch import BatchConfig
from polyfit.engine.emit import Emitter
from polyfit.engine.kernel import Block
from polyfit.engine.loops import Loop
from polyfit.engine.objective import residual, squared_loss
from polyfit.engine.penalty import ELEMENTARY_PENALTIES
from polyfit.engine.tape import Tape

__all__ = ["EmittedObjective", "load_triangle", "row_numbers"]

COMPENSATE_EVERY: Final = 64
"""Points whose terms are added one after the other. The sums of so many are added with
compensation, so that a million points cost no digits: Kahan, Further remarks on reducing
truncation errors (1965)."""

Values = list[str]

_LOADED_TOGETHER: Final = 4
"""Neighbouring numbers that a GPU loads at once, where their place is a multiple of so many."""


def row_numbers(config: BatchConfig, one_data: bool) -> int:
    """The length of a point's row in a table of basis functions that serves all fits.

    It holds the functions but the first, then the datum where the data serve all fits too.
    """
    used = config.degree + one_data
    return -(-used // _LOADED_TOGETHER) * _LOADED_TOGETHER


def load_triangle(e: Emitter, a: dict[str, str], size: int) -> Values:
    """The upper triangle of the R that all fits share, row by row."""
    return [e.load_uniform(a["R"], k) for k in range(size * (size + 1) // 2)]


class EmittedObjective:
    """Loads what the objective of a block needs, and writes losses and gradients.

    Args:
        config: of the batch.
        one_design: whether one R, or one table of basis functions, serves all fits.
        one_data: whether all fits have the same data over all points.
        block: the block of fits.
        triangle: the R that all fits share, if there is one.
        points: N as a number.
    """

    def __init__(
        self,
        config: BatchConfig,
        one_design: bool,
        one_data: bool,
        block: Block,
        triangle: Values,
        points: str,
    ) -> None:
        self.config, self.one_design, self.one_data = config, one_design, one_data
        self.e, self.a, self.points = block.e, block.a, points
        if config.squared:
            size = config.size
            self.triangle = triangle or block.load_rows("R", size * (size + 1) // 2)
            self.q = block.load_rows("q", size)
            self.rest = block.load("rest")
            return
        if not one_design:
            self.middle, self.half = (block.load(name, "double") for name in ("middle", "half"))
        if not one_data:
            e, width = self.e, self.a["width"]
            group = e.integer("mul", e.integer("udiv", block.b, width), width)
            start = e.integer("mul", group, self.a["points"])
            self.data_at = e.integer("add", start, e.integer("sub", block.b, group))

    def gradient(self, c: Values) -> tuple[str, Values]:
        """The loss at ``c`` and its gradient, or half of it; LLVM removes what is not used."""
        if not self.config.squared:
            return self._over_points(c)
        tape = Tape(self.e, self.config.dtype, c)
        points = self.points if self.config.objective == "mse" else None
        loss = squared_loss(tape, self.triangle, self.q, self.rest, points, c, self.config.halved)
        return loss, tape.gradient(loss, c)

    def norm(self, g: Values) -> str:
        """The norm of the whole gradient."""
        norm = self.e.norm(g)
        return self.e.add(norm, norm) if self.config.halved else norm

    def _over_points(self, c: Values) -> tuple[str, Values]:
        e, points, count = self.e, self.a["points"], 1 + self.config.size
        zeros = [(e.vector, e.constant(0.0))] * count
        outer = Loop(e, "0", [*zeros, *zeros])
        inner = Loop(e, outer.index, zeros)
        terms = self._at_point(c, inner.index)
        sums = [e.add(so_far, term) for so_far, term in zip(inner.values, terms, strict=True)]
        stop = e.integer_min(e.integer("add", outer.index, COMPENSATE_EVERY), points)
        inner.end(stop, 1, sums)
        totals, errors = [], []
        for k, part in enumerate(sums):
            total, corrected = outer.values[k], e.sub_unfused(part, outer.values[count + k])
            totals.append(e.add_unfused(total, corrected))
            errors.append(e.sub_unfused(e.sub_unfused(totals[-1], total), corrected))
        outer.end(points, COMPENSATE_EVERY, [*totals, *errors])
        return totals[0], totals[1:]

    def _at_point(self, c: Values, n: str) -> Values:
        """The loss of point ``n`` and its gradient."""
        tape = Tape(self.e, self.config.dtype, c)
        difference = residual(tape, c, self._functions(n), self._datum(n))
        loss = tape(ELEMENTARY_PENALTIES[self.config.objective], difference)
        return [loss, *tape.gradient(loss, c)]

    def _functions(self, n: str) -> Values:
        """All basis functions at point ``n`` but the first."""
        e, a, count = self.e, self.a, self.config.degree
        if self.one_design:
            return [self._in_row(n, k) for k in range(count)]
        with e.with_real("double"):
            offset = e.mul_unfused(self.half, e.load_uniform(a["t"], n))
            x = e.add_unfused(self.middle, offset)
        powers = [x if e.real == "double" else e.float_from_double(x)]
        while len(powers) < count:
            powers.append(e.mul_unfused(powers[-1], powers[0]))
        return powers[:count]

    def _in_row(self, n: str, k: int) -> str:
        """Number ``k`` of point ``n``'s row in the table of basis functions."""
        start = self.e.integer("mul", n, row_numbers(self.config, self.one_data))
        return self.e.load_uniform(self.a["functions"], self.e.integer("add", start, k))

    def _datum(self, n: str) -> str:
        e, a = self.e, self.a
        if self.one_data:
            if self.one_design:
                return self._in_row(n, self.config.degree)
            return e.load_uniform(a["y"], n)
        at = e.integer("add", self.data_at, e.integer("mul", n, a["width"]))
        return e.load_lanes(a["y"], at)
