"""What a point adds to a loss over all points and to its gradient, emitted.

Shapes: B fits, M = degree + 1 coefficients, N points.
"""

from typing import Final

from polyfit.engine.batch import BatchConfig
from polyfit.engine.kernel import Block
from polyfit.engine.objective import polynomial, residual
from polyfit.engine.penalty import ELEMENTARY_PENALTIES
from polyfit.engine.tape import Tape

__all__ = ["PointTerms", "row_numbers"]

_LOADED_TOGETHER: Final = 4
"""Neighbouring numbers that a GPU loads at once, where their place is a multiple of so many."""

Values = list[str]


def row_numbers(config: BatchConfig, one_data: bool) -> int:
    """The length of a point's row in a table of basis functions that serves all fits.

    It holds the functions but the first, then the datum where the data serve all fits too.
    """
    used = config.degree + one_data
    return -(-used // _LOADED_TOGETHER) * _LOADED_TOGETHER


class PointTerms:
    """Writes what the points add for a block of fits.

    Args:
        config: of the batch.
        one_design: whether one table of basis functions serves all fits.
        one_data: whether all fits have the same data.
        block: the block of fits.
    """

    def __init__(self, config: BatchConfig, one_design: bool, one_data: bool, block: Block) -> None:
        self.config, self.one_design, self.one_data = config, one_design, one_data
        self.e, self.a = block.e, block.a
        if not one_design:
            self.middle, self.half = (block.load(name, "double") for name in ("middle", "half"))
        if not one_data:
            e, width = self.e, self.a["width"]
            group = e.integer("mul", e.integer("udiv", block.b, width), width)
            start = e.integer("mul", group, self.a["points"])
            self.data_at = e.integer("add", start, e.integer("sub", block.b, group))

    def loss_and_gradient(self, c: Values, n: str) -> Values:
        """The loss of point ``n``, and its gradient."""
        tape = Tape(self.e, c)
        functions = self._functions(n, range(1, len(c)))
        difference = residual(tape, c, functions, self._datum(n))
        loss, slope = self.penalty(difference)
        return [loss, *tape.gradient(difference, c, slope)]

    def evaluated(self, so_far: str, c: Values, n: str, part: range) -> str:
        """A polynomial at point ``n`` with a part of its terms added; with the last, the residual.

        ``so_far`` is the sum of those before.
        """
        value = self._polynomial(Tape(self.e, c), so_far, c, n, part)
        return self.e.sub(value, self._datum(n)) if part.stop == len(c) else value

    def penalty(self, difference: str) -> tuple[str, str]:
        """The loss of a residual, and its derivative."""
        tape = Tape(self.e, [difference])
        loss = tape(ELEMENTARY_PENALTIES[self.config.objective], difference)
        (slope,) = tape.gradient(loss, [difference])
        return loss, slope

    def gradient(self, c: Values, n: str, part: range, slope: str) -> Values:
        """A part of the gradient at point ``n``; ``slope`` is the derivative of its loss."""
        tape, some = Tape(self.e, c), c[part.start : part.stop]
        value = self._polynomial(tape, c[0], c, n, part)  # LLVM removes it, its gradient stays
        return tape.gradient(value, some, slope)

    def _polynomial(self, tape: Tape, so_far: str, c: Values, n: str, part: range) -> str:
        more = range(max(part.start, 1), part.stop)  # the first function is 1
        functions = self._functions(n, more)
        value: str = polynomial(tape, so_far, c[more.start : more.stop], functions)
        return value

    def _functions(self, n: str, part: range) -> Values:
        """Some basis functions at point ``n``."""
        e, a = self.e, self.a
        if self.one_design:
            return [self._in_row(n, k - 1) for k in part]
        with e.with_real("double"):
            offset = e.mul_unfused(self.half, e.load_uniform(a["t"], n))
            x = e.add_unfused(self.middle, offset)
        powers = [x if e.real == "double" else e.float_from_double(x)]
        while len(powers) < part.stop - 1:
            powers.append(e.mul_unfused(powers[-1], powers[0]))
        return powers[part.start - 1 : part.stop - 1]

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
