"""``polyfit results``."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from polyfit.cli import options
from polyfit.cli.found import open_runs
from polyfit.cli.output import write_line

if TYPE_CHECKING:
    import polars as pl

    from polyfit.run.several import SeveralRuns

__all__ = ["show_results"]

DEFAULT_LIMIT: Final = 20
SWEPT: Final = "swept"

COUNTED_FITS: Final = 1_000_000
"""Of more fits it is not counted how many match: the first few are found without reading all."""


@dataclass(frozen=True, slots=True)
class _Query:
    """Which rows, columns and groups are asked for."""

    by: str | None
    worst_per: str | None
    columns: str | None
    where: str | None
    sort: str | None
    limit: int | None

    def check(self) -> None:
        """Refuse what does not go together, and lists without a column.

        Raises:
            UsageError: with the list.
            click.UsageError: with the two options.
        """
        for text in (self.by, self.worst_per, self.columns):
            if text is not None:
                options.columns(text)
        if self.by and self.worst_per:
            raise click.UsageError("--by and --worst-per exclude each other")
        if self.by and self.columns:
            raise click.UsageError("--columns chooses columns of rows: it does not go with --by")


def _output(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose the form of the output."""
    for option in (
        click.option("--md", "as_md", is_flag=True, help="Write a table in Markdown to stdout."),
        click.option(
            "--parquet", metavar="FILE", help="Write one Parquet file, which is replaced."
        ),
        options.as_csv,
        options.as_json,
    ):
        function = option(function)
    return function


@click.command("results", short_help="Show rows of runs, or sum them up.")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--by",
    metavar="COLUMNS",
    help=f"Sum up per group of these columns, such as lr,optimizer; {SWEPT}: of the swept ones.",
)
@click.option(
    "--worst-per",
    metavar="COLUMNS",
    help="The fit with the largest loss of each group; of several runs that of each run.",
)
@click.option("--columns", metavar="COLUMNS", help="Columns of rows, such as fit,degree,loss.")
@click.option(
    "--where", metavar="EXPR", help="Condition on rows, such as: degree == 3 and loss < 0.1"
)
@click.option("--sort", metavar="COLUMN", help="Smallest value first; -COLUMN: largest first.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Number of rows.  [default: {DEFAULT_LIMIT}; --json, --csv, --parquet and groups: all]",
)
@options.found
@_output
def show_results(
    names: tuple[str, ...],
    found_by: dict[str, Any],
    as_json: bool,
    as_csv: bool,
    as_md: bool,
    parquet: str | None,
    **asked: Any,
) -> None:
    """Show rows of runs, or sum them up per group.

    RUN is a folder, a name, an id or a spec; see the page of jobs. Several runs are one table,
    with a column run. COLUMNS are separated by commas; range stands for range_low and range_high.
    """
    from polyfit.run.export import check_file
    from polyfit.run.several import SeveralRuns

    forms = {"json": as_json, "csv": as_csv, "md": as_md, "parquet": parquet is not None}
    options.refuse_two({f"--{name}": given for name, given in forms.items()})
    form = next((name for name, given in forms.items() if given), "table")
    query = _Query(**asked)
    query.check()
    if parquet is not None:
        check_file(parquet)
    runs = SeveralRuns(open_runs([*names], found_by))
    if query.by:
        _show_groups(runs, query, form, parquet)
    else:
        _show_rows(runs, query, form, parquet)
    if form in ("table", "md"):
        _warn_of_incomplete(runs)


def _warn_of_incomplete(runs: "SeveralRuns") -> None:
    for run in runs.runs:
        if not run.complete:
            name = run.label if len(runs.runs) > 1 else "this run"
            write_line(f"{name} is not complete: these are the stored rows; {run.driver()}")


def _show_groups(runs: "SeveralRuns", query: _Query, form: str, path: str | None) -> None:
    from polyfit.run.export import write_parquet
    from polyfit.show.data import to_json, without_non_finite
    from polyfit.show.groups import groups_facts, groups_table
    from polyfit.show.markdown import markdown_table
    from polyfit.show.rows import runs_identity, write_csv
    from polyfit.show.table import format_table
    from polyfit.show.text import format_count

    every = runs.groups(query.by, query.where)
    groups = _sorted(every, query)
    if form == "json":
        facts = {**runs_identity(runs.runs), "groups": groups_facts(groups)}
        click.echo(to_json(without_non_finite(facts)))
    elif form == "csv":
        write_csv([groups.to_arrow()], sys.stdout)
    elif path is not None:
        write_parquet([groups.to_arrow()], path)
        write_line(f"{path}: {format_count(len(groups), 'group')}")
    else:
        layout = markdown_table if form == "md" else format_table
        click.echo(groups_table(groups, layout), nl=False)
        of = f" of {len(every):,}" if len(groups) < len(every) else ""
        write_line(f"{format_count(len(groups), 'group')}{of}")


def _sorted(frame: "pl.DataFrame", query: _Query) -> "pl.DataFrame":
    """The first rows of a frame in the order that is asked for."""
    from polyfit.run.columns import sort_column

    if query.sort:
        name, descending = sort_column(query.sort, frame.columns)
        frame = frame.sort(name, descending=descending, nulls_last=True)
    return frame.head(query.limit) if query.limit else frame


def _show_rows(runs: "SeveralRuns", query: _Query, form: str, path: str | None) -> None:
    from polyfit.run.export import write_parquet
    from polyfit.show.markdown import markdown_table
    from polyfit.show.rows import rows_table, table_columns, write_csv, write_json
    from polyfit.show.table import format_table
    from polyfit.show.text import format_count

    is_table = form in ("table", "md")
    columns = runs.labelled(options.columns(query.columns)) if query.columns else None
    if columns is None and is_table:
        sort = query.sort and query.sort.removeprefix("-")
        columns = table_columns(runs, sort, with_reason=bool(query.worst_per))
    limit = query.limit or (DEFAULT_LIMIT if is_table and not query.worst_per else None)
    if query.worst_per:
        frame = _sorted(runs.worst(query.worst_per, query.where), query)
        parts = iter([(frame if columns is None else runs.chosen(frame, columns)).to_arrow()])
    elif query.sort or limit:
        parts = iter([runs.top(query.sort, limit, columns, query.where)])
    else:
        parts = runs.parts(columns, query.where, side_by_side=1)
    if form == "json":
        write_json(runs.runs, parts, sys.stdout)
    elif form == "csv":
        write_csv(parts, sys.stdout)
    elif path is not None:
        write_line(f"{path}: {format_count(write_parquet(parts, path), 'row')}")
    else:
        rows = next(parts)
        click.echo(rows_table(rows, markdown_table if form == "md" else format_table), nl=False)
        write_line(_count(runs, len(rows), query))


def _count(runs: "SeveralRuns", shown: int, query: _Query) -> str:
    from polyfit.show.text import format_count

    rows = format_count(shown, "row")
    every = sum(run.plan.fits for run in runs.runs)
    if query.worst_per:
        return rows
    if not query.where:
        return f"{rows} of {every:,}"
    if every > COUNTED_FITS:
        return f"{rows} of those that match"
    return f"{rows} of {sum(map(len, runs.parts(['fit'], query.where))):,} that match"
