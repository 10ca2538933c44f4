"""The exit code with which a Ray job has ended.

Ray keeps the code of a driver that ended by itself, which is the run's own. It keeps none for a job
that was stopped or lost: then the attempt says it, which the driver notes in the store.
"""

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from polyfit.errors import Exit, PolyfitError
from polyfit.run.ledger import Ledger
from polyfit.run.state import sealed_bytes
from polyfit.work.submission import Submission

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

__all__ = ["noted_exit", "true_exit"]

_NOT_FOUND: Final = (126, 127)
"""Codes of a shell that finds no such program, or may not run it."""

_RESUME: Final = "submitting it again resumes it"


def true_exit(
    details: "JobDetails | None", noted: Callable[[], int | None]
) -> tuple[int, str | None]:
    """The exit code of a job that has ended, and what to say where its log does not.

    Args:
        details: what the cluster says of it; None if nothing.
        noted: returns the code that its attempt noted, None if none; called if Ray has no code.
    """
    code = None if details is None else details.driver_exit_code
    if code is not None:
        return _driver_exit(code)
    stopped = details is not None and details.status == "STOPPED"
    otherwise = Exit.DRAINED if stopped else Exit.CLUSTER
    what = "the job was stopped" if stopped else f"the job was lost: {_reason(details)}"
    try:
        code = noted()
    except PolyfitError as error:
        unread = f"how the run ended cannot be read from here ({error})"
        return otherwise, f"{what}; {unread}: exit code {int(otherwise)} is by Ray's word alone"
    if code is None:
        return otherwise, f"{what}; its driver has noted no end; {_RESUME}"
    return code, f"{what}; its driver noted exit code {code}{f'; {_RESUME}' if code else ''}"


def noted_exit(submission: Submission, nonce: str) -> int | None:
    """The exit code that the driver of a job noted: of several runs the first that is not 0.

    ``nonce`` is that of the job's submission: by its id alone it could be another cluster's.
    None if there is none, and not all runs are known to be complete.

    Raises:
        PolyfitError: the store cannot be read.
    """
    pairs = zip(submission.runs, submission.plans, strict=True)
    codes = [_noted_of_run(Ledger(run.open(), plan), nonce) for run, plan in pairs]
    return next((code for code in codes if code), None if None in codes else 0)


def _noted_of_run(ledger: Ledger, nonce: str) -> int | None:
    for facts in ledger.attempts():
        if facts.get("nonce") == nonce:
            code = facts.get("exit_code")
            return code if isinstance(code, int) else None
    return 0 if sealed_bytes(ledger.store) is not None else None  # it was complete already


def _reason(details: "JobDetails | None") -> str:
    """Why a job was lost: what Ray says, less the traceback that follows."""
    if details is None:
        return "the cluster does not know it any more"
    return (details.message or "Ray says no reason").partition("\n")[0].rstrip(". ")


def _driver_exit(code: int) -> tuple[int, str | None]:
    """What the exit code of the driver's process means."""
    if code in [*Exit]:
        return code, None
    if code in _NOT_FOUND:
        return Exit.CLUSTER, "the cluster's head has no such program: --python names its Python"
    number = -code if code < 0 else code - 128
    if number == signal.SIGTERM:
        return Exit.DRAINED, f"the job's driver was ended by SIGTERM; {_RESUME}"
    if number in [*signal.Signals]:
        name = signal.Signals(number).name
        return Exit.UNFINISHED, f"the job's driver was killed by {name}; {_RESUME}"
    return Exit.INTERNAL, f"the job's driver ended with code {code}"
