"""``polyfit plan``."""

import os

import click

from polyfit.cli import options
from polyfit.cli.specs import warn_or_refuse

__all__ = ["show_plan"]


@click.command("plan", short_help="Show what a spec would run, without running it.")
@click.argument("path", metavar="SPEC")
@options.settings
@click.option("--reuse", metavar="RUN", help="Say how many of the fits another run has already.")
@options.store
@options.endpoint_url
@options.date
@options.strict
@options.as_json
def show_plan(
    path: str,
    settings: tuple[str, ...],
    reuse: str | None,
    store: str | None,
    endpoint_url: str | None,
    date: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Show what a spec would run: fits, axes, shards, engine, projected cost, plan hash; and what
    is predicted of its fits.

    SPEC is a YAML or JSON file, or - for standard input. With --reuse, names and ids are looked for
    where `polyfit run` would store: in --store, if it is given.
    """
    from polyfit.show.data import to_json
    from polyfit.show.plan import plan_facts, plan_text
    from polyfit.spec.dates import read_date
    from polyfit.spec.plan import Plan
    from polyfit.spec.prediction import Prediction
    from polyfit.spec.run_id import run_id_of
    from polyfit.spec.spec import Spec

    day = read_date(date)
    spec = Spec.load(path, settings)
    plan = Plan.of(spec)
    prediction = Prediction.of(plan.sweep)
    precheck = warn_or_refuse(spec, plan, strict, prediction)
    reusable = None
    if reuse is not None:
        from polyfit.run.reusable import Reusable

        reusable = Reusable.of(spec, plan, reuse, store, endpoint_url, day)
    num_cores, run_id = _num_usable_cores(), run_id_of(spec, plan, day)
    if as_json:
        click.echo(
            to_json(plan_facts(spec, plan, precheck, prediction, num_cores, run_id, reusable))
        )
    else:
        click.echo(plan_text(spec, plan, prediction, num_cores, run_id, reusable))


def _num_usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1
