"""Rows of several runs as one table, in which the column ``run`` tells them apart."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import polars as pl
import pyarrow as pa

from polyfit.errors import UsageError
from polyfit.run.columns import By, check_names, group_columns
from polyfit.run.groups import GROUP_COLUMNS, group_rows
from polyfit.run.reader import Run
from polyfit.run.scan import to_polars
from polyfit.run.schema import empty_table
from polyfit.run.stored_rows import READ_AHEAD
from polyfit.run.top import first_rows, parse_sort

__all__ = ["RUN", "SeveralRuns"]

RUN = "run"
"""The column that tells runs apart: ``<name>/<run id>``, or the URIs where two have the same."""


class SeveralRuns:
    """The rows of some runs, one run after the other; of one run alone without the column."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Of runs that differ.

        Raises:
            UsageError: one is there twice, so that its fits would count twice.
        """
        for (uri, _), count in Counter((run.uri, run.endpoint_url) for run in runs).items():
            if count > 1:
                raise UsageError(f"{uri} is named {count} times; name each run once")
        self.runs = runs
        self.labels = [RUN] if len(runs) > 1 else []
        names = [run.label for run in runs]
        self._names = names if len({*names}) == len(runs) else [run.uri for run in runs]
        own = [set(run.schema.names) for run in runs]
        names = [name for name in runs[0].schema.names if all(name in columns for columns in own)]
        schemas = [empty_table(run.schema).select(names).schema for run in runs]
        self._schema = pa.unify_schemas(schemas, promote_options="permissive")

    @property
    def columns(self) -> list[str]:
        """The columns that all of the runs have, after ``run``."""
        return [*self.labels, *self._schema.names]

    def labelled(self, columns: Sequence[str]) -> list[str]:
        """Chosen columns, after ``run`` where it is needed and not chosen."""
        return [*(name for name in self.labels if name not in columns), *columns]

    def parts(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        side_by_side: int = READ_AHEAD,
    ) -> Iterator[pa.Table]:
        """The rows part by part; the first part is empty. See ``Run.batches``."""
        wanted = list(columns) if columns is not None else self.columns
        check_names(wanted, self.columns)
        own = [name for name in wanted if name not in self.labels]
        schema = pa.schema([self._schema.field(name) for name in own])
        empty = empty_table(schema)
        yield _labelled(empty, "").select(wanted)
        for run, name in zip(self.runs, self._names, strict=True):
            for rows in run.batches(own or ["fit"], where, side_by_side):
                yield _labelled(rows.select(own).cast(schema), name).select(wanted)

    def top(
        self,
        sort: str | None,
        limit: int | None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> pa.Table:
        """The first ``limit`` rows by column ``sort``, descending with a leading ``-``; else in
        the order of the runs and their fits."""
        wanted = list(columns) if columns is not None else self.columns
        name, order = parse_sort(sort, pa.schema([(RUN, pa.string()), *self._schema]))
        needed = list(dict.fromkeys((*wanted, "fit", *([name] if sort else []))))
        parts = self.parts(needed, where)
        if sort is None:
            return _first(parts, limit).select(wanted)
        found = first_rows(parts, name, order, limit)
        assert found is not None, "the first part is there"
        return found.select(wanted)

    def groups(self, by: By | None = None, where: str | None = None) -> pl.DataFrame:
        """The rows summed up per group and run; see ``Run.groups``."""
        fields = group_columns(by, self.runs[0].plan)
        names = list(dict.fromkeys((*fields, *self.labels)))
        check_names(names, self.columns)
        parts = self.parts(list(dict.fromkeys((*names, *GROUP_COLUMNS))), where)
        num_fits = sum(run.plan.fits for run in self.runs)
        return group_rows(map(to_polars, parts), names, num_fits)

    def worst(self, by: By, where: str | None = None) -> pl.DataFrame:
        """The worst fit of each group of each run; see ``Run.extremes``."""
        found = [
            run.extremes(by, where, worst=True).with_columns(pl.lit(name).alias(RUN))
            for run, name in zip(self.runs, self._names, strict=True)
        ]
        wanted = [name for name in self.columns if name in found[0].columns]
        return pl.concat([rows.select(wanted) for rows in found], how="vertical_relaxed")

    def chosen(self, rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of a frame of rows without lists.

        Raises:
            UsageError: one is not there.
        """
        check_names(columns, rows.columns)
        return rows.select(columns)


def _labelled(rows: pa.Table, label: str) -> pa.Table:
    """Rows with the column ``run`` in front."""
    labels = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(rows)), [label])
    return rows.add_column(0, RUN, labels)


def _first(parts: Iterable[pa.Table], limit: int | None) -> pa.Table:
    found: list[pa.Table] = []
    for part in parts:
        found.append(part.unify_dictionaries())
        if limit is not None and sum(map(len, found)) >= limit:
            break
    rows = pa.concat_tables(found).unify_dictionaries()
    return rows if limit is None else rows.slice(0, limit)
