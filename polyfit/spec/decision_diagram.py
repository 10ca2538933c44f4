"""Which combinations of places on some axes are kept: counted, ranked and found by formula.

A multi-valued decision diagram: a node per level (axis) and per set of combinations that may still
follow; equal sets share a node. Each axis is cut into segments of neighbouring places that are
alike, so neither the length of an axis nor the number of combinations matters. Node 0 is the empty
set. An index is the rank of a combination in lexicographic order, the first axis slowest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Index, Mask

__all__ = ["DecisionDiagram"]

_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Level:
    """One axis. Shapes: K nodes, S segments of the axis, L nodes of the next level.

    ``starts`` (S,) are the segments' first places; ``children`` (K, S) nodes of the next level;
    ``before`` (K, S) combinations of a node in earlier segments; ``each`` (L,) those of a child.
    """

    starts: Index
    children: Index
    before: npt.NDArray[Any]
    each: npt.NDArray[Any]

    def descend(self, node: Index, rest: Any) -> tuple[Index, Index, Any]:
        """The place on this axis, the next node, and the rank within it, of each rank ``rest``."""
        segment = self._segment(node, rest)
        child = self.children[node, segment]
        rest = rest - self.before[node, segment]
        steps = rest // self.each[child]
        return (
            (self.starts[segment] + steps).astype(np.int64),
            child,
            rest - steps * self.each[child],
        )

    def _segment(self, node: Index, rest: Any) -> Index:
        """The last segment with at most ``rest`` combinations before it, by bisection."""
        count = len(self.starts)
        found = np.zeros(len(node), dtype=np.int64)
        step = 1 << max(count - 1, 0).bit_length()
        while step := step // 2:
            further = np.minimum(found + step, count - 1)
            found = np.where(self.before[node, further] <= rest, further, found)
        return found

    def ascend(self, node: Index, place: Index) -> tuple[Any, Index]:
        """The combinations of ``node`` before ``place``, and the next node."""
        segment = np.searchsorted(self.starts, place, side="right") - 1
        child = self.children[node, segment]
        within = (place - self.starts[segment]) * self.each[child]
        return self.before[node, segment] + within, child


@dataclass(frozen=True, slots=True)
class DecisionDiagram:
    """``size`` is the number of combinations that are kept."""

    levels: tuple[_Level, ...]
    root: int
    size: int

    @classmethod
    def of(cls, kept: Mask, lengths: Sequence[Sequence[int]]) -> "DecisionDiagram":
        """The diagram of ``kept``, which has a dimension per axis and an item per segment.

        ``lengths`` are those of each axis' segments: at least one.
        """
        small = prod(sum(axis) for axis in lengths) <= _MAX_INT64
        nodes, each = kept.astype(np.int64), np.array([0, 1], dtype=np.int64 if small else object)
        levels: list[_Level] = []
        for axis in reversed(range(kept.ndim)):
            children, nodes = _shared(nodes)
            widths = np.array(lengths[axis], dtype=each.dtype)
            ends = np.cumsum(each[children] * widths, axis=1)
            before = np.concatenate((np.zeros_like(ends[:, :1]), ends[:, :-1]), axis=1)
            starts = np.cumsum([0, *lengths[axis][:-1]], dtype=np.int64)
            levels.append(_Level(starts, children, before, each))
            each = ends[:, -1]
        return cls(tuple(reversed(levels)), int(nodes), int(each[int(nodes)]))

    def places(self, ranks: npt.NDArray[Any]) -> Iterator[Index]:
        """For each axis in turn the places (n,) of the combinations with these ranks (n,)."""
        node, rest = np.full(len(ranks), self.root), ranks
        for level in self.levels:
            place, node, rest = level.descend(node, rest)
            yield place

    def ranks(self, places: Sequence[Index]) -> Index:
        """The ranks (n,) of combinations given by their places on each axis; -1 if not kept."""
        node, rank = np.full(len(places[0]), self.root), np.zeros(len(places[0]), dtype=np.int64)
        outside = np.zeros(len(rank), dtype=np.bool_)
        for level, place in zip(self.levels, places, strict=True):
            outside |= place < 0
            before, node = level.ascend(node, np.maximum(place, 0))
            rank = rank + before
        return np.where(outside | (node == 0), -1, rank).astype(np.int64)


def _shared(nodes: Index) -> tuple[Index, Index]:
    """The distinct rows of ``nodes``, the empty one first, and the number of each row."""
    rows = nodes.reshape(-1, nodes.shape[-1])
    with_empty = np.concatenate((np.zeros_like(rows[:1]), rows))
    distinct, number = np.unique(with_empty, axis=0, return_inverse=True)
    return distinct, number.reshape(-1)[1:].reshape(nodes.shape[:-1])
