"""The affine engine: gd and momentum on a squared objective, where an update is an affine map.

One update's map is found by autograd at one point. Repeated squaring gives the map of many
updates: the same trajectory to rounding, at a cost that does not grow with the updates between two
records. All in float64; coefficients and records are rounded to the dtype of the fit. Fits that may
overflow on the way are iterated instead, so that they end as in the other engines.

Shapes: those of ``AffinePowerKernel``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine import cpu
from polyfit.engine.affine_kernel import AffinePowerKernel
from polyfit.engine.batch import (
    COMPLETED,
    DIVERGED,
    LOSS_GROWTH,
    BatchConfig,
    BatchInputs,
    BatchResult,
    Index,
    blank_records,
    startable,
)
from polyfit.engine.eager import objective_of
from polyfit.engine.fit import fit_batch
from polyfit.engine.lanes import lanes_of
from polyfit.engine.layout import Arguments, reduced, rows_of
from polyfit.engine.objective import root
from polyfit.engine.optimizer import updated
from polyfit.numerics.arrays import Array

__all__ = ["fit_affine", "relative_difference", "rounding_tolerance"]

_NEAR_OVERFLOW: Final = 1e-8
"""Share of the largest number of a dtype: a fit that has come this near may have overflowed."""

_MAX_MAP_BYTES: Final = 1 << 27
"""Of the maps of a batch."""

_NUM_BYTES: Final = 8
_CPU: Final = torch.device("cpu")


def fit_affine(inputs: BatchInputs) -> BatchResult:
    """``fit_batch`` for a squared objective with gd or momentum and no stop rule, on the CPU.

    Raises:
        ClusterError: no machine code can be made or run here.
    """
    config, map_of_B = inputs.config, _maps_of(inputs)
    states = config.num_states
    map_bytes = _NUM_BYTES * states * (states + 1) * (len(inputs.updates) + 2)
    if map_of_B[-1] >= max(1, _MAX_MAP_BYTES // map_bytes):
        result = BatchResult.unstarted(inputs)
        for half in np.array_split(np.arange(len(inputs.lr_B)), 2):
            result.put(half, fit_affine(inputs.take(half)))
        return result
    with np.errstate(all="ignore"):
        result, extreme_B = _mapped(inputs, map_of_B)
        sound_B = extreme_B <= _NEAR_OVERFLOW * torch.finfo(config.dtype).max  # not so for NaN
    iterated = np.flatnonzero(~(sound_B & startable(inputs)))
    if len(iterated):
        result.put(iterated, fit_batch(inputs.take(iterated), _CPU, "eager"))
    return result


def rounding_tolerance(config: BatchConfig) -> float:
    """How far an iteration may be from the maps: some roundings per update, all in one direction.

    Momentum remembers each of them for 1 / (1 - beta) updates.
    """
    memory = 1.0 / (1.0 - config.optimizer.beta)
    return 8.0 * max(config.steps, 100) * memory * torch.finfo(config.dtype).eps


def relative_difference(
    one: BatchResult, other: BatchResult, start_BM: npt.NDArray[np.floating]
) -> float:
    """The largest difference of coefficients, relative to the largest of each fit.

    The largest at its start or its end: where it ends at 0, roundings on the way are what is left.
    Fits that have diverged are left out: their growth amplifies every rounding.
    """
    sound = (one.status_B != DIVERGED) & (other.status_B != DIVERGED)
    if (one.status_B[sound] != other.status_B[sound]).any():
        return float("inf")
    a, b = (o.coefficients_BM[sound].astype(np.float64) for o in (one, other))
    if not len(a):
        return 0.0
    largest = np.abs(np.hstack([b, start_BM[sound]])).max(axis=1)
    scale = np.maximum(largest, np.finfo(np.float32).tiny)
    return float((np.abs(a - b).max(axis=1) / scale).max())


def _maps_of(inputs: BatchInputs) -> Index:
    """The number of each fit's map of one update, shape (B,).

    Neighbours that share their problem and rate share a map. If it occurs again later, it is
    computed again.
    """
    of_B, lr_B = inputs.problems.of_B, inputs.lr_B
    new = (of_B[1:] != of_B[:-1]) | (lr_B[1:] != lr_B[:-1])
    return np.append(0, np.cumsum(new))


def _mapped(inputs: BatchInputs, map_of_B: Index) -> tuple[BatchResult, Array]:
    """The results by the maps, and the largest absolute number on each fit's way, shape (B,)."""
    config, problems, num_fits = inputs.config, inputs.problems, len(inputs.lr_B)
    one_update = _one_update(inputs.take(np.flatnonzero(np.diff(map_of_B, prepend=-1))))
    jumps, map_of_jump = np.unique(np.diff([0, *inputs.updates, config.steps]), return_inverse=True)
    kernel = AffinePowerKernel(
        config.degree, config.objective, config.optimizer.traits.num_moments,
        bool(map_of_B[-1] == 0), problems.one_R, tuple(inputs.record),
        config.dtype == torch.float32,
    )  # fmt: skip
    lanes = lanes_of(kernel, 2 * config.num_states, num_fits)
    batch = -(-num_fits // lanes) * lanes
    arguments: Arguments = {
        "start": rows_of(inputs.start_BM, batch, np.float64),
        "maps": _powers(one_update, jumps.tolist()),
        **reduced(problems, kernel.one_R, batch, np.float64),
        "map_of_jump": map_of_jump.astype(np.int64),
        "map_of_fit": np.pad(map_of_B, (0, batch - num_fits)),
        **{name: np.empty(batch) for name in ("first", "last", "extreme")},
        "final": np.empty((config.size, batch)),
        **blank_records(config, kernel.record, len(inputs.updates), batch),
        "batch": batch,
        "points": config.points,
        "num_records": len(inputs.updates),
        "num_maps": 1 + int(map_of_B[-1]),
    }
    cpu.load(kernel, lanes).bind(arguments)(begin=0, end=batch)
    grown = arguments["last"][:num_fits] > LOSS_GROWTH * arguments["first"][:num_fits]
    result = BatchResult(
        arguments["final"][:, :num_fits].astype(config.numpy_dtype).T,
        np.full(num_fits, config.steps),
        np.where(grown, DIVERGED, COMPLETED).astype(np.int8),
        {name: np.moveaxis(arguments[name][..., :num_fits], -1, 1) for name in kernel.record},
    )
    return result, arguments["extreme"][:num_fits]


AffineMap = tuple[Array, Array]
"""G maps s -> A s + b of a state: A, shape (S, S, G), and b, shape (S, G)."""


def _powers(one_update: AffineMap, jumps: Sequence[int]) -> Array:
    """The maps of so many updates each, shape (J, S + 1, S, G): A by columns, then b."""
    squares, maps = [one_update], []
    for jump in jumps:
        offset = np.zeros_like(one_update[1])
        matrix = np.broadcast_to(np.eye(len(offset))[..., None], one_update[0].shape)
        for k in range(jump.bit_length()):
            if k == len(squares):
                squares.append(_composed(squares[-1], squares[-1]))
            if jump >> k & 1:
                matrix, offset = _composed(squares[k], (matrix, offset))
        maps.append(np.concatenate([np.swapaxes(matrix, 0, 1), offset[None]]))
    return np.array(maps)


def _composed(second: AffineMap, first: AffineMap) -> AffineMap:
    """The map ``first`` followed by ``second``; sums written out, elementwise over the maps."""
    (A, b), (C, d) = second, first
    matrix, offset = np.zeros_like(A), b.copy()
    for k in range(len(b)):
        matrix += A[:, k, None] * C[None, k]
        offset += A[:, k] * d[k]
    return matrix, offset


def _one_update(inputs: BatchInputs) -> AffineMap:
    """The map of one update of each fit, by autograd."""
    config, optimizer = inputs.config, inputs.config.optimizer
    size, exact, lr = config.size, replace(config, dtype=torch.float64), torch.tensor(inputs.lr_B)
    objective = objective_of(exact, inputs.problems, np.arange(len(lr)), _CPU)
    ones = torch.ones_like(lr)
    with torch.enable_grad():
        state = [torch.zeros_like(lr, requires_grad=True) for _ in range(config.num_states)]
        g = torch.autograd.grad(objective(state[:size]), state[:size], ones, create_graph=True)
        after = [
            updated(optimizer.name, root, d, lr, optimizer.beta, 1.0, 1.0, *state[k::size])
            for k, d in enumerate(g)
        ]
        new = [vector for vectors in zip(*after, strict=True) for vector in vectors]
        rows = [
            torch.autograd.grad(value, state, ones, retain_graph=True, materialize_grads=True)
            for value in new
        ]
    matrix = torch.stack([torch.stack(row) for row in rows])
    return matrix.numpy(), torch.stack(new).detach().numpy()
