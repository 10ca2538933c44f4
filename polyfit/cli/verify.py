"""``polyfit verify``."""

import click

from polyfit.cli import options
from polyfit.errors import DamagedRun

__all__ = ["verify_run"]


@click.command("verify", short_help="Check that a run holds every fit exactly once.")
@click.argument("uri", metavar="RUN")
@options.endpoint_url
@options.as_json
def verify_run(uri: str, endpoint_url: str | None, as_json: bool) -> None:
    """Check that a run holds every fit exactly once, and that every shard is intact.

    RUN is the folder of a run, <store>/<name>/<run id>. Every stored object is read in full.
    """
    from polyfit.run.reader import Run
    from polyfit.show.data import to_json
    from polyfit.show.verdict import intact_text, problems_text, verdict_facts

    run = Run.open(uri, endpoint_url)
    verdict = run.verify()
    if as_json:
        click.echo(to_json(verdict_facts(run, verdict)))
    if verdict.problems:
        raise DamagedRun(problems_text(run, verdict.problems))
    if not as_json:
        click.echo(intact_text(verdict))
