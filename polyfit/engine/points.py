"""Loops over points for kernels whose lanes are points: one fit, or one problem, at a time.

Lane k takes the points k, k + 16, k + 32, ... and adds their terms in this order; in the end the
lanes are added, each half to the other. So a sum has one stated order on every machine.
"""

from collections.abc import Callable, Sequence
from typing import Final

from polyfit.engine.emit import Emitter, Loop

__all__ = ["LANES", "Points", "over_points"]

LANES: Final = 16


class Points:
    """The points of one turn of the loop: as many as there are lanes, or those left at the end."""

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

    def only(self, value: str) -> str:
        """``value``, and 0 beyond the last point."""
        if self.mask is None:
            return value
        return self.e.select(self.mask, value, self.e.constant(0.0))


def over_points(
    e: Emitter,
    count: str,
    terms: Callable[[Points], Sequence[str]],
    joined: Sequence[str],
) -> list[str]:
    """What the terms of all ``count`` points come to, scalars.

    Args:
        e: the emitter, with ``LANES`` lanes.
        count: how many points.
        terms: writes the terms of some points.
        joined: how each term is joined: "add", or "largest" of their sizes.
    """
    whole = e.integer("and", count, -e.lanes)
    rest, zero = e.integer("sub", count, whole), e.constant(0.0)
    ways = {"add": e.add_alone, "largest": e.largest}
    before, after = e.block, e.name("whole")
    some = e.name("some")
    e.branch(e.compare("ne", whole, 0), some, after)
    e.label(some)
    loop = Loop(e, "0", [(e.vector, zero)] * len(joined))
    found = terms(Points(e, loop.index, None))
    sums = [ways[how](a, b) for how, a, b in zip(joined, loop.values, found, strict=True)]
    loop.end(whole, e.lanes, sums)
    e.jump(after)
    looped = e.block
    e.label(after)
    totals = [e.new(f"phi {e.vector} [{zero}, %{before}], [{one}, %{looped}]") for one in sums]
    before, last, after = e.block, e.name("last"), e.name("all")
    e.branch(e.compare("ne", rest, 0), last, after)
    e.label(last)
    mask = e.where("ult", e.numbered(), e.splat(rest, "i64"), "i64")
    points = Points(e, whole, mask)
    found = terms(points)
    more = [ways[how](a, points.only(b)) for how, a, b in zip(joined, totals, found, strict=True)]
    e.jump(after)
    left = e.block
    e.label(after)
    totals = [
        e.new(f"phi {e.vector} [{one}, %{before}], [{other}, %{left}]")
        for one, other in zip(totals, more, strict=True)
    ]
    return [e.halved(ways[how], total) for how, total in zip(joined, totals, strict=True)]
