"""The rows of one run: all, shard by shard, or of some fits.

Rows are read a shard at a time, and of a shard only the columns asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from polyfit.errors import DamagedRun, UsageError
from polyfit.run.columns import check_names
from polyfit.run.condition import condition, condition_columns, filter_rows
from polyfit.run.keys import shard_key
from polyfit.run.ledger import Ledger
from polyfit.run.manifest import Manifest
from polyfit.run.parallel import map_in_order
from polyfit.run.parquet import REFIT_HINT, read_footer
from polyfit.run.rows import to_arrow
from polyfit.run.schema import empty_table, schema
from polyfit.run.shards import ShardReader
from polyfit.run.stored_fit import StoredFit
from polyfit.run.top import first_rows, parse_sort
from polyfit.spec.plan import Plan
from polyfit.store.address import StoreAddress
from polyfit.store.base import Store

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


__all__ = ["READ_AHEAD", "StoredRows"]

READ_AHEAD: Final = 4
"""Shards that are read at a time: reading waits for the store more than it computes."""


class StoredRows:
    """The rows of one run, complete or not, as far as they are stored."""

    def __init__(self, address: StoreAddress, store: Store, plan: Plan) -> None:
        self.address = address
        self.plan = plan
        self._ledger = Ledger(store, plan)
        self._shards = ShardReader(self._ledger)
        self.schema = schema(plan)

    @property
    def uri(self) -> str:
        return self.address.uri

    @property
    def endpoint_url(self) -> str | None:
        """The S3 endpoint; with ``uri`` it opens this run again."""
        return self.address.endpoint_url

    @property
    def manifest(self) -> Manifest | None:
        """The manifest; None while the run is not complete."""
        return self._ledger.manifest()

    @property
    def complete(self) -> bool:
        return self.manifest is not None

    @property
    def label(self) -> str:
        """What tells it from other runs in a table: ``<name>/<run id>``."""
        return "/".join(self.uri.split("/")[-2:])

    @property
    def scalar_columns(self) -> list[str]:
        """The columns that hold no lists."""
        return [field.name for field in self.schema if not pa.types.is_nested(field.type)]

    def batches(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        side_by_side: int = 1,
    ) -> Iterator[pa.Table]:
        """The rows shard by shard, in the order of their fits.

        Args:
            columns: which columns, in this order; all if None.
            where: a condition on columns, such as ``degree == 3 and loss < 0.1``.
            side_by_side: how many shards are read, and held, at a time.

        Raises:
            UsageError: there is no such column, or the condition cannot be read.
            DamagedRun: a shard cannot be read.

        >>> [len(rows) for rows in run.batches(["fit", "loss"])]
        [5, 5, 2]
        """
        names = self.schema.names
        wanted = list(columns) if columns is not None else names
        check_names(wanted, names)
        expression = condition(where, names) if where else None
        needed = wanted
        if where:
            tested = condition_columns(where)
            needed = [*wanted, *(name for name in names if name in tested and name not in wanted)]
        for rows in self._read(needed, side_by_side):
            if expression is not None:
                rows = filter_rows(rows, expression, where or "")
            yield rows.select(wanted)

    def _read(self, columns: Sequence[str], side_by_side: int) -> Iterator[pa.Table]:
        """Columns of the stored shards. A complete run must have every shard."""
        manifest = self.manifest
        sizes = {one.shard: one.bytes for one in manifest.receipts} if manifest else {}
        numbers = range(self.plan.shards) if manifest else sorted(self._ledger.done())
        yield from map_in_order(
            lambda number: self._shards.read(number, columns, sizes.get(number)),
            numbers,
            side_by_side,
        )

    def shard_numbers(self) -> list[int]:
        """The numbers of the shards that are stored, rising.

        >>> run.shard_numbers()
        [0, 1, 2]
        """
        return list(range(self.plan.shards)) if self.manifest else sorted(self._ledger.done())

    def shard_rows(self, number: int, columns: Sequence[str]) -> pa.Table:
        """One shard's rows.

        >>> run.shard_rows(2, ["fit"]).to_pydict()
        {'fit': [10, 11]}

        Raises:
            DamagedRun: it is missing or cannot be read.
        """
        return self._shards.read(number, columns)

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """All rows as one Arrow table; see ``batches``.

        >>> run.to_arrow(["fit", "degree"], where="seed == 3").to_pydict()
        {'fit': [3, 7, 11], 'degree': [1, 3, 5]}
        """
        names = list(columns) if columns is not None else self.schema.names
        check_names(names, self.schema.names)
        empty = empty_table(self.schema).select(names)
        parts = [part.unify_dictionaries() for part in self.batches(columns, where)]
        return pa.concat_tables([empty, *parts]) if parts else empty

    def to_pandas(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> "pd.DataFrame":
        """All rows as one pandas frame; see ``batches``.

        >>> run.to_pandas(["degree", "status"])["degree"].max()
        np.int32(5)
        """
        frame: pd.DataFrame = self.to_arrow(columns, where).to_pandas(use_threads=False)
        return frame

    def to_polars(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> "pl.DataFrame":
        """All rows as one Polars frame; see ``batches``.

        >>> run.to_polars(["degree", "loss"], where="seed < 2").shape
        (6, 2)
        """
        from polyfit.run.scan import to_polars

        return to_polars(self.to_arrow(columns, where))

    def scan(self) -> "pl.LazyFrame":
        """The rows as a lazy frame of Polars: a query reads shard by shard, of each the columns
        that it needs, and keeps the rows that its filters let through.

        >>> import polars as pl
        >>> query = run.scan().filter(pl.col("degree") > 1).group_by("degree").agg(pl.len())
        >>> query.sort("degree").collect().rows()
        [(3, 4), (5, 4)]

        A query raises what ``batches`` does. ``collect(engine="streaming")`` holds a few shards at
        a time, where the query allows it.
        """
        from polyfit.run.scan import lazy_frame

        return lazy_frame(
            lambda columns: self.batches(columns, side_by_side=READ_AHEAD), self.schema
        )

    def top(
        self,
        sort: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> "pl.DataFrame":
        """The first ``limit`` rows by column ``sort`` (descending with a leading ``-``, nulls
        last), or by fit. Memory holds one shard and ``limit`` rows.

        >>> run.top("-seed", limit=2, columns=["degree", "seed"]).rows()
        [(1, 3), (3, 3)]
        """
        from polyfit.run.scan import to_polars

        name, order = parse_sort(sort, self.schema)
        wanted = list(columns or self.schema.names)
        parts = self.batches(list(dict.fromkeys((*wanted, name, "fit"))), where)
        rows = first_rows(parts, name, order, limit)
        return to_polars((empty_table(self.schema) if rows is None else rows).select(wanted))

    def row(self, fit: int) -> dict[str, Any]:
        """One fit's row; see ``stored``.

        >>> run.row(4)["degree"]
        3
        """
        return self.stored(fit).row

    def rows(self, fits: int | Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of some fits, in the order of ``fits``; only their shards are read.

        Raises:
            UsageError: the plan has no such fit, or no such column.
            DamagedRun: a shard is not stored or cannot be read.

        >>> run.rows([9, 0], ["fit", "degree"]).to_pydict()
        {'fit': [9, 0], 'degree': [5, 1]}
        """
        wanted = [fits] if isinstance(fits, int) else [int(fit) for fit in fits]
        names = list(columns) if columns is not None else self.schema.names
        check_names(names, self.schema.names)
        needed = list(dict.fromkeys((*names, "fit")))
        places = dict.fromkeys(self._place(fit) for fit in wanted)
        parts = [empty_table(self.schema).select(needed)]
        for number in dict.fromkeys(number for number, _ in places):
            rows = self._shards.read(number, needed)
            indices = [index for shard, index in places if shard == number]
            if indices and max(indices) >= len(rows):
                raise DamagedRun(self._displaced(number, max(indices)))
            parts.append(rows.take(to_arrow(np.array(indices, dtype=np.int64))))
        found = pa.concat_tables([part.unify_dictionaries() for part in parts])
        index = {fit: place for place, fit in enumerate(found["fit"].to_pylist())}
        for fit in wanted:
            if fit not in index:
                raise DamagedRun(self._displaced(*self._place(fit)))
        order = np.array([index[fit] for fit in wanted], dtype=np.int64)
        return found.take(to_arrow(order)).select(names)

    def _place(self, fit: int) -> tuple[int, int]:
        """The shard of a fit, and its place there.

        Raises:
            UsageError: the plan has no such fit.
        """
        if not 0 <= fit < self.plan.fits:
            raise UsageError(f"fit {fit}; this run has fits 0 to {self.plan.fits - 1:,}")
        return divmod(fit, self.plan.shard_fits)

    def _displaced(self, number: int, index: int) -> str:
        """The message for a shard that lacks a row."""
        fit = number * self.plan.shard_fits + index
        key = shard_key(self.plan, number)
        return f"{self.uri}/{key} does not hold fit {fit} in its place; {REFIT_HINT}"

    def stored(self, fit: int) -> StoredFit:
        """One fit's row, and the object that holds it.

        Raises:
            UsageError: the plan has no such fit.
            DamagedRun: its shard is not stored or cannot be read.

        >>> run.stored(7).shard
        Shard(number=1, start=5, stop=10)
        """
        number, index = self._place(fit)
        key = shard_key(self.plan, number)
        rows = self._shards.read(number, self.schema.names)
        found = rows.slice(index, 1).to_pylist()
        if not found or found[0].get("fit") != fit:
            raise DamagedRun(self._displaced(number, index))
        try:
            footer = read_footer(rows.schema)
        except ValueError as error:
            raise DamagedRun(f"{self.uri}/{key} cannot be read: {error}; {REFIT_HINT}") from None
        return StoredFit(fit, found[0], self.plan.shard(number), key, footer)
