"""A small run, and stored shards that a test changes: they stay sound Parquet."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import polyfit
from polyfit.run.keys import shard_key
from polyfit.run.parquet import FOOTER
from polyfit.run.reader import Run
from polyfit.spec.spec import Spec

TWELVE_FITS = """\
name: small
shard: 5
engine: eager
fit: {steps: 40, points: 30, noise: 0.1, noise_seed: 7, degree: 3}
sweep:
  basis: [chebyshev, legendre, power]
  range: [[-1, 1], [0, 2]]
  lr: [auto, 1.0e+30]
record: {every: 4, of: [loss, coefficients, gradient_norm]}
"""
"""Three shards. Fits 1, 3, 5, ... diverge at once."""

Change = Callable[[pa.Table], pa.Table]


def stored_run(text: str, folder: Path) -> Run:
    """The finished run of a spec."""
    return polyfit.execute(Spec.parse(text), store=str(folder), executor="inline")


def shard_path(run: Run, number: int) -> Path:
    return Path(run.uri) / shard_key(run.plan, number)


def rewrite_shard(run: Run, number: int, change: Change, **footer_changes: object) -> None:
    """Store other rows, with a changed footer."""
    file = shard_path(run, number)
    rows = pq.read_table(file)
    footer = {**json.loads(rows.schema.metadata[FOOTER]), **footer_changes}
    sink = io.BytesIO()
    metadata = {FOOTER: json.dumps(footer).encode()}
    pq.write_table(change(rows).replace_schema_metadata(metadata), sink)
    file.write_bytes(sink.getvalue())


def scaled(name: str, factor: float) -> Change:
    """Multiplies all numbers of one column, also in lists, by ``factor``."""

    def change(rows: pa.Table) -> pa.Table:
        def times(value: Any) -> Any:
            if isinstance(value, list):
                return [times(item) for item in value]
            return None if value is None else value * factor

        field = rows.schema.field(name)
        values = pa.array([times(v) for v in rows[name].to_pylist()], type=field.type)
        return rows.set_column(rows.column_names.index(name), field, values)

    return change


def with_word(name: str, text: str) -> Change:
    """Puts the same word into all rows of one column."""

    def change(rows: pa.Table) -> pa.Table:
        values = pa.array([text] * len(rows)).dictionary_encode()
        field = rows.schema.field(name)
        return rows.set_column(rows.column_names.index(name), field, values.cast(field.type))

    return change
