"""The kernel of initial values: a Mersenne Twister per lane, then Box and Muller's transform.

Matsumoto and Nishimura, Mersenne Twister (1998), with their initialization of 2002; Box and Muller,
A note on the generation of random normal deviates (1958).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from polyfit.engine.emit import Emitter
from polyfit.engine.kernel import Block, Kernel, Memory
from polyfit.engine.loops import Loop
from polyfit.engine.symbolic import SymbolicArray
from polyfit.numerics import elementary

__all__ = ["MAX_SIZE", "TwisterKernel"]

_OFFSET: Final = 397
"""From state words k, k + 1 and k + 397 the twister makes output k (Matsumoto's m)."""

_STATE: Final = 624

MAX_SIZE: Final = 2 * ((_STATE - _OFFSET) // 4)
"""Values per seed that the seeded state gives: later ones need words already twisted."""

_MARGIN: Final = 1024
"""Units in the last place of a double within which a midpoint of two float32 is near. Our doubles
and torch's differ by a few; with this margin torch draws 4 values in a million."""


@dataclass(frozen=True)
class TwisterKernel(Kernel):
    """The kernel of ``initial_values``, one seed per lane.

    Arrays: ``seeds`` (B,) uint32; results ``values`` (size, B) float32 and ``near`` (B,) int32,
    not 0 where one is near a midpoint of two float32.
    """

    arrays: ClassVar = ("seeds", "values", "near")
    integers: ClassVar = ("size",)

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        return Memory(e, 2 * MAX_SIZE + 4, "i32")

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        _TwisterBlock(Block(e, a, b), shared).write()


class _TwisterBlock:
    """Writes the values of one block of seeds; ``state`` holds their first state words."""

    def __init__(self, block: Block, state: Memory) -> None:
        self.e, self.a, self.block, self.state = block.e, block.a, block, state
        self.word = self.e.of_lanes("i32")

    def write(self) -> None:
        e, a = self.e, self.a
        pairs = e.integer("lshr", e.integer("add", a["size"], 1), 1)
        count = e.integer("mul", pairs, 4)  # words: two values take two doubles of two words each
        first = self.block.load("seeds", "i32")
        self.state.store(first, 0)
        loop = Loop(e, "1", [(self.word, first)])
        last = self._seeded(loop.values[0], loop.index)
        self.state.store(last, loop.index)
        loop.end(e.integer("add", count, 1), 1, [last])
        loop = Loop(e, e.integer("add", count, 1), [(self.word, last)])
        last = self._seeded(loop.values[0], loop.index)
        loop.end(str(_OFFSET), 1, [last])
        loop = Loop(e, "0", [(self.word, last), (e.mask, e.uniform("i1", "false"))])
        at, last, near = e.integer("mul", loop.index, 4), *loop.values
        words = []
        for k in range(4):
            number = e.integer("add", at, k)
            last = self._seeded(last, e.integer("add", number, _OFFSET))
            words.append(self._output(number, last))
        for k, value in enumerate(self._normals(words)):
            row = e.integer("add", e.integer("mul", loop.index, 2), k)
            with e.when(e.compare_integers("ult", row, a["size"])):
                self.block.store(e.float_from_double(value), "values", row, "float")
            near = e.mask_or(near, self._near_midpoint(value))
        loop.end(pairs, 1, [last, near])
        self.block.store(e.new(f"sext {e.mask} {near} to {self.word}"), "near", 0, "i32")

    # --- words -------------------------------------------------------------------------------

    def _by(self, name: str, word: str, operand: str | int) -> str:
        other = self.e.uniform("i32", operand) if isinstance(operand, int) else operand
        return self.e.new(f"{name} {self.word} {word}, {other}")

    def _seeded(self, word: str, number: str) -> str:
        """State word ``number`` from the one before."""
        mixed = self._by("xor", word, self._by("lshr", word, 30))
        mixed = self._by("mul", mixed, 1812433253)
        number = self.e.broadcast(self.e.new(f"trunc i64 {number} to i32"), "i32")
        return self._by("add", mixed, number)

    def _output(self, number: str, far: str) -> str:
        """Output ``number``; ``far`` is the state word 397 on."""
        first = self.state.load(number)
        second = self.state.load(self.e.integer("add", number, 1))
        high = self._by("and", first, 0x80000000)
        joined = self._by("or", high, self._by("and", second, 0x7FFFFFFF))
        odd = self._by("mul", self._by("and", second, 1), 0x9908B0DF)
        word = self._by("xor", self._by("xor", far, self._by("lshr", joined, 1)), odd)
        word = self._by("xor", word, self._by("lshr", word, 11))
        word = self._by("xor", word, self._by("and", self._by("shl", word, 7), 0x9D2C5680))
        word = self._by("xor", word, self._by("and", self._by("shl", word, 15), 0xEFC60000))
        return self._by("xor", word, self._by("lshr", word, 18))

    # --- normal numbers ----------------------------------------------------------------------

    def _normals(self, words: list[str]) -> list[str]:
        """Two standard normal numbers of four words."""
        e = self.e
        # Powers of two scale without rounding: these are torch's 2 pi u and 1 - u, bit for bit.
        angle = SymbolicArray(e, self._integer(*words[:2])) * (2.0 * np.pi * 2.0**-53)
        left = 1.0 - SymbolicArray(e, self._integer(*words[2:])) * 2.0**-53
        radius = np.sqrt(self._logarithm(left) * -2.0)
        return [
            (function(angle) * radius + 0.0).text  # torch adds the mean: no zero is negative
            for function in (elementary.cos_within, elementary.sin_within)
        ]

    def _integer(self, high: str, low: str) -> str:
        """The lowest 53 bits of two words as a number."""
        e = self.e
        top, rest = (
            SymbolicArray(e, e.new(f"uitofp {self.word} {word} to {e.vector}"))
            for word in (self._by("and", high, 0x1FFFFF), low)
        )
        return str((top * 2.0**32 + rest).text)

    def _logarithm(self, x: SymbolicArray) -> SymbolicArray:
        """log ``x`` for 0 < x <= 1 to a few units in the last place.

        Twice the inverse hyperbolic tangent of (m - 1) / (m + 1) for x = m 2^e with m near 1.
        """
        e, whole = self.e, self.e.of_lanes("i64")
        bits = e.new(f"sub {whole} {e.as_bits(x.text)}, {e.uniform('i64', _ROOT_HALF)}")
        exponent = e.new(f"ashr {whole} {bits}, {e.uniform('i64', 52)}")
        scaled = e.new(f"shl {whole} {exponent}, {e.uniform('i64', 52)}")
        m = SymbolicArray(e, e.from_bits(e.new(f"sub {whole} {e.as_bits(x.text)}, {scaled}")))
        turns = SymbolicArray(e, e.new(f"sitofp {whole} {exponent} to {e.vector}"))
        ratio = (m - 1.0) / (m + 1.0)
        square = ratio * ratio
        series: Any = 1.0 / 23.0
        for k in reversed(range(11)):
            series = square * series + 1.0 / (2 * k + 1)
        logarithm: SymbolicArray = turns * _LOG_2_HIGH + (turns * _LOG_2_LOW + ratio * 2.0 * series)
        return logarithm

    def _near_midpoint(self, value: str) -> str:
        """Where a small error could round ``value`` to another float32.

        Of a double's bits below a float32's last a midpoint has the first alone set.
        """
        e, whole = self.e, self.e.of_lanes("i64")
        moved = e.new(f"add {whole} {e.as_bits(value)}, {e.uniform('i64', _MARGIN - (1 << 28))}")
        below = e.new(f"and {whole} {moved}, {e.uniform('i64', (1 << 29) - 1)}")
        return e.compare_lanes("ule", below, e.uniform("i64", 2 * _MARGIN), "i64")


_ROOT_HALF: Final = int(np.float64(np.sqrt(0.5)).view(np.int64))
_LOG_2_HIGH: Final = float.fromhex("0x1.62e42fee00000p-1")
"""The first 33 bits of log 2, so that its product with an exponent is exact."""

_LOG_2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
