"""Loops: over an index, and over the points of one fit or one problem.

In a loop over points the lanes are points. Lane k takes the points k, k + 16, k + 32, ... and adds
their terms in this order; at the end the lanes are added, each half to the other. So a sum has one
stated order on every machine.
"""

from collections.abc import Callable, Sequence
from typing import Final

from polyfit.engine.emit import Emitter

__all__ = ["LANES", "Loop", "Points", "over_points"]

LANES: Final = 16
"""Of the emitter, where the lanes are points."""


class Loop:
    """A loop over ``index``, from ``start`` in steps while it is below a stop, at least once.

    Args:
        emitter: where to write.
        start: the first index.
        carried: (type, first value) of what changes from turn to turn. Inside the loop these are
            ``values``; ``end`` takes their next values, which are the results after the loop.
    """

    def __init__(
        self, emitter: Emitter, start: str, carried: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.emitter = emitter
        before, self.head = emitter.block, emitter.name("loop")
        emitter.jump(self.head)
        emitter.label(self.head)
        phis = [emitter.phi(type_, first, before) for type_, first in [("i64", start), *carried]]
        (self.index, *self.values), self._lines = zip(*phis, strict=True)

    def end(self, stop: str, step: str | int = 1, values: Sequence[str] = ()) -> None:
        """Close the loop; control continues after it. With steps of 1, start is below stop."""
        emitter, after = self.emitter, self.emitter.name("after")
        following = emitter.integer("add", self.index, step)
        how = "ne" if step == 1 else "ult"  # LLVM counts down to 0 for "ne" only
        again = emitter.compare_integers(how, following, stop)
        for line, value in zip(self._lines, [following, *values], strict=True):
            emitter.close(line, value)
        emitter.branch(again, self.head, after)
        emitter.label(after)


class Points:
    """The points of one turn of a loop: one per lane; ``mask`` says which exist, None for all."""

    def __init__(self, e: Emitter, index: str, mask: str | None) -> None:
        self.e, self.index, self.mask = e, index, mask

    def load(self, base: str, row: str | int = 0) -> str:
        """The numbers of an array from ``row`` on at the points; 0 beyond the last."""
        at = self.e.integer("add", self.index, row)
        if self.mask is None:
            return self.e.load_lanes(base, at)
        return self.e.masked_load(base, at, self.mask)

    def store(self, value: str, base: str, row: str | int = 0) -> None:
        at = self.e.integer("add", self.index, row)
        if self.mask is None:
            self.e.store_lanes(value, base, at)
        else:
            self.e.masked_store(value, base, at, self.mask)


def over_points(
    e: Emitter,
    num_points: str,
    terms: Callable[[Points], Sequence[str]],
    joins: Sequence[Callable[[str, str], str]],
) -> list[str]:
    """The terms of all points, reduced to scalars.

    Args:
        e: the emitter, with ``LANES`` lanes.
        num_points: how many points.
        terms: writes the terms of the points of one turn; beyond the last point they are left out.
        joins: of each term how two are joined: the emitter's ``add_unfused`` or ``max_absolute``.
    """
    whole = e.integer("and", num_points, -e.lanes)
    rest, zero = e.integer("sub", num_points, whole), e.constant(0.0)
    zeros = [zero] * len(joins)

    def full_turns() -> list[str]:
        loop = Loop(e, "0", [(e.vector, zero)] * len(joins))
        found = terms(Points(e, loop.index, None))
        totals = [join(a, b) for join, a, b in zip(joins, loop.values, found, strict=True)]
        loop.end(whole, e.lanes, totals)
        return totals

    def last_turn() -> list[str]:
        mask = e.lanes_below(rest)
        found = [e.select(mask, term, zero) for term in terms(Points(e, whole, mask))]
        return [join(a, b) for join, a, b in zip(joins, totals, found, strict=True)]

    totals = e.values_when(e.compare_integers("ne", whole, 0), zeros, full_turns)
    totals = e.values_when(e.compare_integers("ne", rest, 0), totals, last_turn)
    return [e.reduce_lanes(join, total) for join, total in zip(joins, totals, strict=True)]
