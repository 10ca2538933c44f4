"""Reads the rows of stored shards, and of these only the columns asked for."""

import io
from collections.abc import Sequence

import pyarrow as pa

from polyfit.errors import DamagedRun
from polyfit.run.keys import shard_key
from polyfit.run.ledger import Ledger
from polyfit.run.parquet import READ_ERRORS, REFIT_HINT, check_columns, open_parquet
from polyfit.run.schema import schema
from polyfit.store.base import NoSuchKey
from polyfit.store.object_file import ObjectFile

__all__ = ["ShardReader"]


class ShardReader:
    """Reads shards of one run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._store, self._plan = ledger, ledger.store, ledger.plan

    def read(self, number: int, columns: Sequence[str], size: int | None = None) -> pa.Table:
        """A shard's rows.

        Args:
            number: which shard.
            columns: which columns, in this order.
            size: the object's size in bytes; asked from the store if None.

        Raises:
            DamagedRun: the shard is missing or cannot be read.
        """
        key, names = shard_key(self._plan, number), list(columns)
        try:
            rows = None
            if set(names) != set(schema(self._plan).names):
                rows = self._read_part(key, names, size)
            if rows is None:
                rows = self._read_columns(io.BytesIO(self._store.get(key)), names)
            return rows
        except NoSuchKey:
            raise DamagedRun(self._missing(number)) from None
        except READ_ERRORS as error:
            raise DamagedRun(
                f"{self._store.uri}/{key} cannot be read: {error}; {REFIT_HINT}"
            ) from None

    def _read_part(self, key: str, names: list[str], size: int | None) -> pa.Table | None:
        """The columns without the others; None where they cannot be read. Then the whole object
        decides: it has a digest, and bytes may have changed on the way only."""
        try:
            return self._read_columns(ObjectFile(self._store, key, size), names)
        except NoSuchKey:
            raise
        except READ_ERRORS:
            return None

    def _read_columns(self, shard: ObjectFile | io.BytesIO, names: list[str]) -> pa.Table:
        in_file = [name for name in schema(self._plan).names if name in names]
        rows = open_parquet(shard).read(in_file, use_threads=False).select(names)
        check_columns(rows, names, self._plan)
        return rows

    def _missing(self, number: int) -> str:
        """The message for a shard that has no object."""
        key, shard = shard_key(self._plan, number), self._plan.shard(number)
        if self._ledger.manifest() is not None:
            return f"{self._store.uri}/{key} is missing; run the same spec again"
        return (
            f"{self._store.uri}/{key} (fits {shard.start} to {shard.stop - 1}) is not stored yet; "
            "run the same spec again: it resumes"
        )
