"""Rows of a run, for ``polyfit results``: a table, JSON or CSV.

JSON and CSV are written row by row: memory holds one shard, however large the run is.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from polyfit.run.columns import swept_columns
from polyfit.run.reader import Run
from polyfit.run.several import SeveralRuns
from polyfit.show.data import run_identity, to_json
from polyfit.show.groups import Layout
from polyfit.show.text import format_cell

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["rows_table", "runs_identity", "table_columns", "write_csv", "write_json"]

RESULT_COLUMNS = ("status", "steps_taken", "loss", "excess_loss", "max_error")


def table_columns(
    runs: SeveralRuns, sort_column: str | None, with_reason: bool = False
) -> list[str]:
    """The columns of a table: the fields that the sweeps vary, what came out, the sort's."""
    swept = [name for run in runs.runs for name in swept_columns(run.plan)]
    by_sort = [sort_column] if sort_column else []
    reason = ["reason"] if with_reason else []
    wanted = dict.fromkeys((*runs.labels, "fit", *swept, *RESULT_COLUMNS, *by_sort, *reason))
    return list(wanted)


def rows_table(rows: "pa.Table", layout: Layout) -> str:
    """All rows of an Arrow table."""
    cells = [[format_cell(value) for value in row.values()] for row in rows.to_pylist()]
    return layout(rows.column_names, cells)


def runs_identity(runs: Sequence[Run]) -> dict[str, Any]:
    """What JSON says of one run, or of several, whose rows it holds."""
    each = [{**run_identity(run), "complete": run.complete} for run in runs]
    return each[0] if len(each) == 1 else {"runs": each}


def write_json(runs: Sequence[Run], parts: Iterable["pa.Table"], file: TextIO) -> None:
    """One JSON object with a line per row."""
    head = to_json(runs_identity(runs))
    file.write(head[:-1] + ', "rows": [')
    separator = "\n"
    for part in parts:
        for row in part.to_pylist():
            file.write(separator + to_json(row))
            separator = ",\n"
    file.write("\n]}\n")


def write_csv(parts: Iterable["pa.Table"], file: TextIO) -> None:
    """A header and a line per row; a list is one JSON cell, null is empty."""
    writer = csv.writer(file, lineterminator="\n")
    for number, part in enumerate(parts):
        if number == 0:
            writer.writerow(part.column_names)
        for row in part.to_pylist():
            writer.writerow(
                json.dumps(value) if isinstance(value, list) else value for value in row.values()
            )
