"""Initial values: what torch draws one by one after a seed, for many seeds at once.

A seed's numbers are the first outputs of a Mersenne Twister of its own, after Box and Muller's
transform. A kernel runs many twisters side by side, in integers, which are exact. The transform's
logarithm, sine and cosine may differ from torch's in the last bits; where that could change the
float32, torch draws the values. So they are torch's, bit for bit.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine import cpu, gpu
from polyfit.engine.twister_kernel import MAX_SIZE, TwisterKernel

__all__ = ["drawn_by_torch", "initial_values"]

_MIN_COMPILED: Final = 32
"""With fewer seeds torch draws each: that takes less time than to load a kernel."""

_CPU: Final = torch.device("cpu")


def initial_values(
    seeds: npt.NDArray[np.int64], size: int, compiled: bool, device: torch.device = _CPU
) -> npt.NDArray[np.float32]:
    """``size`` initial values per seed, shape (seeds, size), as torch draws them one by one.

    For each seed: ``torch.manual_seed(seed)``, then ``torch.randn(())`` ``size`` times, float32
    on the CPU. ``seeds`` has shape (seeds,), int64; as in torch, the low 32 bits count. No bit
    depends on ``compiled``, whether a kernel may be used, or on ``device``, where it runs.

    Raises:
        ValueError: ``size`` is not from 1 to ``MAX_SIZE``.
        ClusterError: no machine code can be made or run here.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size is {size}; it must be from 1 to {MAX_SIZE}")
    if not compiled or len(seeds) < _MIN_COMPILED:
        return drawn_by_torch(seeds, size)
    kernel, count = TwisterKernel(), len(seeds)
    # On the CPU four registers of words hide the latency of their chain.
    lanes = cpu.HOST.register_bytes if device.type == "cpu" else 1
    batch = -(-count // lanes) * lanes
    words = np.zeros(batch, dtype=np.uint32)
    words[:count] = seeds & 0xFFFFFFFF
    values, near = np.empty((size, batch), dtype=np.float32), np.empty(batch, dtype=np.int32)
    arguments: dict[str, Any] = {
        "seeds": words, "values": values, "near": near, "batch": batch, "size": size
    }  # fmt: skip
    if device.type == "cpu":
        cpu.load(kernel, lanes).bind(arguments)(begin=0, end=batch)
    else:
        results = ("values", "near")
        there = gpu.run(
            kernel, arguments, results, results, device, lambda call: call(begin=0, end=batch)
        )
        values, near = there["values"], there["near"]
    found = values[:, :count].T
    doubtful = np.flatnonzero(near[:count])
    found[doubtful] = drawn_by_torch(seeds[doubtful], size)
    return found


def drawn_by_torch(seeds: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float32]:
    """The same, drawn by torch."""
    generator = torch.Generator()
    values = np.empty((len(seeds), size), dtype=np.float32)
    for row, seed in zip(values, seeds.tolist(), strict=True):
        generator.manual_seed(seed)
        row[:] = [torch.randn((), generator=generator).item() for _ in range(size)]
    return values
