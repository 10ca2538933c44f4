"""Rows of another run that need no fitting again: which they are, and taking them.

A fit is what its fields are, not its index: two sweeps are compared field by field, and an index
in one becomes the index in the other by formula, whatever their sizes. A row is taken only where
a fit would have the same bits, so that a shard is the same object with and without.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import PlanMismatch, StoreError
from polyfit.run.ledger import PLAN, plan_at, shard_key
from polyfit.run.rows import (
    HISTORIES,
    SCALARS,
    UNREADABLE,
    Ragged,
    Rows,
    check_columns,
    list_dtype,
    numbers,
    opened,
    read_footer,
)
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import ENGINE, SCHEMA, Plan, Shard
from polyfit.spec.sweep import Column, Sweep
from polyfit.store.store import NoSuchKey, Remote, StoreAddress

__all__ = ["NothingAlike", "Overlap", "Reuse", "ReusedRows"]

Index = npt.NDArray[np.int64]


# --- which -----------------------------------------------------------------------------------


class Overlap:
    """Where the fits of one sweep stand in another."""

    def __init__(self, new: Sweep, old: Sweep) -> None:
        self._new, self._old = new, old
        varied = {name for axis in old.axes for name in axis.fields}
        fixed = [name for name in CANONICAL_ORDER if name not in varied]
        axes = [
            *([(name, old.values(name))] for name in fixed if old.values(name) != new.values(name)),
            *([(values.field, values.items) for values in axis.values] for axis in old.axes),
        ]
        self._axes = [
            {name: _Places.of(items, new.values(name)) for name, items in axis} for axis in axes
        ]

    def places(self, fits: Index) -> Index:
        """The indices in the old sweep of the new one's ``fits``; -1 where it has no such fit."""
        index = np.zeros(len(fits), dtype=np.int64)
        there = np.ones(len(fits), dtype=np.bool_)
        for axis in self._axes:
            codes = [part.codes(self._new.column(name, fits)) for name, part in axis.items()]
            row = _row(list(axis.values()), codes)
            there &= row >= 0
            index = index * len(next(iter(axis.values())).items) + row
        return np.where(there, index, -1)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where values of a field stand among ``items``, those of an old axis: the first such place.

    ``table`` tells it by the codes of the new sweep's column, ``again`` by the places of the items
    themselves, which a zip may repeat; None where those are a ``range``, whose values are never
    listed.
    """

    items: Sequence[Any]
    table: Index | None
    again: Index | None

    @classmethod
    def of(cls, items: Sequence[Any], new: Sequence[Any]) -> "_Places":
        return cls(items, _table(items, new), _table(items, items))

    def codes(self, column: Column) -> Index:
        """The place of each fit's value, -1 where it has none."""
        if self.table is not None:
            return self.table[column.codes]
        values = column.array(np.uint64)
        if isinstance(self.items, range):
            return _in_range(self.items, values)
        return _among(np.array(self.items, dtype=np.uint64), values)

    def first(self, rows: Index) -> Index:
        """The first place with the value that stands at each of ``rows``."""
        return rows if self.again is None else self.again[rows]


def _table(items: Sequence[Any], values: Sequence[Any]) -> Index | None:
    """The first place of each of ``values`` among ``items``, -1 where it has none."""
    if isinstance(values, range):
        return None
    if isinstance(items, range):
        found = [items.index(value) if value in items else -1 for value in values]
    else:
        first = {value: place for place, value in reversed(list(enumerate(items)))}
        found = [first.get(value, -1) for value in values]
    return np.array(found, dtype=np.int64)


def _row(columns: list[_Places], codes: list[Index]) -> Index:
    """The row of an axis in which each column has its code; -1 where there is none."""
    for column, code in zip(columns, codes, strict=True):
        if isinstance(column.items, range):  # it has no value twice: the place is the row
            pairs = zip(columns, codes, strict=True)
            same = [other.first(code) == found for other, found in pairs]
            return np.where(np.all(same, axis=0), code, -1)
    row = codes[0]
    if len(columns) > 1:
        every = np.arange(len(columns[0].items))
        rows = columns[0].first(every)
        for column, code in zip(columns[1:], codes[1:], strict=True):
            keys = rows * len(every) + column.first(every)
            asked = np.where((row < 0) | (code < 0), -1, row * len(every) + code)
            rows, row = _among(keys, keys), _among(keys, asked)
    return row


def _among(items: npt.NDArray[Any], values: npt.NDArray[Any]) -> Index:
    """The first place of each value among ``items``, -1 where it has none."""
    distinct, first = np.unique(items, return_index=True)
    near = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
    return np.where(distinct[near] == values, first[near], -1)


def _in_range(items: range, values: npt.NDArray[np.uint64]) -> Index:
    """The place of each value in ``items``, -1 where it has none."""
    rising = items if items.step > 0 else items[::-1]
    start, step = np.uint64(rising.start), np.uint64(rising.step)
    place, rest = np.divmod(values - start, step)  # modulo 2^64 where a value is below the start
    there = (values >= start) & (rest == 0) & (place < len(items))
    found = place.astype(np.int64)
    return np.where(there, found if items.step > 0 else len(items) - 1 - found, -1)


# --- taking ----------------------------------------------------------------------------------


class NothingAlike(Exception):
    """No row of the other run can have the bits of this plan's; the message says why."""


class _Refused(Exception):
    """A shard of the other run from which nothing is taken: ``cause`` is the same for its like."""

    def __init__(self, cause: str, told: str) -> None:
        super().__init__(told)
        self.cause = cause


@dataclass(slots=True)
class ReusedRows:
    """What is known of a shard before anything is fitted.

    ``parts`` holds places in the shard and the rows that belong there; ``refused`` a line per
    cause for which rows that might have been taken were not.
    """

    parts: list[tuple[Index, Rows]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def num_fits(self) -> int:
        """How many of the shard's fits are known."""
        return sum(len(at) for at, _ in self.parts)

    def put(self, rows: Rows) -> Index:
        """Put what is known in its places among ``rows``; returns the places that are left."""
        left = np.ones(len(rows.status), dtype=np.bool_)
        for at, part in self.parts:
            left[at] = False
            _put(rows, at, part)
        return np.flatnonzero(left)


class Reuse:
    """The rows of another run, as far as ``plan`` has the same fits.

    Args:
        plan: of the run that takes.
        address: the folder of the run that is taken from; only read.

    Raises:
        RunNotFound: there is no run.
        PlanMismatch: its plan cannot be read.
        NothingAlike: its rows have other bits than this plan's, whatever their fields.
        StoreError: the store cannot be used.
    """

    def __init__(self, plan: Plan, address: StoreAddress) -> None:
        self.uri = address.uri
        self._plan, self._store = plan, address.open()
        try:
            self.source = plan_at(self._store)
        except PlanMismatch:
            self._check_numbers()
            raise
        unlike = _unlike(plan, self.source)
        if unlike is not None:
            raise NothingAlike(unlike)
        self._overlap = Overlap(plan.sweep, self.source.sweep)
        self._names = ["fit", "lr", "status", "steps_taken", *SCALARS, *_lists_of(plan)]

    def _check_numbers(self) -> None:
        """A plan of another ENGINE or row schema is one, though not one that we can make."""
        try:
            stated = json.loads(self._store.get(PLAN))
            there = stated["ENGINE"], stated["SCHEMA"]
        except (ValueError, KeyError, TypeError):
            return
        if there != (ENGINE, SCHEMA):
            raise NothingAlike(
                f"it was made with ENGINE {there[0]} and row schema {there[1]}, this version of "
                f"polyfit has {ENGINE} and {SCHEMA}"
            ) from None

    def rows_for(self, shard: Shard, made: dict[str, Any]) -> ReusedRows:
        """The rows of the plan's ``shard`` that are at rest in the other run.

        Args:
            shard: which fits.
            made: what a footer would say of rows made here: engine, torch, device, CPU.

        Raises:
            StoreError: the store fails for a moment. What it refuses for good counts as damaged.
        """
        known = ReusedRows()
        fits = np.arange(shard.start, shard.stop, dtype=np.int64)
        old = self._overlap.places(fits)
        at = np.flatnonzero(old >= 0)
        if len(at) and made["device"] != "cpu":
            known.refused["device"] = (
                f"nothing of {self.uri} is taken on {made['device']}: the same bits in any batch "
                "are promised on CPUs only"
            )
            return known
        numbers = old[at] // self.source.shard_fits
        order = np.argsort(numbers, kind="stable")
        for some in np.split(at[order], np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(some):
                self._take(known, fits[some], old[some], some, made)
        return known

    def _take(
        self, known: ReusedRows, fits: Index, old: Index, at: Index, made: dict[str, Any]
    ) -> None:
        """Take these fits, all of one shard there."""
        number = int(old[0]) // self.source.shard_fits
        key = shard_key(self.source, number)
        try:
            rows = self._read(key, self.source.shard(number), old, made)
            known.parts.append((at, self._rows(rows, fits)))
        except _Refused as refused:
            known.refused.setdefault(refused.cause, f"{self.uri}/{key} {refused}")
        except NoSuchKey:
            known.refused.setdefault("missing", f"{self.uri}/{key} is not there")
        except StoreError as error:
            if error.transient:
                raise
            known.refused.setdefault("damaged", f"{self.uri}/{key} cannot be read ({error})")
        except UNREADABLE as error:
            known.refused.setdefault("damaged", f"{self.uri}/{key} cannot be read ({error})")

    def _read(self, key: str, shard: Shard, old: Index, made: dict[str, Any]) -> pa.Table:
        """The rows of the fits ``old``, of the row groups and columns that hold them."""
        file = opened(Remote(self._store, key))
        metadata = file.metadata
        footer = read_footer(metadata)
        stated = footer.get("plan"), footer.get("fits")
        if stated != (self.source.hash, [shard.start, shard.stop]):
            raise _Refused("damaged", "is another plan's or another shard")
        for name, here in made.items():
            if footer.get(name) != here:
                raise _Refused(name, f"was made with {name} {footer.get(name)}, here it is {here}")
        places = old - shard.start
        groups = range(metadata.num_row_groups)
        sizes = np.array([metadata.row_group(group).num_rows for group in groups])
        starts = np.cumsum(sizes) - sizes
        read, of = np.unique(np.searchsorted(starts, places, "right") - 1, return_inverse=True)
        rows = file.read_row_groups(read.tolist(), self._names, use_threads=False)
        shift = np.cumsum(sizes[read]) - sizes[read] - starts[read]  # by the groups left out
        return self._checked(_picked(rows, places + shift[of]), old)

    def _checked(self, rows: pa.Table, old: Index) -> pa.Table:
        check_columns(rows, self._names, self.source)
        if not np.array_equal(numbers(rows["fit"]), old):
            raise ValueError("its fits do not stand in their places")
        return rows

    def _rows(self, rows: pa.Table, fits: Index) -> Rows:
        """The rows of these fits of the plan, but for their fields, which the plan has."""
        record = self._plan.record
        sizes = self._plan.sweep.column("degree", fits).array(np.int64) + 1
        steps_taken = numbers(rows["steps_taken"])
        updates = np.array(record.updates(int(steps_taken.max())), dtype=np.int64)
        recorded = np.searchsorted(updates, steps_taken)
        words = rows["status"].cast(pa.string()).combine_chunks().dictionary_encode()
        known = numbers(rows["power_coefficients"].is_valid().cast(pa.uint8())).astype(np.bool_)
        return Rows(
            parameters={},
            lr=numbers(rows["lr"]),
            statuses=words.dictionary.to_pylist(),
            status=numbers(words.indices).astype(np.int8),
            steps_taken=steps_taken,
            scalars={name: numbers(rows[name]) for name in SCALARS},
            coefficients=_ragged(rows["coefficients"], sizes),
            power_coefficients=_ragged(rows["power_coefficients"], np.where(known, sizes, 0)),
            power_known=known,
            histories={
                name: _ragged(
                    rows[HISTORIES[name]], recorded, sizes if name == "coefficients" else 1
                )
                for name in record.of
            },
        )


def _lists_of(plan: Plan) -> list[str]:
    """The columns of lists that a row of ``plan`` has."""
    return ["coefficients", "power_coefficients", *(HISTORIES[name] for name in plan.record.of)]


def _unlike(plan: Plan, source: Plan) -> str | None:
    """Why no row of ``source`` has the bits of one of ``plan``; None where rows may."""
    if plan.engine == "affine":
        return (
            "this plan's engine is affine, which tells in each shard how far its fits are off "
            "their iteration, and fits as fast as rows are read"
        )
    if source.engine != plan.engine:
        return (
            f"its engine is {source.engine}, this plan's is {plan.engine} (`engine: "
            f"{source.engine}` in the spec would take its rows)"
        )
    if source.torch != plan.torch:
        return f"it was made with torch {source.torch}, this plan is for {plan.torch}"
    if source.record.canonical() != plan.record.canonical():
        there, here = (json.dumps(p.record.canonical()) for p in (source, plan))
        return f"it records {there}, this plan {here}"
    if list_dtype(source) != list_dtype(plan):
        there, here = (np.dtype(list_dtype(p)).name for p in (source, plan))
        return f"its lists are {there}, this plan's are {here}: of float32 where every fit is"
    return None


def _picked(rows: pa.Table, places: Index) -> pa.Table:
    """The rows at ``places``; where they are neighbours, without a copy."""
    if (np.diff(places) == 1).all():
        return rows.slice(int(places[0]), len(places))
    return rows.take(pa.array(places))


def _ragged(column: pa.ChunkedArray, counts: Index, width: Index | int = 1) -> Ragged:
    """Lists of so many numbers, or of so many lists of ``width``; null is NaN, a null list empty.

    Raises:
        ValueError: they are longer or shorter.
    """
    lists = column.combine_chunks()
    values = numbers(lists.flatten(recursive=True))
    lengths = counts * width
    found = numbers(pc.list_value_length(lists).fill_null(0))
    if not np.array_equal(found, counts) or len(values) != lengths.sum():
        raise ValueError("its lists have other lengths than its fits")
    return Ragged(values, lengths)


def _put(rows: Rows, at: Index, part: Rows) -> None:
    """Put ``part`` in the places ``at`` among ``rows``."""
    codes = np.array([rows.statuses.index(word) for word in part.statuses], dtype=np.int8)
    rows.status[at] = codes[part.status]
    rows.lr[at], rows.steps_taken[at] = part.lr, part.steps_taken
    for name, values in part.scalars.items():
        rows.scalars[name][at] = values
    rows.power_known[at] = part.power_known
    _fill(rows.coefficients, at, part.coefficients)
    _fill(rows.power_coefficients, at, part.power_coefficients)
    for name, history in part.histories.items():
        _fill(rows.histories[name], at, history)


def _fill(lists: Ragged, at: Index, values: Ragged) -> None:
    """Put ``values`` at the heads of the lists ``at``."""
    starts = lists.offsets[at]
    if (np.diff(at) == 1).all() and np.array_equal(lists.lengths[at], values.lengths):
        lists.values[starts[0] : starts[0] + len(values.values)] = values.values
        return
    shift = np.repeat(starts - values.offsets[:-1], values.lengths)
    lists.values[shift + np.arange(len(values.values))] = values.values
