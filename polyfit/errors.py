"""Every exception a user can meet, and the exit code it ends the command with.

A failure of a fit is a status in its row, not an exception. These are failures of the user's
input and of the world around the run.
"""

import os
import sys
from enum import IntEnum

__all__ = [
    "ClusterError",
    "DamagedRun",
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
    "not_loaded",
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
    INTERRUPTED = 130, "interrupted by Ctrl-C"
    CLOSED_PIPE = 141, "stdout was closed, for example by head"
    DRAINED = 143, "ended by SIGTERM"


class PolyfitError(Exception):
    """A failure with a message made for its reader: no traceback is needed to act on it."""

    exit_code: Exit = Exit.INTERNAL


class UsageError(PolyfitError):
    """The command or call does not make sense as given."""

    exit_code = Exit.USAGE


class FormulaError(UsageError):
    """A formula that cannot be read; the message says what was found and what is allowed."""


class SpecError(UsageError):
    """A spec that cannot be used. ``problems`` holds one line per defect, all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self) -> tuple[type["SpecError"], tuple[list[str]]]:
        return SpecError, (self.problems,)


class LimitExceeded(UsageError):
    """The plan is larger than the spec's ``limits`` or than a run can be."""


class PlanMismatch(UsageError):
    """The run holds another plan; rows of two plans are never mixed."""


class RunNotFound(UsageError):
    """There is no run at the given place."""


class RunHeld(PolyfitError):
    """Another driver is at work on the run."""

    exit_code = Exit.HELD


class FailedShards(PolyfitError):
    """Some shards could not be computed; the others are at rest."""

    exit_code = Exit.FAILED_SHARDS


class EngineError(PolyfitError):
    """Two ways to the same numbers do not agree: a defect, or arithmetic that this CPU does not do.

    The rows are not written.
    """


class DamagedRun(PolyfitError):
    """Rows are missing, doubled or unreadable."""

    exit_code = Exit.FAILED_SHARDS


class StoreError(PolyfitError):
    """The store cannot be reached, refuses us, or holds something that is not ours.

    ``transient`` tells that the same call may well work a moment later.
    """

    exit_code = Exit.STORAGE

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class OutputError(PolyfitError):
    """Standard output takes no more: the disk that it goes to is full, for one."""

    exit_code = Exit.STORAGE


class ClusterError(PolyfitError):
    """The cluster cannot do the work: no room, no such device, no connection."""

    exit_code = Exit.CLUSTER


def not_loaded(error: ImportError) -> str:
    """What to say where a package cannot be imported: which, why, and in which environment."""
    where = f"the Python environment {sys.prefix} ({sys.executable})"
    package, _, part = str(error.name or "").partition(".")
    if package == "polyfit" and (part or not isinstance(error, ModuleNotFoundError)):
        missing = f"polyfit is not whole in {where}: {_one_line(error)}"
    elif isinstance(error, ModuleNotFoundError) and package:
        missing = f"the package {package!r} is missing in {where}"
    else:
        missing = f"a package cannot be loaded in {where}: {_one_line(error)}"
    return f"{missing}; install polyfit, with all that it needs, in that environment"


def _one_line(error: Exception, most: int = 400) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def check_working_folder() -> None:
    """Find out about a working folder that is gone: numeric libraries end the process there.

    Raises:
        UsageError: it was deleted.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the working folder is gone ({error.strerror}): it was deleted, or what it lies on "
            "was taken away; change to a folder that is there"
        ) from None
