"""``polyfit verify``."""

import click

from polyfit.cli import options
from polyfit.errors import DamagedRun

__all__ = ["verify_run"]


@click.command("verify", short_help="Check that a run holds every fit exactly once.")
@click.argument("uri", metavar="RUN")
@options.run_store
@options.endpoint_url
@options.date
@options.as_json
def verify_run(
    uri: str, store: str | None, endpoint_url: str | None, date: str | None, as_json: bool
) -> None:
    """Check that a run holds every fit exactly once, and that every shard is intact.

    RUN is a folder, a name, an id or a spec; see the page of jobs. Every stored object is read in
    full. Of a run on which a driver is at work, it says so, and ends with 4.
    """
    from polyfit.run.reader import Run
    from polyfit.show.data import to_json
    from polyfit.show.verdict import intact_text, problems_text, verdict_facts

    run = Run.open(uri, endpoint_url, store, date)
    verdict = run.verify()
    if as_json:
        click.echo(to_json(verdict_facts(run, verdict)))
    if verdict.problems:
        raise DamagedRun(problems_text(run, verdict.problems))
    if not as_json:
        click.echo(intact_text(verdict))
