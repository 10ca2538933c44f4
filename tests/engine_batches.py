"""Batches as an engine gets them, and kernels, for tests of the engine."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from engines import CPU, rows_of

from polyfit.engine import cpu
from polyfit.engine.batch import BatchConfig, BatchInputs, BatchResult
from polyfit.engine.compiled import fit_compiled
from polyfit.engine.fit import fit_batch
from polyfit.engine.iteration_kernel import IterationKernel
from polyfit.engine.kernel import cpu_text
from polyfit.engine.layout import kernel_of, layout
from polyfit.spec.fit import Stop
from polyfit.spec.optimizer import Optimizer
from polyfit.work import fitting

__all__ = ["BATCHES", "RECORD", "Batch", "batch_of", "forget", "iteration"]


@dataclass(frozen=True)
class Batch:
    """What ``fit_batch`` gets for a batch."""

    inputs: BatchInputs

    def compiled(self, **changed: Any) -> BatchResult:
        """The batch by the compiled engine, with other values of some fields of its config."""
        config = replace(self.inputs.config, **changed)
        return fit_compiled(replace(self.inputs, config=config), CPU)

    def by_kernel(self, lanes: int, width: int, pass_size: int = 0) -> list[bytes]:
        """The results of its kernel for so many lanes, in an array of whole ``width``."""
        inputs, count = self.inputs, len(self.inputs.lr_B)
        kernel = replace(kernel_of(inputs), pass_size=pass_size)
        arrays = layout(kernel, inputs, width)
        function = cpu.Function(kernel, cpu.machine_code(cpu_text(kernel, lanes)))
        call = function.bind(arrays)
        call(begin=0, end=len(arrays["taken"]), update=0, until=inputs.config.steps, slot=0)
        taken = arrays["taken"][:count]
        for name in kernel.record:  # what stands after its end means nothing
            values = np.moveaxis(arrays[name][..., :count], -1, 1)
            values[np.array(inputs.updates)[:, None] >= taken] = 0.0
        names = ("final", "taken", "status", *kernel.record)
        return [np.ascontiguousarray(arrays[name][..., :count]).tobytes() for name in names]


def batch_of(text: str) -> Batch:
    """The one batch of a spec."""
    found: list[Batch] = []

    def caught(inputs: BatchInputs, *rest: Any) -> BatchResult:
        found.append(Batch(inputs))
        return fit_batch(inputs, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit_batch", caught)
        rows_of(text)
    (batch,) = found
    return batch


RECORD = "record: {every: 7, of: [loss, gradient_norm, coefficients]}"
BATCHES = [
    "fit: {degree: 3, steps: 33, points: 30}\nsweep: {seed: {count: 70}}",
    "fit: {degree: 2, steps: 33, points: 30, optimizer: adam, objective: mse, dtype: float64, "
    "stop: {gradient: 0.1}}\nsweep: {lr: [0.01, 0.3], seed: {count: 35}}",
    "fit: {degree: 2, steps: 33, points: 90, objective: huber, optimizer: momentum, noise: 1, "
    "stop: {loss_change: 0.01}}\nsweep: {noise_seed: {count: 7}, seed: {count: 10}}",
    "fit: {degree: 2, steps: 33, points: 30, objective: log_cosh, basis: power, lr: 0.001}\n"
    "sweep: {range: [[-1, 1], [0, 2]], seed: {count: 35}}",
    "fit: {degree: 2, steps: 33, points: 30, objective: log_cosh, dtype: float64}\n"
    "sweep: {seed: {count: 70}}",
]
"""One design or many, one row of data or many, both dtypes, fits that end early."""


def iteration(
    objective: str, optimizer: str, dtype: torch.dtype, stop: bool = True
) -> IterationKernel:
    """The kernel of degree 3 that records everything; its data are each fit's own."""
    rule, beta = Stop("gradient", 1e-3), 0.9 if optimizer == "momentum" else 0.0
    config = BatchConfig(
        3, 50, objective, Optimizer(optimizer, beta), 100, rule if stop else None, dtype
    )
    return IterationKernel(config, True, False, ("loss", "gradient_norm", "coefficients"))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has loaded and learnt of the machine, as a new process has to."""
    monkeypatch.setattr(cpu, "_FUNCTIONS", {})
    for known in (cpu._check, cpu._host, cpu.cache_folder):
        known.cache_clear()
