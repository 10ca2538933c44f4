"""Lanes and passes: what a CPU's registers hold."""

from dataclasses import replace

import pytest
import torch
from engine_batches import iteration

from polyfit.engine.cpu import Machine
from polyfit.engine.iteration_kernel import IterationKernel
from polyfit.engine.lanes import for_iteration, lanes_of

LEVELS = {"x86-64-v2": 4, "x86-64-v3": 8, "x86-64-v4": 16}
"""Kinds of CPU, and numbers of float32 that their registers hold."""


def of_degree(degree: int, objective: str) -> IterationKernel:
    kernel = iteration(objective, "gd", torch.float32)
    return replace(kernel, config=replace(kernel.config, degree=degree))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("objective", ["sse", "huber", "log_cosh"])
def test_fits_that_one_register_holds_have_a_kernel_of_one(level: str, objective: str) -> None:
    kernel, register = of_degree(3, objective), LEVELS[level]
    machine = Machine(level)
    for fits in (1, register, register + 1):
        lanes = {lanes_of(kernel, 4, fits, machine), for_iteration(kernel, fits, machine)[1]}
        assert (min(lanes) > register) if fits > register else lanes == {register}, fits


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("objective", ["huber", "l1", "log_cosh"])
@pytest.mark.parametrize("num_fits", [1, 1000])
def test_registers_hold_the_sums_of_a_pass(level: str, objective: str, num_fits: int) -> None:
    machine = Machine(level)
    for degree in range(31):
        kernel, lanes = for_iteration(of_degree(degree, objective), num_fits, machine)
        sums = min(kernel.pass_size or degree + 1, degree + 1)
        assert lanes // LEVELS[level] * sums < machine.num_registers, degree
        assert not kernel.pass_size or kernel.pass_size >= min(5, degree + 1)


def test_functions_that_are_computed_at_each_point_have_one_pass() -> None:
    kernel = replace(of_degree(9, "log_cosh"), one_design=False)
    assert for_iteration(kernel, 1000)[0].pass_size == 0
