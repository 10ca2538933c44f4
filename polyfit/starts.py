"""Start values: what torch draws one by one after a seed, for many seeds at once.

A seed's numbers are the first outputs of a Mersenne Twister of its own, through Box and Muller's
transform. Here many twisters are seeded side by side, in integers, which are exact. The transform's
logarithm, sine and cosine may differ from torch's in the last bits, by position and by kind of
CPU; wherever that could reach the float32, torch itself is asked. So the values are torch's, bit
for bit, alone and in any batch.

Shapes: ``B`` seeds in a chunk, ``W`` words (32 bits) drawn per seed. All vectors have the length
B, and are worked on in place, in buffers that are made once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["MAX_SIZE", "start_values"]

Words = npt.NDArray[np.uint32]
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_CHUNK: Final = 16384
"""Seeds worked on at once: in shorter vectors the calls cost more than the arithmetic, longer ones
leave a core's own cache."""

_ONE_THREAD: Final = 1024
"""Numbers given to torch in one call: from 1,600 on it was seen to take several threads for a sine,
for which so little work only waits."""

_FEW: Final = 32
"""Below this many seeds, asking torch for each is faster than 2,000 calls on short vectors."""

_OFFSET: Final = 397
"""From state words k, k + 1 and k + 397 the twister makes output k (Matsumoto's m)."""

_STATE: Final = 624

MAX_SIZE: Final = 2 * ((_STATE - _OFFSET) // 4)
"""Values per seed that the seeded state gives: later ones need words twisted before."""

_MARGIN: Final = 1024
"""Units in the last place of a double within which a midpoint of two float32 counts as near. Ours
and torch's doubles differ by 3 where seen, and by 12 at most if every function keeps to the 4 that
numpy allows itself; a hundred times as much asks torch for 4 values in a million."""


def _word(value: int) -> Words:
    # As an operand an array without axes costs a third of a microsecond less than a numpy scalar.
    return np.array(value, dtype=np.uint32)


_MULTIPLIER: Final = _word(1812433253)
_MATRIX: Final = _word(0x9908B0DF)
_HIGHEST_BIT: Final = _word(0x80000000)
_MASK_B: Final = _word(0x9D2C5680)
_MASK_C: Final = _word(0xEFC60000)
_LOW_21: Final = _word(0x1FFFFF)
_COUNT: Final = tuple(_word(j) for j in range(_STATE))

# A double has 29 bits more than a float32; a midpoint has the first of them set and no other.
_BELOW_FLOAT32: Final = np.array((1 << 29) - 1, dtype=np.uint64)
_TO_MARGIN: Final = np.array(_MARGIN - (1 << 28) + (1 << 29), dtype=np.uint64)
_TWO_MARGINS: Final = np.array(2 * _MARGIN, dtype=np.uint64)


def start_values(seeds: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float32]:
    """``size`` start values per seed, shape (seeds, size), as torch draws them one by one.

    For each seed: ``torch.manual_seed(seed)``, then ``torch.randn(())`` ``size`` times, float32
    on the CPU. ``seeds`` has shape (seeds,), int64; as in torch, the low 32 bits count. Beyond
    the result it needs at most 5 MiB of memory for 31 values, whatever the number of seeds.

    Sources: Matsumoto and Nishimura, Mersenne Twister (1998), with their initialization of 2002;
    Box and Muller, A note on the generation of random normal deviates (1958).

    Raises:
        ValueError: ``size`` is not from 1 to ``MAX_SIZE``.
    """
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size is {size}; it must be from 1 to {MAX_SIZE}")
    values = np.empty((len(seeds), size), dtype=np.float32)
    buffers = _Buffers.of(min(len(seeds), _CHUNK), size)
    generator = torch.Generator()
    for low in range(0, len(seeds), _CHUNK):
        seeds_B, values_B = seeds[low : low + _CHUNK], values[low : low + _CHUNK]
        few = len(seeds_B) < _FEW
        ask = np.arange(len(seeds_B)) if few else _draw(seeds_B, values_B, buffers)
        for i in ask:
            values_B[i] = _asked(generator, int(seeds_B[i]), size)
    return values


def _asked(generator: torch.Generator, seed: int, size: int) -> list[float]:
    """Torch's own ``size`` values of ``seed``."""
    generator.manual_seed(seed)
    return [torch.randn((), generator=generator, dtype=torch.float32).item() for _ in range(size)]


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Where a chunk is worked on: the first W + 1 state words of its seeds, and scratch vectors."""

    state_WB: Words
    words_3B: Words
    doubles_4B: Doubles
    flags_2B: Flags

    @staticmethod
    def of(length: int, size: int) -> "_Buffers":
        return _Buffers(
            np.empty((_num_words(size) + 1, length), dtype=np.uint32),
            np.empty((3, length), dtype=np.uint32),
            np.empty((4, length), dtype=np.float64),
            np.empty((2, length), dtype=np.bool_),
        )

    def cut(self, length: int) -> "_Buffers":
        """The same memory for a chunk that may be shorter."""
        return _Buffers(
            self.state_WB[:, :length],
            self.words_3B[:, :length],
            self.doubles_4B[:, :length],
            self.flags_2B[:, :length],
        )


def _num_words(size: int) -> int:
    """W: two values take two doubles of two words each."""
    return 4 * ((size + 1) // 2)


def _draw(
    seeds_B: npt.NDArray[np.int64], values_B: npt.NDArray[np.float32], buffers: _Buffers
) -> npt.NDArray[np.intp]:
    """Fill ``values_B``, shape (B, size); the answer says which rows torch has to be asked for."""
    buffers = buffers.cut(len(seeds_B))
    ask, near = buffers.flags_2B
    scratch = buffers.doubles_4B[-1]
    ask.fill(False)
    for k, normal in enumerate(_normals(seeds_B, values_B.shape[1], buffers)):
        values_B[:, k] = normal
        np.logical_or(ask, _near_midpoint(normal, scratch, near), ask)
    return np.flatnonzero(ask)


def _words(seeds_B: npt.NDArray[np.int64], count: int, buffers: _Buffers) -> Iterator[Words]:
    """The first ``count`` outputs, each a vector in the same buffer."""
    state = buffers.state_WB
    word, mixed, shifted = buffers.words_3B
    last = state[0]
    np.copyto(last, seeds_B, casting="unsafe")
    for j in range(1, _OFFSET + count):
        np.right_shift(last, _COUNT[30], shifted)
        np.bitwise_xor(last, shifted, mixed)
        np.multiply(mixed, _MULTIPLIER, mixed)
        last = state[j] if j <= count else mixed
        np.add(mixed, _COUNT[j], last)
        if j >= _OFFSET:
            k = j - _OFFSET
            _twist(state[k], state[k + 1], last, word, shifted)
            _temper(word, shifted)
            yield word


def _twist(first: Words, second: Words, far: Words, word: Words, scratch: Words) -> None:
    """The next state word, into ``word``."""
    np.bitwise_xor(first, second, scratch)
    np.bitwise_and(scratch, _HIGHEST_BIT, scratch)
    np.bitwise_xor(scratch, second, scratch)  # the highest bit of first, the others of second
    np.right_shift(scratch, _COUNT[1], scratch)
    np.bitwise_and(second, _COUNT[1], word)
    np.multiply(word, _MATRIX, word)
    np.bitwise_xor(word, scratch, word)
    np.bitwise_xor(word, far, word)


def _temper(word: Words, scratch: Words) -> None:
    """A state word's output, in its place."""
    np.right_shift(word, _COUNT[11], scratch)
    np.bitwise_xor(word, scratch, word)
    np.left_shift(word, _COUNT[7], scratch)
    np.bitwise_and(scratch, _MASK_B, scratch)
    np.bitwise_xor(word, scratch, word)
    np.left_shift(word, _COUNT[15], scratch)
    np.bitwise_and(scratch, _MASK_C, scratch)
    np.bitwise_xor(word, scratch, word)
    np.right_shift(word, _COUNT[18], scratch)
    np.bitwise_xor(word, scratch, word)


def _normals(seeds_B: npt.NDArray[np.int64], size: int, buffers: _Buffers) -> Iterator[Doubles]:
    """Per seed ``size`` standard normal numbers, one vector after the other in the same buffer."""
    words = _words(seeds_B, _num_words(size), buffers)
    angle, radius, normal, scratch = buffers.doubles_4B
    for k in range(0, size, 2):
        # Powers of two scale without rounding: these are torch's 2 pi u and -u, bit for bit.
        _scaled(words, 2.0 * np.pi * 2.0**-53, angle, scratch)
        _scaled(words, -(2.0**-53), radius, scratch)
        np.log1p(radius, radius)
        np.multiply(radius, -2.0, radius)
        np.sqrt(radius, radius)
        for function in (torch.cos, torch.sin)[: size - k]:
            _apply(function, angle, normal)
            np.multiply(normal, radius, normal)
            np.add(normal, 0.0, normal)  # torch adds the mean, after which no zero is negative
            yield normal


def _scaled(words: Iterator[Words], scale: float, result: Doubles, scratch: Doubles) -> None:
    """The next two outputs as an integer of 53 bits, times ``scale``."""
    high = next(words)
    np.bitwise_and(high, _LOW_21, high)
    np.copyto(result, high)
    np.multiply(result, 2.0**32, result)
    np.copyto(scratch, next(words))
    np.add(result, scratch, result)
    np.multiply(result, scale, result)


def _apply(function: Callable[..., torch.Tensor], vector: Doubles, result: Doubles) -> None:
    """``function`` of ``vector`` by torch: numpy's sine and cosine take three times as long."""
    parts = torch.from_numpy(vector).split(_ONE_THREAD)
    for part, out in zip(parts, torch.from_numpy(result).split(_ONE_THREAD), strict=True):
        function(part, out=out)


def _near_midpoint(values: Doubles, scratch: Doubles, near: Flags) -> Flags:
    """Which ``values`` a small error could round to another float32, into ``near``.

    Those whose bits below a float32's last are within ``_MARGIN`` of one half of it.
    """
    bits = scratch.view(np.uint64)
    np.add(values.view(np.uint64), _TO_MARGIN, bits)
    np.bitwise_and(bits, _BELOW_FLOAT32, bits)
    return np.less_equal(bits, _TWO_MARGINS, near)
