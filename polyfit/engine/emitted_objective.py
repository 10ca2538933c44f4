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

__all__ = ["EmittedObjective", "computed_ahead", "load_triangle", "row_numbers"]

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


def computed_ahead(config: BatchConfig, one_design: bool) -> bool:
    """Whether a CPU computes the residual of a point while it adds the terms of the last one.

    It does not look far enough ahead by itself where a point's operations are a long chain. Where
    they are not, as huber's of a low degree, to load a point's functions twice costs more.
    """
    return one_design and (config.degree >= 7 or config.objective != "huber")


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
        self.ahead = self.e.lanes > 1 and computed_ahead(config, one_design)
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
        tape, config = Tape(self.e, c), self.config
        loss = squared_loss(
            tape, config.objective, self.triangle, self.q, self.rest, self.points, c, config.halved
        )
        return loss, tape.gradient(loss, c)

    def norm(self, g: Values) -> str:
        """The norm of the whole gradient."""
        norm = self.e.norm(g)
        return self.e.add(norm, norm) if self.config.halved else norm

    def _over_points(self, c: Values) -> tuple[str, Values]:
        e, points, count = self.e, self.a["points"], 1 + self.config.size
        zeros = [(e.vector, e.constant(0.0))] * count
        first = [(e.vector, self._residual(c, "0"))] if self.ahead else []
        outer = Loop(e, "0", [*zeros, *zeros, *first])
        stop = e.integer_min(e.integer("add", outer.index, COMPENSATE_EVERY), points)
        known = [(e.vector, value) for value in outer.values[2 * count :]]
        inner = Loop(e, outer.index, [*zeros, *known])
        (difference,) = inner.values[count:] or [self._residual(c, inner.index)]
        # Before the terms, so that a CPU begins it before them.
        following = [self._residual(c, e.integer("add", inner.index, 1)) for _ in known]
        terms = self._terms(c, inner.index, difference)
        sums = [e.add(so_far, term) for so_far, term in zip(inner.values, terms, strict=False)]
        inner.end(stop, 1, [*sums, *following])
        totals, errors = [], []
        for k, part in enumerate(sums):
            total, corrected = outer.values[k], e.sub_unfused(part, outer.values[count + k])
            totals.append(e.add_unfused(total, corrected))
            errors.append(e.sub_unfused(e.sub_unfused(totals[-1], total), corrected))
        outer.end(points, COMPENSATE_EVERY, [*totals, *errors, *following])
        return totals[0], totals[1:]

    def _residual(self, c: Values, n: str) -> str:
        return self._taped_residual(c, n)[1]

    def _taped_residual(self, c: Values, n: str) -> tuple[Tape, str]:
        """The residual of point ``n``, and the tape of it."""
        tape = Tape(self.e, c)
        return tape, residual(tape, c, self._functions(n), self._datum(n))

    def _terms(self, c: Values, n: str, difference: str) -> Values:
        """The loss of point ``n``, whose residual is ``difference``, and its gradient."""
        tape = Tape(self.e, [difference])
        loss = tape(ELEMENTARY_PENALTIES[self.config.objective], difference)
        (slope,) = tape.gradient(loss, [difference])
        tape, again = self._taped_residual(c, n)  # for its gradient; LLVM removes the value
        return [loss, *tape.gradient(again, c, slope)]

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
