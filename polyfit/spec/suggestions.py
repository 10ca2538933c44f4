"""What a value that is not allowed was probably meant to be, written as YAML."""

import math
import re
from typing import Any, Final

from polyfit.spec.fields import Field

__all__ = ["is_allowed", "of_exponents", "of_list", "of_value", "surely_values", "whole"]

_FROM_TO: Final = re.compile(r"(\d{1,18})\s*(?:\.{2,3}|-|:|to)\s*(\d{1,18})")

_LEAST_END: Final = 0.1
"""Who writes 0.001 as an exponent surely means the value: 10^0.001 is 1.002."""


def of_value(field: Field, raw: Any) -> str:
    """For a value of ``field``: ``; did you mean 1000?``, or nothing."""
    return f"; did you mean {found}?" if field.integer and (found := whole(raw)) else ""


def whole(raw: Any) -> str:
    """The integer that is written as a float, such as 1e3; empty for anything else."""
    return str(int(raw)) if isinstance(raw, float) and raw.is_integer() else ""


def of_list(field: Field, raw: Any) -> str:
    """For what stands in ``sweep`` in place of a list: ``; did you mean [10]?``, or nothing."""
    if field.integer and isinstance(raw, str) and (ends := _FROM_TO.fullmatch(raw.strip())):
        low, high = int(ends[1]), int(ends[2])
        if low < high:
            return f"; did you mean {{start: {low}, stop: {high + 1}}}, which ends with {high}?"
    raw = int(raw) if of_value(field, raw) else raw
    if raw is None or isinstance(raw, bool | list | dict) or not is_allowed(field, raw):
        return ""
    if field.name in ("seed", "noise_seed") and raw > 0:
        return f"; did you mean {{count: {raw}}}, which is 0 to {raw - 1}, or [{raw}]?"
    return f"; did you mean [{raw}]?"


def of_exponents(low: float, high: float, count: int) -> str:
    """For a ``logspace`` whose ends are values: the exponents, or nothing."""
    if not min(low, high) > 0:
        return ""
    ends = ", ".join(f"{math.log10(end):.4g}" for end in (low, high))
    return f"; its ends are exponents of 10: did you mean {{logspace: [{ends}, {count}]}}?"


def surely_values(low: float, high: float) -> bool:
    """Whether the ends of a ``logspace`` are surely not meant as exponents."""
    return 0 < min(low, high) <= _LEAST_END and max(low, high) <= 1


def is_allowed(field: Field, raw: Any) -> bool:
    """Whether ``raw`` is one value of the field."""
    try:
        field.read(raw)
    except ValueError:
        return False
    return True
