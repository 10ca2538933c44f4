"""The compiled engine: a batch laid out for the iteration's kernel, and called.

Calls are cut by time: a signal is answered between two of them. How they are cut changes no bit.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from time import perf_counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine import cpu, gpu
from polyfit.engine.iteration import GOING, Iteration
from polyfit.engine.model import Array, BatchConfig, Problems, unbiasing
from polyfit.engine.outcome import BatchResult, usable
from polyfit.engine.status import DIVERGED
from polyfit.numerics.basis import basis_functions
from polyfit.numerics.grid import Grid

__all__ = ["Slices", "fit_compiled", "kernel_of", "layout"]

Arrays = dict[str, npt.NDArray[Any]]

CALL_SECONDS: Final = 0.1
"""What a call is to take."""

_FIRST_TERMS: Final = 1 << 20
"""Terms of a block of fits in the first call, whose rate is not yet known: a few milliseconds."""

_POINTWISE_VALUES: Final = 7
"""As many as change in a loop over points, for the choice of lanes."""

_BEYOND: Final = 1 << 62
"""After the last record."""


def fit_compiled(
    kind: BatchConfig,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
    device: torch.device,
) -> BatchResult:
    """``fit`` by the compiled engine."""
    sound_B = usable(kind, problems, lr_B)
    if not sound_B.any():
        return BatchResult.unstarted(kind, start_BM, updates, record)
    kernel, count = kernel_of(kind, problems, record), len(lr_B)
    laid_out = partial(layout, kernel, problems, sound_B, start_BM, lr_B, updates)
    if device.type == "cpu":
        arrays = _on_cpu(kernel, laid_out, count, updates)
    else:
        arrays = _on_gpu(kernel, laid_out, count, updates, device)
    return BatchResult(
        arrays["final"][:, :count].T,
        arrays["taken"][:count],
        arrays["status"][:count].astype(np.int8),
        {name: np.moveaxis(arrays[name][..., :count], -1, 1) for name in record},
    )


def _on_cpu(
    kernel: Iteration, laid_out: Callable[[int], Arrays], count: int, updates: Sequence[int]
) -> Arrays:
    kind = kernel.kind
    values = kernel.vectors + (0 if kernel.one_design else kind.size)
    lanes = cpu.lanes_of(kernel, values if kind.squared else _POINTWISE_VALUES)
    arrays = laid_out(lanes)
    call = cpu.load(kernel, lanes).bind({**arrays, **_integers(kernel, arrays, lanes)})
    slices = Slices(kind, updates, lanes)
    begin = 0
    while begin < count:
        begin = slices.bring(begin, count, call)
    return arrays


def _on_gpu(
    kernel: Iteration,
    laid_out: Callable[[int], Arrays],
    count: int,
    updates: Sequence[int],
    device: torch.device,
) -> Arrays:
    """The same on a GPU, all fits at a time, each in a thread."""
    arrays = laid_out(count)
    slices = Slices(kernel.kind, updates, count)
    return gpu.run(
        kernel,
        {**arrays, **_integers(kernel, arrays, count)},
        blank=("first", "last", *kernel.record),
        results=("final", "taken", "status", *kernel.record),
        device=device,
        calls=lambda call: slices.bring(0, count, call),
    )


def kernel_of(kind: BatchConfig, problems: Problems, record: Sequence[str]) -> Iteration:
    """The iteration that the fits of a batch need."""
    if kind.squared:
        R = problems.R_PMM
        one_design, one_data = not np.ptp(R, axis=0).any(), False
    else:
        grid = problems.grid
        one_design = grid.basis != "power" or np.size(grid.low) == 1 or kind.degree == 0
        one_data = len(problems.y_PN) == 1
    return Iteration(kind, one_design, one_data, tuple(record))


def layout(
    kernel: Iteration,
    problems: Problems,
    sound_B: npt.NDArray[np.bool_],
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    width: int,
) -> Arrays:
    """The arrays of ``kernel`` for a batch, their vectors filled up to ``width``.

    Fits that are not sound have ended where they start, and so has what fills up.
    """
    kind, count = kernel.kind, len(lr_B)
    dtype = np.float32 if kind.dtype == torch.float32 else np.float64
    batch, of = -(-count // width) * width, problems.of_B

    def rows(values: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
        """(fits, number) as (number, batch)."""
        filled = np.zeros((number, batch), dtype=dtype)
        with np.errstate(over="ignore"):  # of fits that are not sound
            filled[: values.shape[1], :count] = values.T
        return filled

    stop = kind.stop
    arrays: Arrays = {
        "state": rows(start_BM, kernel.vectors),
        "lr": rows(lr_B[:, None], 1),
        "taken": np.zeros(batch, dtype=np.int64),
        "status": np.full(batch, DIVERGED, dtype=np.int64),
        "first": np.zeros(batch, dtype=dtype),
        "last": np.zeros(batch, dtype=dtype),
        "final": rows(start_BM, kind.size),
        "records": np.array([*updates, _BEYOND], dtype=np.int64),
        "unbias": _divisors(kind.optimizer.name, kind.steps).astype(dtype),
        "parameters": np.array(
            [kind.points, kind.optimizer.beta, stop.tolerance if stop else 0.0], dtype=dtype
        ),
    }
    arrays["taken"][:count][sound_B] = GOING
    shapes = {"loss": (), "gradient_norm": (), "coefficients": (kind.size,)}
    for name in kernel.record:
        arrays[name] = np.zeros((len(updates), *shapes[name], batch), dtype=dtype)
    if kind.squared:
        upper = np.triu_indices(kind.size)
        R = problems.R_PMM[:, upper[0], upper[1]]
        arrays["R"] = R[0].astype(dtype) if kernel.one_design else rows(R[of], R.shape[1])
        arrays["q"] = rows(problems.q_PM[of], kind.size)
        arrays["rest"] = rows(problems.rest_P[of, None], 1)
        return arrays
    if kernel.one_design:
        arrays["functions"] = _functions(problems.grid, dtype)
    else:
        grid = problems.grid
        arrays["t"] = grid.t()
        for name, values in (("middle", grid.middle), ("half", grid.half)):
            arrays[name] = np.zeros(batch)
            arrays[name][:count] = np.asarray(values)[of]
    if kernel.one_data:
        arrays["y"] = problems.y_PN[0].astype(dtype)
    else:
        y = np.zeros((batch // width, problems.y_PN.shape[1], width), dtype=dtype)
        for group, data in enumerate(y):
            some = of[group * width : (group + 1) * width]
            data[:, : len(some)] = problems.y_PN[some].T
        arrays["y"] = y
    return arrays


def _functions(grid: Grid, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The basis functions at the points but the first, shape (N, M - 1).

    Powers are made in ``dtype``, as the kernel makes those of ranges of their own.
    """
    argument = grid.x().astype(dtype) if grid.basis == "power" else grid.t()
    rows = list(basis_functions(grid.basis, grid.degree, np.ravel(argument)))[1:]
    if not rows:
        return np.empty((grid.points, 0), dtype=dtype)
    return np.ascontiguousarray(np.stack(rows, axis=1), dtype=dtype)


def _integers(kernel: Iteration, arrays: Arrays, width: int) -> dict[str, int]:
    return {
        "batch": len(arrays["taken"]),
        "points": kernel.kind.points,
        "steps": kernel.kind.steps,
        "width": width,
        "divisors": len(arrays["unbias"]),
    }


@lru_cache(maxsize=8)
def _divisors(optimizer: str, steps: int) -> Array:
    """Adam's divisors, shape (L, 2), up to where they are 1 for good; the last serve the rest."""
    found = [(1.0, 1.0)]
    if optimizer == "adam":
        found.clear()
        for update in range(steps):
            found.append(unbiasing(update))
            if found[-1] == (1.0, 1.0):
                break
    return np.array(found)


class Slices:
    """Calls of an iteration that each take about ``CALL_SECONDS``."""

    def __init__(self, kind: BatchConfig, updates: Sequence[int], lanes: int) -> None:
        self.steps, self.updates, self.lanes = kind.steps, updates, lanes
        rows = kind.size if kind.squared else kind.points
        self.most = max(1, _FIRST_TERMS // (rows * kind.size))

    def bring(self, begin: int, count: int, call: Callable[..., None]) -> int:
        """Bring fits from ``begin`` on from the first update to the last; the first fit left."""
        end = min(begin + max(1, self.most // self.steps) * self.lanes, count)
        update = 0
        while update < self.steps:
            until = min(update + self.most, self.steps)
            before = perf_counter()
            slot = bisect_left(self.updates, update)
            call(begin=begin, end=end, update=update, until=until, slot=slot)
            self._learn(-(-(end - begin) // self.lanes) * (until - update), before)
            update = until
        return end

    def _learn(self, done: int, before: float) -> None:
        seconds = max(perf_counter() - before, 1e-6)
        self.most = max(1, min(int(done * CALL_SECONDS / seconds), 4 * self.most))
