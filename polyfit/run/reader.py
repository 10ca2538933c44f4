"""Reads a run: tables, single fits, groups, predictions.

Neither torch nor Ray is needed, nor the driver: the store is enough. Rows are read a shard at a
time, and of a shard only the columns asked for.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyfit.errors import DamagedRun, UsageError
from polyfit.run.columns import check_names
from polyfit.run.condition import condition, filter_rows
from polyfit.run.groups import GROUP_COLUMNS, Group, group_rows
from polyfit.run.keys import shard_key
from polyfit.run.last_attempt import describe_last_attempt
from polyfit.run.ledger import Ledger, plan_at
from polyfit.run.manifest import Manifest
from polyfit.run.parquet import REFIT_HINT, read_footer
from polyfit.run.schema import schema
from polyfit.run.shards import ShardReader, map_in_order
from polyfit.run.stored_fit import StoredFit, predict
from polyfit.run.top import first_rows, parse_sort
from polyfit.run.verify import Verdict, verify
from polyfit.spec.plan import Plan
from polyfit.store.address import StoreAddress
from polyfit.store.base import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run"]

_GROUP_THREADS: Final = 4
"""Shards that are read at a time for groups: reading waits for the store more than it computes."""


class Run:
    """One run in a store; open it with ``Run.open``.

    A run that is not complete opens too, and has the shards that are stored.
    """

    def __init__(self, address: StoreAddress, store: Store, plan: Plan) -> None:
        self.address = address
        self.plan = plan
        self._ledger = Ledger(store, plan)
        self._shards = ShardReader(self._ledger)
        self._schema = schema(plan)

    @classmethod
    def open(cls, uri: str | os.PathLike[str], endpoint_url: str | None = None) -> "Run":
        """The run at ``uri``, its own folder: ``<store>/<name>/<run id>``.

        Raises:
            RunNotFound: there is no plan.
            PlanMismatch: another version of polyfit made the plan.
            StoreError: the store cannot be used.
        """
        address = StoreAddress.of(uri, endpoint_url)
        store = address.open()
        return cls(address, store, plan_at(store))

    def __repr__(self) -> str:
        return f"Run({self.uri!r}: {self.plan.fits:,} fits)"

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

    def driver(self) -> str:
        """Whether a driver is at work on the run, in words."""
        return describe_last_attempt(self._ledger)

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
        """
        names = self._schema.names
        wanted = list(columns) if columns is not None else names
        check_names(wanted, names)
        expression = condition(where, names) if where else None
        needed = wanted if expression is None else names
        manifest = self.manifest
        # A complete run must have every shard; of another, those are read that are stored.
        sizes = {one.shard: one.bytes for one in manifest.receipts} if manifest else {}
        numbers = range(self.plan.shards) if manifest else sorted(self._ledger.done())

        def read(number: int) -> pa.Table:
            return self._shards.read(number, needed, sizes.get(number))

        for rows in map_in_order(read, numbers, side_by_side):
            if expression is not None:
                rows = filter_rows(rows, expression, where or "")
            yield rows.select(wanted)

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """All rows as one Arrow table; see ``batches``."""
        names = list(columns) if columns is not None else self._schema.names
        check_names(names, self._schema.names)
        empty = self._schema.empty_table().select(names)
        parts = [part.unify_dictionaries() for part in self.batches(columns, where)]
        return pa.concat_tables([empty, *parts]) if parts else empty

    def to_pandas(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> "pd.DataFrame":
        """All rows as one pandas frame; see ``batches``."""
        frame: pd.DataFrame = self.table(columns, where).to_pandas(use_threads=False)
        return frame

    def top(
        self,
        sort: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> pa.Table:
        """The first ``limit`` rows by column ``sort`` (descending with a leading ``-``, nulls
        last), or by fit. Memory holds one shard and ``limit`` rows."""
        name, order = parse_sort(sort, self._schema)
        wanted = list(columns or self._schema.names)
        parts = self.batches(list(dict.fromkeys((*wanted, name, "fit"))), where)
        rows = first_rows(parts, name, order, limit)
        return (self._schema.empty_table() if rows is None else rows).select(wanted)

    def row(self, fit: int) -> dict[str, Any]:
        """One fit's row; see ``stored``."""
        return self.stored(fit).row

    def stored(self, fit: int) -> StoredFit:
        """One fit's row, and the object that holds it.

        Raises:
            UsageError: the plan has no such fit.
            DamagedRun: its shard is not stored or cannot be read.
        """
        if not 0 <= fit < self.plan.fits:
            raise UsageError(f"fit {fit}; this run has fits 0 to {self.plan.fits - 1:,}")
        number, index = divmod(fit, self.plan.shard_fits)
        key = shard_key(self.plan, number)
        rows = self._shards.read(number, self._schema.names)
        found = rows.slice(index, 1).to_pylist()
        if not found or found[0].get("fit") != fit:
            raise DamagedRun(f"{self.uri}/{key} does not hold fit {fit} in its place; {REFIT_HINT}")
        try:
            footer = read_footer(rows.schema)
        except ValueError as error:
            raise DamagedRun(f"{self.uri}/{key} cannot be read: {error}; {REFIT_HINT}") from None
        return StoredFit(fit, found[0], self.plan.shard(number), key, footer)

    def predict(self, fit: int, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The fitted polynomial at ``x`` (any shape): same shape, float64."""
        return predict(self.row(fit), x)

    def groups(self) -> list[Group]:
        """The run per degree and range, in that order."""
        parts = self.batches(GROUP_COLUMNS, side_by_side=_GROUP_THREADS)
        return group_rows(parts, self.plan.fits)

    def verify(self) -> Verdict:
        """Prove from the store alone that every fit is stored exactly once and every shard is
        intact; see ``polyfit.run.verify``."""
        return verify(self._ledger)
