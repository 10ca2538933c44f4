"""``polyfit submit``."""

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from polyfit.cli import options
from polyfit.cli.output import stderr_may_fail, write_line
from polyfit.cli.specs import load_specs, refuse
from polyfit.cli.watching import watching
from polyfit.errors import Exit, UsageError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from polyfit.work.job_server import JobServer
    from polyfit.work.submission import Job, Submission

__all__ = ["submit_specs"]

_PASSED_ON: Final = {
    *("placement_timeout_s", "wait_s", "retry_failed", "report", "strict", "log_format")
}
"""Options that go to ``polyfit run`` there as they are."""


@click.command("submit", short_help="Run specs as a job of a Ray cluster, and follow it.")
@click.argument("paths", metavar="SPEC...", nargs=-1, required=True)
@click.option(
    "--address",
    metavar="URL",
    help="The cluster's job server, http://HOST:8265; else RAY_API_SERVER_ADDRESS.",
)
@click.option("--no-wait", is_flag=True, help="End when the job runs, and write its id to stdout.")
@click.option("--stop", is_flag=True, help="Stop the job of these specs, and wait for its end.")
@click.option(
    "--python",
    default="python",
    metavar="PATH",
    help="The cluster's Python that has polyfit.  [default: python]",
)
@click.option(
    "--store",
    metavar="URI",
    help="s3://bucket/prefix or a folder of all nodes, else the spec's, else POLYFIT_STORE.",
)
@options.endpoint_url
@options.run_id
@options.date
@options.placement_timeout
@options.wait
@options.retry_failed
@options.reuse
@options.settings
@options.report
@options.strict
@options.log_format
@options.as_json
@click.pass_context
def submit_specs(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    address: str | None,
    no_wait: bool,
    stop: bool,
    python: str,
    store: str | None,
    endpoint_url: str | None,
    run_id: str | None,
    date: str | None,
    reuse: str | None,
    settings: tuple[str, ...],
    strict: bool,
    as_json: bool,
    **_: Any,
) -> int:
    """Run specs as a job of a Ray cluster, follow it, and end with the exit code of the run.

    SPEC is a YAML or JSON file, or - for standard input. The job runs `polyfit run` with them on
    the cluster's head, where polyfit is installed. Its output goes to stdout.

    Submitted again, a job that is running is found and followed; one that has ended is resumed by
    a new one. Ctrl-C ends the following alone.

    --json gives job, address, runs, status and exit_code; the job's output then goes to stderr.
    """
    if no_wait and stop:
        raise click.UsageError("--no-wait and --stop exclude each other")
    from polyfit.work.cluster_address import job_server_url
    from polyfit.work.submission import Submission

    url = job_server_url(address)
    specs = load_specs(paths, settings)
    if strict:
        refuse(specs)
    words = _passed_on(context)
    submission = Submission.of(specs, store, endpoint_url, run_id, date, reuse, words, python)
    from polyfit.work.job_server import JobServer

    server = JobServer(url)
    if stop:
        return _stop(server, submission, as_json)
    return _follow(server, submission, _submit(server, submission), no_wait, as_json)


def _passed_on(context: click.Context) -> list[str]:
    """The words of those options that were given, and that ``polyfit run`` takes too."""
    words: list[str] = []
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name in _PASSED_ON and given:
            value = context.params[name]
            words += option.opts if value is True else [*option.opts, str(value)]
    return words


def _submit(server: "JobServer", submission: "Submission") -> "Job":
    """The job of these runs that has not ended, started if there is none."""
    from polyfit.work.submission import Job

    while True:
        latest, job_id = server.find(submission)
        if latest is not None and not latest.status.is_terminal():
            job, same = _found(latest, submission)
            owner = (latest.metadata or {}).get("owner", "somebody")
            _say(f"this was submitted before by {owner}, as {job.id}: following it")
            if not same:
                _say("options and keys that differ from that submission do not count now")
            return job
        with tempfile.TemporaryDirectory() as folder:
            submission.write(Path(folder))
            if server.start(submission, job_id, folder):
                _say(f"submitted to {server.url} as {job_id}")
                return Job(job_id, submission.nonce)


def _found(details: "JobDetails", submission: "Submission") -> tuple["Job", bool]:
    """A job that was found by its runs, and whether all that was sent is the same.

    Raises:
        UsageError: it has another plan, or another endpoint.
    """
    from polyfit.work.submission import Job

    metadata = details.metadata or {}
    job = Job(str(details.submission_id), metadata.get("nonce", ""))
    return job, submission.check_same(job.id, metadata)


def _follow(
    server: "JobServer", submission: "Submission", job: "Job", no_wait: bool, as_json: bool
) -> int:
    """Follow a job until it has ended, or until it runs if ``no_wait``; the exit code."""
    from polyfit.work.job_end import noted_exit, true_exit
    from polyfit.work.job_follower import JobFollower
    from polyfit.work.job_start import STARTING

    def show(text: str) -> None:
        with stderr_may_fail() if no_wait or as_json else nullcontext():
            click.echo(text, nl=False, err=no_wait or as_json)

    follower = JobFollower(server, job, show, _say, time)
    goes_on = f"the job {job.id} goes on: the same command follows it, and with --stop it stops it"
    with watching(goes_on):
        details = follower.follow(STARTING if no_wait else None)
    if follower.log_given_up:
        logs = " and ".join(f"`polyfit status {run} --log`" for run in submission.runs)
        _say(f"the job's log cannot be read; {logs} shows the driver's")
    code = None
    if details is None or details.status.is_terminal():
        code, why = true_exit(details, lambda: noted_exit(submission, job.nonce))
        if why is not None:
            _say(why)
    _show(server, submission, job, details, code, as_json, no_wait)
    return code or 0


def _stop(server: "JobServer", submission: "Submission", as_json: bool) -> int:
    """Stop the job of these runs, and wait until it has ended."""
    from polyfit.work.job_end import noted_exit, true_exit
    from polyfit.work.job_follower import JobFollower

    latest, _ = server.find(submission)
    if latest is None:
        raise UsageError(f"no job of {submission.run_uris} is known at {server.url}")
    job, _ = _found(latest, submission)
    if not latest.status.is_terminal():
        server.stop(job.id)
        _say(f"stopping {job.id}: its running shards have up to 25 s to be stored")
    follower = JobFollower(server, job, lambda text: None, _say, time)
    with watching(f"the job {job.id} is being stopped all the same"):
        details = follower.follow()
    code, why = true_exit(details, lambda: noted_exit(submission, job.nonce))
    _say(f"{job.id}: {why or f'it has ended by itself, with exit code {int(code)}'}")
    _show(server, submission, job, details, code, as_json, False)
    return Exit.COMPLETE


def _show(
    server: "JobServer",
    submission: "Submission",
    job: "Job",
    details: "JobDetails | None",
    code: int | None,
    as_json: bool,
    no_wait: bool,
) -> None:
    """Write what stdout is for: an object, or the id of a job that runs and is not waited for."""
    if as_json:
        from polyfit.show.data import to_json

        facts = {
            "job": job.id,
            "address": server.url,
            "runs": [run.uri for run in submission.runs],
            "status": None if details is None else details.status.value,
            "exit_code": None if code is None else int(code),
        }
        click.echo(to_json(facts))
    elif no_wait and not code:
        click.echo(job.id)


def _say(line: str) -> None:
    write_line(f"polyfit: {line}")
