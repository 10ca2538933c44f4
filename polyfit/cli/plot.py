"""``polyfit plot``."""

from pathlib import Path
from typing import Any

import click

from polyfit.cli import options
from polyfit.cli.found import open_run
from polyfit.cli.output import check_folder, write_file, write_line

__all__ = ["plot_run"]

# The names are here once more because those of polyfit.run.plot cost the import of altair.
KINDS = (
    "loss", "max_error", "steps", "distribution", "history", "fit", "edge", "coefficients", "paths",
    "timeline",
)  # fmt: skip
SUFFIXES = (".svg", ".png", ".html", ".json")


def _checked(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{path}; allowed: a name that ends in {', '.join(SUFFIXES)}")
    return path


@click.command("plot", short_help="Write one chart of a run as SVG, PNG, HTML or Vega-Lite.")
@click.argument("uri", metavar="RUN")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="Which chart.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_checked,
    metavar="FILE",
    required=True,
    help=f"File to write; its name ends in {', '.join(SUFFIXES)}.",
)
@click.option("--fit", type=int, metavar="N", help="Of kind fit: which.  [default: the best]")
@click.option(
    "--by",
    metavar="FIELD[,FIELD]",
    help="Of kinds loss, max_error and steps: swept fields along x and as series.",
)
@click.option("--dark", is_flag=True, help="Colours for a dark page.")
@options.found
def plot_run(
    uri: str,
    kind: str,
    out: Path,
    fit: int | None,
    by: str | None,
    dark: bool,
    found_by: dict[str, Any],
) -> None:
    """Write one chart of a run, without a browser or the network.

    RUN is a folder, a name, an id or a spec; the run need not be complete. The charts are
    those of `polyfit report`.
    """
    from polyfit.charts.files import chart_bytes

    check_folder(out)
    run = open_run(uri, found_by)
    fields = [name.strip() for name in by.split(",")] if by else []
    chart = run.charts("dark" if dark else "light").chart(kind, fit, fields)
    write_file(out, chart_bytes(chart, out))
    write_line(f"chart: {out}")
