"""A stored fit computed again on this machine, to compare it with its row."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from polyfit.run.reader import Run
from polyfit.run.stored_fit import StoredFit
from polyfit.spec.plan import Shard

__all__ = ["Recomputed", "recompute"]

TOLERANCES: Final = {"float32": 1e-3, "float64": 1e-8}
"""By a fit's dtype: how far its numbers may be from those of another kind of CPU."""

_COMPUTED: Final = ("lr", "lr_limit", "lr_share")


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A recomputed fit, beside its stored row.

    ``here`` and ``there`` are the kinds of CPU (or the device) of this process and of the stored
    row, as far as they decide its bits. ``loss_off`` is the relative difference of the losses,
    ``coefficients_off`` the largest difference of two coefficients, relative to the largest
    coefficient. Both are infinite if a number is null in one of the rows alone.
    """

    row: dict[str, Any]
    stored: dict[str, Any]
    here: str
    there: str
    torch: str
    loss_off: float
    coefficients_off: float

    @property
    def differing(self) -> list[str]:
        """The columns that do not have the same bits."""
        names = dict.fromkeys((*self.row, *self.stored))
        # repr tells -0.0 from 0.0; ... tells a missing column from None.
        return [n for n in names if repr(self.row.get(n, ...)) != repr(self.stored.get(n, ...))]

    @property
    def damaged(self) -> list[str]:
        """The columns that must have the same bits, and do not.

        On another kind of CPU those are the fields, except rates, which may be computed.
        """
        if self.here == self.there:
            return self.differing
        fields = list(self.row)[: list(self.row).index("status")]
        return [n for n in self.differing if n in fields and n not in _COMPUTED]

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.row["dtype"]]

    @property
    def within(self) -> bool:
        """Whether the status is the same, and loss and coefficients are within the tolerance."""
        off = max(self.loss_off, self.coefficients_off)
        return self.row["status"] == self.stored["status"] and off <= self.tolerance


def recompute(run: Run, stored: StoredFit) -> Recomputed:
    """Compute a stored fit again, alone, on this machine's CPU.

    Raises:
        PlanMismatch: the plan was made for another torch.
        ClusterError: no machine code can be made or run here.
    """
    import torch

    from polyfit.work.fitting import compute
    from polyfit.work.storing import cpu_kind

    run.plan.check_torch(torch.__version__)
    alone = Shard(stored.shard.number, stored.fit, stored.fit + 1)
    (row,) = compute(run.plan, alone, torch.device("cpu")).to_pylist()
    device = stored.footer.get("device")
    there = stored.footer.get("cpu") if device == "cpu" else device
    return Recomputed(
        row,
        stored.row,
        cpu_kind(run.plan),
        str(there),
        torch.__version__,
        _relative_difference([stored.row["loss"]], [row["loss"]]),
        _relative_difference(stored.row["coefficients"], row["coefficients"]),
    )


def _relative_difference(one: list[float | None], other: list[float | None]) -> float:
    """The largest difference, relative to the largest number."""
    a, b = (np.array(values, dtype=np.float64) for values in (one, other))
    if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
        return math.inf
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    largest = np.abs([a, b]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return float(np.abs(a - b).max() / largest) if largest else 0.0
