"""The results of a shard as numpy arrays, and as an Arrow table.

Arrow arrays are made from the memory of numpy arrays: ``pa.array`` imports pandas to find out what
it is given, which takes a third of a second of every process that fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyfit.run.schema import HISTORIES, HISTORY_STEPS, schema
from polyfit.spec.column import Column
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.rate import limit_share

__all__ = ["Ragged", "Rows", "Words", "to_arrow", "to_table"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists of unequal length: ``values`` (1-D) cut into pieces of ``lengths`` (shape (fits,))."""

    values: npt.NDArray[np.floating]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, lengths: npt.NDArray[np.int64], dtype: npt.DTypeLike) -> "Ragged":
        """Lists of these lengths, all NaN."""
        return cls(np.full(int(lengths.sum()), np.nan, dtype=dtype), lengths)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each list begins in ``values``, and where the last one ends."""
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])

    def put(self, rows: npt.NDArray[np.int64], values: npt.NDArray[np.floating]) -> None:
        """Fill lists ``rows`` from ``values`` (shape (rows, longest)), each to its own length."""
        width = values.shape[1]
        if (
            len(rows)
            and len(self.values) == width * len(self.lengths)
            and (self.lengths == width).all()
        ):
            matrix = self.values.reshape(len(self.lengths), width)
            if (np.diff(rows) == 1).all():  # a slice is copied faster than by indices
                matrix[rows[0] : rows[-1] + 1] = values
            else:
                matrix[rows] = values
            return
        indices = self.offsets[rows][:, None] + np.arange(width)
        used = np.arange(width) < self.lengths[rows][:, None]
        self.values[indices[used]] = values[used]

    def cut(self, lengths: npt.NDArray[np.int64]) -> "Ragged":
        """The first ``lengths`` values of each list."""
        if np.array_equal(lengths, self.lengths):
            return self
        index_in_list = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        return Ragged(self.values[index_in_list < np.repeat(lengths, self.lengths)], lengths)


class Words:
    """Texts by their numbers, None among them as 0; threads may add to them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._codes: dict[str | None, int] = {None: 0}

    def code(self, word: str | None) -> int:
        """The number of a text, new or known."""
        with self._lock:
            return self._codes.setdefault(word, len(self._codes))

    def column(self, codes: npt.NDArray[np.int64]) -> Column:
        """The texts of these numbers, in the order of the alphabet: threads found them in any."""
        with self._lock:
            compact = Column(list(self._codes), codes, distinct=True).compact()
        words = sorted(compact.items, key=lambda word: word or "")
        place = {word: number for number, word in enumerate(words)}
        places = np.array([place[word] for word in compact.items], dtype=np.int64)
        return Column(words, places[compact.codes], distinct=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """A shard's results, one array entry per fit in the order of the shard.

    ``parameters`` are the fields of the fits; ``lr`` the rates used, ``lr_limit`` the stability
    limits; ``status`` indexes ``statuses``, ``reason`` is numbered by ``reasons``. Numbers that
    are not finite become null, and so does a negative ``steps_to_1pct``.
    """

    parameters: dict[str, Column]
    lr: npt.NDArray[np.float64]
    lr_limit: npt.NDArray[np.float64]
    statuses: Sequence[str]
    status: npt.NDArray[np.int8]
    reasons: Words
    reason: npt.NDArray[np.int64]
    steps_taken: npt.NDArray[np.int64]
    steps_to_1pct: npt.NDArray[np.int64]
    scalars: dict[str, npt.NDArray[np.float64]]
    coefficients: Ragged
    power_coefficients: Ragged
    power_known: npt.NDArray[np.bool_]
    histories: dict[str, Ragged]


def to_table(plan: Plan, shard: Shard, rows: Rows) -> pa.Table:
    """The rows of ``shard`` as an Arrow table of ``schema(plan)``."""
    parameters = rows.parameters
    ranges, rates = parameters["range"].compact(), parameters["lr"].compact()
    lows, highs = (np.array([r[k] for r in ranges.items])[ranges.codes] for k in (0, 1))
    lr_limit = np.where(np.isfinite(rows.lr_limit), rows.lr_limit, np.nan)
    arrays = {
        "fit": to_arrow(np.arange(shard.start, shard.stop, dtype=np.int64)),
        "range_low": to_arrow(lows),
        "range_high": to_arrow(highs),
        "lr": _finite_or_null(rows.lr),
        "lr_limit": _finite_or_null(lr_limit),
        "lr_share": _finite_or_null(limit_share(rates.items, rates.codes, rows.lr, lr_limit)),
        "status": _dictionary_array(Column(rows.statuses, rows.status.astype(np.int64))),
        "reason": _dictionary_array(rows.reasons.column(rows.reason)),
        "steps_taken": to_arrow(rows.steps_taken),
        "steps_to_1pct": to_arrow(rows.steps_to_1pct, rows.steps_to_1pct >= 0),
        "coefficients": _list_array(rows.coefficients),
        "power_coefficients": _list_array(rows.power_coefficients, rows.power_known),
        **{name: _finite_or_null(values) for name, values in rows.scalars.items()},
    }
    for name in ("basis", "objective", "dtype", "target", "stop", "optimizer"):
        arrays[name] = _dictionary_array(parameters[name])
    for name in ("degree", "points", "noise", "noise_seed", "steps", "seed"):
        arrays[name] = to_arrow(parameters[name].array(_NUMBER_DTYPES[name]))
    size = parameters["degree"].array(np.int64) + 1
    for name, history in rows.histories.items():
        arrays[HISTORIES[name]] = (
            _nested_list_array(history, size) if name == "coefficients" else _list_array(history)
        )
        counts = history.lengths // size if name == "coefficients" else history.lengths
        arrays[HISTORY_STEPS] = _updates_array(plan, parameters["steps"].compact(), counts)
    wanted = schema(plan)
    columns = [arrays[name].cast(wanted.field(name).type) for name in wanted.names]
    return pa.Table.from_arrays(columns, schema=wanted)


_NUMBER_DTYPES: Final[dict[str, Any]] = {
    "degree": np.int32,
    "points": np.int32,
    "noise": np.float64,
    "noise_seed": np.uint64,
    "steps": np.int64,
    "seed": np.int64,
}


def to_arrow(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow array over the memory of ``values``; null where not ``valid``."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), len(values), [_bitmap(valid), pa.py_buffer(values)]
    )


def _bitmap(valid: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _string_array(words: Sequence[str]) -> pa.Array:
    data = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.string(), len(words), buffers)


def _finite_or_null(values: npt.NDArray[np.floating]) -> pa.Array:
    finite = np.isfinite(values)
    return to_arrow(values, None if finite.all() else finite)


def _dictionary_array(column: Column) -> pa.Array:
    compact = column.compact()
    words = [None if item is None else str(item) for item in compact.items]
    valid = compact.codes != words.index(None) if None in words else None
    return pa.DictionaryArray.from_arrays(
        to_arrow(compact.codes.astype(np.int32), valid),
        _string_array([word or "" for word in words]),
    )


def _updates_array(plan: Plan, steps: Column, counts: npt.NDArray[np.int64]) -> pa.ListArray:
    """For each fit the first ``counts`` of the updates recorded in so many ``steps``."""
    updates = [np.array(plan.record.updates(value), dtype=np.int32) for value in steps.items]
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    if len(updates) == 1 and (counts == counts[0]).all():  # as in most shards
        values = np.tile(updates[0][: counts[0]], len(counts))
    else:
        firsts = np.cumsum([0, *map(len, updates)])[:-1][steps.codes]
        places = np.arange(offsets[-1]) + np.repeat(firsts - offsets[:-1], counts)
        values = np.concatenate(updates)[places]
    buffers = [None, pa.py_buffer(offsets.astype(np.int32))]
    return pa.Array.from_buffers(
        pa.list_(pa.int32()), len(counts), buffers, children=[to_arrow(values)]
    )


def _list_array(ragged: Ragged, valid: npt.NDArray[np.bool_] | None = None) -> pa.ListArray:
    values = _finite_or_null(ragged.values)
    return pa.Array.from_buffers(
        pa.list_(values.type),
        len(ragged.lengths),
        [
            _bitmap(valid),
            pa.py_buffer(ragged.offsets.astype(np.int32)),
        ],
        children=[values],
    )


def _nested_list_array(ragged: Ragged, size: npt.NDArray[np.int64]) -> pa.ListArray:
    """Lists of lists: a fit's recorded values cut into lists of coefficients, ``size`` each."""
    counts = ragged.lengths // size
    coefficients = _list_array(Ragged(ragged.values, np.repeat(size, counts)))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(to_arrow(offsets), coefficients)
