"""Rows as one Parquet file on this machine."""

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from polyfit.errors import OutputError

__all__ = ["write_parquet"]


def write_parquet(parts: Iterable[pa.Table], path: str) -> int:
    """Write rows that come part by part to the file ``path``, which appears when it is whole.

    Returns:
        The number of rows.

    Raises:
        OutputError: the file cannot be written.
    """
    parts = iter(parts)
    first = next(parts)
    schema, rows, partial = first.schema.remove_metadata(), 0, f"{path}.part"
    try:
        with open(partial, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as to:
            for part in chain([first], parts):
                to.write_table(part.replace_schema_metadata(None))
                rows += len(part)
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; it is not written") from None
    finally:
        with suppress(OSError):
            os.unlink(partial)
    return rows
