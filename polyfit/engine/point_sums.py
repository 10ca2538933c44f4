"""A loss over all points and its gradient, emitted: sums in a stated order, in one pass or several.

The terms of ``COMPENSATE_EVERY`` points, a chunk, are added one after the other. The sums of
chunks are added with compensation, so that a million points cost no digits: Kahan, Further remarks
on reducing truncation errors (1965).

Shapes: M coefficients, N points.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from polyfit.engine.emit import Emitter
from polyfit.engine.kernel import Memory
from polyfit.engine.loops import Loop
from polyfit.engine.point_terms import PointTerms

__all__ = ["Passes", "sums_in_one_pass"]

COMPENSATE_EVERY: Final = 64

Values = list[str]


def sums_in_one_pass(terms: PointTerms, c: Values) -> Values:
    """The loss at ``c`` and its gradient: each point adds its terms to all sums."""
    e, points = terms.e, terms.a["points"]
    zeros = [(e.vector, e.constant(0.0))] * (1 + len(c))
    outer = Loop(e, "0", [*zeros, *zeros])
    inner = Loop(e, "0", zeros)
    n = e.integer("add", outer.index, inner.index)
    sums = _added(e, inner.values, terms.loss_and_gradient(c, n))
    inner.end(_length(e, outer, points), 1, sums)
    totals, errors = outer.values[: len(zeros)], outer.values[len(zeros) :]
    pairs = [_compensated(e, *of) for of in zip(sums, totals, errors, strict=True)]
    totals, errors = ([*some] for some in zip(*pairs, strict=True))
    outer.end(points, COMPENSATE_EVERY, [*totals, *errors])
    return totals


class Passes:
    """The same sums in several passes over each chunk: residuals, penalties, the gradient.

    Each takes a part of the coefficients, as many as registers hold, and its operations wait for
    few others, so that a CPU works on several points at once. Between passes the residuals and
    slopes of a chunk lie in memory, and so do the sums.

    Args:
        terms: what a point adds.
        most: the most coefficients of a pass.
        memory: ``num_vectors(M)`` vectors.
    """

    def __init__(self, terms: PointTerms, most: int, memory: Memory) -> None:
        self.terms, self.e, self.memory = terms, terms.e, memory
        size = terms.config.size
        count = -(-size // most)
        ends = [size * k // count for k in range(count + 1)]
        self.parts = [range(*ends[k : k + 2]) for k in range(count)]
        # A short penalty beside a gradient of one part costs less than a pass of its own.
        self.apart = count > 1 or terms.config.objective == "log_cosh"

    @staticmethod
    def num_vectors(size: int) -> int:
        """Vectors of memory for M = ``size``: residuals, slopes, sums and their errors."""
        return 2 * COMPENSATE_EVERY + 2 * (1 + size)

    def sums(self, c: Values, with_loss: bool) -> Values:
        """The loss at ``c``, if it is wanted, and its gradient."""
        e, points = self.e, self.terms.a["points"]
        numbers = range(0 if with_loss else 1, 1 + len(c))
        for k in numbers:
            for place in _places_of_sum(k):
                self.memory.store(e.constant(0.0), place)
        outer = Loop(e, "0")
        over = partial(self._over, outer.index, _length(e, outer, points))
        for part in self.parts:
            over(0, 0, partial(self._residual, c, part))
        if self.apart or with_loss:
            over(0, int(with_loss), self._penalty)
        for part in self.parts:
            over(1 + part.start, len(part), partial(self._gradient, c, part))
        outer.end(points, COMPENSATE_EVERY)
        return [self.memory.load(_places_of_sum(k)[0]) for k in numbers]

    def _over(
        self, start: str, length: str, first: int, count: int, write: Callable[[str, str], Values]
    ) -> None:
        """A pass over a chunk; what ``write`` returns is added to ``count`` sums from ``first``."""
        e = self.e
        loop = Loop(e, "0", [(e.vector, e.constant(0.0))] * count)
        terms = write(e.integer("add", start, loop.index), loop.index)
        sums = _added(e, loop.values, terms[:count])
        loop.end(length, 1, sums)
        for k, part in enumerate(sums, first):
            at = _places_of_sum(k)
            found = _compensated(e, part, *map(self.memory.load, at))
            for value, place in zip(found, at, strict=True):
                self.memory.store(value, place)

    def _residual(self, c: Values, part: range, n: str, place: str) -> Values:
        so_far = self.memory.load(place) if part.start else c[0]
        self.memory.store(self.terms.evaluated(so_far, c, n, part), place)
        return []

    def _penalty(self, _: str, place: str) -> Values:
        loss, slope = self.terms.penalty(self.memory.load(place))
        if self.apart:
            self.memory.store(slope, self._place_of_slope(place))
        return [loss]

    def _gradient(self, c: Values, part: range, n: str, place: str) -> Values:
        if self.apart:
            slope = self.memory.load(self._place_of_slope(place))
        else:
            slope = self.terms.penalty(self.memory.load(place))[1]
        return self.terms.gradient(c, n, part, slope)

    def _place_of_slope(self, place: str) -> str:
        return self.e.integer("add", place, COMPENSATE_EVERY)


def _places_of_sum(k: int) -> tuple[int, int]:
    """Where the memory of passes holds sum ``k`` and its error."""
    place = 2 * COMPENSATE_EVERY + 2 * k
    return place, place + 1


def _length(e: Emitter, outer: Loop, points: str) -> str:
    """Points of a chunk."""
    return e.integer_min(e.integer("sub", points, outer.index), COMPENSATE_EVERY)


def _added(e: Emitter, sums: Values, terms: Values) -> Values:
    return [e.add(so_far, term) for so_far, term in zip(sums, terms, strict=True)]


def _compensated(e: Emitter, part: str, total: str, error: str) -> tuple[str, str]:
    """``total`` with ``part`` added, and its error, which corrects the next part."""
    corrected = e.sub_unfused(part, error)
    after = e.add_unfused(total, corrected)
    return after, e.sub_unfused(e.sub_unfused(after, total), corrected)
