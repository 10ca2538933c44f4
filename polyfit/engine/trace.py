"""Autograd, traced: small elementwise functions become lists of operations.

An objective is made of a few small functions of vectors (``model.Piece``). Each is traced once
with its own gradient by autograd, so the time to trace does not grow with the degree; the emitter
composes them by the chain rule.
"""

from collections.abc import Callable, Sequence
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
    """One elementwise operation; its result is the next value."""

    name: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Operations on ``inputs`` vectors: values 0 to inputs - 1, then one value an operation."""

    inputs: int
    operations: tuple[Operation, ...]
    outputs: tuple[Operand, ...]


_PASSED: Final = frozenset(
    f"aten.{name}.default" for name in ("detach", "alias", "view", "expand", "clone")
)
"""Operations that change no number of a vector."""

_NAMES: Final = {
    "aten.mul.Tensor": "mul",
    "aten.mul.Scalar": "mul",
    "aten.add.Tensor": "add",
    "aten.sub.Tensor": "sub",
    "aten.rsub.Scalar": "sub",
    "aten.div.Tensor": "div",
    "aten.neg.default": "neg",
    "aten.abs.default": "size",
    "aten.sqrt.default": "sqrt",
    "aten.round.default": "roundeven",
    "aten.clamp.default": "clamp",
    "aten.exp2.default": "power_of_two",  # the pieces take it of whole numbers alone
    "aten.lt.Scalar": "less",
    "aten.where.self": "select",
}
_REVERSED: Final = frozenset(("aten.rsub.Scalar",))
_FILLED: Final = {"aten.ones_like.default": 1.0, "aten.zeros_like.default": 0.0}


def trace(function: Callable[..., Any], inputs: int, dtype: torch.dtype) -> Graph:
    """The graph of ``function``, which takes and returns vectors of ``dtype``, shape (B,).

    Raises:
        NotImplementedError: an operation that the emitter does not know.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    examples = [torch.ones(2, dtype=dtype) for _ in range(inputs)]
    found: dict[Any, Operand] = {}
    operations: list[Operation] = []
    count = 0
    for node in make_fx(function)(*examples).graph.nodes:
        if node.op == "placeholder":
            found[node], count = count, count + 1
        elif node.op == "output":
            return _pruned(Graph(inputs, tuple(operations), _operands(node.args[0], found)))
        elif str(node.target) in _PASSED:
            found[node] = found[node.args[0]]
        elif str(node.target) in _FILLED:
            found[node] = _FILLED[str(node.target)]
        elif str(node.target) == "aten.full_like.default":
            found[node] = float(node.args[1])
        elif str(node.target) in _NAMES and not node.kwargs:
            operands = _operands(node.args, found)
            if str(node.target) in _REVERSED:
                operands = operands[::-1]
            operations.append(Operation(_NAMES[str(node.target)], operands))
            found[node] = inputs + len(operations) - 1
        else:
            raise NotImplementedError(f"no elementwise operation of the emitter: {node.target}")
    raise AssertionError("a graph has outputs")


def _operands(arguments: Any, found: dict[Any, Operand]) -> tuple[Operand, ...]:
    if not isinstance(arguments, (tuple, list)):
        arguments = (arguments,)
    return tuple(
        float(value) if isinstance(value, (int, float)) else found[value] for value in arguments
    )


def _pruned(graph: Graph) -> Graph:
    """Without the operations on which no output depends."""
    needed = {value for value in graph.outputs if isinstance(value, int)}
    for number in reversed(range(len(graph.operations))):
        if graph.inputs + number in needed:
            operands = graph.operations[number].operands
            needed |= {value for value in operands if isinstance(value, int)}
    new = {number: number for number in range(graph.inputs)}
    kept: list[Operation] = []

    def renumbered(operands: Sequence[Operand]) -> tuple[Operand, ...]:
        return tuple(new[value] if isinstance(value, int) else value for value in operands)

    for number, operation in enumerate(graph.operations):
        if graph.inputs + number in needed:
            new[graph.inputs + number] = graph.inputs + len(kept)
            kept.append(Operation(operation.name, renumbered(operation.operands)))
    return Graph(graph.inputs, tuple(kept), renumbered(graph.outputs))


@lru_cache(maxsize=256)
def forward(function: Callable[..., Tensor], inputs: int, dtype: torch.dtype) -> Graph:
    """The graph of an elementwise function."""
    return trace(function, inputs, dtype)


@lru_cache(maxsize=256)
def pullback(
    function: Callable[..., Tensor], inputs: int, active: tuple[int, ...], dtype: torch.dtype
) -> Graph:
    """Autograd's gradient of ``function`` with respect to its ``active`` inputs.

    The graph takes the inputs and the gradient of the result; it returns one gradient for each
    active input.
    """

    def pulled(*values: Tensor) -> list[Tensor]:
        *given, slope = values

        def of_active(*some: Tensor) -> Tensor:
            whole = list(given)
            for place, value in zip(active, some, strict=True):
                whole[place] = value
            return function(*whole)

        pull = torch.func.vjp(of_active, *(given[place] for place in active))[1]
        return list(pull(slope))

    return trace(pulled, inputs + 1, dtype)
