"""``polyfit compare``."""

import math
from typing import Any

import click

from polyfit.cli import options
from polyfit.cli.output import write_line
from polyfit.errors import Exit, UsageError

__all__ = ["compare_runs"]


class _Share(click.ParamType[float]):
    """A share from 0, such as 0.05 or 5%."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < math.inf:
            self.fail(f"{value!r}; allowed: a share from 0, such as 0.05 or 5%", param, ctx)
        return share


@click.command("compare", short_help="Compare a run with an earlier one.")
@click.argument("before", metavar="BEFORE")
@click.argument("run", metavar="RUN")
@click.option("--by", metavar="COLUMNS", help="Columns of groups, else those of swept fields.")
@click.option(
    "--tolerance",
    type=_Share(),
    default=1e-6,
    metavar="SHARE",
    help="Losses that differ by this share at most count as equal.  [default: 1e-6]",
)
@click.option(
    "--max-regression",
    type=_Share(),
    metavar="SHARE",
    help="End with 8 if a group is worse by more than this share, as 5%.",
)
@options.run_store
@options.endpoint_url
@options.date
@options.as_json
@click.option("--md", "as_md", is_flag=True, help="Write tables in Markdown to stdout.")
def compare_runs(
    before: str,
    run: str,
    by: str | None,
    tolerance: float,
    max_regression: float | None,
    store: str | None,
    endpoint_url: str | None,
    date: str | None,
    as_json: bool,
    as_md: bool,
) -> int:
    """Compare RUN with BEFORE: the fits that both have, and the groups that both have.

    BEFORE and RUN are a folder, a name, an id or a spec; see the page of jobs. A fit is the same
    if all of its fields are. A group is worse if its median loss is larger, or more of its fits
    diverge; it is compared by the fits that both runs have, or by all if there are none.

    BEFORE may be @last: the last complete run of the same name that was written to before RUN. If
    there is none yet, there is nothing to compare, and the exit code is 0.
    """
    from polyfit.run.reader import Run
    from polyfit.run.resolve import LAST_COMPLETE, find_last_complete
    from polyfit.show.comparison import comparison_facts, comparison_text, nothing_common
    from polyfit.show.data import run_identity, to_json, without_non_finite
    from polyfit.show.markdown import markdown_table
    from polyfit.show.table import format_table

    options.refuse_two({"--json": as_json, "--md": as_md})
    new = Run.open(run, endpoint_url, store, date)
    if before == LAST_COMPLETE:
        address = find_last_complete(new.address)
        if address is None:
            write_line(f"{new.label} has no earlier complete run: nothing to compare")
            if as_json:
                click.echo(to_json({**run_identity(new), "before": None}))
            return Exit.COMPLETE
        old = Run.at(address)
    else:
        old = Run.open(before, endpoint_url, store, date)
    found = new.compare(old, by, tolerance)
    if found.is_empty:
        raise UsageError(f"nothing to compare: {nothing_common(new, old)}")
    if as_json:
        facts = comparison_facts(new, old, found, max_regression)
        click.echo(to_json(without_non_finite(facts)))
    else:
        layout = markdown_table if as_md else format_table
        click.echo(comparison_text(new, old, found, max_regression, layout), nl=False)
    incomplete = [one for one in (old, new) if not one.complete]
    for one in incomplete:
        write_line(f"{one.uri} is not complete: only what it has stored is compared")
    if max_regression is None:
        return Exit.COMPLETE
    if len(found.worse(max_regression)):
        return Exit.WORSE
    return Exit.UNFINISHED if new in incomplete else Exit.COMPLETE
