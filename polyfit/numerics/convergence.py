"""How gradient descent and momentum approach the optimum of a sum of squares, in exact arithmetic.

Along an eigenvector of the Hessian the error of the coefficients goes its own way. With z the rate
times the eigenvalue, and beta 0 for gradient descent:

    e_1 = (1 - z) e_0,   e_k+1 = (1 + beta - z) e_k - beta e_k-1

(Polyak, Some methods of speeding up the convergence of iteration methods, 1964). The loss is the
optimum and, for each direction, half the eigenvalue times the square of the error: its excess.

Shapes: F fits, M directions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Array, Index

__all__ = ["NEAR", "NEVER", "Descent", "Directions", "rounding_loss"]

NEAR: Final = 0.01
"""A loss is near the optimum if it is above it by this share at most, and rounding."""

NEVER: Final = 10**12
"""Stands for updates beyond counting."""

_SWINGS: Final = 42.0
"""Swings shrink by sqrt(beta) an update: after 42 / -ln(beta) of them to 1e-9."""

_MAX_SCANNED: Final = 1 << 14
"""Updates that are looked at one by one, because the loss swings."""

_BLOCK: Final = 64

_APART: Final = 1e-9
"""Two roots that are equal are moved apart by this: the formula divides by their distance."""


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """The eigenvectors of Hessians R'R, by the singular values of R.

    Args:
        U_FMM, sigma_FM, V_FMM: R = U diag(sigma) V, sigma largest first; NaN where R is not finite.
    """

    U_FMM: Array
    sigma_FM: Array
    V_FMM: Array

    @classmethod
    def of(cls, R_FMM: Array) -> "Directions":
        finite = np.isfinite(R_FMM).all(axis=(1, 2))
        U, V = np.full(R_FMM.shape, np.nan), np.full(R_FMM.shape, np.nan)
        sigma = np.full(R_FMM.shape[:2], np.nan)
        U[finite], sigma[finite], V[finite] = np.linalg.svd(R_FMM[finite])
        return cls(U, sigma, V)

    def take(self, fits: Index) -> "Directions":
        return Directions(self.U_FMM[fits], self.sigma_FM[fits], self.V_FMM[fits])

    def excess(self, q_FM: Array, start_FM: Array | None) -> Array:
        """The sum of squares above the optimum that lies in each direction at the start, (F, M).

        Without a start it is expected over starts from a standard normal distribution.
        """
        along = np.einsum("fij,fi->fj", self.U_FMM, q_FM)
        if start_FM is None:
            return np.asarray(self.sigma_FM * self.sigma_FM + along * along)
        off = self.sigma_FM * np.einsum("fij,fj->fi", self.V_FMM, start_FM) - along
        return np.asarray(off * off)


@dataclass(frozen=True, eq=False)
class Descent:
    """Fits of one optimizer that go down on their quadratics.

    Args:
        z_FM: the rate times each eigenvalue of the Hessian.
        excess_FM: the excess of each direction at the start.
        beta: of momentum; 0 is gradient descent.
    """

    z_FM: Array
    excess_FM: Array
    beta: float

    def excess(self, updates_F: Index) -> Array:
        """The excess after so many updates, shape (F,); infinite where it is beyond float64."""
        with np.errstate(all="ignore"):
            total = (self.excess_FM * self._growth(updates_F)).sum(axis=1)
        return np.where(np.isnan(total), np.inf, total)

    def largest_growth(self, updates_F: Index) -> Array:
        """By which factor so many updates change the excess at most, from any start, shape (F,)."""
        growth = self._growth(updates_F).max(axis=1)
        return np.where(np.isnan(growth), np.inf, growth)

    def _growth(self, updates_F: Index) -> Array:
        """The factor of the excess in each direction, shape (F, M)."""
        first, second, share = self._roots
        k = updates_F[:, None].astype(np.float64)
        with np.errstate(all="ignore"):
            error = (share * first**k + (1.0 - share) * second**k).real
            return np.asarray(error * error)

    def first_below(self, most_F: Array) -> Index:
        """The first update with an excess of at most ``most_F``, shape (F,); NEVER for none."""
        scanned, found = self._scanned(most_F)
        low = np.full(len(most_F), scanned, dtype=np.int64)
        high = np.full(len(most_F), NEVER, dtype=np.int64)
        # From here on the excess of a stable fit only falls, of another it only grows.
        while (high - low > 1).any():
            middle = np.where(high < 2 * low + 4, (low + high) // 2, 2 * low + 2)
            below = self.excess(middle) <= most_F
            low, high = np.where(below, low, middle), np.where(below, middle, high)
        started = self.excess(np.zeros_like(low)) <= most_F
        return np.where(found >= 0, found, np.where(started, 0, high))

    def _scanned(self, most_F: Array) -> tuple[int, Index]:
        """Up to which update all were looked at, and the first below ``most_F``; -1 for none."""
        found = np.full(len(most_F), -1, dtype=np.int64)
        if not self.beta:
            return 0, found
        first, second, share = self._roots
        k, last = np.arange(_BLOCK), int(min(_SWINGS / -np.log(self.beta), _MAX_SCANNED))
        with np.errstate(all="ignore"):
            powers = first[..., None] ** k, second[..., None] ** k
            for begin in range(0, last + 1, _BLOCK):
                left = np.flatnonzero(found < 0)
                head = share[left] * first[left] ** begin, (1 - share[left]) * second[left] ** begin
                error = (head[0][..., None] * powers[0][left]).real
                error += (head[1][..., None] * powers[1][left]).real
                below = (self.excess_FM[left, :, None] * error**2).sum(axis=1) <= most_F[left, None]
                found[left] = np.where(below.any(axis=1), begin + below.argmax(axis=1), -1)
                if (found >= 0).all():
                    break
        return last // _BLOCK * _BLOCK + _BLOCK - 1, found

    @cached_property
    def _roots(self) -> tuple[npt.NDArray[np.complex128], ...]:
        """The roots of the recurrence, and the share of the first in the error at the start."""
        trace = (1.0 + self.beta - self.z_FM).astype(np.complex128)
        apart = np.sqrt(trace * trace - 4.0 * self.beta)
        apart = np.where(np.abs(apart) < _APART, _APART, apart)
        first, second = (trace + apart) / 2, (trace - apart) / 2
        return first, second, (1.0 - self.z_FM - second) / apart


def rounding_loss(dtype: npt.DTypeLike, R_PMM: Array, q_PM: Array) -> Array:
    """The sum of squares that rounding in ``dtype`` can explain at the optimum, shape (P,).

    A residual is a sum of M + 1 terms, so its error is at most M + 1 units of rounding of the sum
    of their sizes: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
    Arithmetic is elementwise over the problems.
    """
    size, squares, total = q_PM.shape[1], np.zeros(len(q_PM)), np.zeros(len(q_PM))
    best: list[Array] = []
    with np.errstate(all="ignore"):
        for k in reversed(range(size)):  # R best = q
            rest, column = q_PM[:, k], np.zeros(len(q_PM))
            for j, value in enumerate(best):
                rest = rest - R_PMM[:, k, size - 1 - j] * value
            best.append(rest / R_PMM[:, k, k])
            for i in range(k + 1):
                column += R_PMM[:, i, k] * R_PMM[:, i, k]
            total += np.sqrt(column) * np.abs(best[-1])
            squares += q_PM[:, k] * q_PM[:, k]
        error = (size + 1) * np.finfo(dtype).eps * (total + np.sqrt(squares))
        return np.asarray(error * error)
