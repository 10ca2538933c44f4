"""Rows as Parquet: the same bytes, checksums, the footer, and other readers."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows_of import FOOTER_OF_TEST, made, plan_of

import polyfit
from polyfit.run.parquet import FOOTER, read_footer, to_parquet
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec


def written(plan: Plan) -> bytes:
    return to_parquet(made(plan), FOOTER_OF_TEST)


def test_the_same_table_gives_the_same_bytes() -> None:
    assert written(plan_of()) == written(plan_of())


def test_a_table_comes_back_as_it_was_written() -> None:
    plan = plan_of(record="{every: 10, of: [loss, coefficients]}")
    rows = made(plan)
    back = pq.read_table(pa.BufferReader(to_parquet(rows, FOOTER_OF_TEST)))
    assert back.equals(rows)
    assert back.schema.equals(rows.schema)


def test_the_footer_says_what_it_was_given() -> None:
    assert read_footer(pq.read_metadata(pa.BufferReader(written(plan_of())))) == FOOTER_OF_TEST


def test_a_footer_that_is_no_json_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_parquet(made(plan_of()), {"loss": float("inf")})


@pytest.mark.parametrize(
    "metadata", [None, {}, {b"other": b"{}"}, {FOOTER: b"{"}, {FOOTER: b"[1]"}, {FOOTER: b"\xff"}]
)
def test_a_footer_that_says_nothing_readable_is_refused(metadata: dict[bytes, bytes]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"fit": [0]}).replace_schema_metadata(metadata), sink)
    with pytest.raises(ValueError):  # noqa: PT011 -- JSON's own messages
        read_footer(pq.read_metadata(pa.BufferReader(sink.getvalue())))


def test_every_column_is_compressed_with_zstd() -> None:
    group = pq.read_metadata(pa.BufferReader(written(plan_of()))).row_group(0)
    assert {group.column(k).compression for k in range(group.num_columns)} == {"ZSTD"}


def test_columns_are_encoded_as_their_numbers_are() -> None:
    """Numbers of fits by their differences; what repeats by a dictionary, unless it is constant."""
    group = pq.read_metadata(pa.BufferReader(written(plan_of()))).row_group(0)
    chunks = [group.column(k) for k in range(group.num_columns)]
    encodings = {chunk.path_in_schema: chunk.encodings for chunk in chunks}
    for name in ("fit", "seed", "noise_seed"):
        assert "DELTA_BINARY_PACKED" in encodings[name], name
    assert "BYTE_STREAM_SPLIT" in encodings["loss"]
    by_dictionary = {chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page}
    assert {"degree", "status"} <= by_dictionary
    assert not {"points", "steps", "loss"} & by_dictionary


@pytest.mark.parametrize("column", ["fit", "loss", "status", "coefficients.list.element"])
def test_a_flipped_byte_in_a_page_is_detected_by_its_checksum(column: str) -> None:
    """The last byte of each column's pages: data, not a page's header."""
    data = bytearray(written(plan_of()))
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    chunks = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    chunk = chunks[column]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start + chunk.total_compressed_size - 1] ^= 0x01
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.read_table(pa.BufferReader(bytes(data)), page_checksum_verification=True)


def test_an_intact_shard_passes_its_checksums() -> None:
    data = pa.BufferReader(written(plan_of()))
    assert pq.read_table(data, page_checksum_verification=True).num_rows == 12


def asked(query: str, path: str) -> tuple[Any, ...]:
    found = duckdb.execute(query.format(rows=f"read_parquet('{path}')")).fetchone()
    assert found is not None
    return tuple(found)


def test_duckdb_reads_a_shard(tmp_path: Path) -> None:
    plan = plan_of(record="{every: 10, of: [loss, coefficients]}")
    path = tmp_path / "shard.parquet"
    path.write_bytes(written(plan))
    found = asked(
        "select count(*), sum(fit), sum(loss), count(distinct status), sum(coefficients[1]), "
        "sum(len(coefficients_history)) from {rows}",
        str(path),
    )
    rows = made(plan).to_pylist()
    assert found == (
        12,
        sum(range(12)),
        sum(row["loss"] for row in rows),
        3,
        pytest.approx(sum(row["coefficients"][0] for row in rows)),
        36,
    )


def test_duckdb_reads_our_footer(tmp_path: Path) -> None:
    (tmp_path / "shard.parquet").write_bytes(written(plan_of()))
    (text,) = asked(
        "select value from parquet_kv_metadata('{rows}') where key = 'polyfit'".replace(
            "{rows}", str(tmp_path / "shard.parquet")
        ),
        "",
    )
    assert json.loads(bytes(text)) == FOOTER_OF_TEST


def test_duckdb_reads_a_whole_run(tmp_path: Path) -> None:
    """Shards of one run have one schema, and together every fit once."""
    spec = Spec.parse(
        "name: duck\nshard: 7\nfit: {steps: 20, points: 30}\n"
        "sweep: {degree: [1, 3], lr: [auto, 100.0], seed: {count: 5}}"
    )
    run = polyfit.execute(spec, store=str(tmp_path), executor="inline")
    found = asked(
        "select count(*), count(distinct fit), sum(steps_taken), count(loss), sum(excess_loss) "
        "from {rows}",
        f"{run.uri}/shards/*.parquet",
    )
    frame = run.to_pandas()
    assert found == (
        20,
        20,
        int(frame["steps_taken"].sum()),
        int(frame["loss"].count()),
        pytest.approx(float(frame["excess_loss"].sum()), rel=1e-12),
    )
