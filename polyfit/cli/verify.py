"""``polyfit verify``."""

from typing import Any

import click

from polyfit.cli import options
from polyfit.cli.found import open_run
from polyfit.errors import DamagedRun

__all__ = ["verify_run"]


@click.command("verify", short_help="Check that a run holds every fit exactly once.")
@click.argument("uri", metavar="RUN")
@options.found
@options.as_json
def verify_run(uri: str, as_json: bool, found_by: dict[str, Any]) -> None:
    """Check that a run holds every fit exactly once, and that every shard is intact.

    RUN is a folder, a name, an id or a spec; see the page of jobs. Every stored object is read in
    full. Of a run on which a driver is at work, it says so, and ends with 4.
    """
    from polyfit.show.data import to_json
    from polyfit.show.verdict import intact_text, problems_text, verdict_facts

    run = open_run(uri, found_by)
    verdict = run.verify()
    if as_json:
        click.echo(to_json(verdict_facts(run, verdict)))
    if verdict.problems:
        raise DamagedRun(problems_text(run, verdict.problems))
    if not as_json:
        click.echo(intact_text(verdict))
