"""Code for numpy arrays, emitted: an emitter's value that implements numpy's operations."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from polyfit.engine.emit import Emitter

__all__ = ["SymbolicArray"]

_OPERATIONS: Final[dict[Any, Callable[..., str]]] = {
    np.add: Emitter.add,
    np.subtract: Emitter.sub,
    np.multiply: Emitter.mul,
    np.divide: Emitter.div,
    np.positive: lambda e, a: a,
    np.negative: Emitter.neg,
    np.absolute: Emitter.fabs,
    np.sqrt: lambda e, a: e.intrinsic("sqrt", a),
    np.rint: lambda e, a: e.intrinsic("roundeven", a),
    np.copysign: lambda e, a, b: e.intrinsic("copysign", a, b),
    np.ldexp: lambda e, a, n: e.mul(a, e.power_of_two(n)),
    np.less: lambda e, a, b: e.compare_lanes("olt", a, b),
    np.less_equal: lambda e, a, b: e.compare_lanes("ole", a, b),
    np.greater: lambda e, a, b: e.compare_lanes("ogt", a, b),
    np.greater_equal: lambda e, a, b: e.compare_lanes("oge", a, b),
    np.equal: lambda e, a, b: e.compare_lanes("oeq", a, b),
    np.not_equal: lambda e, a, b: e.compare_lanes("une", a, b),
    np.bitwise_and: Emitter.mask_and,
    np.bitwise_or: Emitter.mask_or,
    np.invert: Emitter.mask_not,
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
        if ufunc is np.frexp:
            return tuple(SymbolicArray(e, part) for part in e.frexp(*given))
        if ufunc in _OPERATIONS:
            return SymbolicArray(e, _OPERATIONS[ufunc](e, *given))
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
