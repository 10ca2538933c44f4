"""One fit in full: its equations, its curve as text, and the same fit computed again.

Torch is loaded only by what computes.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noisy, target_values
from polyfit.run.results import Run, StoredFit, predict
from polyfit.spec.plan import Shard

__all__ = ["Recomputed", "curve", "equations", "recompute"]

WIDTH: Final = 60
HEIGHT: Final = 15
PER_COLUMN: Final = 8
"""Places per column at which the polynomial is drawn: a steep one then has no gaps."""

TOLERANCES: Final = {"float32": 1e-3, "float64": 1e-8}
"""By a fit's dtype: how far its numbers may be from those of another kind of CPU."""

_LABEL: Final = 11
_MARKS: Final = np.array([" ", "o", "*", "#"])

Array = npt.NDArray[np.float64]


# --- equations -------------------------------------------------------------------------------


def equations(row: dict[str, Any]) -> tuple[str, str | None]:
    """``y = ...`` in the fit's own basis, and in powers of x: None where those are not known."""
    grid = _grid(row)
    own, powers = row["coefficients"], row["power_coefficients"]
    in_x = None if powers is None else f"y = {_terms(powers, '')}"
    if grid.basis == "power":
        return f"y = {_terms(own, '')}", in_x
    letter = {"chebyshev": "T", "legendre": "P"}[grid.basis]
    return f"y = {_terms(own, letter)}, t = (x - {grid.middle}) / {grid.half}", in_x


def _terms(values: list[float | None], letter: str) -> str:
    """The sum over a basis: powers of x, or the polynomials ``letter`` in t."""
    if letter:
        names = [f" {letter}{k}(t)" for k in range(len(values))]
    else:
        names = ["", " x", *(f" x^{k}" for k in range(2, len(values)))]
    return " + ".join(
        f"{'?' if value is None else value}{name}"
        for value, name in zip(values, names, strict=False)
    )


def _grid(row: dict[str, Any]) -> Grid:
    return Grid(row["range_low"], row["range_high"], row["points"], row["degree"], row["basis"])


# --- curve -----------------------------------------------------------------------------------


def curve(row: dict[str, Any]) -> list[str]:
    """The data and the polynomial as lines of text; of a fit that has none, one line says why."""
    if row["status"] == "diverged":
        return ["no curve: the fit diverged"]
    there = np.isfinite(np.array(row["coefficients"], dtype=np.float64))
    if len(there) != row["degree"] + 1 or not there.all():
        return ["no curve: the row does not hold all coefficients"]
    low, high = row["range_low"], row["range_high"]
    x = np.linspace(low, high, PER_COLUMN * WIDTH)
    with np.errstate(all="ignore"):
        drawn = [(_grid(row).x(), _data(row)), (x, predict(row, x))]
        bottom, top = _extent(np.concatenate([y for _, y in drawn]))
        cells = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        for mark, (x, y) in enumerate(drawn, 1):
            known = np.isfinite(y)
            up = _places(y[known], bottom, top, HEIGHT)
            cells[HEIGHT - 1 - up, _places(x[known], low, high, WIDTH)] |= mark
    labels = [f"{top:.4g}", *[""] * (HEIGHT - 2), f"{bottom:.4g}"]
    lines = [
        f"{label:>{_LABEL}} |{''.join(_MARKS[line])}".rstrip()
        for label, line in zip(labels, cells, strict=True)
    ]
    left, right, gap = f"{low:.4g}", f"{high:.4g}", " " * (_LABEL + 2)
    data = "target with noise" if row["noise"] else "target"
    return [
        *lines,
        f"{'':{_LABEL}} +{'-' * WIDTH}",
        f"{gap}{left}{right:>{WIDTH - len(left)}}",
        f"{gap}o {data}   * polynomial   # both",
    ]


def _data(row: dict[str, Any]) -> Array:
    """What was fitted, at the points: the target with its noise."""
    clean = target_values(row["target"], _grid(row))
    seeds = np.array([row["noise_seed"]], dtype=np.uint64)
    data = noisy(clean[None], np.zeros(1, dtype=np.int64), np.array([row["noise"]]), seeds)
    return data.reshape(-1)


def _extent(values: Array) -> tuple[float, float]:
    """The least and the largest finite value, apart enough to draw between them."""
    known = values[np.isfinite(values)]
    bottom, top = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if top / 2 > bottom / 2:
        return bottom, top
    pad = abs(top) / 2 or 1.0
    return bottom - pad, top + pad


def _places(values: Array, low: float, high: float, count: int) -> npt.NDArray[np.int64]:
    """In which of ``count`` equal cells from ``low`` to ``high`` each value lies."""
    share = (values / 2 - low / 2) / (high / 2 - low / 2)  # halves: the width may overflow
    return np.clip(share * count, 0, count - 1).astype(np.int64)


# --- computed again --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A fit computed again, beside its stored row.

    ``here`` and ``there`` are the kinds of CPU (or the device) of this process and of the stored
    row, as far as they decide its bits. The last two are differences: of the loss, relative, and
    of the coefficients, relative to the largest; infinite where not the same numbers are null.
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
        # repr tells -0.0 from 0.0, and any two floats; a column that is not there from None.
        return [n for n in names if repr(self.row.get(n, ...)) != repr(self.stored.get(n, ...))]

    @property
    def damaged(self) -> list[str]:
        """The columns that should have the same bits, and do not.

        On another kind of CPU those are the fields, but for the rate, which is computed.
        """
        if self.here == self.there:
            return self.differing
        fields = list(self.row)[: list(self.row).index("status")]
        return [name for name in self.differing if name in fields and name != "lr"]

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.row["dtype"]]

    @property
    def within(self) -> bool:
        """Whether the status is the same, and loss and coefficients are within the tolerance."""
        off = max(self.loss_off, self.coefficients_off)
        return self.row["status"] == self.stored["status"] and off <= self.tolerance

    def __str__(self) -> str:
        if not self.differing:
            return "the same bits, computed again"
        if self.here == self.there:
            return f"other bits, computed again: {', '.join(self.differing)}"
        head = f"computed again, on another kind of CPU or device than the shard ({self.there}): "
        one, other = self.stored["status"], self.row["status"]
        if one != other:
            return f"{head}status {one} there, {other} here"
        return (
            f"{head}loss off by {self.loss_off:.2g}, coefficients by {self.coefficients_off:.2g} "
            f"of the largest: {'within' if self.within else 'beyond'} {self.tolerance:g}"
        )


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
        _off([stored.row["loss"]], [row["loss"]]),
        _off(stored.row["coefficients"], row["coefficients"]),
    )


def _off(one: list[float | None], other: list[float | None]) -> float:
    """The largest difference, relative to the largest number."""
    a, b = (np.array(values, dtype=np.float64) for values in (one, other))
    if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
        return math.inf
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    largest = np.abs([a, b]).max(initial=0.0)
    with np.errstate(all="ignore"):
        return float(np.abs(a - b).max() / largest) if largest else 0.0
