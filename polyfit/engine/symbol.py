"""A value of an emitter as a number: formulas written with operators are emitted by it."""

from functools import partialmethod
from typing import Any

from polyfit.engine.emit import Emitter

__all__ = ["Symbol"]


class Symbol:
    """A value of an emitter with the operators of a number."""

    __array_ufunc__ = None  # a numpy number on the left leaves the operation to this class

    def __init__(self, e: Emitter, text: str) -> None:
        self.e, self.text = e, text

    def _by(self, how: str, other: Any, reflected: bool = False) -> "Symbol":
        right = other.text if isinstance(other, Symbol) else self.e.constant(float(other))
        pair = (right, self.text) if reflected else (self.text, right)
        return Symbol(self.e, getattr(self.e, how)(*pair))

    def of(self, intrinsic: str) -> "Symbol":
        return Symbol(self.e, self.e.intrinsic(intrinsic, self.text))

    __add__ = partialmethod(_by, "add")
    __radd__ = partialmethod(_by, "add", reflected=True)
    __sub__ = partialmethod(_by, "sub")
    __rsub__ = partialmethod(_by, "sub", reflected=True)
    __mul__ = partialmethod(_by, "mul")
    __rmul__ = partialmethod(_by, "mul", reflected=True)
    __truediv__ = partialmethod(_by, "div")
    __rtruediv__ = partialmethod(_by, "div", reflected=True)
    round = partialmethod(of, "roundeven")

    def __neg__(self) -> "Symbol":
        return Symbol(self.e, self.e.neg(self.text))

    def __pos__(self) -> "Symbol":
        return self
