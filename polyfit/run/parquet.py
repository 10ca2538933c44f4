"""A shard as the bytes of a Parquet file: writing, opening, checking.

The same plan gives the same bytes per shard: nothing here depends on the time or the machine's
name, and every choice of the writer is stated.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polyfit.errors import DamagedRun
from polyfit.run.rows import to_arrow
from polyfit.run.schema import schema
from polyfit.spec.plan import Plan, Shard

__all__ = [
    "FOOTER",
    "READ_ERRORS",
    "REFIT_HINT",
    "check_columns",
    "check_shard",
    "count_statuses",
    "open_parquet",
    "read_footer",
    "to_numpy",
    "to_parquet",
]

FOOTER: Final = b"polyfit"
"""The key of the file's metadata under which a shard says what it is, as JSON."""

REFIT_HINT: Final = "remove that object and run the same spec again: it fits what is missing"

READ_ERRORS: Final = (ValueError, LookupError, OSError, pa.ArrowException)
"""What is raised where the bytes of a shard are not what they should be."""

ROW_GROUP_ROWS: Final = 1 << 17
"""Most shards are one group: a column is then read by one request."""

_WRITE_BATCH: Final = 1 << 17
"""Numbers that Arrow encodes before it compares the size of a page with its limit."""


def to_parquet(rows: pa.Table, footer: dict[str, Any]) -> bytes:
    """One shard as Parquet: zstd, page checksums, ``footer`` as JSON under ``FOOTER``."""
    text = json.dumps(footer, sort_keys=True, allow_nan=False)
    metadata = {FOOTER: text.encode()}
    buffer = io.BytesIO()
    repeating = [name for name in rows.column_names if _repeats(rows[name], name)]
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        buffer,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        compression_level=1,
        use_dictionary=repeating,
        column_encoding=_encodings(rows.drop_columns(repeating).schema),
        write_statistics=[f.name for f in rows.schema if not pa.types.is_list(f.type)],
        write_page_checksum=True,
        store_schema=True,
        version="2.6",
        write_batch_size=_WRITE_BATCH,
    )
    return buffer.getvalue()


def _repeats(column: pa.ChunkedArray, name: str) -> bool:
    """Whether a column is worth a dictionary: parameters repeat, measurements do not.

    A number that is the same in all rows is written, and compressed, faster without one.
    """
    if pa.types.is_dictionary(column.type):
        return True
    if name not in _PARAMETERS or column.null_count:
        return name in _PARAMETERS
    values = to_numpy(column)
    return bool((values != values[:1]).any())


def _encodings(schema: pa.Schema) -> dict[str, str]:
    """How the numbers of columns without a dictionary are encoded, by the columns' paths.

    The first bytes of floating-point numbers are alike, the last ones random: stored apart, they
    compress better, and as fast. Counted numbers are stored by their differences.
    """
    found = {}
    for field in schema:
        path, type_ = field.name, field.type
        while pa.types.is_list(type_):
            path, type_ = f"{path}.list.element", type_.value_type
        if pa.types.is_floating(type_):
            found[path] = "BYTE_STREAM_SPLIT"
        elif path in _COUNTED:
            found[path] = "DELTA_BINARY_PACKED"
    return found


_PARAMETERS: Final = frozenset(
    (
        "degree", "points", "range_low", "range_high", "noise", "steps", "lr", "lr_limit",
        "lr_share", "steps_taken", "steps_to_1pct",
    )
)  # fmt: skip

_COUNTED: Final = ("fit", "seed", "noise_seed")


def open_parquet(shard: Any) -> pq.ParquetFile:
    """A shard, a binary file, as Parquet. Callers read from it with ``use_threads=False``.

    All in the caller's thread: a thread of Arrow that still holds a Python object when the
    interpreter ends would end the process with SIGABRT. Asking damaged metadata for a column's
    position ends it the same way, so Arrow's reader is left to find the damage.
    """
    return pq.ParquetFile(
        pa.PythonFile(shard, mode="r"), pre_buffer=False, page_checksum_verification=True
    )


def check_columns(rows: pa.Table, names: Sequence[str], plan: Plan) -> None:
    """Compare the columns ``names`` of rows that were read with ``schema(plan)``.

    Raises:
        ValueError, KeyError: one has another type, or is missing.
    """
    wanted = schema(plan)
    for name in names:
        found = rows.schema.field(name)
        if not found.equals(wanted.field(name)):
            raise ValueError(f"its column {name} is {found.type}, not {wanted.field(name).type}")


def read_footer(metadata: pq.FileMetaData | pa.Schema) -> dict[str, Any]:
    """What a shard says of itself, from its file's metadata or the schema that was read with it.

    Raises:
        ValueError: it is not a footer of ours.
    """
    found = (metadata.metadata or {}).get(FOOTER)
    if found is None:
        raise ValueError("its footer does not name a plan")
    footer = json.loads(found)
    if not isinstance(footer, dict):
        raise ValueError("its footer is not a mapping")
    return footer


def check_shard(plan: Plan, shard: Shard, data: bytes) -> dict[str, int]:
    """Check all of a shard's object: page checksums, footer, columns, fits and statuses.

    Returns:
        The number of fits per status.

    Raises:
        DamagedRun: with what is wrong.
    """
    try:
        file = open_parquet(io.BytesIO(data))
        footer = read_footer(file.metadata)
        rows = file.read(use_threads=False)
    except READ_ERRORS as error:
        raise DamagedRun(f"cannot be read ({error})") from None
    if footer.get("plan") != plan.hash:
        raise DamagedRun(f"holds plan {footer.get('plan')}")
    if rows.column_names != schema(plan).names:
        raise DamagedRun(f"has columns {', '.join(rows.column_names)}")
    if not rows["fit"].equals(pa.chunked_array([to_arrow(np.arange(shard.start, shard.stop))])):
        raise DamagedRun(_count_defects(rows["fit"].to_numpy(), shard.start, shard.stop))
    found = count_statuses(rows["status"])
    if found != footer.get("statuses"):
        raise DamagedRun(f"statuses {found}, its footer says {footer.get('statuses')}")
    return found


def to_numpy(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[Any]:
    """A column's numbers, NaN for null; not to be written to.

    By DLPack, because Arrow's own ``to_numpy`` imports pandas, a third of a second.
    """
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    filled = chunk.fill_null(np.nan) if chunk.null_count else chunk
    values: npt.NDArray[Any] = np.from_dlpack(filled)
    return values


def count_statuses(statuses: pa.ChunkedArray) -> dict[str, int]:
    """How many fits have each status, sorted by its name."""
    counts = statuses.unify_dictionaries().combine_chunks().value_counts().to_pylist()
    return dict(sorted((entry["values"], entry["counts"]) for entry in counts))


def _count_defects(fits: npt.NDArray[np.int64], start: int, stop: int) -> str:
    counts = Counter(int(fit) for fit in fits)
    missing = [fit for fit in range(start, stop) if fit not in counts]
    doubled = [fit for fit, n in counts.items() if n > 1]
    foreign = [fit for fit in counts if not start <= fit < stop]
    return (
        f"{len(fits)} rows for {stop - start} fits: {len(missing)} missing {missing[:5]}, "
        f"{len(doubled)} doubled {doubled[:5]}, {len(foreign)} of other shards {foreign[:5]}"
    )
