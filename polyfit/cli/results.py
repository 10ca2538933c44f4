"""``polyfit results``."""

import sys
from typing import TYPE_CHECKING, Final

import click

from polyfit.cli import options
from polyfit.cli.output import write_line

if TYPE_CHECKING:
    from polyfit.run.reader import Run

__all__ = ["show_results"]

DEFAULT_LIMIT: Final = 20


@click.command("results", short_help="Show the rows of a run.")
@click.argument("uri", metavar="RUN")
@options.run_store
@options.endpoint_url
@click.option("--sort", metavar="COLUMN", help="Smallest value first; -COLUMN: largest first.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Number of rows.  [default: {DEFAULT_LIMIT}; --json and --csv: all]",
)
@click.option(
    "--where", metavar="EXPR", help="Condition on rows, such as: degree == 3 and loss < 0.1"
)
@options.as_json
@options.as_csv
def show_results(
    uri: str,
    store: str | None,
    endpoint_url: str | None,
    sort: str | None,
    limit: int | None,
    where: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show the rows of a run.

    RUN is a folder, a name, an id or a spec; see the page of jobs.
    """
    from polyfit.run.reader import Run

    options.refuse_both(as_json, as_csv)
    run = Run.open(uri, endpoint_url, store)
    if as_json or as_csv:
        _write_rows(run, sort, limit, where, as_csv)
    else:
        _show_table(run, sort, limit, where)


def _write_rows(
    run: "Run", sort: str | None, limit: int | None, where: str | None, as_csv: bool
) -> None:
    from polyfit.show.rows import write_csv, write_json

    some = sort or limit
    parts = [run.top(sort, limit, where=where)] if some else run.batches(where=where)
    if as_csv:
        write_csv(parts, sys.stdout)
    else:
        write_json(run, parts, sys.stdout)


def _show_table(run: "Run", sort: str | None, limit: int | None, where: str | None) -> None:
    from polyfit.show.rows import rows_table, table_columns
    from polyfit.show.text import format_count

    columns = table_columns(run, sort and sort.removeprefix("-"))
    rows = run.top(sort, limit or DEFAULT_LIMIT, columns, where)
    click.echo(rows_table(rows), nl=False)
    shown = format_count(len(rows), "row")
    write_line(shown if where else f"{shown} of {run.plan.fits:,}")
    if not run.complete:
        write_line(f"this run is not complete: these are the stored rows; {run.driver()}")
