"""The distinct problems of a batch: designs, clean targets, data. Shared parts are computed once.

Shapes: P problems; G designs; C clean targets, each on its range; D data, each a clean target with
its noise; N points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.engine.batch import Index, Problems
from polyfit.engine.data_kernels import reduce_compiled, target_compiled
from polyfit.numerics.arrays import Array
from polyfit.numerics.design import Design, design
from polyfit.numerics.elementary import LIMIT
from polyfit.numerics.formula import Formula
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import noisy, target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.column import Column

__all__ = ["PROBLEM_FIELDS", "BatchData", "too_few_to_compile"]

MIN_COMPILED: Final = 64
"""With fewer data, or fits, numpy is done before a kernel is made."""

MIN_COMPILED_ADDITIONS: Final = 1 << 27
"""Work of a target, in additions: with less, numpy is done before a kernel is made."""

PROBLEM_FIELDS: Final = ("range", "points", "degree", "basis", "target", "noise", "noise_seed")


def too_few_to_compile(num_data: int) -> bool:
    """Whether so few data, or fits, are computed sooner without a kernel."""
    return num_data < MIN_COMPILED


@dataclass(frozen=True)
class BatchData:
    """The problems of a batch, which share points, degree and basis.

    Args:
        low_P, high_P: the ranges.
        points, degree, basis: of all problems.
        design, design_of_P: the designs, G of them, and each problem's.
        clean_CN, clean_of_P: the noise-free targets, and each problem's.
        y_DN, data_of_P: the data, and each problem's.
        scale_D: max |y| of the data.
        compiled: whether kernels may be used; no bit of the data depends on it.
    """

    low_P: Array
    high_P: Array
    points: int
    degree: int
    basis: str
    design: Design
    design_of_P: Index
    clean_CN: Array
    clean_of_P: Index
    y_DN: Array
    data_of_P: Index
    scale_D: Array
    compiled: bool

    @classmethod
    def of(cls, columns: Mapping[str, Column], first: Index, compiled: bool) -> "BatchData":
        """The problems of the fits at ``first`` in the columns."""
        items = {name: columns[name].items for name in PROBLEM_FIELDS}
        codes = {name: columns[name].codes[first] for name in PROBLEM_FIELDS}
        points, degree, basis = (
            items[name][codes[name][0]] for name in ("points", "degree", "basis")
        )
        low, high = _values(items["range"], codes["range"], np.float64).T
        ranged = basis == "power" and degree > 0
        one, design_of = _distinct(codes["range"] if ranged else np.zeros_like(first))
        designs = design(Grid(low[one], high[one], points, degree, basis))
        one, clean_of = _distinct(codes["target"], codes["range"])
        target_C = codes["target"][one]
        clean, scale = _clean(items["target"], target_C, low[one], high[one], points, compiled)
        y, data_of = clean, clean_of
        noise = _values(items["noise"], codes["noise"], np.float64)
        if noise.any():
            seed = np.where(noise > 0.0, codes["noise_seed"], codes["noise_seed"][0])
            one, data_of = _distinct(clean_of, codes["noise"], seed)
            seeds = _values(items["noise_seed"], seed[one], np.uint64)
            y = noisy(clean, clean_of[one], noise[one], seeds)
            scale = _largest(y)
        return cls(
            low, high, points, degree, basis, designs, design_of, clean, clean_of, y, data_of,
            scale, compiled,
        )  # fmt: skip

    @property
    def sigma_P(self) -> Array:
        """The largest singular value of each problem's design."""
        return self._of_designs(self.design.sigma)

    def _of_designs(self, values: Array) -> Array:
        """Values of designs for each problem; not copied where one design serves all."""
        if len(values) == 1:
            return np.broadcast_to(values[0], (len(self.low_P), *values.shape[1:]))
        return values[self.design_of_P]

    @cached_property
    def grid(self) -> Grid:
        """The grids of all problems."""
        return Grid(self.low_P, self.high_P, self.points, self.degree, self.basis)

    def problems(self, of_B: Index, squared: bool) -> Problems:
        """The problems in the form that an engine takes."""
        few = too_few_to_compile(len(self.y_DN))
        by = reduce_compiled if self.compiled and not few else reduce
        q_DM, rest_D = by(self.degree, self.y_DN)
        of = self.data_of_P
        return Problems(
            of_B,
            self._of_designs(self.design.R_MM),
            q_DM[of],
            rest_D[of],
            self.grid if len(self.design.R_MM) > 1 else self.design.grid,
            np.empty((1, 0)) if squared else self.y_DN if len(self.y_DN) == 1 else self.y_DN[of],
        )


def _clean(
    targets: Sequence[str],
    target_C: Index,
    low_C: Array,
    high_C: Array,
    points: int,
    compiled: bool,
) -> tuple[Array, Array]:
    """The noise-free data, shape (C, N), and max |y| of each; C is sorted by target."""
    parts = []
    for target in np.unique(target_C):
        some = target_C == target
        grid = Grid(low_C[some], high_C[some], points, 0, "power")
        parts.append(_of_target(targets[target], grid, compiled))
    if len(parts) == 1:
        return parts[0]
    clean, scale = zip(*parts, strict=True)
    return np.concatenate(clean), np.concatenate(scale)


def _of_target(target: str, grid: Grid, compiled: bool) -> tuple[Array, Array]:
    values = np.size(grid.low) * grid.points
    if not compiled or values * Formula(target).cost < MIN_COMPILED_ADDITIONS:
        y = target_values(target, grid)
        return y, _largest(y)
    y, scale, reach = target_compiled(target, grid)
    far = np.flatnonzero(~(reach <= LIMIT))
    if len(far):
        low, high = (np.asarray(ends)[far] for ends in (grid.low, grid.high))
        y[far] = target_values(target, replace(grid, low=low, high=high))
        scale[far] = _largest(y[far])
    return y, scale


def _largest(y_DN: Array) -> Array:
    """max |y| of each row."""
    largest: Array = np.maximum(y_DN.max(axis=1), -y_DN.min(axis=1))
    return largest


def _distinct(*codes: Index) -> tuple[Index, Index]:
    """The first place of each distinct row of ``codes``, sorted by row, and each row's number."""
    mixed = codes[0]
    for more in codes[1:]:
        mixed = np.unique(mixed * (more.max() + 1) + more, return_inverse=True)[1]
    _, first, of = np.unique(mixed, return_index=True, return_inverse=True)
    return first, of


def _values(items: Sequence[Any], codes: Index, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The items that ``codes`` number, as an array."""
    used, of = np.unique(codes, return_inverse=True)
    return np.array([items[code] for code in used.tolist()], dtype=dtype)[of]
