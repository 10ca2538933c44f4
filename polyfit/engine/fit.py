"""Fit a batch: from start values to ends, by the engine that is asked for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from polyfit.engine.compiled import fit_compiled
from polyfit.engine.eager import Eager
from polyfit.engine.model import Array, BatchConfig, Problems
from polyfit.engine.newton import Newton
from polyfit.engine.outcome import BatchResult
from polyfit.errors import ClusterError

__all__ = ["fit", "pick_device"]


def pick_device(accelerated: bool) -> torch.device:
    """The current accelerator where one is wanted and there, else the CPU.

    Raises:
        ClusterError: the accelerator has no float64.
    """
    # Without the check it is what torch was built for, on machines that have none too.
    check = torch.accelerator.current_accelerator
    device = check(check_available=True) if accelerated else None
    if device is None:
        return torch.device("cpu")
    if device.type in ("mps", "xpu"):
        raise ClusterError(
            f"the accelerator {device.type!r} has no float64; run on the CPU with gpus_per_actor: 0"
        )
    return device


def fit(
    kind: BatchConfig,
    problems: Problems,
    start_BM: npt.NDArray[np.float32],
    lr_B: Array,
    updates: Sequence[int],
    record: Sequence[str],
    device: torch.device,
    engine: str = "eager",
) -> BatchResult:
    """Fit a batch.

    Args:
        kind: what the fits share.
        problems: their problems.
        start_BM: their start values, shape (B, M).
        lr_B: their rates, shape (B,), float64.
        updates: the updates to record, counted from 0, rising, below ``kind.steps``.
        record: what to record of "loss", "coefficients", "gradient_norm".
        device: where to iterate.
        engine: "eager" or "compiled"; newton takes few updates, and runs in one way only.

    The value recorded for an update is that before it. A fit whose rate or R is not finite in
    dtype, or underflows in it, ends at once as diverged.

    Raises:
        ClusterError: ``compiled`` where no machine code can be made or run.
    """
    if engine == "compiled" and kind.optimizer.name != "newton":
        return fit_compiled(kind, problems, start_BM, lr_B, updates, record, device)
    chosen = Newton if kind.optimizer.name == "newton" else Eager
    run = chosen(kind, problems, start_BM, lr_B, updates, record, device)
    with torch.enable_grad():
        run.iterate()
    return run.ended()
