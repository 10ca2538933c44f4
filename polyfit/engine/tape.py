"""An objective emitted, and its gradient by the chain rule over pieces that autograd has traced."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyfit.engine.emit import Emitter
from polyfit.engine.trace import Graph, forward, pullback

__all__ = ["Tape", "inline"]

Piece = Callable[..., Tensor]


class Tape:
    """A gradient tape: emits pieces one after the other, then their gradients in reverse.

    A value that several pieces take gets its gradient from the last of them first, as in torch.

    Args:
        emitter: where to write.
        active: the values with respect to which a gradient is asked for.
    """

    def __init__(self, emitter: Emitter, active: Sequence[str]) -> None:
        self.emitter = emitter
        self.dtype = torch.float32 if emitter.real == "float" else torch.float64
        self.active = set(active)
        self.calls: list[tuple[Piece, tuple[str, ...], str]] = []

    def __call__(self, piece: Piece, *inputs: str) -> str:
        """The value of ``piece``, an elementwise function of vectors."""
        (value,) = inline(self.emitter, forward(piece, len(inputs), self.dtype), inputs)
        if self.active.intersection(inputs):
            self.active.add(value)
            self.calls.append((piece, inputs, value))
        return value

    def gradient(self, of: str, wanted: Sequence[str], slope: str | None = None) -> list[str]:
        """The gradient of ``of`` with respect to the ``wanted`` values, times ``slope``."""
        emitter = self.emitter
        slopes = {of: slope or emitter.constant(1.0)}
        for piece, inputs, value in reversed(self.calls):
            if value not in slopes:
                continue
            active = tuple(k for k, name in enumerate(inputs) if name in self.active)
            graph = pullback(piece, len(inputs), active, self.dtype)
            found = inline(emitter, graph, [*inputs, slopes[value]])
            for place, slope in zip(active, found, strict=True):
                name = inputs[place]
                slopes[name] = emitter.add(slopes[name], slope) if name in slopes else slope
        return [slopes.get(name, emitter.constant(0.0)) for name in wanted]


def inline(e: Emitter, graph: Graph, inputs: Sequence[str]) -> list[str]:
    """The outputs of ``graph`` for these values."""
    values = dict(enumerate(inputs))

    def operand(one: int | float) -> str:
        return values[one] if isinstance(one, int) else e.constant(one)

    for number, operation in graph.operations.items():
        values[number] = _operation(e, operation.name, [*map(operand, operation.operands)])
    return [*map(operand, graph.outputs)]


def _operation(e: Emitter, name: str, operands: list[str]) -> str:
    match name:
        case "less":
            return e.compare_lanes("olt", *operands)
        case "sqrt" | "roundeven":
            return e.intrinsic(name, *operands)
        case "clamp":  # NaN stays NaN
            a, low, high = operands
            above = e.select(e.compare_lanes("ogt", low, a), low, a)
            return e.select(e.compare_lanes("olt", high, above), high, above)
    written: str = getattr(e, name)(*operands)
    return written
