"""Options that several commands share."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

__all__ = [
    "Seconds",
    "as_csv",
    "as_json",
    "date",
    "endpoint_url",
    "found",
    "log_format",
    "placement_timeout",
    "refuse_two",
    "report",
    "retry_failed",
    "reuse",
    "run_id",
    "settings",
    "store",
    "strict",
    "wait",
]


class Seconds(click.FloatRange):
    """A number of seconds; not "nan", which would never be over."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid float range.", param, ctx)
        return seconds


endpoint_url: Final = click.option(
    "--endpoint-url", metavar="URL", help="S3 endpoint, else AWS_ENDPOINT_URL_S3."
)
as_json: Final = click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object to stdout."
)
as_csv: Final = click.option("--csv", "as_csv", is_flag=True, help="Write CSV to stdout.")
date: Final = click.option(
    "--date",
    metavar="YYYY-MM-DD",
    help="What {date} stands for in a store and a run id, else today in UTC.",
)
store: Final = click.option(
    "--store",
    metavar="URI",
    help="Folder or s3://bucket/prefix, else the spec's, else POLYFIT_STORE, else ./runs.",
)
settings: Final = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a key of the specs, as in fit.degree=5; of several the last one counts.",
)
strict: Final = click.option(
    "--strict", is_flag=True, help="Whatever would be a warning is an error."
)
_FOUND_BY: Final = ("store", "endpoint_url", "run_id", "date")
_run_store: Final = click.option(
    "--store",
    metavar="URI",
    help="Where names and ids of runs are looked for, else POLYFIT_STORE, else ./runs.",
)
_id_of_spec: Final = click.option(
    "--run-id", metavar="ID", help="That of a spec's run, where `polyfit run` was given one."
)
run_id: Final = click.option(
    "--run-id", metavar="ID", help="Name of the run, else the spec's, else from its hash."
)
placement_timeout: Final = click.option(
    "--placement-timeout",
    "placement_timeout_s",
    default=600.0,
    metavar="S",
    type=Seconds(min=0),
    help="Seconds to wait while the cluster has no room.  [default: 600]",
)
wait: Final = click.option(
    "--wait",
    "wait_s",
    default=20.0,
    metavar="S",
    type=Seconds(min=0),
    help="Seconds to wait for another driver of this run to end.  [default: 20]",
)
retry_failed: Final = click.option(
    "--retry-failed", is_flag=True, help="Try failed shards of earlier attempts again."
)
reuse: Final = click.option(
    "--reuse",
    metavar="RUN",
    help="Another run, whose rows are taken instead of fitting them again.",
)
report: Final = click.option(
    "--report", is_flag=True, help="Write the run as an HTML page at its end, into the run."
)
log_format: Final = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Messages as text, or each as a line of JSON.  [default: text]",
)


def found(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which a run is found; the command gets them as ``found_by``, with the names
    that ``find_run`` has for them."""

    @wraps(command)
    def called(*args: Any, **given: Any) -> Any:
        found_by = {name: given.pop(name) for name in _FOUND_BY}
        return command(*args, found_by=found_by, **given)

    for option in (date, _id_of_spec, endpoint_url, _run_store):
        called = option(called)
    return called


def refuse_two(chosen: dict[str, bool]) -> None:
    """Refuse two forms of output at once; ``chosen`` says which options were given.

    Raises:
        click.UsageError: more than one is asked for.
    """
    given = [name for name, is_given in chosen.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} exclude each other")


def columns(text: str) -> list[str]:
    """The columns that a list with commas names; ``range`` stands for two."""
    from polyfit.run.columns import expand, split_names

    return expand(split_names(text))
