"""The compiled engine: a batch iterated by one kernel.

Calls are cut by time, because a signal is answered between two calls. How they are cut changes no
bit.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import numpy as np
import torch

from polyfit.engine import cpu, gpu
from polyfit.engine.batch import BatchConfig, BatchInputs, BatchResult, startable
from polyfit.engine.iteration_kernel import IterationKernel
from polyfit.engine.lanes import for_iteration
from polyfit.engine.layout import Arguments, kernel_of, layout

__all__ = ["Slices", "fit_compiled"]

CALL_S: Final = 0.1
"""Seconds that a call is to take."""

_FIRST_TERMS: Final = 1 << 20
"""Terms of a block of fits in the first call, whose rate is not yet known: a few milliseconds."""


def fit_compiled(inputs: BatchInputs, device: torch.device) -> BatchResult:
    """``fit_batch`` by the compiled engine."""
    if not startable(inputs).any():
        return BatchResult.unstarted(inputs)
    kernel, num_fits = kernel_of(inputs), len(inputs.lr_B)
    arrays = _on_cpu(kernel, inputs) if device.type == "cpu" else _on_gpu(kernel, inputs, device)
    return BatchResult(
        arrays["final"][:, :num_fits].T,
        arrays["taken"][:num_fits],
        arrays["status"][:num_fits].astype(np.int8),
        {name: np.moveaxis(arrays[name][..., :num_fits], -1, 1) for name in inputs.record},
    )


def _on_cpu(kernel: IterationKernel, inputs: BatchInputs) -> Arguments:
    num_fits = len(inputs.lr_B)
    kernel, lanes = for_iteration(kernel, num_fits)
    arguments = layout(kernel, inputs, lanes)
    call = cpu.load(kernel, lanes).bind(arguments)
    slices = Slices(kernel.config, inputs.updates, lanes)
    begin = 0
    while begin < num_fits:
        begin = slices.iterate(begin, num_fits, call)
    return arguments


def _on_gpu(kernel: IterationKernel, inputs: BatchInputs, device: torch.device) -> Arguments:
    """All fits at a time, each in a thread."""
    num_fits = len(inputs.lr_B)
    slices = Slices(kernel.config, inputs.updates, num_fits)
    return gpu.run(
        kernel,
        layout(kernel, inputs, num_fits),
        blank=("first", "last", *kernel.record),
        results=("final", "taken", "status", *kernel.record),
        device=device,
        calls=lambda call: slices.iterate(0, num_fits, call),
    )


class Slices:
    """Calls of an iteration that each take about ``CALL_S``."""

    def __init__(self, config: BatchConfig, updates: Sequence[int], lanes: int) -> None:
        self.steps, self.updates, self.lanes = config.steps, updates, lanes
        rows = config.size if config.squared else config.points
        self.updates_per_call = max(1, _FIRST_TERMS // (rows * config.size))

    def iterate(self, begin: int, stop: int, call: Callable[..., None]) -> int:
        """Iterate as many fits from ``begin`` on as one call takes; returns the first fit left."""
        blocks = max(1, self.updates_per_call // self.steps)
        end = min(begin + blocks * self.lanes, stop)
        update = 0
        while update < self.steps:
            until = min(update + self.updates_per_call, self.steps)
            before = perf_counter()
            slot = bisect_left(self.updates, update)
            call(begin=begin, end=end, update=update, until=until, slot=slot)
            self._learn(-(-(end - begin) // self.lanes) * (until - update), before)
            update = until
        return end

    def _learn(self, num_updates: int, before: float) -> None:
        """Adapt to the rate of the last call; ``num_updates`` counts those of each block."""
        seconds = max(perf_counter() - before, 1e-6)
        affordable = int(num_updates * CALL_S / seconds)
        self.updates_per_call = max(1, min(affordable, 4 * self.updates_per_call))
