"""A run as a lazy frame of Polars, which reads only the columns and rows that a query needs.

The objects are read by our own store, which has the credentials and finds damage; Polars' own
reader of Parquet would need both a second time.
"""

from collections.abc import Callable, Iterable, Iterator

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from polyfit.run.schema import empty_table

__all__ = ["lazy_frame", "to_polars"]

ReadParts = Callable[[list[str]], Iterable[pa.Table]]
"""Gives the rows part by part, with the columns that it is asked for."""


def lazy_frame(read: ReadParts, schema: pa.Schema) -> pl.LazyFrame:
    """The rows that ``read`` gives, as a lazy frame with the columns of ``schema``.

    A query asks for the columns that it uses. Rows that a filter drops leave no part, and no part
    is read after the last row that a query asks for.
    """

    def parts(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = schema.names if columns is None else columns
        tested = [] if predicate is None else predicate.meta.root_names()
        for part in read(list(dict.fromkeys((*wanted, *tested)))):
            rows = to_polars(part)
            if limit is not None:  # of the rows before the filter
                rows, limit = rows.head(limit), limit - len(rows)
            yield (rows if predicate is None else rows.filter(predicate)).select(wanted)
            if limit is not None and limit <= 0:
                return

    return register_io_source(parts, schema=to_polars(empty_table(schema)).schema, is_pure=True)


def to_polars(rows: pa.Table) -> pl.DataFrame:
    """Rows of Arrow as a frame; words become categories, and no number is copied."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    return frame
