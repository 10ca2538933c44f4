"""Reads a run: tables, single fits, groups, predictions.

Neither torch nor Ray is needed, nor the driver: the store is enough. Rows are read a shard at a
time, and of a shard only the columns asked for.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from polyfit.errors import DamagedRun, UsageError
from polyfit.run.columns import check_names, default_groups, expand, swept_columns
from polyfit.run.condition import condition, condition_columns, filter_rows
from polyfit.run.keys import REPORT, shard_key
from polyfit.run.last_attempt import describe_last_attempt
from polyfit.run.ledger import Ledger, plan_at
from polyfit.run.manifest import Manifest
from polyfit.run.notebook import html_table
from polyfit.run.parallel import map_in_order
from polyfit.run.parquet import REFIT_HINT, read_footer
from polyfit.run.resolve import find_run
from polyfit.run.rows import to_arrow
from polyfit.run.schema import schema
from polyfit.run.shards import ShardReader
from polyfit.run.state import RunState, read_state
from polyfit.run.stored_fit import StoredFit, predict, warn_if_outside
from polyfit.run.top import first_rows, parse_sort
from polyfit.run.verify import Verdict, verify
from polyfit.spec.plan import Plan
from polyfit.store.address import StoreAddress
from polyfit.store.base import Store

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from polyfit.run.compare import Comparison
    from polyfit.run.plot import Plots

__all__ = ["READ_AHEAD", "Run"]

READ_AHEAD: Final = 4
"""Shards that are read at a time: reading waits for the store more than it computes."""

_SHOWN_IN_NOTEBOOK: Final = 10
_RESULTS: Final = ("status", "steps_taken", "loss", "excess_loss", "max_error")


class Run:
    """One run in a store; open it with ``Run.open``.

    A run that is not complete opens too, and has the shards that are stored.
    """

    def __init__(self, address: StoreAddress, store: Store, plan: Plan) -> None:
        self.address = address
        self.plan = plan
        self._ledger = Ledger(store, plan)
        self._shards = ShardReader(self._ledger)
        self.schema = schema(plan)

    @classmethod
    def open(
        cls,
        run: str | os.PathLike[str],
        endpoint_url: str | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> "Run":
        """The run that ``run`` names: its own folder, ``<store>/<name>/<run id>``, or a name, an
        id or a spec's file; see ``find_run``.

        Raises:
            RunNotFound: there is no plan.
            PlanMismatch: another version of polyfit made the plan.
            StoreError: the store cannot be used.

        >>> Run.open(run.uri).complete
        True
        """
        address = find_run(run, store, endpoint_url)
        opened = address.open()
        return cls(address, opened, plan_at(opened))

    def __repr__(self) -> str:
        return f"Run({self.uri!r}: {self.plan.fits:,} fits)"

    def __len__(self) -> int:
        """The number of fits of its plan, stored or not.

        >>> len(run)
        12
        """
        return self.plan.fits

    def _repr_html_(self) -> str:
        """The view in a notebook: what it is, and its first rows."""
        wanted = [*swept_columns(self.plan), *_RESULTS]
        columns = list(dict.fromkeys(("fit", *wanted)))
        rows = self.top(limit=_SHOWN_IN_NOTEBOOK, columns=columns).to_pylist()
        state = "complete" if self.complete else "not complete"
        caption = f"{self.uri}: {self.plan.fits:,} fits, {state}"
        return html_table(caption, columns, [list(row.values()) for row in rows])

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

    def state(self) -> RunState:
        """How far it is and who drives it, without a look at its rows.

        >>> run.state().state
        <State.COMPLETE: 'complete'>
        """
        return read_state(self._ledger.store, self.plan)

    def driver(self) -> str:
        """Whether a driver is at work on the run, in words.

        >>> run.driver()
        'no driver is at work on it: attempt ... ended with exit code 0'
        """
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

    def stored_shards(self) -> Sequence[int]:
        """The numbers of the shards that are stored, or that must be where the run is complete.

        >>> list(run.stored_shards())
        [0, 1, 2]
        """
        return range(self.plan.shards) if self.complete else sorted(self._ledger.done())

    def shard(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Columns of one shard; see ``batches``.

        >>> run.shard(1, ["fit"])["fit"].to_pylist()
        [5, 6, 7, 8, 9]
        """
        return self._shards.read(number, columns)

    def to_arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """All rows as one Arrow table; see ``batches``.

        >>> run.to_arrow(["fit", "degree"], where="seed == 3").to_pydict()
        {'fit': [3, 7, 11], 'degree': [1, 3, 5]}
        """
        names = list(columns) if columns is not None else self.schema.names
        check_names(names, self.schema.names)
        empty = self.schema.empty_table().select(names)
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
    ) -> pa.Table:
        """The first ``limit`` rows by column ``sort`` (descending with a leading ``-``, nulls
        last), or by fit. Memory holds one shard and ``limit`` rows.

        >>> run.top("-seed", limit=2, columns=["degree", "seed"]).to_pydict()
        {'degree': [1, 3], 'seed': [3, 3]}
        """
        name, order = parse_sort(sort, self.schema)
        wanted = list(columns or self.schema.names)
        parts = self.batches(list(dict.fromkeys((*wanted, name, "fit"))), where)
        rows = first_rows(parts, name, order, limit)
        return (self.schema.empty_table() if rows is None else rows).select(wanted)

    def best(
        self, by: str | Sequence[str] | None = None, where: str | None = None
    ) -> "pl.DataFrame":
        """The fit with the least loss, or the best of each group; without columns of lists.

        Args:
            by: columns whose values make a group; ``range`` stands for its two.
            where: a condition on the rows that count.

        >>> run.best(by="degree").select("degree", "status").rows()
        [(1, 'completed'), (3, 'completed'), (5, 'completed')]
        """
        return self.extremes([by] if isinstance(by, str) else by or (), where)

    def extremes(
        self, by: Sequence[str], where: str | None = None, worst: bool = False
    ) -> "pl.DataFrame":
        """The best fit of each group, or the worst; see ``best`` and ``extreme_fits``.

        >>> run.extremes(["seed"], where="degree < 5", worst=True)["degree"].to_list()
        [1, 1, 1, 1]
        """
        from polyfit.run.best import extreme_fits
        from polyfit.run.scan import to_polars

        columns = expand(by)
        needed = list(dict.fromkeys(("fit", "loss", *columns)))
        parts = self.batches(needed, where, side_by_side=READ_AHEAD)
        fits = extreme_fits(map(to_polars, parts), columns, worst)
        rows = to_polars(self.rows(fits, self.scalar_columns))
        return rows.sort(columns or "fit", nulls_last=True)

    @property
    def label(self) -> str:
        """What tells it from other runs in a table: ``<name>/<run id>``."""
        return "/".join(self.uri.split("/")[-2:])

    @property
    def scalar_columns(self) -> list[str]:
        """The columns that hold no lists."""
        return [field.name for field in self.schema if not pa.types.is_nested(field.type)]

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
        parts = [self.schema.empty_table().select(needed)]
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

    def history(self, fits: int | Iterable[int]) -> "pl.DataFrame":
        """What was recorded of some fits, a line for each fit and recorded update: ``fit``,
        ``step`` (the number of the update, from 0, before which it was taken), ``loss``, ...

        Raises:
            UsageError: nothing was recorded, or the plan has no such fit.
            DamagedRun: a shard is not stored or cannot be read.

        >>> run.history([0, 4]).columns
        ['fit', 'step', 'loss']
        """
        from polyfit.run.history import history_columns, long_history
        from polyfit.run.scan import to_polars

        return long_history(to_polars(self.rows(fits, history_columns(self.plan))))

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

    def predict(self, fits: int | Iterable[int], x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The fitted polynomials at ``x``; warns where x lies outside a fit's range.

        Args:
            fits: one fit, or several.
            x: of any shape.

        Returns:
            float64 with the shape of ``x``; of several fits with one more axis, the first.

        >>> run.predict(8, 0.5).round(2)
        np.float64(0.47)
        >>> run.predict([8, 9], [0, 0.5, 1]).shape
        (2, 3)
        """
        rows = self.rows(fits).to_pylist()
        warn_if_outside(rows, x)
        if isinstance(fits, int):
            return predict(rows[0], x)
        return np.array([predict(row, x) for row in rows]).reshape(len(rows), *np.shape(x))

    @property
    def plot(self) -> "Plots":
        """The run as charts, which show themselves in a notebook; see ``Plots``.

        >>> run.plot.loss("degree").to_dict()["layer"][0]["encoding"]["x"]["field"]
        'x'
        """
        return self.charts()

    def charts(self, theme: str = "light") -> "Plots":
        """``plot`` in the colours of a page that is "light" or "dark".

        >>> run.charts("dark").distribution().to_dict()["config"]["background"]
        '#14171a'
        """
        from polyfit.run.plot import Plots  # altair: only where a chart is wanted

        return Plots(self, theme)

    def store_report(self, page: bytes) -> None:
        """Store an HTML page in the run, in place of an earlier one.

        >>> run.store_report(b"<!doctype html>")

        Raises:
            StoreError: the store cannot be used, or refuses.
        """
        self._ledger.store.put(REPORT, page)

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

    def attempts(self) -> list[dict[str, Any]]:
        """What is known of the latest attempts at the run, the latest last.

        >>> [facts["exit_code"] for facts in run.attempts()]
        [0]
        """
        return self._ledger.attempts()

    def failed(self) -> dict[int, list[str]]:
        """The shards that failed and are not stored, with the causes.

        >>> run.failed()
        {}
        """
        numbers = sorted(self._ledger.failed_shards() - set(self.shard_numbers()))
        return {number: self._ledger.causes(number) for number in numbers}

    def spec_text(self) -> str:
        """The spec as it was submitted.

        >>> run.spec_text().splitlines()[0]
        'name: documented'
        """
        return self._ledger.spec_text()

    def groups(
        self, by: str | Sequence[str] | None = None, where: str | None = None
    ) -> "pl.DataFrame":
        """The run summed up per group, a row each; see ``group_rows`` for the columns.

        Args:
            by: the columns whose values make a group, ``range`` stands for its two; if None those
                of the swept fields but for the seeds.
            where: a condition on the rows that count.

        >>> run.groups().select("degree", "fits", "completed").rows()
        [(1, 4, 4), (3, 4, 4), (5, 4, 4)]
        """
        from polyfit.run.groups import GROUP_COLUMNS, group_rows
        from polyfit.run.scan import to_polars

        given = [by] if isinstance(by, str) else by
        names = default_groups(self.plan) if given is None else expand(given)
        needed = list(dict.fromkeys((*names, *GROUP_COLUMNS)))
        check_names(needed, self.schema.names)
        empty = self.schema.empty_table().select(needed)
        parts = chain([empty], self.batches(needed, where, side_by_side=READ_AHEAD))
        return group_rows(map(to_polars, parts), names, self.plan.fits)

    def compare(
        self, before: "Run", by: str | Sequence[str] | None = None, tolerance: float = 1e-6
    ) -> "Comparison":
        """Compare this run with another one, as its earlier state: the fits that both have, and
        the groups that both have; see ``polyfit.run.compare``.

        >>> found = run.compare(run)
        >>> (found.common, found.identical, len(found.worse(0)))
        (12, 12, 0)
        """
        from polyfit.run.compare import compare

        return compare(self, before, [by] if isinstance(by, str) else by, tolerance)

    def verify(self) -> Verdict:
        """Prove from the store alone that every fit is stored exactly once and every shard is
        intact; see ``polyfit.run.verify``.

        >>> run.verify().problems
        []
        """
        return verify(self._ledger)
