"""Fit a batch by the engine that is asked for."""

import torch

from polyfit.engine.batch import BatchInputs, BatchResult
from polyfit.engine.compiled import fit_compiled
from polyfit.engine.eager import Eager
from polyfit.errors import ClusterError

__all__ = ["fit_batch", "pick_device"]


def pick_device(accelerated: bool) -> torch.device:
    """The current accelerator if one is wanted and present, else the CPU.

    Raises:
        ClusterError: the accelerator has no float64.
    """
    # Without the check torch names the accelerator that it was built for, present or not.
    current = torch.accelerator.current_accelerator
    device = current(check_available=True) if accelerated else None
    if device is None:
        return torch.device("cpu")
    if device.type in ("mps", "xpu"):
        raise ClusterError(
            f"the accelerator {device.type!r} has no float64; run on the CPU with gpus_per_actor: 0"
        )
    return device


def fit_batch(inputs: BatchInputs, device: torch.device, engine: str = "eager") -> BatchResult:
    """Fit a batch.

    Args:
        inputs: the batch.
        device: where to iterate.
        engine: "eager" or "compiled". Newton's method takes few updates, and always runs eagerly.

    The value recorded for an update is that before it. A fit whose rate or R is not finite in
    dtype, or underflows in it, ends at once as diverged.

    Raises:
        ClusterError: ``compiled`` where no machine code can be made or run.
    """
    if engine == "compiled" and not inputs.config.optimizer.traits.second_order:
        return fit_compiled(inputs, device)
    with torch.enable_grad():
        return Eager(inputs, device).iterate()
