"""The exit code of a job: its driver's own, or what the attempt noted, or Ray's word."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from polyfit.errors import StoreError
from polyfit.run.keys import MANIFEST
from polyfit.run.ledger import Ledger
from polyfit.spec.spec import Spec
from polyfit.work.job_end import noted_exit, true_exit
from polyfit.work.submission import Submission


def job(status: JobStatus, code: int | None = None, message: str | None = None) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        status=status,
        entrypoint="",
        driver_exit_code=code,
        message=message,
    )


def unreadable() -> NoReturn:
    raise StoreError("no key")


STOPPED, FAILED, SUCCEEDED = JobStatus.STOPPED, JobStatus.FAILED, JobStatus.SUCCEEDED


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 130, 143])
def test_the_drivers_own_code_is_the_runs(code: int) -> None:
    status = FAILED if code else SUCCEEDED
    assert true_exit(job(status, code), unreadable) == (code, None)


@pytest.mark.parametrize(
    ("code", "means", "words"),
    [
        (127, 6, "no such program: --python"),
        (126, 6, "no such program: --python"),
        (-9, 7, "killed by SIGKILL; submitting it again resumes it"),
        (137, 7, "killed by SIGKILL"),
        (-15, 143, "ended by SIGTERM"),
        (99, 1, "ended with code 99"),
    ],
)
def test_a_code_that_is_not_ours_is_explained(code: int, means: int, words: str) -> None:
    found, why = true_exit(job(FAILED, code), unreadable)
    assert (found, words in str(why)) == (means, True), why


@pytest.mark.parametrize(
    ("details", "noted", "means", "words"),
    [
        (job(STOPPED), lambda: 143, 143, "was stopped; its driver noted exit code 143"),
        (job(STOPPED), lambda: 0, 0, "was stopped; its driver noted exit code 0"),
        (job(STOPPED), lambda: None, 143, "was stopped; its driver has noted no end"),
        (job(STOPPED), unreadable, 143, "cannot be read from here (no key): exit code 143 is by"),
        (job(FAILED, None, "node died"), lambda: 3, 3, "lost: node died; its driver noted exit"),
        (job(FAILED, None, "node died.\n\tid"), lambda: None, 6, "lost: node died; its driver has"),
        (job(FAILED, None, "node died"), unreadable, 6, "exit code 6 is by Ray's word alone"),
        (None, lambda: 0, 0, "the cluster does not know it any more; its driver noted"),
        (None, lambda: None, 6, "the cluster does not know it any more; its driver has"),
    ],
)
def test_where_ray_has_no_code_the_attempt_says_it(
    details: JobDetails | None, noted: Callable[[], int | None], means: int, words: str
) -> None:
    found, why = true_exit(details, noted)
    assert (found, words in str(why)) == (means, True), why


@pytest.mark.parametrize(
    ("codes", "noted"),
    [
        ([0, 0], 0), ([0, 3], 3), ([4, 3], 4), ([143, None], 143), ([None, 3], 3),
        ([0, None], None), ([0, "no attempt"], None), (["no attempt"], None),
        ([0, "complete before"], 0),
    ],
)  # fmt: skip
def test_of_several_runs_the_first_failure_counts(
    tmp_path: Path, codes: list[int | str | None], noted: int | None
) -> None:
    """Attempts of a job of the same id on another cluster, and of none, are not looked at."""
    specs = [Spec.parse(f"name: a{n}") for n in range(len(codes))]
    submission = Submission.of(specs, str(tmp_path), None, None, None, None, [], "python")
    for code, run, plan in zip(codes, submission.runs, submission.plans, strict=True):
        ledger = Ledger(run.open(), plan)
        ledger.note_attempt("one", {"job": "ours-2", "nonce": "f1", "exit_code": 5})
        ledger.note_attempt("two", {"exit_code": 5})
        if code == "complete before":
            ledger.store.put(MANIFEST, b'{"bytes":1,')
        elif code != "no attempt":
            noted_code = {} if code is None else {"exit_code": code}
            ledger.note_attempt("three", {"job": "ours-2", "nonce": "f2"} | noted_code)
    assert noted_exit(submission, "f2") == noted
