"""gd and momentum on a squared objective as what they are: one affine map, raised to powers.

One update's map is taken from autograd at one point, and where it leads after many updates comes
from repeated squaring: the same trajectory to rounding, at a cost that does not grow with the
updates between two records. All in float64; coefficients and records are rounded to the dtype of
the fit. What overflows on its way is iterated instead, so that it ends as the iteration says.

Shapes as in ``fit``; ``S`` = M (1 + moments) numbers of a fit's state, ``G`` maps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit import kernels
from polyfit.blocks import LEAP_LANES, PARAMETERS, POINTS, Leap
from polyfit.fit import COMPLETED, DIVERGED, LOSS_GROWTH, Outcome, fit, usable
from polyfit.kernels import Link
from polyfit.model import MOMENTS, Array, Hyper, Kind, Problems, root, squared, updated

__all__ = ["difference", "leap", "leaps", "tolerance"]

_NEAR_OVERFLOW: Final = 1e-8
"""Of the largest number of a dtype: what has come this near may have overflowed on its way."""

_CACHE: Final = 1 << 16
"""Bytes of a tile: well within a core's own cache, and so much that its calls are few."""

_LEAST_TILE: Final = 64
"""Fits of a tile: with fewer the calls would cost as much as the work."""

_MAPS: Final = 1 << 27
"""Bytes of the maps that are spread over fits at a time."""

_BYTES: Final = 8
_CPU: Final = torch.device("cpu")

Index = npt.NDArray[np.int64]
Room = npt.NDArray[Any]
"""Memory for a vector of the batch, or for several: of any dtype."""


def leap(
    kind: Kind,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
) -> Outcome:
    """``fit`` for a squared objective with gd or momentum and no stop rule, on the CPU.

    Raises:
        ClusterError: there is no C++ compiler.
    """
    with np.errstate(all="ignore"):
        run = _Leaps(kind, problems, start_BM, lr_B, updates if record else (), record)
        run.go()
        outcome, strange = run.ended(), run.strange()
    iterated = np.flatnonzero(strange | ~usable(kind, problems, lr_B))
    if len(iterated):
        part, start_BM = replace(problems, of_B=problems.of_B[iterated]), start_BM[iterated]
        found = fit(kind, part, start_BM, lr_B[iterated], updates, record, _CPU, "eager")
        outcome.coefficients_BM[iterated] = found.coefficients_BM
        outcome.steps_taken_B[iterated] = found.steps_taken_B
        outcome.status_B[iterated] = found.status_B
        for name, values in found.recorded.items():
            outcome.recorded[name][:, iterated] = values
    return outcome


def leaps(kind: Kind, shared: tuple[bool, bool, bool], record: Sequence[str]) -> list[Leap]:
    """The kernels that ``leap`` runs: at both ends, and where it records. ``shared`` as there."""
    ends = Leap(kind, shared)
    return [ends, Leap(kind, shared, tuple(record), kind.dtype)] if record else [ends]


def tolerance(kind: Kind) -> float:
    """How far an iteration may be from the leaps: some roundings per update, all one way.

    Momentum remembers each of them for 1 / (1 - beta) updates.
    """
    memory = 1.0 / (1.0 - kind.optimizer.beta)
    return 8.0 * max(kind.steps, 100) * memory * torch.finfo(kind.dtype).eps


def difference(one: Outcome, other: Outcome) -> float:
    """The largest difference of coefficients, relative to the largest of each fit.

    Fits that have diverged are left out: their growth amplifies every rounding.
    """
    sound = (one.status_B != DIVERGED) & (other.status_B != DIVERGED)
    if (one.status_B[sound] != other.status_B[sound]).any():
        return float("inf")
    a, b = (o.coefficients_BM[sound].astype(np.float64) for o in (one, other))
    if not len(a):
        return 0.0
    scale = np.maximum(np.abs(b).max(axis=1), np.finfo(np.float32).tiny)
    return float((np.abs(a - b).max(axis=1) / scale).max())


@dataclass(frozen=True, slots=True)
class _Tiles:
    """A batch in ``count`` tiles of ``width`` fits; what fills up the last one is of no fit.

    A vector of the batch has the shape (tiles, width).
    """

    count: int
    width: int

    @classmethod
    def of(cls, batch: int, numbers: int) -> "_Tiles":
        """Those of a batch whose fits have so many float64 numbers each in the cache."""
        count = -(-batch // max(_LEAST_TILE, _CACHE // (_BYTES * numbers)))
        return cls(count, -(-batch // (count * LEAP_LANES)) * LEAP_LANES)

    def room(self, *shape: int, dtype: npt.DTypeLike = np.float64) -> Room:
        """Memory for vectors of the batch, shape (..., tiles, width)."""
        return np.empty((*shape, self.count, self.width), dtype=dtype)

    def filled(self, values_B: npt.NDArray[Any], room: Room) -> Room:
        """``room`` with a vector of the batch in it; what is of no fit is as the last fit."""
        flat = room.reshape(-1)
        flat[: len(values_B)], flat[len(values_B) :] = values_B, values_B[-1]
        return room

    def scratch(self, count: int) -> list[Tensor]:
        """Vectors of 0 in which the tiles follow each other: of one tile at a time."""
        # A little apart: what lies a power of two apart shares a few lines of the cache.
        memory = torch.zeros(count, self.width + LEAP_LANES, dtype=torch.float64)
        return [row[: self.width].expand(self.count, -1) for row in memory]


class _Leaps:
    """A batch on its way: each tile goes through all leaps within the cache."""

    def __init__(
        self,
        kind: Kind,
        problems: Problems,
        start_BM: npt.NDArray[np.float32],
        lr_B: Array,
        updates: Sequence[int],
        record: Sequence[str],
    ) -> None:
        self.kind, self.problems, self.batch = kind, problems, len(lr_B)
        self.dtype: type[np.floating[Any]] = (
            np.float32 if kind.dtype == torch.float32 else np.float64
        )
        self.maps = _Maps(kind, problems, lr_B)
        self.R_TP, of = _triangle(problems), problems.of_B
        one_R, one_q = (self.R_TP[:, :1] == self.R_TP).all(), (of == of[0]).all()
        self.shared = self.maps.one, bool(one_R), bool(one_q)
        self.leaps = leaps(kind, self.shared, record)
        self.vectors = self.leaps[0].vectors
        self.tiles = _Tiles.of(self.batch, 2 * (self.vectors + 1) + self.leaps[0].own)
        self.start, self.final = self.tiles.room(kind.size), self.tiles.room(kind.size)
        for room, values in zip(self.start, start_BM.T, strict=True):
            self.tiles.filled(values, room)
        self.first, self.last, self.extreme = self.tiles.room(3)
        self.jumps = np.diff([0, 0, *updates, kind.steps]).tolist()
        self.recorded = {name: self._room_of(name, len(updates)) for name in record}

    def _room_of(self, name: str, slots: int) -> Room:
        """For what is recorded under a name, shape (K, vectors, tiles, width)."""
        vectors = self.kind.size if name == "coefficients" else 1
        dtype = np.float64 if name == "gradient_norm" else self.dtype
        return self.tiles.room(slots, vectors, dtype=dtype)

    def go(self) -> None:
        """Take the batch from its start to its end, as many tiles at once as maps have room."""
        one, count = self.maps.one, self.tiles.count
        numbers = len(set(self.jumps)) * self.vectors * (self.vectors + 1) * self.tiles.width
        most = count if one else max(1, _MAPS // (_BYTES * numbers))
        of_TW, map_TW = (
            self.tiles.filled(of, self.tiles.room(dtype=np.int64))
            for of in (self.problems.of_B, self.maps.of_B)
        )
        for low in range(0, count, most):
            some = slice(low, low + most)
            kernels.chain(self._links(some, of_TW[some], map_TW[some]))()

    def _links(self, some: slice, of_TW: Index, map_TW: Index) -> list[Link]:
        """The leaps of some tiles: from the start to itself, to each record and to the end."""
        size, last = self.kind.size, len(self.jumps) - 1
        loaded = [kernels.load(leap.recipe(), _CPU) for leap in self.leaps]
        maps = {jump: self._map(jump, map_TW) for jump in set(self.jumps)}
        data = self._data(of_TW)
        records = range(last - 1)
        rows = [[row for rooms in self.recorded.values() for row in rooms[k]] for k in records]
        told = [[self.first], *rows, [self.last]]
        sides = [[row[some] for row in self.tiles.scratch(self.vectors + 1)] for _ in range(3)]
        state, links = [*_vectors(self.start, some), *sides[2][size:]], []
        for n, jump in enumerate(self.jumps):
            after = sides[n % 2]
            if n == last:
                extreme = _vectors([self.extreme], some)
                after = [*_vectors(self.final, some), *after[size:-1], *extreme]
            kernel = loaded[0 < n < last]
            inputs, outputs = [*state, *maps[jump], *data], [*after, *_vectors(told[n], some)]
            links.append(kernel.link(inputs, outputs))
            state = after
        return links

    def _map(self, updates: int, map_TW: Index) -> list[Tensor]:
        return [_columns(rows, map_TW, self.maps.one) for rows in self.maps.power(updates)]

    def _data(self, of_TW: Index) -> list[Tensor]:
        _, one_R, one_q = self.shared
        parameters = torch.zeros(PARAMETERS, dtype=torch.float64)
        parameters[POINTS] = self.kind.points
        return [
            _columns(self.R_TP, of_TW, one_R),
            _columns(self.problems.q_PM.T, of_TW, one_q),
            _columns(self.problems.rest_P[None], of_TW, one_q),
            parameters.expand(len(of_TW), -1),
        ]

    def strange(self) -> npt.NDArray[np.bool_]:
        """Which fits came near overflow in their dtype, shape (B,)."""
        most = _NEAR_OVERFLOW * torch.finfo(self.kind.dtype).max
        return ~(self._of_fits(self.extreme) <= most)  # nor is NaN

    def ended(self) -> Outcome:
        """How the fits ended."""
        grown = self._of_fits(self.last) > LOSS_GROWTH * self._of_fits(self.first)
        return Outcome(
            self._of_fits(self.final).astype(self.dtype).T,
            np.full(self.batch, self.kind.steps),
            np.where(grown, DIVERGED, COMPLETED).astype(np.int8),
            {name: self._kept(name, rooms) for name, rooms in self.recorded.items()},
        )

    def _kept(self, name: str, rooms: Room) -> Room:
        values = self._of_fits(rooms)
        if name == "coefficients":
            return np.moveaxis(values, 1, 2)
        if name == "gradient_norm":
            return root(torch.from_numpy(values[:, 0])).numpy().astype(self.dtype)
        return values[:, 0]

    def _of_fits(self, room: Room) -> Room:
        """What ``room`` has of fits, shape (..., B)."""
        return room.reshape(*room.shape[:-2], -1)[..., : self.batch]


def _vectors(rooms: Iterable[Room], some: slice) -> list[Tensor]:
    return [torch.from_numpy(room[some]) for room in rooms]


def _columns(values_RG: Array, of_TW: Index, one: bool) -> Tensor:
    """The column of each fit, shape (tiles, R, width), or the ``one`` of all, (tiles, R)."""
    if one:
        return torch.tensor(values_RG[:, of_TW[0, 0]]).expand(len(of_TW), -1)
    columns = np.empty((len(of_TW), len(values_RG), of_TW.shape[1]))
    for tile, of in zip(columns, of_TW, strict=True):
        np.take(values_RG, of, axis=1, out=tile, mode="clip")
    return torch.from_numpy(columns)


def _triangle(problems: Problems) -> Array:
    """R above its diagonal, row by row, shape (T, P)."""
    upper = np.triu_indices(problems.R_PMM.shape[1])
    return problems.R_PMM[:, upper[0], upper[1]].T


class _Maps:
    """The affine maps of a batch: s -> A s + b, one for each run of fits alike.

    Neighbours mostly share their problem and rate; a map that comes again later is made again.
    """

    def __init__(self, kind: Kind, problems: Problems, lr_B: Array) -> None:
        of = problems.of_B
        new = (of[1:] != of[:-1]) | (lr_B[1:] != lr_B[:-1])
        first = np.append(0, np.flatnonzero(new) + 1)
        self.one, self.of_B = len(first) == 1, np.append(0, np.cumsum(new))
        self.squares = [_one_step(kind, problems, lr_B[first], of[first])]

    def power(self, updates: int) -> tuple[Array, Array]:
        """The map of so many updates: A^n, shape (S S, G), row by row, and its offset, (S, G)."""
        offset = np.zeros_like(self.squares[0][1])
        count, maps = offset.shape
        matrix = np.broadcast_to(np.eye(count)[..., None], (count, count, maps))
        for k in range(updates.bit_length()):
            if k == len(self.squares):
                self.squares.append(_after(self.squares[-1], self.squares[-1]))
            if updates >> k & 1:
                matrix, offset = _after(self.squares[k], (matrix, offset))
        return matrix.reshape(count * count, maps), offset


def _after(second: tuple[Array, Array], first: tuple[Array, Array]) -> tuple[Array, Array]:
    """The map ``first`` followed by ``second``; sums written out, elementwise over the maps."""
    (A, b), (C, d) = second, first
    matrix, offset = np.zeros_like(A), b.copy()
    for k in range(len(b)):
        matrix += A[:, k, None] * C[None, k]
        offset += A[:, k] * d[k]
    return matrix, offset


def _one_step(kind: Kind, problems: Problems, lr_G: Array, of_G: Index) -> tuple[Array, Array]:
    """One update's matrix, shape (S, S, G), and offset, shape (S, G), by autograd."""
    size, count = kind.size, kind.size * (1 + MOMENTS[kind.optimizer.name])
    arrays = _triangle(problems)[:, of_G], problems.q_PM.T[:, of_G], lr_G[None]
    R, q, (lr,) = (torch.tensor(array).unbind(0) for array in arrays)
    ones, mean = torch.ones_like(lr), float(kind.points) if kind.objective == "mse" else None
    objective = squared(R, q, torch.zeros_like(lr), mean)
    hyper = Hyper(kind.optimizer.name, kind.optimizer.beta)
    with torch.enable_grad():
        state = [torch.zeros_like(lr, requires_grad=True) for _ in range(count)]
        c, moments = state[:size], [state[size:]] if count > size else []
        g = torch.autograd.grad(objective(c), c, ones, create_graph=True)
        c, moments = updated(hyper, c, moments, lr, list(g))
        new = [*c, *(vector for moment in moments for vector in moment)]
        rows = [
            torch.autograd.grad(value, state, ones, retain_graph=True, materialize_grads=True)
            for value in new
        ]
    matrix = torch.stack([torch.stack(row) for row in rows])
    return matrix.numpy(), torch.stack(new).detach().numpy()
