"""``polyfit run``."""

from typing import Any

import click

from polyfit.cli import options
from polyfit.cli.specs import load_specs, refuse

__all__ = ["run_specs"]


@click.command("run", short_help="Run specs; the same command resumes an unfinished run.")
@click.argument("paths", metavar="SPEC...", nargs=-1, required=True)
@options.store
@options.endpoint_url
@click.option("--run-id", metavar="ID", help="Name of the run, else from the plan's hash.")
@click.option(
    "--executor",
    type=click.Choice(["auto", "ray", "inline"]),
    default="auto",
    help="Ray actors or this process.  [default: auto]",
)
@click.option("--address", metavar="ADDR", help="Ray cluster to join, else RAY_ADDRESS.")
@click.option(
    "--placement-timeout",
    "placement_timeout_s",
    default=600.0,
    metavar="S",
    type=options.Seconds(min=0),
    help="Seconds to wait while the cluster has no room.  [default: 600]",
)
@click.option(
    "--wait",
    "wait_s",
    default=20.0,
    metavar="S",
    type=options.Seconds(min=0),
    help="Seconds to wait for another driver of this run to end.  [default: 20]",
)
@click.option("--retry-failed", is_flag=True, help="Try failed shards of earlier attempts again.")
@click.option(
    "--reuse",
    metavar="RUN",
    help="Another run, whose rows are taken instead of fitting them again.",
)
@options.settings
@click.option(
    "--report", is_flag=True, help="Write the run as an HTML page at its end, into the run."
)
@options.strict
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
    **execution: Any,
) -> int:
    """Run specs until all fits are stored; the same command resumes an unfinished run.

    SPEC is a YAML or JSON file, or - for standard input.

    All specs are read first; if one is wrong, none is run. If a run fails, the others are still
    run, and the exit code is that of the first that failed.

    --json gives the summary of the run. Several specs give {"runs": [...]}; a run that failed
    has name, exit_code and error there.
    """
    specs = load_specs(paths, settings)
    if strict:
        refuse(specs)
    from polyfit.cli.execution import run_all
    from polyfit.show.data import to_json

    summaries = run_all(specs, execution, as_json, debug, report)
    if as_json:
        click.echo(to_json(summaries[0] if len(summaries) == 1 else {"runs": summaries}))
    return next((one["exit_code"] for one in summaries if "exit_code" in one), 0)
