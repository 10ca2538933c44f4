"""An objective emitted, and its gradient by the chain rule over pieces that autograd has traced."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyfit.engine.emit import Emitter
from polyfit.engine.trace import forward, pullback

__all__ = ["Tape"]

Piece = Callable[..., Tensor]


class Tape:
    """Emits pieces one after the other, and then what autograd says of them, in reverse.

    A value that several pieces take gets its gradient from the last of them first, as in torch.

    Args:
        emitter: where to write.
        dtype: of the values.
        active: the values with respect to which a gradient is asked for.
    """

    def __init__(self, emitter: Emitter, dtype: torch.dtype, active: Sequence[str]) -> None:
        self.emitter, self.dtype = emitter, dtype
        self.active = set(active)
        self.calls: list[tuple[Piece, tuple[str, ...], str]] = []

    def __call__(self, piece: Piece, *inputs: str) -> str:
        """The value of ``piece``, an elementwise function of vectors."""
        graph = forward(piece, len(inputs), self.dtype)
        (value,) = self.emitter.inline(graph, inputs)
        if self.active.intersection(inputs):
            self.active.add(value)
            self.calls.append((piece, inputs, value))
        return value

    def gradient(self, of: str, wanted: Sequence[str]) -> list[str]:
        """The gradient of ``of`` with respect to the ``wanted`` values."""
        emitter = self.emitter
        slopes = {of: emitter.constant(1.0)}
        for piece, inputs, value in reversed(self.calls):
            if value not in slopes:
                continue
            active = tuple(k for k, name in enumerate(inputs) if name in self.active)
            graph = pullback(piece, len(inputs), active, self.dtype)
            pulled = emitter.inline(graph, [*inputs, slopes[value]])
            for place, slope in zip(active, pulled, strict=True):
                name = inputs[place]
                slopes[name] = emitter.add(slopes[name], slope) if name in slopes else slope
        return [slopes.get(name, emitter.constant(0.0)) for name in wanted]
