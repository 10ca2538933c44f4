"""The job server of a Ray cluster, asked with a limit of time and answering in clear errors."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from json import JSONDecodeError
from typing import Any, Final, TypeVar

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from polyfit.errors import ClusterError
from polyfit.work.signals import in_thread
from polyfit.work.submission import Submission

__all__ = ["JobServer"]

ANSWER_S: Final = 60.0
"""Seconds for one answer: Ray's own client would wait for ever where a connection is dead."""

_UNKNOWN: Final = ("status code 404", "does not exist")
"""What Ray says of a job that it does not know; a proxy's 404 says nothing of it."""

_OF_TOKEN: Final = ("Missing authentication token", "Invalid authentication token")
"""What Ray answers with status 401 and 403; so may a proxy, or a server that is no Ray."""

_ANSWERED: Final = ("Authentication required", "Authentication failed")
"""Begin what Ray's client says of these two; else it found no token to send."""

_MAX_CHARS: Final = 400

_TALKATIVE: Final = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers with a line about each upload; two of them have a level of their own."""

T = TypeVar("T")


class JobServer:
    """The job server at ``url``.

    Raises:
        ClusterError: none answers there, or it asks for another token.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with _only_address(url):
            self._client: JobSubmissionClient = self._ask(partial(JobSubmissionClient, url))

    def find(self, submission: Submission) -> tuple[JobDetails | None, str]:
        """The latest job of the same runs, None if there was none; and the id of the next one.

        An id ends with the number of the submission: ids of runs of one name and one id in two
        stores are counted together.
        """
        prefix = f"{submission.name}-"
        numbers, same = [0], []
        for job in self._ask(self._client.list_jobs):
            number = (job.submission_id or "").removeprefix(prefix)
            if number.isdecimal():
                numbers.append(int(number))
                if (job.metadata or {}).get("run") == submission.run_uris:
                    same.append((int(number), job))
        latest = max(same, key=lambda pair: pair[0], default=None)
        return latest and latest[1], f"{prefix}{max(numbers) + 1}"

    def start(self, submission: Submission, job_id: str, folder: str) -> bool:
        """Start a job with this id, unless there is one.

        Returns:
            Whether the job of this id is ours: another who submitted the same at the same moment
            may have been first.

        Raises:
            ClusterError: it cannot be started.
        """
        submit = partial(
            self._client.submit_job,
            submission_id=job_id,
            entrypoint=submission.entrypoint,
            runtime_env={"working_dir": folder, "env_vars": submission.environment},
            metadata=submission.metadata,
        )
        try:
            self._ask(submit)
        except ClusterError:  # there is one, ours if the answer was lost
            found = self.details(job_id)
            if found is None:
                raise
            return (found.metadata or {}).get("nonce") == submission.nonce
        return True

    def stop(self, job_id: str) -> None:
        """Ask a job to end; one that has ended already is left alone."""
        self._ask(partial(self._client.stop_job, job_id))

    def details(self, job_id: str) -> JobDetails | None:
        """What the cluster knows of a job; None if it knows of none."""
        try:
            return self._ask(partial(self._client.get_job_info, job_id))
        except ClusterError as error:
            if all(words in str(error) for words in _UNKNOWN):
                return None
            raise

    def log(self, job_id: str) -> str:
        """All that a job has written so far."""
        return self._ask(partial(self._client.get_job_logs, job_id))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return in_thread(question).result(ANSWER_S)
        except AuthenticationError as error:
            raise ClusterError(self._refused(str(error).partition("\n")[0])) from None
        except UnicodeEncodeError:
            raise ClusterError(
                f"the token for the Ray cluster at {self.url} cannot be sent: it holds letters "
                "beyond ASCII; set RAY_AUTH_TOKEN to the cluster's"
            ) from None
        except TimeoutError:
            reason = f"no answer within {ANSWER_S:g} s"
        except (JSONDecodeError, KeyError, TypeError):
            reason = "it answers, but not as the job server of a Ray cluster does"
        except (OSError, RuntimeError, ValueError) as error:
            reason = _last_line(error)
        raise ClusterError(f"the job server at {self.url}: {reason}")

    def _refused(self, words: str) -> str:
        """Why nothing could be asked, or an answer is 401 or 403: Ray says that it is the token,
        others something else."""
        if not words.startswith(_ANSWERED):
            return (
                f"nothing was sent to the Ray cluster at {self.url}: {words.partition('. ')[0]}; "
                "with RAY_AUTH_MODE=token this machine needs its token, in RAY_AUTH_TOKEN, "
                "the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
            )
        if any(known in words for known in _OF_TOKEN):
            return (
                f"the Ray cluster at {self.url} asks for a token, and does not accept what was "
                "sent: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's"
            )
        return (
            f"the server at {self.url} refuses to answer, and not as a Ray cluster does: {words}"
        )[:_MAX_CHARS]


@contextmanager
def _only_address(url: str) -> Iterator[None]:
    """Ray's client prefers what the environment names to the address that it is given."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _last_line(error: Any) -> str:
    """What an error says: of a traceback that the server sent, its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    head = lines[0] if lines else type(error).__name__
    text = f"{head.split(': Traceback')[0]}: {lines[-1]}" if len(lines) > 1 else head
    return text[:_MAX_CHARS]
