"""Rows of another run that need no fitting again.

A row is taken only where fitting would give the same bits, so that a shard is the same object with
and without.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import DamagedRun, PlanMismatch, StoreError
from polyfit.numerics.arrays import Index
from polyfit.run.keys import PLAN, shard_key
from polyfit.run.ledger import Ledger, plan_at
from polyfit.run.overlap import Overlap
from polyfit.run.parquet import READ_ERRORS, check_columns, open_parquet, read_footer, to_numpy
from polyfit.run.rows import Ragged, Rows, Words, to_arrow
from polyfit.run.schema import HISTORIES, SCALARS, list_dtype
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import ENGINE, SCHEMA, Plan, Shard
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey
from polyfit.store.object_file import ObjectFile

__all__ = ["NothingAlike", "Reuse", "ReusedRows", "difference"]

MAX_VALUES: Final = 10_000
"""Values of a field that are compared to say why two plans have no fit in common."""

MAX_COUNTED: Final = 1 << 22
"""Fits that are looked for one by one, to say how many the other run has."""


class NothingAlike(Exception):
    """No row of the other run can have the bits of this plan's; the message says why."""


class _ShardRefused(Exception):
    """No row of a shard of the other run can be taken; ``cause`` is the same for shards like it."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(slots=True)
class ReusedRows:
    """The rows of a shard that another run has.

    ``parts`` holds places in the shard and the rows for them; ``refused`` one line per cause why
    rows that the other run should have are not taken.
    """

    parts: list[tuple[Index, Rows]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def num_fits(self) -> int:
        """How many of the shard's fits are taken."""
        return sum(len(places) for places, _ in self.parts)

    def put(self, rows: Rows) -> Index:
        """Copy them to their places among ``rows``; returns the places that are left to fit."""
        is_left = np.ones(len(rows.status), dtype=np.bool_)
        for places, part in self.parts:
            is_left[places] = False
            _put(rows, places, part)
        return np.flatnonzero(is_left)


class Reuse:
    """The rows of another run, as far as ``plan`` has the same fits.

    Args:
        plan: of the run that takes rows.
        address: the folder of the run that they are taken from, which is only read.

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
            self._check_versions()
            raise
        if plan.engine == "affine":
            raise NothingAlike(_AFFINE)
        if (reason := difference(plan, self.source)) is not None:
            raise NothingAlike(reason)
        if (reason := different_fields(plan, self.source)) is not None:
            raise NothingAlike(reason)
        self._overlap = Overlap(plan.sweep, self.source.sweep)
        histories = (HISTORIES[name] for name in plan.record.of)
        self._columns = [
            *("fit", "lr", "lr_limit", "status", "reason", "steps_taken", "steps_to_1pct"),
            *SCALARS,
            *("coefficients", "power_coefficients", *histories),
        ]

    def num_stored(self, most: int = MAX_COUNTED) -> tuple[int, bool]:
        """How many of the plan's fits are in shards that the other run has stored.

        Of a plan of more than ``most`` fits every second, third, ... is looked for.

        Returns:
            The number, and whether it is exact.
        """
        stride = -(-self._plan.fits // most)
        fits = self._overlap.indices(np.arange(0, self._plan.fits, stride, dtype=np.int64))
        stored = np.zeros(self.source.shards, dtype=np.bool_)
        stored[sorted(Ledger(self._store, self.source).done())] = True
        found = int(stored[fits[fits >= 0] // self.source.shard_fits].sum())
        return round(found / len(fits) * self._plan.fits), stride == 1

    def why_none(self) -> str:
        """Why ``num_stored`` finds nothing, where it is exact."""
        fits = self._overlap.indices(np.arange(self._plan.fits, dtype=np.int64))
        if (fits >= 0).any():
            return f"{(fits >= 0).sum():,} fits are in both, but there none is stored yet"
        return "no fit is in both: no combination of the fields' values is"

    def _check_versions(self) -> None:
        """Raise NothingAlike where another ENGINE or row schema is why its plan is unreadable."""
        try:
            stated = json.loads(self._store.get(PLAN))
            source = stated["ENGINE"], stated["SCHEMA"]
        except (ValueError, KeyError, TypeError):
            return
        if source != (ENGINE, SCHEMA):
            raise NothingAlike(
                f"it was made with ENGINE {source[0]} and row schema {source[1]}, this version of "
                f"polyfit has {ENGINE} and {SCHEMA}"
            ) from None

    def rows_for(self, shard: Shard, provenance: dict[str, Any]) -> ReusedRows:
        """The rows of the plan's ``shard`` that are stored in the other run.

        Args:
            shard: which fits.
            provenance: what a footer would say of rows made here: engine, torch, device, CPU.

        Raises:
            StoreError: the store fails for a moment. A shard that it refuses for good counts as
                damaged.
        """
        found = ReusedRows()
        fits = np.arange(shard.start, shard.stop, dtype=np.int64)
        source_fits = self._overlap.indices(fits)
        places = np.flatnonzero(source_fits >= 0)
        if len(places) and provenance["device"] != "cpu":
            found.refused["device"] = (
                f"nothing of {self.uri} is taken on {provenance['device']}: the same bits in any "
                "batch are promised on CPUs only"
            )
            return found
        numbers = source_fits[places] // self.source.shard_fits
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        for of_one_shard in np.split(places[order], cuts):
            if len(of_one_shard):
                self._take(found, fits, source_fits, of_one_shard, provenance)
        return found

    def _take(
        self,
        found: ReusedRows,
        fits: Index,
        source_fits: Index,
        places: Index,
        provenance: dict[str, Any],
    ) -> None:
        """Take the fits at ``places``, whose rows are all in one shard of the other run."""
        wanted = source_fits[places]
        shard = self.source.shard(int(wanted[0]) // self.source.shard_fits)
        key = shard_key(self.source, shard.number)
        where = f"{self.uri}/{key}"
        try:
            rows = self._read(key, shard, wanted, provenance)
            found.parts.append((places, self._to_rows(rows, fits[places])))
        except _ShardRefused as refusal:
            found.refused.setdefault(refusal.cause, f"{where} {refusal}")
        except NoSuchKey:
            found.refused.setdefault("missing", f"{where} is not there")
        except (StoreError, DamagedRun, *READ_ERRORS) as error:
            if isinstance(error, StoreError) and error.transient:
                raise
            found.refused.setdefault("damaged", f"{where} cannot be read ({error})")

    def _read(self, key: str, shard: Shard, wanted: Index, provenance: dict[str, Any]) -> pa.Table:
        """The rows of the source's fits ``wanted``; only the row groups that hold them are read.

        Raises:
            _ShardRefused: the rows have other bits, or are of another plan.
            Exception: one of ``READ_ERRORS``, where the shard is damaged.
        """
        file = open_parquet(ObjectFile(self._store, key))
        footer = read_footer(file.metadata)
        stated = footer.get("plan"), footer.get("fits")
        if stated != (self.source.hash, [shard.start, shard.stop]):
            raise _ShardRefused("damaged", "is another plan's or another shard")
        for name, here in provenance.items():
            if footer.get(name) != here:
                there = footer.get(name)
                raise _ShardRefused(name, f"was made with {name} {there}, here it is {here}")
        num_groups = file.metadata.num_row_groups
        sizes = np.array([file.metadata.row_group(group).num_rows for group in range(num_groups)])
        starts = np.cumsum(sizes) - sizes
        places = wanted - shard.start
        groups, group_of = np.unique(
            np.searchsorted(starts, places, "right") - 1, return_inverse=True
        )
        rows = file.read_row_groups(groups.tolist(), self._columns, use_threads=False)
        starts_as_read = np.cumsum(sizes[groups]) - sizes[groups]
        rows = _take_rows(rows, places + (starts_as_read - starts[groups])[group_of])
        check_columns(rows, self._columns, self.source)
        if not np.array_equal(to_numpy(rows["fit"]), wanted):
            raise ValueError("its fits are not in their places")
        return rows

    def _to_rows(self, rows: pa.Table, fits: Index) -> Rows:
        """Rows as arrays, without their parameters, which the plan has.

        Args:
            rows: as they were read.
            fits: their indices in this plan.
        """
        record = self._plan.record
        sizes = self._plan.sweep.column("degree", fits).array(np.int64) + 1
        steps_taken = to_numpy(rows["steps_taken"])
        steps = self._plan.sweep.column("steps", fits).array(np.int64)
        num_recorded = record.counts(steps, steps_taken)
        statuses, status = _words(rows["status"])
        texts, numbers = _words(rows["reason"])
        reasons = Words()
        codes = np.array([*map(reasons.code, [*texts, None])], dtype=np.int64)
        valid = to_numpy(rows["power_coefficients"].is_valid().cast(pa.uint8())).astype(np.bool_)
        return Rows(
            parameters={},
            lr=to_numpy(rows["lr"]),
            lr_limit=to_numpy(rows["lr_limit"]),
            statuses=statuses,
            status=status.astype(np.int8),
            reasons=reasons,
            reason=codes[numbers],
            steps_taken=steps_taken,
            steps_to_1pct=to_numpy(rows["steps_to_1pct"].fill_null(-1)),
            scalars={name: to_numpy(rows[name]) for name in SCALARS},
            coefficients=_ragged(rows["coefficients"], sizes),
            power_coefficients=_ragged(rows["power_coefficients"], np.where(valid, sizes, 0)),
            power_known=valid,
            histories={
                name: _ragged(
                    rows[HISTORIES[name]], num_recorded, sizes if name == "coefficients" else 1
                )
                for name in record.of
            },
        )


_AFFINE: Final = (
    "this plan's engine is affine, which states in each shard how far its fits are from their "
    "iteration, and fits as fast as rows are read"
)


def difference(plan: Plan, source: Plan) -> str | None:
    """Why no row of ``source`` has the bits of one of ``plan``; None where rows may."""
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
        return (
            f"it stores coefficients and histories as {there}, this plan as {here}: a run has "
            "float32 there if `dtype` is float32 for all of its fits, else float64"
        )
    return None


def different_fields(plan: Plan, source: Plan) -> str | None:
    """Which fields have no value in both plans, so that no fit is in both; None if all have one.

    Fields with more than ``MAX_VALUES`` values are not looked at.
    """
    pairs = {name: (_values(source, name), _values(plan, name)) for name in CANONICAL_ORDER}
    found = [
        f"{name} is {_listed(there)} there and {_listed(here)} here"
        for name, (there, here) in pairs.items()
        if max(len(there), len(here)) <= MAX_VALUES and there.keys().isdisjoint(here)
    ]
    return f"no fit is in both: {', '.join(found)}" if found else None


def _values(plan: Plan, name: str) -> dict[Any, None]:
    """The distinct values of a field; one more than ``MAX_VALUES`` at most."""
    distinct: dict[Any, None] = {}
    for value in plan.sweep.values(name):
        distinct[value] = None
        if len(distinct) > MAX_VALUES:
            break
    return distinct


def _listed(values: Iterable[Any]) -> str:
    *shown, last = [str(list(v) if isinstance(v, tuple) else v) for v in islice(values, 4)]
    return ", ".join([*shown, last if len(shown) < 3 else "..."])


def _take_rows(rows: pa.Table, places: Index) -> pa.Table:
    """The rows at ``places``; a slice, which copies nothing, where they are consecutive."""
    if (np.diff(places) == 1).all():
        return rows.slice(int(places[0]), len(places))
    return rows.take(to_arrow(places))


def _words(column: pa.ChunkedArray) -> tuple[list[str], Index]:
    """The words of a column, and for each row which one it has; -1 where it has none."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), to_numpy(encoded.indices.fill_null(-1)).astype(np.int64)


def _ragged(column: pa.ChunkedArray, counts: Index, width: Index | int = 1) -> Ragged:
    """Lists of ``counts`` numbers, or of ``counts`` lists of ``width`` numbers each.

    Null numbers become NaN, null lists empty.

    Raises:
        ValueError: they are longer or shorter.
    """
    lists = column.combine_chunks()
    values = to_numpy(lists.flatten(recursive=True))
    lengths = counts * width
    found = to_numpy(pc.list_value_length(lists).fill_null(0))
    if not np.array_equal(found, counts) or len(values) != lengths.sum():
        raise ValueError("its lists have other lengths than its fits")
    return Ragged(values, lengths)


def _put(rows: Rows, places: Index, part: Rows) -> None:
    """Copy ``part`` to the ``places`` among ``rows``."""
    codes = np.array([rows.statuses.index(word) for word in part.statuses], dtype=np.int8)
    rows.status[places] = codes[part.status]
    reason = part.reasons.column(part.reason)
    codes = np.array([rows.reasons.code(word) for word in reason.items], dtype=np.int64)
    rows.reason[places] = codes[reason.codes]
    rows.lr[places], rows.steps_taken[places] = part.lr, part.steps_taken
    rows.lr_limit[places], rows.steps_to_1pct[places] = part.lr_limit, part.steps_to_1pct
    for name, values in part.scalars.items():
        rows.scalars[name][places] = values
    rows.power_known[places] = part.power_known
    _put_lists(rows.coefficients, places, part.coefficients)
    _put_lists(rows.power_coefficients, places, part.power_coefficients)
    for name, history in part.histories.items():
        _put_lists(rows.histories[name], places, history)


def _put_lists(lists: Ragged, places: Index, values: Ragged) -> None:
    """Copy each list of ``values`` to the beginning of the list at its place."""
    starts = lists.offsets[places]
    same_lengths = np.array_equal(lists.lengths[places], values.lengths)
    if same_lengths and (np.diff(places) == 1).all():
        lists.values[starts[0] : starts[0] + len(values.values)] = values.values
        return
    shift = np.repeat(starts - values.offsets[:-1], values.lengths)
    lists.values[shift + np.arange(len(values.values))] = values.values
