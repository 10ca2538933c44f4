"""Random values of a field, each once: the same on every machine.

They are made from the integers of numpy's Philox, whose stream is fixed for good, by exact
arithmetic and by functions that every CPU rounds alike.
"""

from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from polyfit.numerics import elementary

__all__ = ["integers", "reals"]

_Number = TypeVar("_Number", int, float)

_Raw = npt.NDArray[np.uint64]

_CHUNK: Final = 1_024
_MAX_DRAWS: Final = 100
"""Draws for each value wanted: a range with enough values needs far fewer."""


def reals(name: str, seed: int, low: float, high: float, count: int, log: bool) -> list[float]:
    """``count`` distinct numbers from ``low`` to ``high``; with ``log`` their logarithms are even.

    Fewer numbers of the same seed are a prefix. ``name`` is the field's: fields with one seed
    have streams of their own.

    Raises:
        ValueError: there are not as many.
    """
    return _distinct(name, seed, count, _geometric(low, high) if log else _linear(low, high))


def integers(name: str, seed: int, low: int, high: int, count: int, log: bool) -> list[int]:
    """As ``reals``, of integers: both ends may occur."""
    if high - low + 1 < count:
        raise ValueError(f"at most the {high - low + 1:,} integers from {low} to {high}, each once")
    if not log:
        width = high - low + 1
        return _distinct(
            name, seed, count, lambda raw: [low + (one * width >> 64) for one in raw.tolist()]
        )
    number = _geometric(float(low), float(high + 1))
    return _distinct(
        name, seed, count, lambda raw: [min(int(value), high) for value in number(raw)]
    )


def _linear(low: float, high: float) -> Callable[[_Raw], list[float]]:
    first, width = _decimal(low), _decimal(high) - _decimal(low)
    return lambda raw: [float(first + width * Fraction(one >> 11, 1 << 53)) for one in raw.tolist()]


def _geometric(low: float, high: float) -> Callable[[_Raw], list[float]]:
    with np.errstate(all="ignore"):  # at the ends of float64
        first, last = (float(elementary.log(np.float64(end))) for end in (low, high))

    def numbers(raw: _Raw) -> list[float]:
        shares = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        with np.errstate(all="ignore"):
            made = elementary.exp(first + (last - first) * shares)
        return [float(value) for value in np.clip(made, low, high)]

    return numbers


def _decimal(value: float) -> Fraction:
    """The shortest decimal of a number: for 0.1 a tenth, not the binary number next to it."""
    return Fraction(repr(value))


def _distinct(
    name: str, seed: int, count: int, transform: Callable[[_Raw], list[_Number]]
) -> list[_Number]:
    """The first ``count`` distinct numbers that ``transform`` makes of 64 random bits each."""
    stream = int.from_bytes(name.encode()[:8], "big")
    bits = np.random.Philox(key=seed | stream << 64)
    found: dict[_Number, None] = {}
    for _ in range(1 + _MAX_DRAWS * count // _CHUNK):
        found |= dict.fromkeys(transform(np.asarray(bits.random_raw(_CHUNK), dtype=np.uint64)))
        if len(found) >= count:
            return list(islice(found, count))
    raise ValueError(f"a range with {count:,} values; {len(found):,} were drawn")
