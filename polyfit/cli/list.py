"""``polyfit list``."""

import sys

import click

from polyfit.cli import options
from polyfit.cli.output import write_line

__all__ = ["list_runs"]


@click.command("list", short_help="List the runs in a store.")
@click.argument("store", metavar="[STORE]", required=False)
@options.endpoint_url
@click.option(
    "--date",
    metavar="YYYY-MM-DD",
    help="What {date} stands for in STORE; without it there, the runs with this date in their id.",
)
@options.as_json
@options.as_csv
def list_runs(
    store: str | None, endpoint_url: str | None, date: str | None, as_json: bool, as_csv: bool
) -> None:
    """List the runs in a store, by name and date.

    STORE is a folder or s3://bucket/prefix, also with /<name>; without it POLYFIT_STORE, else
    ./runs. The last column says which fields of the spec differ from the run above it of the same
    name, the last line what all of them took.
    """
    from polyfit.run.address import default_store
    from polyfit.run.listing import runs_below, why_no_run
    from polyfit.show.data import to_json
    from polyfit.show.runs import runs_facts, runs_summary, runs_table, write_runs_csv
    from polyfit.spec.dates import read_date
    from polyfit.store.address import StoreAddress
    from polyfit.store.uri import DATE

    options.refuse_two({"--json": as_json, "--csv": as_csv})
    where, day = store or default_store(), str(read_date(date))
    address = StoreAddress.of(where, endpoint_url, day)
    listed = runs_below(address)
    if store and not listed:
        why_no_run(address, store)
    if date is not None and DATE not in where:
        listed = [run for run in listed if day in run.run_id]
    if as_json:
        click.echo(to_json({"runs": runs_facts(listed)}))
    elif as_csv:
        write_runs_csv(listed, sys.stdout)
    elif listed:
        click.echo(runs_table(listed), nl=False)
    if not as_json and not as_csv:
        write_line(f"{runs_summary(listed)} in {address}")
