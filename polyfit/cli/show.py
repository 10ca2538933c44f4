"""``polyfit show``."""

from typing import TYPE_CHECKING, Any

import click

from polyfit.cli import options
from polyfit.cli.found import open_run
from polyfit.errors import DamagedRun, UsageError

if TYPE_CHECKING:
    from polyfit.run.reader import Run

__all__ = ["show_fit"]


class _FitIndex(click.ParamType[int | str]):
    """The index of a fit, or one of two words."""

    name = "fit"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value in ("best", "worst"):
            return str(value)
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}; allowed: a number from 0, best, or worst", param, ctx)


def _extreme(run: "Run", which: str) -> int:
    """The fit with the least loss, or with the largest."""
    found: list[int] = run.extremes(worst=which == "worst")["fit"].to_list()
    if not found:
        raise UsageError("no fit of this run is stored yet")
    return found[0]


# So that -1 is read as a fit, and refused with the fits that there are.
@click.command(
    "show",
    short_help="Show one fit of a run in full.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("uri", metavar="RUN")
@click.argument("fit", metavar="FIT", type=_FitIndex())
@click.option(
    "--recompute",
    "recomputes",
    is_flag=True,
    help="Fit it again on this machine's CPU, and compare.",
)
@options.found
@options.as_json
def show_fit(
    uri: str,
    fit: int | str,
    recomputes: bool,
    as_json: bool,
    found_by: dict[str, Any],
) -> None:
    """Show one fit of a run in full: its row, its equation and its curve.

    RUN is a folder, a name, an id or a spec; see the page of jobs. FIT is the index of the fit,
    from 0; or best or worst, for the one with the least or the largest loss.
    """
    from polyfit.show.data import to_json
    from polyfit.show.fit import damage_text, fit_facts, fit_text, recomputed_text
    from polyfit.work.recompute import recompute

    run = open_run(uri, found_by)
    stored = run.stored(fit if isinstance(fit, int) else _extreme(run, fit))
    if not as_json:
        click.echo(fit_text(run, stored))
    recomputed = recompute(run, stored) if recomputes else None
    if as_json:
        click.echo(to_json(fit_facts(run, stored, recomputed)))
    elif recomputed is not None:
        click.echo(f"\nrecomputed: {recomputed_text(recomputed)}")
    if recomputed is not None and recomputed.damaged:
        raise DamagedRun(damage_text(run, stored, recomputed))
