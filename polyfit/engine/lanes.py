"""How many fits a CPU computes at once, and in how many passes over the points.

A vector of several registers hides the latency of dependent operations, as long as registers hold
what changes in the innermost loop. The bounds are measured. One register that holds all fits is
enough: with less code the kernel is made sooner.
"""

from dataclasses import replace
from typing import Final

from polyfit.engine.cpu import HOST, Machine
from polyfit.engine.emit import NUM_BYTES
from polyfit.engine.iteration_kernel import IterationKernel
from polyfit.engine.kernel import Kernel

__all__ = ["for_iteration", "lanes_of"]

_PENALTY_VALUES: Final = {"huber": 4, "l1": 5}
"""Vectors that a point needs in registers besides the coefficients where one pass does all.

That of log_cosh is too long a chain of operations: a CPU would not look far enough ahead."""

_PASS_VALUES: Final = 4
"""Vectors that a pass needs in registers besides coefficients or sums."""

_MAX_PASS: Final = 16
"""Coefficients of a pass; more gain nothing."""


def lanes_of(kernel: Kernel, values: int, num_fits: int, machine: Machine = HOST) -> int:
    """Lanes for a kernel that changes ``values`` vectors in its innermost loop, for so many fits.

    With many values, vectors of few registers keep most of them there.
    """
    if machine.register_bytes == 64:
        several = 4 if values <= 4 else 2 if values <= 16 else 1
    else:
        several = 4 if values <= 12 else 2 if values <= 24 else 1
    return _lanes(kernel, several, num_fits, machine)


def for_iteration(
    kernel: IterationKernel, num_fits: int, machine: Machine = HOST
) -> tuple[IterationKernel, int]:
    """The kernel for so many fits on a CPU, with its passes over points, and its lanes."""
    config, size, registers = kernel.config, kernel.config.size, machine.num_registers
    if config.squared:
        values = config.num_states + (0 if kernel.one_design else size)
        return kernel, lanes_of(kernel, values, num_fits, machine)
    if not kernel.one_design:  # a second pass would compute the points' functions again
        several = next((n for n in (4, 2) if n * (size + 4) <= registers), 1)
        return kernel, _lanes(kernel, several, num_fits, machine)
    several = 4 if machine.register_bytes == 64 else 2
    needed = size + _PENALTY_VALUES.get(config.objective, registers)
    if several * needed <= registers:
        return kernel, _lanes(kernel, several, num_fits, machine)
    spare = registers - _PASS_VALUES
    if machine.register_bytes == 64 and several * size > spare:
        several = 1  # then AVX-512 loads, spreads and multiplies a number in one instruction
    lanes = _lanes(kernel, several, num_fits, machine)
    most = spare // (lanes // _lanes(kernel, 1, num_fits, machine))
    return replace(kernel, pass_size=min(most, _MAX_PASS)), lanes


def _lanes(kernel: Kernel, several: int, num_fits: int, machine: Machine) -> int:
    """Lanes of vectors of ``several`` registers, or of one that holds all fits."""
    register = machine.register_bytes // NUM_BYTES[kernel.real]
    return register if num_fits <= register else register * several
