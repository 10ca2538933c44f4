"""A value of an emitter that answers to numpy: what is written for arrays is emitted by it."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from polyfit.engine.emit import Emitter

__all__ = ["Symbol"]

_WRITTEN: Final[dict[Any, str]] = {
    np.add: "add",
    np.subtract: "sub",
    np.multiply: "mul",
    np.divide: "div",
    np.negative: "neg",
    np.absolute: "size",
    np.bitwise_and: "both",
    np.bitwise_or: "either",
    np.invert: "inverse",
}
_INTRINSICS: Final[dict[Any, str]] = {
    np.sqrt: "sqrt",
    np.rint: "roundeven",
    np.copysign: "copysign",
}
_COMPARED: Final[dict[Any, str]] = {
    np.less: "olt",
    np.less_equal: "ole",
    np.greater: "ogt",
    np.greater_equal: "oge",
    np.equal: "oeq",
    np.not_equal: "une",
}


class Symbol(NDArrayOperatorsMixin):
    """A value of an emitter, a vector of numbers or a mask, with the operations of an array.

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
        if ufunc in _WRITTEN:
            return Symbol(e, getattr(e, _WRITTEN[ufunc])(*given))
        if ufunc in _INTRINSICS:
            return Symbol(e, e.intrinsic(_INTRINSICS[ufunc], *given))
        if ufunc in _COMPARED:
            return Symbol(e, e.where(_COMPARED[ufunc], *given))
        if ufunc is np.ldexp:
            return Symbol(e, e.mul(given[0], e.power_of_two(given[1])))
        if ufunc is np.frexp:
            return tuple(Symbol(e, part) for part in e.split(*given))
        return NotImplemented

    def __array_function__(
        self, function: Callable[..., Any], types: Any, given: Any, named: Any
    ) -> Any:
        if function is not np.where:
            return NotImplemented
        return Symbol(self.e, self.e.select(*map(self._text, given)))

    def _text(self, value: Any) -> str:
        if isinstance(value, Symbol):
            return value.text
        if np.asarray(value).dtype == np.bool_:
            return self.e.same("i1", str(bool(value)).lower())
        return self.e.constant(float(value))

    def astype(self, dtype: Any) -> "Symbol":
        """The same: whole numbers are kept as numbers."""
        return self
