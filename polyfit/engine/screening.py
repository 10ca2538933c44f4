"""The largest errors of polynomials over many points, without looking at each point.

Points lie in blocks of ``BLOCK`` steps. At their ends the error is computed. In between it is no
larger than at the larger end but for what the polynomial, by its second derivative, and the target
differ from straight lines between the ends. Blocks that cannot hold the largest error are passed
over. What is computed is computed as everywhere: the result has the same bits as over all points.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from polyfit.engine.emit import Emitter, Loop
from polyfit.engine.points import LANES, Points, over_points

__all__ = ["ARRAYS", "FROM_POINTS", "blocks_of", "horner", "largest_errors"]

BLOCK: Final = 16
FROM_POINTS: Final = 512
"""Fewer points are soon looked at."""

_ROUNDING: Final = 1e-12
"""Of the largest terms: more than rounding can change."""

ARRAYS: Final = ("end_t", "end_clean", "bend", "width")

Values = list[str]
Array = npt.NDArray[np.float64]


def blocks_of(t_N: Array, clean_N: Array) -> dict[str, Array]:
    """``ARRAYS`` of a target: the ends of the blocks, filled up to whole vectors and one more; how
    much it differs within each block from a straight line; the width of a block in t."""
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
    with e.width(1):
        slacks = [_slack(e, c, middle, half, e.load(a["width"], 0)) for c in fits]
    spread = [[*map(e.splat, c)] for c in fits]
    slacks, wide = [*map(e.splat, slacks)], (e.splat(middle), e.splat(half))

    def errors(t: str, clean: str) -> Values:
        x = e.add(wide[0], e.mul(wide[1], t))
        return [e.sub(horner(e, c, x), clean) for c in spread]

    def at_ends(points: Points) -> Values:
        return [*map(points.only, errors(points.load(a["end_t"]), points.load(a["end_clean"])))]

    steps = e.integer("sub", a["points"], 1)
    count = e.integer("udiv", e.integer("add", steps, BLOCK - 1), BLOCK)
    ways = ["largest"] * len(fits)
    first = over_points(e, e.integer("add", count, 1), at_ends, ways)
    vectors = Loop(e, "0", [(e.real, value) for value in first])
    suspected = _suspected(e, a, vectors.index, count, errors, slacks, vectors.values)
    before, look, after = e.block, e.name("look"), e.name("looked")
    e.branch(e.compare("ne", suspected, 0), look, after)
    e.label(look)
    blocks = Loop(e, "0", [("i64", suspected), *((e.real, value) for value in vectors.values)])
    bits, *so_far = blocks.values
    lane = e.call("llvm.cttz.i64", "i64", [("i64", bits), ("i1", "true")])
    begin = e.integer("mul", e.integer("add", vectors.index, lane), BLOCK)
    left = e.smaller(e.integer("sub", a["points"], begin), BLOCK)

    def at_points(points: Points) -> Values:
        t = points.load(a["t"], begin)
        clean = points.load(a["clean"], e.integer("add", clean_row, begin))
        return [*map(points.only, errors(t, clean))]

    seen = over_points(e, left, at_points, ways)
    with e.width(1):
        most = [e.largest(one, other) for one, other in zip(so_far, seen, strict=True)]
    others = e.integer("and", bits, e.integer("sub", bits, 1))
    blocks.end(e.call("llvm.ctpop.i64", "i64", [("i64", suspected)]), 1, [others, *most])
    e.jump(after)
    looked = e.block
    e.label(after)
    joined = [
        e.new(f"phi {e.real} [{one}, %{before}], [{other}, %{looked}]")
        for one, other in zip(vectors.values, most, strict=True)
    ]
    vectors.end(count, LANES, joined)
    return joined


def _suspected(
    e: Emitter,
    a: dict[str, str],
    index: str,
    count: str,
    errors: Callable[[str, str], Values],
    slacks: Values,
    so_far: Values,
) -> str:
    """Of the ``count`` blocks those from ``index`` on that may hold a larger error, as bits."""
    after = e.integer("add", index, 1)
    left, right = (
        errors(e.load_lanes(a["end_t"], at), e.load_lanes(a["end_clean"], at))
        for at in (index, after)
    )
    bend, found = e.load_lanes(a["bend"], index), e.same("i1", "false")
    for one, other, slack, most in zip(left, right, slacks, so_far, strict=True):
        bound = e.add(e.largest(e.size(one), other), e.add(bend, slack))
        found = e.either(found, e.where("uge", bound, e.splat(most)))  # NaN is suspected too
    # What fills up the last vector holds no points.
    some = e.where("ult", e.numbered(), e.splat(e.integer("sub", count, index), "i64"), "i64")
    found = e.both(found, some)
    return e.new(f"zext i{LANES} {e.new(f'bitcast {e.mask} {found} to i{LANES}')} to i64")


def _slack(e: Emitter, c: Values, middle: str, half: str, width: str) -> str:
    """How far the polynomial may be from a straight line within a block, by its largest second
    derivative on the range, and what rounding may add."""
    far = e.add(e.size(middle), half)
    value, slope, curve = e.size(c[-1]), e.constant(0.0), e.constant(0.0)
    for coefficient in reversed(c[:-1]):
        curve = e.add(e.mul(curve, far), slope)
        slope = e.add(e.mul(slope, far), value)
        value = e.add(e.mul(value, far), e.size(coefficient))
    wide = e.mul(half, width)
    bent = e.mul(e.mul(curve, e.constant(0.25)), e.mul(wide, wide))  # h^2 / 8 times twice curve
    return e.add(bent, e.mul(value, e.constant(_ROUNDING)))
