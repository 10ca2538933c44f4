"""``polyfit results``."""

import sys
from typing import TYPE_CHECKING, Final

import click

from polyfit.cli import options
from polyfit.cli.output import write_line
from polyfit.errors import RunNotFound

if TYPE_CHECKING:
    from polyfit.run.listing import ListedRun
    from polyfit.run.reader import Run

__all__ = ["show_results"]

DEFAULT_LIMIT: Final = 20


@click.command("results", short_help="Show the rows of a run, or list the runs in a store.")
@click.argument("uri", metavar="RUN")
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
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout.")
def show_results(
    uri: str,
    endpoint_url: str | None,
    sort: str | None,
    limit: int | None,
    where: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show rows of a run, or list the runs in a store.

    RUN is the folder of a run, <store>/<name>/<run id>. For <store> or <store>/<name> the runs in
    it are listed.
    """
    from polyfit.run.reader import Run

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    try:
        run = Run.open(uri, endpoint_url)
    except RunNotFound as error:
        _show_runs(_runs_instead(error, uri, endpoint_url, sort or limit or where), as_json, as_csv)
        return
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


def _runs_instead(
    error: RunNotFound, uri: str, endpoint_url: str | None, for_rows: object
) -> "list[ListedRun]":
    """The runs below ``uri``, which is no run itself.

    Raises:
        RunNotFound: there are none, or options ``for_rows`` were given.
    """
    from polyfit.run.listing import runs_below
    from polyfit.store.address import StoreAddress

    address = StoreAddress.of(uri, endpoint_url)
    listed = list(runs_below(address))
    if not listed:
        raise error
    if for_rows:
        raise RunNotFound(f"{error}; `polyfit results {address}` lists the runs in it")
    return listed


def _show_runs(listed: "list[ListedRun]", as_json: bool, as_csv: bool) -> None:
    from polyfit.show.data import to_json
    from polyfit.show.runs import run_line, runs_facts, write_runs_csv
    from polyfit.show.text import format_count

    if as_json:
        click.echo(to_json({"runs": runs_facts(listed)}))
    elif as_csv:
        write_runs_csv(listed, sys.stdout)
    else:
        for run in listed:
            click.echo(run_line(run))
        write_line(f"{format_count(len(listed), 'run')}; name one to see its rows")
