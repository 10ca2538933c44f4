"""Plain YAML values -> values of a fit's fields, and back to JSON.

Readers raise ValueError for a value that is not allowed; its text says what is allowed, or is
empty where the field says it.
"""

import math
from collections.abc import Callable
from typing import Any

from polyfit.errors import FormulaError
from polyfit.numerics.formula import Formula, constant
from polyfit.spec.fit import Rate, Stop
from polyfit.spec.optimizer import TRAITS, Optimizer

__all__ = [
    "at_least_zero",
    "integer",
    "number",
    "one_of",
    "optimizer",
    "positive",
    "range_of_x",
    "rate",
    "stop",
    "target",
    "write_optimizer",
    "write_rate",
    "write_stop",
]


def number(raw: Any) -> float:
    """A finite float64 from a YAML number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError
    try:
        value = float(raw)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(value):
        raise ValueError
    return value + 0.0  # -0.0 and 0.0 are one value


def at_least_zero(raw: Any) -> float:
    value = number(raw)
    if value < 0:
        raise ValueError
    return value


def positive(raw: Any) -> float:
    value = number(raw)
    if value <= 0:
        raise ValueError
    return value


def integer(low: int, high: int) -> Callable[[Any], int]:
    """A reader of integers from ``low`` to ``high``."""

    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise ValueError
        return raw

    return read


def one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    """A reader of one of ``names``."""

    def read(raw: Any) -> str:
        if not isinstance(raw, str) or raw not in names:
            raise ValueError
        return raw

    return read


def range_of_x(raw: Any) -> tuple[float, float]:
    if not isinstance(raw, list | tuple) or len(raw) != 2:
        raise ValueError
    low, high = _range_end(raw[0]), _range_end(raw[1])
    width = high - low
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"low < high with a finite width, here {low!r} and {high!r}")
    if low + width / 2 in (low, high):
        raise ValueError("low < high with a float64 number between them")
    return low, high


def _range_end(raw: Any) -> float:
    if isinstance(raw, str):
        try:
            return number(constant(raw))
        except FormulaError as error:
            raise ValueError(str(error)) from None
    return number(raw)


def target(raw: Any) -> str:
    """A formula's normal form."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError
    try:
        return Formula.parse(raw if isinstance(raw, str) else repr(raw)).text
    except FormulaError as error:
        raise ValueError(str(error)) from None


def optimizer(raw: Any) -> Optimizer:
    if isinstance(raw, str) and raw in TRAITS:
        return Optimizer(raw, TRAITS[raw].default_beta)
    match raw:
        case {"momentum": {"beta": beta, **unknown}, **others} if not unknown and not others:
            value = at_least_zero(beta)
            if value < 1:
                return Optimizer("momentum", value)
    raise ValueError


def write_optimizer(value: Optimizer) -> Any:
    return {"momentum": {"beta": value.beta}} if value.name == "momentum" else value.name


def rate(raw: Any) -> Rate:
    match raw:
        case "auto":
            return Rate("auto")
        case {"of_limit": share, **others} if not others:
            return Rate("of_limit", positive(share))
    return Rate("number", positive(raw))


def write_rate(value: Rate) -> Any:
    match value.kind:
        case "auto":
            return "auto"
        case "number":
            return value.value
    return {"of_limit": value.value}


def stop(raw: Any) -> Stop | None:
    match raw:
        case None | "none":
            return None
        case {"gradient": tolerance, **others} if not others:
            return Stop("gradient", positive(tolerance))
        case {"loss_change": tolerance, **others} if not others:
            return Stop("loss_change", positive(tolerance))
    raise ValueError


def write_stop(value: Stop | None) -> Any:
    return None if value is None else {value.kind: value.tolerance}
