"""``polyfit compare``."""

import math
from typing import TYPE_CHECKING, Any

import click

from polyfit.cli import options
from polyfit.cli.found import open_run, open_runs
from polyfit.cli.output import write_line
from polyfit.errors import Exit, PlanMismatch, RunNotFound, UsageError

if TYPE_CHECKING:
    from polyfit.run.reader import Run

__all__ = ["compare_runs"]


class _Share(click.ParamType[float]):
    """A share from 0, such as 0.05 or 5%. One above 1 has to be a percentage: 5 may mean 5%."""

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
        if share > 1 and not text.endswith("%"):
            told = f"{value!r} may mean {share:g}% or {100 * share:g}%; write the one you mean"
            self.fail(told, param, ctx)
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
@options.found
@options.as_json
@click.option("--md", "as_md", is_flag=True, help="Write tables in Markdown to stdout.")
@click.option(
    "--quiet", is_flag=True, help="With --max-regression: write nothing where the exit code is 0."
)
def compare_runs(
    before: str,
    run: str,
    by: str | None,
    tolerance: float,
    max_regression: float | None,
    found_by: dict[str, Any],
    as_json: bool,
    as_md: bool,
    quiet: bool,
) -> int:
    """Compare RUN with BEFORE: the fits that both have, and the groups that both have.

    BEFORE and RUN are a folder, a name, an id or a spec; see the page of jobs. A fit is the same
    if all of its fields are. A group is worse if its median loss is larger, or more of its fits
    diverge; it is compared by the fits that both runs have, or by all if there are none.

    BEFORE may be @last: the last complete run of the same name before RUN. If there is none yet,
    there is nothing to compare, and the exit code is 0. Where a date is in the id of RUN, it is
    the run of the last night before it; of a night that was made twice, the later one.

    With --max-regression the exit code is 8 if RUN is worse, else 7 if it is not complete.
    """
    from polyfit.run.resolve import LAST_COMPLETE
    from polyfit.show.comparison import comparison_facts, comparison_text, nothing_common
    from polyfit.show.data import run_identity, to_json, without_non_finite
    from polyfit.show.markdown import markdown_table
    from polyfit.show.table import format_table

    options.refuse_two({"--json": as_json, "--md": as_md})
    if quiet and max_regression is None:
        raise click.UsageError("--quiet needs --max-regression, which says what is worse")
    old: Run | None
    if before == LAST_COMPLETE:
        new = open_run(run, found_by)
        old = _last_complete(new)
    else:
        old, new = open_runs([before, run], found_by)
    unfinished = max_regression is not None and not new.complete
    otherwise = Exit.UNFINISHED if unfinished else Exit.COMPLETE
    if old is None:
        if unfinished or not quiet:
            state = "" if new.complete else "is not complete, and "
            write_line(f"{new.label} {state}has no earlier complete run: nothing to compare")
            if as_json:
                click.echo(to_json({**run_identity(new), "before": None}))
        return otherwise
    found = new.compare(old, by, tolerance)
    if found.is_empty:
        if unfinished and not new.shard_numbers():
            write_line(f"{new.uri} is not complete: {nothing_common(new, old)}")
            return otherwise
        raise UsageError(f"nothing to compare: {nothing_common(new, old)}")
    worse = max_regression is not None and len(found.worse(max_regression)) > 0
    code = Exit.WORSE if worse else otherwise
    if quiet and code == Exit.COMPLETE:
        return code
    if as_json:
        facts = comparison_facts(new, old, found, max_regression)
        click.echo(to_json(without_non_finite(facts)))
    else:
        layout = markdown_table if as_md else format_table
        click.echo(comparison_text(new, old, found, max_regression, layout), nl=False)
    for one in (old, new):
        if not one.complete:
            write_line(f"{one.uri} is not complete: only what it has stored is compared")
    return code


def _last_complete(run: "Run") -> "Run | None":
    """The last complete run before ``run`` that this version can read, if there is one."""
    from polyfit.run.reader import Run
    from polyfit.run.resolve import earlier_complete

    unreadable = []
    found = None
    for address in earlier_complete(run.address):
        try:
            found = Run.at(address)
            break
        except (PlanMismatch, RunNotFound):
            unreadable.append(address.uri)
    if unreadable:
        more = f" and {len(unreadable) - 1:,} before it" if len(unreadable) > 1 else ""
        write_line(f"{unreadable[0]}{more} cannot be read by this version: left out")
    return found
