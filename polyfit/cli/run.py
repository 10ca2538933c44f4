"""``polyfit run``."""

from typing import Any

import click

from polyfit.cli import options
from polyfit.cli.output import forget_run, log_as_json, write_line
from polyfit.cli.specs import load_specs, refuse

__all__ = ["run_specs"]


@click.command("run", short_help="Run specs; the same command resumes an unfinished run.")
@click.argument("paths", metavar="SPEC...", nargs=-1, required=True)
@options.store
@options.endpoint_url
@options.run_id
@options.date
@click.option(
    "--since",
    metavar="DAY",
    help="Make up for the nights from DAY until --date that are not complete: YYYY-MM-DD, or 7d "
    "for seven days before --date.",
)
@click.option(
    "--executor",
    type=click.Choice(["auto", "ray", "inline"]),
    default="auto",
    help="Ray actors or this process.  [default: auto]",
)
@click.option("--address", metavar="ADDR", help="Ray cluster to join, else RAY_ADDRESS.")
@options.placement_timeout
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Where Prometheus finds the metrics of a Ray that is started here, else anywhere.",
)
@options.wait
@options.retry_failed
@options.reuse
@options.settings
@options.report
@options.strict
@options.log_format
@options.as_json
@click.pass_obj
def run_specs(
    debug: bool,
    /,
    paths: tuple[str, ...],
    settings: tuple[str, ...],
    report: bool,
    strict: bool,
    as_json: bool,
    since: str | None,
    log_format: str,
    **execution: Any,
) -> int:
    """Run specs until all fits are stored; the same command resumes an unfinished run.

    SPEC is a YAML or JSON file, or - for standard input.

    All specs are read first; if one is wrong, none is run. If a run fails, the others are still
    run, and the exit code is that of the first that failed.

    --json gives the summary of the run. Several specs give {"runs": [...]}; a run that failed
    has name, exit_code and error there.

    With --since the nights are run in order, the oldest first; one that is complete costs one
    listing of its shards. If one fails, the later ones are still run, except where the storage
    or the cluster fails, which all would meet. The exit code is that of the first that failed.
    """
    log_as_json(log_format == "json")
    from polyfit.spec.dates import nights, read_date, read_since

    execution["date"] = read_date(execution["date"])
    until = execution["date"]
    wanted = nights(read_since(since, until), until) if since is not None else []
    specs = load_specs(paths, settings)
    if strict:
        refuse(specs)
    from polyfit.cli.execution import check_dated, nightly_summary, run_all, tasks_of
    from polyfit.show.data import to_json

    if wanted:
        check_dated(specs, execution["store"], execution["run_id"])
    tasks = tasks_of(specs, wanted)
    summaries = run_all(tasks, execution, as_json, debug, report)
    if wanted:
        forget_run()
        for line in nightly_summary(tasks, summaries):
            write_line(line)
    if as_json:
        several = wanted or len(specs) > 1
        click.echo(to_json({"runs": summaries} if several else summaries[0]))
    return next((one["exit_code"] for one in summaries if "exit_code" in one), 0)
