"""Running specs one after the other: progress, summaries and failures of each."""

import sys
from contextlib import redirect_stdout
from typing import Any

import click

from polyfit.cli.error_handler import explain, report_error
from polyfit.cli.output import ClosedPipe, write_line
from polyfit.cli.report import write_report_of
from polyfit.errors import Drained
from polyfit.show.progress import ProgressDisplay
from polyfit.show.summary import summary_facts, summary_text
from polyfit.spec.spec import Spec
from polyfit.work import driver
from polyfit.work.signals import signal_error

__all__ = ["run_all"]


def run_all(
    specs: list[Spec], execution: dict[str, Any], as_json: bool, debug: bool, report: bool
) -> list[dict[str, Any]]:
    """Run ``specs`` with the keywords ``execution`` of ``polyfit.execute``; with a ``report`` of
    each if wanted.

    Returns:
        For each spec its summary if ``as_json``, else an empty one, since it was printed. The
        failure of one of several specs is its summary too, with ``exit_code`` and ``error``.
    """
    summaries = []
    for spec in specs:
        display = ProgressDisplay(spec.name, write_line)
        try:
            summaries.append(_run(spec, execution, display, as_json, report))
        except (Drained, ClosedPipe, BrokenPipeError):
            raise
        except Exception as error:
            if len(specs) == 1:
                raise
            message, code = explain(error)
            report_error(message, debug, spec.name)
            summaries.append({"name": spec.name, "exit_code": int(code), "error": message})
        if display.signal is not None and spec is not specs[-1]:
            # It came when this run had nothing left to stop, but the next one must not start.
            raise signal_error(display.signal)
    return summaries


def _run(
    spec: Spec, execution: dict[str, Any], display: ProgressDisplay, as_json: bool, report: bool
) -> dict[str, Any]:
    """Run one spec; its summary is printed, or returned if ``as_json``."""
    # Ray prints events of its nodes to stdout, which is for the summary.
    with display, redirect_stdout(sys.stderr):
        run = driver.execute(
            spec, **execution, on_progress=display.update, on_message=display.show_message
        )
    with display.reading_results():
        if not as_json:
            click.echo(summary_text(run))
        if report:
            write_report_of(run)
        if not as_json:
            return {}
        summary = summary_facts(spec.name, run)
    if execution["reuse"] is not None:
        summary["fits_reused"] = display.fits_reused
    return summary
