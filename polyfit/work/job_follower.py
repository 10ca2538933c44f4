"""Following a Ray job to its end.

Its status and its log are asked for again and again, each by a request of its own: no stream has to
stay open. A request that fails is repeated. The status decides, whatever becomes of the log.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from polyfit.errors import ClusterError
from polyfit.run.clock import Clock
from polyfit.work.progress import QUIET_AFTER_S, OnMessage
from polyfit.work.submission import Job

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

__all__ = ["JobFollower"]

PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 10.0
LOG_CHARS_PER_S: Final = 200_000
"""The log is read as a whole each time: the longer it is, the less often."""

LOG_TRIES: Final = 3
"""How often a log is asked for in vain before it is given up, if nothing else is waited for."""

SILENT_S: Final = 600.0
"""Seconds without an answer after which following ends; the job may go on."""


class Server(Protocol):
    """What is asked of a job server; see ``JobServer``."""

    def details(self, job_id: str) -> "JobDetails | None":
        """What is known of a job; None if nothing."""

    def log(self, job_id: str) -> str:
        """All that it has written so far."""


class JobFollower:
    """Follows one job.

    Args:
        server: is asked for it.
        job: which; one of this id with another nonce is a job of another cluster.
        on_log: receives what the job writes, piece by piece.
        on_message: receives lines about the following itself.
        clock: pauses between the questions.
    """

    def __init__(
        self,
        server: Server,
        job: Job,
        on_log: Callable[[str], None],
        on_message: OnMessage,
        clock: Clock,
    ) -> None:
        self._server, self._job, self._clock = server, job, clock
        self._on_log, self._on_message = on_log, on_message
        self._shown, self._log_failures = 0, 0
        self._failing = self._waiting = False

    @property
    def log_given_up(self) -> bool:
        """Whether the log could not be read when it was asked for last, several times."""
        return self._log_failures >= LOG_TRIES

    def follow(self, until: str | None = None) -> "JobDetails | None":
        """Pass on what the job writes until it has ended, or has written ``until``.

        A job that runs and whose log cannot be read may have written it.

        Returns:
            Its last details; None if the cluster does not know it, or no longer.

        Raises:
            ClusterError: the server has not answered for ``SILENT_S``.
        """
        began = answered = self._clock.monotonic()
        while True:
            try:
                details = self._server.details(self._job.id)
            except ClusterError as error:
                if self._clock.monotonic() - answered > SILENT_S:
                    raise
                self._tell(error)
                self._clock.sleep(PAUSE_S)
                continue
            answered = self._clock.monotonic()
            if details is None or (details.metadata or {}).get("nonce") != self._job.nonce:
                return None
            log = self._pass_on()  # after the status: complete if that is final
            if details.status.is_terminal() and (log is not None or self.log_given_up):
                return details
            unread = self.log_given_up and details.status == "RUNNING"
            if until is not None and (until in (log or "") or unread):
                return details
            if details.status == "PENDING" and answered - began >= QUIET_AFTER_S:
                self._tell_waiting(details.message)
            self._clock.sleep(min(max(PAUSE_S, self._shown / LOG_CHARS_PER_S), MAX_PAUSE_S))

    def _pass_on(self) -> str | None:
        """The log, whose new part is passed on; None if it cannot be read now."""
        try:
            log = self._server.log(self._job.id)
        except ClusterError as error:
            self._log_failures += 1
            self._tell(error)
            return None
        self._failing, self._log_failures = False, 0
        if new := log[self._shown :]:
            self._on_log(new)
        self._shown = max(self._shown, len(log))
        return log

    def _tell(self, error: ClusterError) -> None:
        """Say once that the connection is broken, until it works again."""
        if not self._failing:
            self._on_message(f"{error}; asking again")
        self._failing = True

    def _tell_waiting(self, message: str | None) -> None:
        if not self._waiting:
            self._on_message(f"the job has not begun yet; Ray says: {message}")
        self._waiting = True
