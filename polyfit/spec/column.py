"""One field of some fits, as an array of codes into its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyfit.numerics.arrays import Index

__all__ = ["Column"]


@dataclass(frozen=True, slots=True)
class Column:
    """One field over a range of fits: fit ``k`` has ``items[codes[k]]``.

    ``codes`` is int64, of shape (fits,); ``items`` may be a ``range`` of any length. ``distinct``:
    whether all of ``items`` are known to differ.
    """

    items: Sequence[Any]
    codes: Index
    distinct: bool = False

    def array(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The values of a numeric field, shape (fits,)."""
        if isinstance(self.items, range):
            # Modulo 2^64, since a noise_seed may be beyond int64; no field is negative.
            start, step = (np.uint64(n % 2**64) for n in (self.items.start, self.items.step))
            return (start + step * self.codes.astype(np.uint64)).astype(dtype)
        values = np.array(self.items, dtype=dtype)
        return np.full(len(self.codes), values[0]) if len(values) == 1 else values[self.codes]

    def compact(self) -> "Column":
        """The same column with only the values that occur, each once."""
        if len(self.codes) and (self.codes == self.codes[0]).all():
            return Column([self.items[int(self.codes[0])]], np.zeros_like(self.codes))
        if len(self.items) <= len(self.codes):  # counting is faster than sorting
            occurs = np.bincount(self.codes) > 0
            used, codes = np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[self.codes]
        else:
            used, codes = np.unique(self.codes, return_inverse=True)
        if self.distinct:
            return Column([self.items[code] for code in used.tolist()], codes, distinct=True)
        places: dict[Any, int] = {}
        merged = [places.setdefault(self.items[int(code)], len(places)) for code in used]
        return Column(list(places), np.array(merged, dtype=np.int64)[codes])
