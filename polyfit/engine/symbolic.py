"""Code for numpy arrays, emitted: an emitter's value that implements numpy's operations."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from polyfit.engine.emit import Emitter

__all__ = ["SymbolicArray"]

_METHODS: Final[dict[Any, str]] = {
    np.add: "add",
    np.subtract: "sub",
    np.multiply: "mul",
    np.divide: "div",
    np.negative: "neg",
    np.absolute: "fabs",
    np.bitwise_and: "mask_and",
    np.bitwise_or: "mask_or",
    np.invert: "mask_not",
}
_INTRINSICS: Final[dict[Any, str]] = {
    np.sqrt: "sqrt",
    np.rint: "roundeven",
    np.copysign: "copysign",
}
_COMPARISONS: Final[dict[Any, str]] = {
    np.less: "olt",
    np.less_equal: "ole",
    np.greater: "ogt",
    np.greater_equal: "oge",
    np.equal: "oeq",
    np.not_equal: "une",
}


class SymbolicArray(NDArrayOperatorsMixin):
    """A vector of numbers or a mask, as a value of an emitter, with the operations of an array.

    NEP 13, https://numpy.org/neps/nep-0013-ufunc-overrides.html, and NEP 18.
    """

    def __init__(self, e: Emitter, text: str) -> None:
        self.e, self.text = e, text

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any) -> Any:
        e, given = self.e, [self._text(one) for one in inputs]
        if method != "__call__":
            return NotImplemented
        if ufunc is np.positive:
            return inputs[0]
        if ufunc in _METHODS:
            return SymbolicArray(e, getattr(e, _METHODS[ufunc])(*given))
        if ufunc in _INTRINSICS:
            return SymbolicArray(e, e.intrinsic(_INTRINSICS[ufunc], *given))
        if ufunc in _COMPARISONS:
            return SymbolicArray(e, e.compare_lanes(_COMPARISONS[ufunc], *given))
        if ufunc is np.ldexp:
            return SymbolicArray(e, e.mul(given[0], e.power_of_two(given[1])))
        if ufunc is np.frexp:
            return tuple(SymbolicArray(e, part) for part in e.frexp(*given))
        return NotImplemented

    def __array_function__(
        self, function: Callable[..., Any], types: Any, given: Any, named: Any
    ) -> Any:
        if function is not np.where:
            return NotImplemented
        return SymbolicArray(self.e, self.e.select(*map(self._text, given)))

    def _text(self, value: Any) -> str:
        if isinstance(value, SymbolicArray):
            return value.text
        if np.asarray(value).dtype == np.bool_:
            return self.e.uniform("i1", str(bool(value)).lower())
        return self.e.constant(float(value))

    def astype(self, dtype: Any) -> "SymbolicArray":
        """The array itself: whole numbers stay numbers."""
        return self
