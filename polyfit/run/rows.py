"""Fit results -> Arrow rows. The schema of a row lives here, and the bytes of a shard.

The same plan gives the same bytes per shard: nothing here depends on the time or the machine's
name, and every choice of the Parquet writer is stated.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from polyfit.errors import DamagedRun
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.sweep import Column

__all__ = [
    "FOOTER",
    "REFIT_HINT",
    "UNREADABLE",
    "Ragged",
    "Rows",
    "check_columns",
    "counted",
    "examine",
    "numbers",
    "opened",
    "read_footer",
    "schema",
    "table",
    "to_parquet",
]

FOOTER: Final = b"polyfit"
"""The footer key under which a shard says what it is, as JSON."""

HISTORIES: Final = {
    "loss": "loss_history",
    "gradient_norm": "gradient_norm_history",
    "coefficients": "coefficients_history",
}
REFIT_HINT: Final = "remove that object and run the same spec again: it fits what is missing"
_ROW_GROUP: Final = 1 << 16
_WRITTEN: Final = 1 << 17
"""Numbers that Arrow encodes at a time: between two times it looks how large its page is."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists of unequal length: ``values`` (1-D) cut into rows of ``lengths`` (shape (fits,))."""

    values: npt.NDArray[np.floating]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, lengths: npt.NDArray[np.int64], dtype: npt.DTypeLike) -> "Ragged":
        """Lists of these lengths, all NaN."""
        return cls(np.full(int(lengths.sum()), np.nan, dtype=dtype), lengths)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])

    def put(self, rows: npt.NDArray[np.int64], values: npt.NDArray[np.floating]) -> None:
        """Fill lists ``rows`` from ``values`` (shape (rows, longest)), each to its own length."""
        width = values.shape[1]
        if (
            len(rows)
            and len(self.values) == width * len(self.lengths)
            and (self.lengths == width).all()
        ):
            whole = self.values.reshape(len(self.lengths), width)
            if (np.diff(rows) == 1).all():  # neighbours: a copy without indices
                whole[rows[0] : rows[-1] + 1] = values
            else:
                whole[rows] = values
            return
        places = self.offsets[rows][:, None] + np.arange(values.shape[1])
        filled = np.arange(values.shape[1]) < self.lengths[rows][:, None]
        self.values[places[filled]] = values[filled]

    def cut(self, lengths: npt.NDArray[np.int64]) -> "Ragged":
        """The first ``lengths`` values of each list."""
        if np.array_equal(lengths, self.lengths):
            return self
        place = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        return Ragged(self.values[place < np.repeat(lengths, self.lengths)], lengths)


@dataclass(frozen=True, slots=True)
class Rows:
    """A shard's results, one array entry per fit in the order of the shard.

    ``parameters`` are the fields of the fits; ``lr`` the rates used; ``status`` indexes
    ``statuses``. Numbers that are not finite become null.
    """

    parameters: dict[str, Column]
    lr: npt.NDArray[np.float64]
    statuses: Sequence[str]
    status: npt.NDArray[np.int8]
    steps_taken: npt.NDArray[np.int64]
    scalars: dict[str, npt.NDArray[np.float64]]
    coefficients: Ragged
    power_coefficients: Ragged
    power_known: npt.NDArray[np.bool_]
    histories: dict[str, Ragged]


SCALARS: Final = (
    "loss", "optimum_loss", "excess_loss", "gradient_norm", "rmse", "max_error",
)  # fmt: skip


def list_dtype(plan: Plan) -> npt.DTypeLike:
    """The dtype of all lists: float32 where every fit of the plan is, else float64."""
    return np.float64 if "float64" in plan.sweep.values("dtype") else np.float32


def schema(plan: Plan) -> pa.Schema:
    """The columns of a row, in order, with their Arrow types."""
    word = pa.dictionary(pa.int32(), pa.string())
    numbers = pa.list_(pa.float64() if list_dtype(plan) == np.float64 else pa.float32())
    fields = [
        pa.field("fit", pa.int64(), nullable=False),
        pa.field("degree", pa.int32(), nullable=False),
        pa.field("points", pa.int32(), nullable=False),
        pa.field("basis", word, nullable=False),
        pa.field("range_low", pa.float64(), nullable=False),
        pa.field("range_high", pa.float64(), nullable=False),
        pa.field("objective", word, nullable=False),
        pa.field("dtype", word, nullable=False),
        pa.field("target", word, nullable=False),
        pa.field("noise", pa.float64(), nullable=False),
        pa.field("noise_seed", pa.uint64(), nullable=False),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("stop", word),
        pa.field("optimizer", word, nullable=False),
        pa.field("lr", pa.float64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("status", word, nullable=False),
        pa.field("steps_taken", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64()) for name in SCALARS),
        pa.field("coefficients", numbers, nullable=False),
        pa.field("power_coefficients", numbers),
    ]
    for name in plan.record.of:
        kind = pa.list_(numbers) if name == "coefficients" else numbers
        fields.append(pa.field(HISTORIES[name], kind, nullable=False))
    return pa.schema(fields)


def table(plan: Plan, shard: Shard, rows: Rows) -> pa.Table:
    """The rows of ``shard`` as an Arrow table of ``schema(plan)``."""
    p = rows.parameters
    ranges = p["range"].compact()
    lows, highs = (np.array([r[k] for r in ranges.items])[ranges.codes] for k in (0, 1))
    arrays = {
        "fit": _numbers(np.arange(shard.start, shard.stop, dtype=np.int64)),
        "range_low": _numbers(lows),
        "range_high": _numbers(highs),
        "lr": _nullable(rows.lr),
        "status": _words(Column(rows.statuses, rows.status.astype(np.int64))),
        "steps_taken": _numbers(rows.steps_taken),
        "coefficients": _lists(rows.coefficients),
        "power_coefficients": _lists(rows.power_coefficients, rows.power_known),
        **{name: _nullable(values) for name, values in rows.scalars.items()},
    }
    for name in ("basis", "objective", "dtype", "target", "stop", "optimizer"):
        arrays[name] = _words(p[name])
    for name in ("degree", "points", "noise", "noise_seed", "steps", "seed"):
        arrays[name] = _numbers(p[name].array(_NUMBERS[name]))
    size = p["degree"].array(np.int64) + 1
    for name, history in rows.histories.items():
        arrays[HISTORIES[name]] = (
            _nested(history, size) if name == "coefficients" else _lists(history)
        )
    wanted = schema(plan)
    columns = [arrays[name].cast(wanted.field(name).type) for name in wanted.names]
    return pa.Table.from_arrays(columns, schema=wanted)


_NUMBERS: Final[dict[str, Any]] = {
    "degree": np.int32,
    "points": np.int32,
    "noise": np.float64,
    "noise_seed": np.uint64,
    "steps": np.int64,
    "seed": np.int64,
}


def _numbers(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """An Arrow array over the memory of ``values``; null where not ``valid``.

    From buffers, because ``pa.array`` imports pandas, a third of a second, to see what it is given.
    """
    values = np.ascontiguousarray(values)
    present = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), len(values), [present, pa.py_buffer(values)]
    )


def _strings(words: Sequence[str]) -> pa.Array:
    data = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.string(), len(words), buffers)


def _nullable(values: npt.NDArray[np.floating]) -> pa.Array:
    finite = np.isfinite(values)
    return _numbers(values, None if finite.all() else finite)


def _words(column: Column) -> pa.Array:
    compact = column.compact()
    words = [None if item is None else str(item) for item in compact.items]
    known = None
    if None in words:
        known = compact.codes != words.index(None)
    return pa.DictionaryArray.from_arrays(
        _numbers(compact.codes.astype(np.int32), known), _strings([word or "" for word in words])
    )


def _lists(ragged: Ragged, known: npt.NDArray[np.bool_] | None = None) -> pa.ListArray:
    values = _nullable(ragged.values)
    return pa.Array.from_buffers(
        pa.list_(values.type),
        len(ragged.lengths),
        [
            None if known is None else pa.py_buffer(np.packbits(known, bitorder="little")),
            pa.py_buffer(ragged.offsets.astype(np.int32)),
        ],
        children=[values],
    )


def _nested(ragged: Ragged, size: npt.NDArray[np.int64]) -> pa.ListArray:
    """Lists of coefficient lists: a fit's recorded values cut into pieces of its own size."""
    counts = ragged.lengths // size
    inner = np.repeat(size, counts)
    pieces = _lists(Ragged(ragged.values, inner))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(_numbers(offsets), pieces)


def to_parquet(rows: pa.Table, footer: dict[str, Any]) -> bytes:
    """One shard as Parquet: zstd, page checksums, ``footer`` as JSON under ``FOOTER``."""
    text = json.dumps(footer, sort_keys=True, allow_nan=False)
    metadata = {FOOTER: text.encode()}
    buffer = io.BytesIO()
    pq.write_table(
        rows.replace_schema_metadata(metadata),
        buffer,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in rows.column_names if _repeats(rows.schema.field(name))],
        # Floating-point numbers have random last bytes and much alike first ones: apart from each
        # other they compress better, and no slower.
        column_encoding=dict.fromkeys(_measured(rows.schema), "BYTE_STREAM_SPLIT"),
        write_statistics=[f.name for f in rows.schema if not pa.types.is_list(f.type)],
        write_page_checksum=True,
        store_schema=True,
        version="2.6",
        write_batch_size=_WRITTEN,
    )
    return buffer.getvalue()


def _repeats(field: pa.Field) -> bool:
    """Whether a column is worth a dictionary: parameters repeat, measurements do not."""
    return field.name in _PARAMETERS or pa.types.is_dictionary(field.type)


def _measured(schema: pa.Schema) -> list[str]:
    """The paths of all columns of floating-point measurements."""
    paths = []
    for field in schema:
        path, kind = field.name, field.type
        while pa.types.is_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        if pa.types.is_floating(kind) and not _repeats(field):
            paths.append(path)
    return paths


_PARAMETERS: Final = frozenset(
    ("degree", "points", "range_low", "range_high", "noise", "steps", "lr", "steps_taken")
)


UNREADABLE: Final = (ValueError, LookupError, OSError, pa.ArrowException)
"""What is raised where the bytes of a shard are not what they should be."""


def opened(shard: Any) -> pq.ParquetFile:
    """A shard, a binary file, as Parquet; whoever reads from it passes ``use_threads=False``.

    All in the caller's thread: one of Arrow's that still held a Python object when the interpreter
    ends would end the process with SIGABRT. So would damaged metadata that is asked where a column
    lies: that is for Arrow's reader to find.
    """
    return pq.ParquetFile(
        pa.PythonFile(shard, mode="r"), pre_buffer=False, page_checksum_verification=True
    )


def check_columns(rows: pa.Table, names: Sequence[str], plan: Plan) -> None:
    """Raise ValueError or KeyError where rows that were read are not those of ``schema(plan)``."""
    wanted = schema(plan)
    for name in names:
        found = rows.schema.field(name)
        if not found.equals(wanted.field(name)):
            raise ValueError(f"its column {name} is {found.type}, not {wanted.field(name).type}")


def read_footer(metadata: pq.FileMetaData | pa.Schema) -> dict[str, Any]:
    """What a shard says of itself, from its file's metadata or the schema that was read with it.

    Raises:
        ValueError: it says nothing that we can read.
    """
    found = (metadata.metadata or {}).get(FOOTER)
    if found is None:
        raise ValueError("its footer does not name a plan")
    footer = json.loads(found)
    if not isinstance(footer, dict):
        raise ValueError("its footer is not a mapping")
    return footer


def examine(plan: Plan, shard: Shard, data: bytes) -> dict[str, int]:
    """Read a shard's object in full: page checksums, footer, columns, and its fits.

    Returns the number of fits per status.

    Raises:
        DamagedRun: what is wrong with it.
    """
    try:
        file = opened(io.BytesIO(data))
        footer = read_footer(file.metadata)
        rows = file.read(use_threads=False)
    except UNREADABLE as error:
        raise DamagedRun(f"cannot be read ({error})") from None
    if footer.get("plan") != plan.hash:
        raise DamagedRun(f"holds plan {footer.get('plan')}")
    if rows.column_names != schema(plan).names:
        raise DamagedRun(f"has columns {', '.join(rows.column_names)}")
    if not rows["fit"].equals(pa.chunked_array([_numbers(np.arange(shard.start, shard.stop))])):
        raise DamagedRun(_miscounted(rows["fit"].to_numpy(), shard.start, shard.stop))
    found = counted(rows["status"])
    if found != footer.get("statuses"):
        raise DamagedRun(f"statuses {found}, its footer says {footer.get('statuses')}")
    return found


def numbers(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[Any]:
    """A column's numbers, NaN for null; not to be written to.

    By DLPack, because ``to_numpy`` imports pandas, a third of a second.
    """
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    known = whole.fill_null(np.nan) if whole.null_count else whole
    values: npt.NDArray[Any] = np.from_dlpack(known)
    return values


def counted(statuses: pa.ChunkedArray) -> dict[str, int]:
    """How many fits have each status, sorted by its name."""
    counts = statuses.unify_dictionaries().combine_chunks().value_counts().to_pylist()
    return dict(sorted((entry["values"], entry["counts"]) for entry in counts))


def _miscounted(fits: npt.NDArray[np.int64], start: int, stop: int) -> str:
    counts = Counter(int(fit) for fit in fits)
    missing = [fit for fit in range(start, stop) if fit not in counts]
    double = [fit for fit, n in counts.items() if n > 1]
    strange = [fit for fit in counts if not start <= fit < stop]
    return (
        f"{len(fits)} rows for {stop - start} fits: {len(missing)} missing {missing[:5]}, "
        f"{len(double)} doubled {double[:5]}, {len(strange)} of other shards {strange[:5]}"
    )
