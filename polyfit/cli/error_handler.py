"""What ends a command is an error of its user or of its surroundings, an interrupt, or a bug.

Each has a message and an exit code."""

import traceback

import click

from polyfit.cli.output import (
    ClosedPipe,
    discard_stdout,
    logs_as_json,
    stderr_may_fail,
    write_line,
)
from polyfit.errors import Exit, PolyfitError, SpecError, import_error_message
from polyfit.work.progress import Message

__all__ = ["explain", "handle_error", "report_error"]


def handle_error(error: BaseException, debug: bool) -> Exit:
    """Say on stderr what ended the command, and return its exit code."""
    if isinstance(error, ClosedPipe | BrokenPipeError):
        discard_stdout()
        return Exit.CLOSED_PIPE
    if isinstance(error, click.ClickException):
        with stderr_may_fail():
            error.show()
        return Exit.USAGE
    message, code = explain(error)
    report_error(message, debug)
    return code


def explain(error: BaseException) -> tuple[str, Exit]:
    """The message and the exit code of an error, an interrupt or a bug."""
    match error:
        case SpecError():
            return error.report(), error.exit_code
        case PolyfitError():
            return str(error), error.exit_code
        case ImportError():
            return import_error_message(error), Exit.USAGE
        case KeyboardInterrupt() | click.Abort():
            return "interrupted; run the same command to resume", Exit.INTERRUPTED
        case SystemExit():
            return "ended by SIGTERM; run the same command to resume", Exit.DRAINED
    bug = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
    return bug, Exit.INTERNAL


def report_error(message: str, debug: bool, run_name: str | None = None) -> None:
    """Write a message to stderr, each line with our name, and the run's if others follow it.

    With ``debug`` the traceback of the exception that is being handled comes first.
    """
    facts = {"traceback": traceback.format_exc()} if debug and logs_as_json() else {}
    if debug and not logs_as_json():
        with stderr_may_fail():
            traceback.print_exc()
    head = "polyfit: " if run_name is None else f"polyfit: {run_name}: "
    lines = (line if line.startswith("    ") else head + line for line in message.splitlines())
    shown = "\n".join(lines)  # the lines of an excerpt are indented
    write_line(Message(message, shown=shown, level="error", **facts))
