"""``polyfit report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyfit.cli import options
from polyfit.cli.found import open_runs
from polyfit.cli.output import check_folder, write_file, write_line

if TYPE_CHECKING:
    from polyfit.run.reader import Run

__all__ = ["write_report", "write_report_of"]


def _checked(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{path}; a report is HTML: allowed is a name that ends in .html")
    return path


@click.command("report", short_help="Write a run as one HTML page: words, charts, tables.")
@click.argument("uri", metavar="RUN")
@click.option("--vs", "other_uri", metavar="RUN", help="Another run to show this one beside.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_checked,
    metavar="FILE",
    help="File to write as well, for example report.html.",
)
@options.found
def write_report(
    uri: str,
    other_uri: str | None,
    out: Path | None,
    found_by: dict[str, Any],
) -> None:
    """Write a run as one HTML page, which needs no network.

    RUN is a folder, a name, an id or a spec; the run need not be complete. The page is stored
    in it as report.html, and in FILE where one is named.
    """
    from polyfit.show.report import report_html

    if out is not None:
        check_folder(out)
    run, *other = open_runs([uri, other_uri] if other_uri else [uri], found_by)
    page = report_html(run, other[0] if other else None)
    if out is not None:
        write_file(out, page)
        write_line(f"report: {out}")
    _store(run, page, must=out is None)


def write_report_of(run: "Run") -> None:
    """Store the page of a run in it, at the end of ``polyfit run``."""
    from polyfit.show.report import report_html

    _store(run, report_html(run), must=False)


def _store(run: "Run", page: bytes, must: bool) -> None:
    """Store a page in its run; a store that refuses is an error only if it ``must``."""
    from polyfit.errors import StoreError

    try:
        run.store_report(page)
    except StoreError as error:
        if must:
            raise
        write_line(f"the report is not stored in the run: {error}")
    else:
        write_line(f"report: {run.uri}/report.html")
