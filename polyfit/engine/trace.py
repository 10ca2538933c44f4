"""Autograd, traced: small elementwise functions become lists of operations.

An objective is composed of a few small functions of vectors, its pieces. Each is traced once, and
so is its gradient by autograd, so the time to trace does not grow with the degree. The tape
composes them by the chain rule.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

__all__ = ["Graph", "Operation", "forward", "pullback", "trace"]

Operand = int | float
"""A value by its number, or a constant."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One elementwise operation."""

    name: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Operations on vectors, each under the number of its result; the inputs are 0, 1, ..."""

    operations: Mapping[int, Operation]
    outputs: tuple[Operand, ...]


_ATEN: Final = torch.ops.aten

_UNCHANGED: Final = (
    _ATEN.detach.default,
    _ATEN.alias.default,
    _ATEN.view.default,
    _ATEN.expand.default,
    _ATEN.clone.default,
)
"""Operations that change no number of a vector."""

_NAMES: Final = {
    _ATEN.mul.Tensor: "mul",
    _ATEN.mul.Scalar: "mul",
    _ATEN.add.Tensor: "add",
    _ATEN.sub.Tensor: "sub",
    _ATEN.rsub.Scalar: "sub",
    _ATEN.div.Tensor: "div",
    _ATEN.neg.default: "neg",
    _ATEN.abs.default: "fabs",
    _ATEN.sqrt.default: "sqrt",
    _ATEN.sgn.default: "sign",
    _ATEN.round.default: "roundeven",
    _ATEN.clamp.default: "clamp",
    _ATEN.exp2.default: "power_of_two",  # pieces take it of whole numbers only
    _ATEN.lt.Scalar: "less",
    _ATEN.where.self: "select",
}
_REVERSED: Final = (_ATEN.rsub.Scalar,)
_FILLED: Final = {_ATEN.ones_like.default: 1.0, _ATEN.zeros_like.default: 0.0}
_FULL: Final = _ATEN.full_like.default


class _Traced(torch.Tensor):
    """A vector that notes every operation that takes it, autograd's too.

    ``value`` is its number, or its constant if it is one; ``plain`` is the vector itself. The
    protocol: https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch-native-api.
    """

    plain: Tensor
    value: Operand
    graph: "_GraphBuilder"

    @classmethod
    def of(cls, plain: Tensor, value: Operand, graph: "_GraphBuilder") -> "_Traced":
        traced = plain.as_subclass(cls)
        traced.plain, traced.value, traced.graph = plain, value, graph
        return traced

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch states the one of a method
        cls, operator: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        graph = next(one.graph for one in arguments if isinstance(one, cls))
        plain = (one.plain if isinstance(one, cls) else one for one in arguments)
        result = operator(*plain, **(named or {}))
        return cls.of(result, graph.value_of(operator, arguments, named), graph)


# Where an operation has no rule for a class, torch imports torch.distributed and sympy, to see
# whether the class is a DTensor, before it calls its __torch_dispatch__. That takes half a second.
for _operator in (*_UNCHANGED, *_NAMES, *_FILLED, _FULL):
    torch.library.register_torch_dispatch(
        _operator, _Traced, lambda cls, *operation: cls.__torch_dispatch__(*operation)
    )


class _GraphBuilder:
    """A graph while it is traced."""

    def __init__(self, inputs: int) -> None:
        self.inputs, self.operations = inputs, dict[int, Operation]()

    def value_of(self, operator: Any, arguments: Any, named: Any) -> Operand:
        """The result of an operation of torch, which is noted if it changes numbers."""
        if operator in _UNCHANGED:
            return _operand(arguments[0])
        if operator in _FILLED:
            return _FILLED[operator]
        if operator is _FULL:
            return float(arguments[1])
        if operator not in _NAMES or named:
            raise NotImplementedError(f"no elementwise operation of the emitter: {operator}")
        operands = tuple(map(_operand, arguments))
        if operator in _REVERSED:
            operands = operands[::-1]
        number = self.inputs + len(self.operations)
        self.operations[number] = Operation(_NAMES[operator], operands)
        return number


def _operand(argument: Any) -> Operand:
    """An operand: a vector's value, or a constant."""
    return argument.value if isinstance(argument, _Traced) else float(argument)


def trace(function: Callable[..., Any], inputs: int, dtype: torch.dtype) -> Graph:
    """The graph of ``function``, which takes and returns vectors of ``dtype``, shape (B,).

    Operations on which no output depends are left out.

    Raises:
        NotImplementedError: an operation that the emitter does not know.
    """
    graph = _GraphBuilder(inputs)
    given = [_Traced.of(torch.ones(1, dtype=dtype), k, graph) for k in range(inputs)]
    result = function(*given)
    outputs = tuple(map(_operand, result if isinstance(result, Sequence) else [result]))
    needed = _values(outputs)
    for number, operation in reversed(graph.operations.items()):
        if number in needed:
            needed |= _values(operation.operands)
    kept = {number: one for number, one in graph.operations.items() if number in needed}
    return Graph(kept, outputs)


def _values(operands: Iterable[Operand]) -> set[int]:
    """The operands without the constants."""
    return {operand for operand in operands if isinstance(operand, int)}


forward = lru_cache(maxsize=256)(trace)
"""``trace`` of a function that is traced once."""


@lru_cache(maxsize=256)
def pullback(
    function: Callable[..., Tensor], inputs: int, active: tuple[int, ...], dtype: torch.dtype
) -> Graph:
    """Autograd's gradient of ``function`` with respect to its ``active`` inputs.

    The graph takes the inputs and the gradient of the result; it returns one gradient for each
    active input.
    """

    def slopes(*values: Tensor) -> Sequence[Tensor]:
        *given, slope = values
        for place in active:
            given[place] = given[place].detach().requires_grad_()
        with torch.enable_grad():
            value = function(*given)
        value.register_hook(lambda _: slope)  # as an argument of grad it has torch import sympy
        return torch.autograd.grad(value, [given[place] for place in active])

    return trace(slopes, inputs + 1, dtype)
