"""The largest errors of polynomials over many points, without looking at each point.

Points lie in blocks of ``BLOCK`` steps. The error is computed at the ends of the blocks. Between
two ends it exceeds the larger of the two at most by how far the target and the polynomial differ
from straight lines; for the polynomial the second derivative bounds that. Blocks that cannot have
the largest error are skipped. Errors are computed as they are without screening, so the result has
the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from polyfit.engine.emit import Emitter
from polyfit.engine.loops import LANES, Loop, over_points
from polyfit.numerics.arrays import Array

__all__ = ["ARRAYS", "SCREENED_POINTS", "blocks_of", "horner", "largest_errors"]

BLOCK: Final = 16
SCREENED_POINTS: Final = 512
"""With fewer points, all are computed."""

_ROUNDING: Final = 1e-12
"""Share of the largest terms: more than rounding can change."""

ARRAYS: Final = ("end_t", "end_clean", "bend", "width")

Values = list[str]


def blocks_of(t_N: Array, clean_N: Array) -> dict[str, Array]:
    """``ARRAYS`` of a target.

    The ends of the blocks, filled up to whole vectors and one more; the largest difference from a
    straight line in each block; the width of a block in t.
    """
    points = len(t_N)
    count = -(-(points - 1) // BLOCK)
    ends = np.minimum(np.arange(count + 1) * BLOCK, points - 1)
    at = np.arange(points - 1)
    block = at // BLOCK
    share = (at - ends[block]) / (ends[block + 1] - ends[block])
    with np.errstate(all="ignore"):
        y = clean_N[ends]
        line = (1.0 - share) * y[block] + share * y[block + 1]
        bend = np.maximum.reduceat(np.abs(clean_N[:-1] - line), ends[:-1])
        bend += _ROUNDING * np.abs(clean_N).max()
    fill = -count % LANES
    return {
        "end_t": np.pad(t_N[ends], (0, fill)),
        "end_clean": np.pad(y, (0, fill)),
        "bend": np.pad(bend, (0, fill)),
        "width": np.array([2.0 * BLOCK / (points - 1) * (1.0 + 1e-6)]),
    }


def horner(e: Emitter, c: Sequence[str], x: str) -> str:
    """The polynomial in ``x`` whose coefficients are ``c``."""
    value = c[-1]
    for coefficient in reversed(c[:-1]):
        value = e.add(e.mul(value, x), coefficient)
    return value


def largest_errors(
    e: Emitter, a: dict[str, str], clean_row: str, middle: str, half: str, fits: list[Values]
) -> Values:
    """The largest error of each fit, scalars.

    Args:
        e: the emitter, with ``LANES`` lanes.
        a: the arguments of the kernel: t and ``clean``, ``ARRAYS``, the number of ``points``.
        clean_row: where the target begins in ``clean``.
        middle, half: of the range; scalars.
        fits: their coefficients of the powers of x; scalars.
    """
    with e.with_lanes(1):
        slacks = [_slack(e, c, middle, half, e.load(a["width"], 0)) for c in fits]
    spread = [[*map(e.broadcast, c)] for c in fits]
    slacks, wide = [*map(e.broadcast, slacks)], (e.broadcast(middle), e.broadcast(half))
    joins = [e.max_absolute] * len(fits)

    def errors(t: str, clean: str) -> Values:
        x = e.add(wide[0], e.mul(wide[1], t))
        return [e.sub(horner(e, c, x), clean) for c in spread]

    steps = e.integer("sub", a["points"], 1)
    num_blocks = e.integer("udiv", e.integer("add", steps, BLOCK - 1), BLOCK)
    num_ends = e.integer("add", num_blocks, 1)
    first = over_points(
        e, num_ends, lambda p: errors(p.load(a["end_t"]), p.load(a["end_clean"])), joins
    )
    groups = Loop(e, "0", [(e.real, value) for value in first])
    suspected = _suspected(e, a, groups.index, num_blocks, errors, slacks, groups.values)

    def within_blocks() -> Values:
        """The largest errors, of the suspected blocks too; ``bits`` are those left."""
        blocks = Loop(e, "0", [("i64", suspected), *((e.real, v) for v in groups.values)])
        bits, *so_far = blocks.values
        lane = e.call("llvm.cttz.i64", "i64", [("i64", bits), ("i1", "true")])
        begin = e.integer("mul", e.integer("add", groups.index, lane), BLOCK)
        left = e.integer_min(e.integer("sub", a["points"], begin), BLOCK)
        row = e.integer("add", clean_row, begin)

        with_points = over_points(
            e, left, lambda p: errors(p.load(a["t"], begin), p.load(a["clean"], row)), joins
        )
        with e.with_lanes(1):
            most = [*map(e.max_absolute, so_far, with_points)]
        others = e.integer("and", bits, e.integer("sub", bits, 1))
        blocks.end(e.call("llvm.ctpop.i64", "i64", [("i64", suspected)]), 1, [others, *most])
        return most

    some = e.compare_integers("ne", suspected, 0)
    most = e.values_when(some, groups.values, within_blocks, e.real)
    groups.end(num_blocks, LANES, most)
    return most


def _suspected(
    e: Emitter,
    a: dict[str, str],
    index: str,
    num_blocks: str,
    errors: Callable[[str, str], Values],
    slacks: Values,
    so_far: Values,
) -> str:
    """Which of the blocks from ``index`` on may have a larger error, as bits."""
    after = e.integer("add", index, 1)
    left, right = (
        errors(e.load_lanes(a["end_t"], at), e.load_lanes(a["end_clean"], at))
        for at in (index, after)
    )
    bend, found = e.load_lanes(a["bend"], index), e.uniform("i1", "false")
    for one, other, slack, most in zip(left, right, slacks, so_far, strict=True):
        bound = e.add(e.max_absolute(e.fabs(one), other), e.add(bend, slack))
        larger = e.compare_lanes("uge", bound, e.broadcast(most))  # NaN is suspected too
        found = e.mask_or(found, larger)
    # Blocks that fill up the last vector have no points.
    found = e.mask_and(found, e.lanes_below(e.integer("sub", num_blocks, index)))
    return e.new(f"zext i{LANES} {e.new(f'bitcast {e.mask} {found} to i{LANES}')} to i64")


def _slack(e: Emitter, c: Values, middle: str, half: str, width: str) -> str:
    """How far the polynomial may be from a straight line within a block, rounding included.

    Bounded by its largest second derivative on the range.
    """
    far = e.add(e.fabs(middle), half)
    value, slope, curve = e.fabs(c[-1]), e.constant(0.0), e.constant(0.0)
    for coefficient in reversed(c[:-1]):
        curve = e.add(e.mul(curve, far), slope)
        slope = e.add(e.mul(slope, far), value)
        value = e.add(e.mul(value, far), e.fabs(coefficient))
    wide = e.mul(half, width)
    bent = e.mul(e.mul(curve, e.constant(0.25)), e.mul(wide, wide))  # h^2 / 8 times twice curve
    return e.add(bent, e.mul(value, e.constant(_ROUNDING)))
