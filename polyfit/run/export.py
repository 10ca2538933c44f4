"""Rows as one Parquet file on this machine."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from polyfit.errors import OutputError, UsageError

__all__ = ["check_file", "write_parquet"]


def check_file(path: str) -> None:
    """Check that ``path`` names a file, or none yet.

    Raises:
        UsageError: it names a folder, a pipe or a device, or standard output.
    """
    if path == "-":
        raise UsageError("Parquet is not written to standard output; allowed: a file's name")
    with suppress(OSError):  # which writing will meet again
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{path} is no regular file; allowed: a new file, or one to replace")


def write_parquet(parts: Iterable[pa.Table], path: str) -> int:
    """Write rows that come part by part to the file ``path``, which appears when it is whole.

    A file that is there is replaced and keeps its mode; where ``path`` is a link, that which it
    points to is replaced.

    Returns:
        The number of rows.

    Raises:
        UsageError: see ``check_file``.
        OutputError: the file cannot be written.
    """
    check_file(path)
    parts = iter(parts)
    first = next(parts)
    schema, rows = first.schema.remove_metadata(), 0
    try:
        with _replaced(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as to:
            for part in chain([first], parts):
                to.write_table(part.replace_schema_metadata(None))
                rows += len(part)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; it is not written") from None
    return rows


@contextmanager
def _replaced(path: str) -> Iterator[BinaryIO]:
    """A new file beside ``path``, which takes its place at the end if all went well."""
    target = os.path.realpath(path)
    partial = os.path.join(os.path.dirname(target), f".polyfit-{uuid.uuid4().hex}.part")
    try:
        with open(partial, "xb") as file:
            yield file
        with suppress(FileNotFoundError):
            shutil.copymode(target, partial)
        os.replace(partial, target)
    finally:
        with suppress(OSError):
            os.unlink(partial)
