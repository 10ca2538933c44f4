"""Every exception that a user can meet, and the exit code with which it ends the command.

A failure of a fit is a status in its row, not an exception. These are failures of the user's
input, and of the store, the cluster and the machine.
"""

import os
import sys
from enum import IntEnum

__all__ = [
    "ClusterError",
    "DamagedRun",
    "Drained",
    "EngineError",
    "Exit",
    "FailedShards",
    "FormulaError",
    "LimitExceeded",
    "OutputError",
    "PlanMismatch",
    "PolyfitError",
    "RunHeld",
    "RunNotFound",
    "SpecError",
    "StoreError",
    "UsageError",
    "check_working_folder",
    "import_error_message",
]


class Exit(IntEnum):
    """Exit codes of the ``polyfit`` command; batch systems tell failures apart by them.

    ``meaning`` is what the help says of a code.
    """

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "Exit":
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    COMPLETE = 0, "complete"
    INTERNAL = 1, "internal error"
    USAGE = 2, "a spec or the usage is wrong, or a package is missing"
    FAILED_SHARDS = 3, "shards failed, or rows are damaged"
    HELD = 4, "another driver is at work on the run"
    STORAGE = 5, "the storage cannot be reached, or refuses"
    CLUSTER = 6, "the cluster cannot do the work"
    UNFINISHED = 7, "the run is not complete, and no driver is at work on it"
    WORSE = 8, "a run is worse than the one it is compared with"
    INTERRUPTED = 130, "interrupted by Ctrl-C"
    CLOSED_PIPE = 141, "stdout was closed, for example by head"
    DRAINED = 143, "ended by SIGTERM"


class PolyfitError(Exception):
    """A failure whose message says what to do: no traceback is needed to act on it."""

    exit_code: Exit = Exit.INTERNAL


class UsageError(PolyfitError):
    """The command or the call is wrong."""

    exit_code = Exit.USAGE


class FormulaError(UsageError):
    """A formula that cannot be read; the message says what was found and what is allowed.

    ``column`` is where in the formula, less the blanks before it, counted from 1; None where the
    whole of it is meant.
    """

    def __init__(self, message: str, column: int | None = None) -> None:
        super().__init__(message)
        self.column = column


class SpecError(UsageError):
    """A spec that cannot be used. ``problems`` holds one line per defect, all of them at once.

    ``excerpts`` of a few of them are the line of the spec, and below it a caret.
    """

    def __init__(self, problems: list[str], excerpts: dict[str, str] | None = None) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.excerpts = excerpts or {}

    def __reduce__(self) -> tuple[type["SpecError"], tuple[list[str], dict[str, str]]]:
        return SpecError, (self.problems, self.excerpts)

    def report(self) -> str:
        """The problems, each with its excerpt, for a person."""
        pairs = ((problem, self.excerpts.get(problem)) for problem in self.problems)
        return "\n".join(line for pair in pairs for line in pair if line)


class LimitExceeded(UsageError):
    """The plan is larger than the spec's ``limits`` or than a run can be."""


class PlanMismatch(UsageError):
    """The run holds another plan; rows of two plans are never mixed."""


class RunNotFound(UsageError):
    """There is no run at the given address."""


class Drained(PolyfitError):
    """The run was ended by SIGTERM; the same command resumes it."""

    exit_code = Exit.DRAINED

    def __init__(self) -> None:
        super().__init__("ended by SIGTERM; run the same command to resume")


class RunHeld(PolyfitError):
    """Another driver is at work on the run."""

    exit_code = Exit.HELD


class FailedShards(PolyfitError):
    """Some shards could not be computed; the others are stored."""

    exit_code = Exit.FAILED_SHARDS


class EngineError(PolyfitError):
    """Two ways to compute the same numbers disagree: a defect of the code, or of this CPU.

    The rows are not written.
    """


class DamagedRun(PolyfitError):
    """Rows are missing, duplicated or unreadable."""

    exit_code = Exit.FAILED_SHARDS


class StoreError(PolyfitError):
    """The store cannot be reached, refuses us, or holds something that is not ours.

    ``transient`` says that the same call may succeed a moment later.
    """

    exit_code = Exit.STORAGE

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class OutputError(PolyfitError):
    """Standard output, or a file that a user named, cannot be written: a full disk, no right."""

    exit_code = Exit.STORAGE


class ClusterError(PolyfitError):
    """The cluster cannot do the work: no free resources, no such device, no connection."""

    exit_code = Exit.CLUSTER


def import_error_message(error: ImportError) -> str:
    """The message for an import that fails: which package, why, in which environment."""
    where = f"the Python environment {sys.prefix} ({sys.executable})"
    package, _, part = str(error.name or "").partition(".")
    if package == "polyfit" and (part or not isinstance(error, ModuleNotFoundError)):
        missing = f"polyfit is incomplete in {where}: {_one_line(error)}"
    elif isinstance(error, ModuleNotFoundError) and package:
        missing = f"the package {package!r} is missing in {where}"
    else:
        missing = f"a package cannot be loaded in {where}: {_one_line(error)}"
    return f"{missing}; install polyfit and its dependencies in that environment"


def _one_line(error: Exception, max_chars: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def check_working_folder() -> None:
    """Check that the working folder exists: without one, numeric libraries end the process.

    Raises:
        UsageError: it was deleted, or its disk was unmounted.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the working folder no longer exists ({error.strerror}); change to an existing folder"
        ) from None
