"""Arrays of plain values in which None is unknown, with the operators of conditions.

Comparisons with None are None; ``and``, ``or`` and ``not`` are Kleene's. Integers are Python's, so
that nothing is rounded. Rows of a run are compared in the same way.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polyfit.spec.condition_language import NoCondition

__all__ = ["Nullable"]

Operation = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Nullable:
    """``values`` is an array of objects, of any shape: numbers, texts, truth values and None."""

    values: npt.NDArray[np.object_]

    @classmethod
    def of(cls, value: Any) -> "Nullable":
        array = np.empty((), dtype=object)
        array[()] = value
        return cls(array)

    def _with(self, other: Any, operation: Operation) -> "Nullable":
        right = other if isinstance(other, Nullable) else Nullable.of(other)
        lifted = np.frompyfunc(operation, 2, 1)
        with np.errstate(all="ignore"):
            return Nullable(np.asarray(lifted(self.values, right.values), dtype=object))

    def _reversed(self, other: Any, operation: Operation) -> "Nullable":
        return Nullable.of(other)._with(self, operation)

    def __eq__(self, other: object) -> "Nullable":  # type: ignore[override]
        return self._with(other, _compared(operator.eq))

    def __ne__(self, other: object) -> "Nullable":  # type: ignore[override]
        return self._with(other, _compared(operator.ne))

    def __lt__(self, other: Any) -> "Nullable":
        return self._with(other, _compared(operator.lt))

    def __le__(self, other: Any) -> "Nullable":
        return self._with(other, _compared(operator.le))

    def __gt__(self, other: Any) -> "Nullable":
        return self._with(other, _compared(operator.gt))

    def __ge__(self, other: Any) -> "Nullable":
        return self._with(other, _compared(operator.ge))

    def __add__(self, other: Any) -> "Nullable":
        return self._with(other, _computed(operator.add))

    def __radd__(self, other: Any) -> "Nullable":
        return self._reversed(other, _computed(operator.add))

    def __sub__(self, other: Any) -> "Nullable":
        return self._with(other, _computed(operator.sub))

    def __rsub__(self, other: Any) -> "Nullable":
        return self._reversed(other, _computed(operator.sub))

    def __mul__(self, other: Any) -> "Nullable":
        return self._with(other, _computed(operator.mul))

    def __rmul__(self, other: Any) -> "Nullable":
        return self._reversed(other, _computed(operator.mul))

    def __truediv__(self, other: Any) -> "Nullable":
        return self._with(other, _divided)

    def __rtruediv__(self, other: Any) -> "Nullable":
        return self._reversed(other, _divided)

    def __neg__(self) -> "Nullable":
        return self._reversed(0, _computed(operator.sub))

    def __and__(self, other: Any) -> "Nullable":
        return self._with(other, _both)

    def __or__(self, other: Any) -> "Nullable":
        return self._with(other, _either)

    def __invert__(self) -> "Nullable":
        return self._with(None, lambda value, _: None if value is None else not _truth(value))

    def isin(self, items: list[Any]) -> "Nullable":
        if any(isinstance(item, Nullable) for item in items):
            raise ValueError
        found = Nullable.of(False)
        for item in items:
            found = found | (self == item)
        return found

    def is_null(self) -> "Nullable":
        return self._with(None, lambda value, _: value is None)

    def true(self) -> npt.NDArray[np.bool_]:
        """Where the value is true, and neither false nor unknown."""
        test = np.frompyfunc(lambda value: value is not None and _truth(value), 1, 1)
        return np.asarray(test(self.values), dtype=np.bool_)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise NoCondition(f"{value!r} is neither true nor false")


def _both(left: Any, right: Any) -> bool | None:
    known = [_truth(value) for value in (left, right) if value is not None]
    return False if False in known else (True if len(known) == 2 else None)


def _either(left: Any, right: Any) -> bool | None:
    known = [_truth(value) for value in (left, right) if value is not None]
    return True if True in known else (False if len(known) == 2 else None)


def _compared(operation: Operation) -> Operation:
    def compare(left: Any, right: Any) -> bool | None:
        if left is None or right is None:
            return None
        if isinstance(left, str) != isinstance(right, str):
            raise NoCondition(f"{left!r} is not compared with {right!r}")
        return bool(operation(left, right))

    return compare


def _computed(operation: Operation) -> Operation:
    def compute(left: Any, right: Any) -> Any:
        if left is None or right is None:
            return None
        for value in (left, right):
            if isinstance(value, str | bool):
                raise NoCondition(f"{value!r} is not a number")
        return operation(left, right)

    return compute


_quotient: Final = _computed(operator.truediv)


def _divided(left: Any, right: Any) -> Any:
    """As rows of a run: beyond float64 or by zero there is no number."""
    try:
        quotient = _quotient(left, right)
    except ArithmeticError:
        return None
    return quotient if quotient is not None and math.isfinite(quotient) else None
