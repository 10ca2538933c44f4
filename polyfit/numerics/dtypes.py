"""Which problems and rates are within the range of a dtype.

Shapes: ``M`` = degree + 1 coefficients, ``P`` problems, ``B`` fits.
"""

import numpy as np

from polyfit.numerics.arrays import Array, Mask

__all__ = ["holds_problem", "holds_rate"]


def holds_problem(dtype: str, newton: bool, R_PMM: Array, q_PM: Array) -> Mask:
    """Which problems ``dtype`` holds, shape (P,): R and q finite, no pivot lost to underflow.

    ``newton``: whether R is squared, as Newton's Hessian is.
    """
    info = np.finfo(dtype)
    most, least = float(info.max), float(info.tiny)
    pivots = np.abs(np.diagonal(R_PMM, axis1=1, axis2=2))
    with np.errstate(all="ignore"):
        sound = (np.abs(R_PMM) <= most).all(axis=(1, 2))
        sound &= (np.abs(q_PM) <= most).all(axis=1)
        sound &= (pivots >= least).all(axis=1)
        if newton:
            sound &= ((R_PMM * R_PMM).sum(axis=1) <= most).all(axis=1)
    return np.asarray(sound)


def holds_rate(dtype: str, lr_B: Array) -> Mask:
    """Which rates ``dtype`` holds, shape (B,): finite, and not lost to underflow."""
    info = np.finfo(dtype)
    return np.asarray((lr_B >= float(info.tiny)) & (lr_B <= float(info.max)))
