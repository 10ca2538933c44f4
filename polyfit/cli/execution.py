"""Running specs one after the other, also for several nights: progress, summaries and failures."""

import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import date as Date
from textwrap import shorten
from typing import Any, Final

import click

from polyfit.cli.error_handler import explain, report_error
from polyfit.cli.output import ClosedPipe, forget_run, logs_as_json, write_line
from polyfit.cli.report import write_report_of
from polyfit.errors import ClusterError, Drained, PlanMismatch, StoreError, UsageError
from polyfit.run.address import is_dated, run_address
from polyfit.run.sealed import SealedRun
from polyfit.run.stored_spec import begun_with
from polyfit.show.progress import ProgressDisplay
from polyfit.show.summary import sealed_facts, summary_facts, summary_text
from polyfit.show.text import format_count
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.work import driver
from polyfit.work.cluster import ending_beside
from polyfit.work.signals import signal_error

__all__ = ["check_dated", "nightly_summary", "run_all", "tasks_of"]

_OF_ALL_NIGHTS: Final = (StoreError, ClusterError)
"""What ends one night for these would end the others too, each after a long wait."""

_TOLD_AGAIN: Final = 10
_REASON_CHARS: Final = 600
"""Of failed nights at the end: they have to fit into the last lines of a log."""


@dataclass(frozen=True, slots=True)
class Task:
    """A spec to run; for a ``night`` of several where one is given."""

    spec: Spec
    night: Date | None = None

    @property
    def label(self) -> str:
        """What its lines begin with."""
        return f"{self.spec.name} {self.night}" if self.night else self.spec.name


def tasks_of(specs: list[Spec], nights: list[Date]) -> list[Task]:
    """The specs, once for each night; once where there are no nights."""
    if not nights:
        return [Task(spec) for spec in specs]
    return [Task(spec, night) for night in nights for spec in specs]


def check_dated(specs: list[Spec], store: str | None, run_id: str | None) -> None:
    """Refuse specs whose nights would all be one run.

    Raises:
        UsageError: there is such a spec.
    """
    for spec in specs:
        if not is_dated(spec, store, run_id):
            raise UsageError(
                f"{spec.source}: all its nights would be one run; --since needs {{date}} in its "
                "run_id or store, or in --run-id or --store"
            )


def run_all(
    tasks: list[Task], execution: dict[str, Any], as_json: bool, debug: bool, report: bool
) -> list[dict[str, Any]]:
    """Do ``tasks`` with the keywords ``execution`` of ``polyfit.execute``; with a ``report`` of
    each if wanted. A night that is complete is only looked at.

    Returns:
        For each task its summary if ``as_json``, else one without results, since they were
        printed. The failure of one of several tasks is its summary too, with ``exit_code`` and
        ``error``. The tasks after one for which the store or the cluster fails are left out, if
        they are nights.
    """
    summaries: list[dict[str, Any]] = []
    for task in tasks:
        forget_run()
        display = ProgressDisplay(task.label, write_line, is_log=logs_as_json())
        head = {"name": task.spec.name, **({"date": str(task.night)} if task.night else {})}
        try:
            summaries.append({**head, **_run(task, execution, display, as_json, report)})
        except (Drained, ClosedPipe, BrokenPipeError):
            raise
        except Exception as error:
            if len(tasks) == 1:
                raise
            message, code = explain(error)
            report_error(message, debug, task.label)
            summaries.append({**head, "exit_code": int(code), "error": message})
            if task.night and isinstance(error, _OF_ALL_NIGHTS):
                break
        if display.signal is not None and task is not tasks[-1]:
            # It came when this run had nothing left to stop, but the next one must not start.
            raise signal_error(display.signal)
    return summaries


def nightly_summary(tasks: list[Task], summaries: list[dict[str, Any]]) -> list[str]:
    """How several nights went: a line, and then one for each that failed, with its reason."""
    failures = {f"{one['name']} {one['date']}": one for one in summaries if "exit_code" in one}
    failed = list(failures)
    complete = sum("complete_already" in one for one in summaries)
    counts = Counter(
        {
            "complete already": complete,
            "run": len(summaries) - complete - len(failed),
            "failed": len(failed),
            "not tried": len(tasks) - len(summaries),
        }
    )
    words = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    which = f": {', '.join(failed)}" if failed else ""
    return [
        f"{format_count(len(tasks), 'nightly run')}: {words}{which}",
        *(_reason(label, failures[label]) for label in failed[:_TOLD_AGAIN]),
    ]


def _reason(label: str, summary: dict[str, Any]) -> str:
    reason = shorten(summary["error"], _REASON_CHARS, placeholder=" ...")
    return f"{label} failed with exit code {summary['exit_code']}: {reason}"


def _address(spec: Spec, execution: dict[str, Any]) -> StoreAddress:
    names = ("store", "endpoint_url", "run_id", "date")
    return run_address(spec, Plan.of(spec), **{name: execution[name] for name in names})


def _sealed(spec: Spec, execution: dict[str, Any], display: ProgressDisplay) -> SealedRun | None:
    """The run of ``spec`` if it is complete, whatever made it, which is said; else None."""
    sealed = SealedRun.at(_address(spec, execution))
    if sealed is not None:
        same = sealed.manifest.plan == Plan.of(spec).hash
        other = "" if same else ", by another state of its spec or another version of polyfit"
        display.show_message(f"{sealed.address.uri} is complete already{other}")
    return sealed


def _made_up_for(spec: Spec, execution: dict[str, Any], display: ProgressDisplay) -> Spec:
    """What a night of the past is run with: the spec that it was begun with, else ``spec``."""
    address = _address(spec, execution)
    own = begun_with(spec, address)
    if own is None:
        return spec
    display.show_message(f"{address.uri} goes on with the spec that it was begun with")
    return own


def _run(
    task: Task, execution: dict[str, Any], display: ProgressDisplay, as_json: bool, report: bool
) -> dict[str, Any]:
    """Do one task; its results are printed, or returned if ``as_json``."""
    spec = task.spec
    if task.night is not None:
        until, execution = execution["date"], {**execution, "date": task.night}
        if (sealed := _sealed(spec, execution, display)) is not None:
            return sealed_facts(sealed)
        if task.night != until:
            spec = _made_up_for(spec, execution, display)
    try:
        # Ray prints events of its nodes to stdout, which is for the summary.
        with redirect_stdout(sys.stderr), ending_beside():
            with display:
                run = driver.execute(
                    spec, **execution, on_progress=display.update, on_message=display.show_message
                )
            with display.reading_results():
                summary = summary_facts(run) if as_json else {}
                text = "" if as_json else summary_text(run)
    except PlanMismatch:
        # A night that is complete is complete, as with --since.
        dated = is_dated(spec, execution["store"], execution["run_id"])
        if not dated or (sealed := _sealed(spec, execution, display)) is None:
            raise
        return sealed_facts(sealed)
    if not as_json:
        click.echo(text)
    if report:
        with display.reading_results():
            write_report_of(run)
    if as_json and execution["reuse"] is not None:
        summary["fits_reused"] = display.fits_reused
    return summary
