"""Following a job over a connection that breaks: no line is lost or shown twice."""

from dataclasses import dataclass, field

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from polyfit.errors import ClusterError
from polyfit.work.job_follower import LOG_TRIES, SILENT_S, JobFollower
from polyfit.work.submission import Job

Answer = str | None  # None: the connection breaks


def details(status: str, nonce: str = "ours") -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        status=JobStatus(status),
        entrypoint="",
        message="no node yet",
        metadata={"nonce": nonce},
    )


@dataclass
class Script:
    """A server whose answers are written down, and the clock of whoever asks it."""

    states: list[Answer]
    logs: list[Answer]
    shown: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    given_up: bool = False

    def details(self, job_id: str) -> JobDetails | None:
        state = self._next(self.states)
        if state == "of another cluster":
            return details("SUCCEEDED", "theirs")
        return None if state == "unknown" else details(state)

    def log(self, job_id: str) -> str:
        return self._next(self.logs)

    def _next(self, answers: list[Answer]) -> str:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            raise ClusterError("broken")
        return answer

    def monotonic(self) -> float:
        return sum(self.pauses)

    def sleep(self, seconds: float, /) -> None:
        self.pauses.append(seconds)

    def follow(self, until: str | None = None) -> JobDetails | None:
        job = Job("job", "ours")
        follower = JobFollower(self, job, self.shown.append, self.messages.append, self)
        ended = follower.follow(until)
        self.given_up = follower.log_given_up
        return ended


def test_the_log_is_passed_on_once_and_to_its_end() -> None:
    script = Script(
        ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"], ["", "a\n", "a\nb", "a\nb\nc\n"]
    )
    ended = script.follow()
    assert ended is not None
    assert ended.status == "SUCCEEDED"
    assert script.shown == ["a\n", "b", "\nc\n"]
    assert script.messages == []
    assert script.pauses == [1, 1, 1]


def test_a_broken_connection_is_told_once_and_asked_again() -> None:
    states: list[Answer] = ["RUNNING", None, None, "RUNNING", "RUNNING", "FAILED"]
    script = Script(states, ["a", None, None, "abc"])
    ended = script.follow()
    assert ended is not None
    assert ended.status == "FAILED"
    assert "".join(script.shown) == "abc"
    assert script.messages == ["broken; asking again"]


def test_each_new_break_is_told_again() -> None:
    script = Script(["RUNNING", None, "RUNNING", None, "SUCCEEDED"], ["a"])
    script.follow()
    assert len(script.messages) == 2


def test_a_log_that_cannot_be_read_does_not_hide_the_end() -> None:
    script = Script(["RUNNING", "STOPPED"], [None])
    ended = script.follow()
    assert ended is not None
    assert ended.status == "STOPPED"
    assert (script.shown, len(script.pauses)) == ([], LOG_TRIES - 1)
    assert script.given_up


def test_a_job_whose_log_cannot_be_read_has_begun_when_it_runs() -> None:
    script = Script([*["PENDING"] * 5, "RUNNING"], [None])
    begun = script.follow(until="begun")
    assert begun is not None
    assert begun.status == "RUNNING"
    assert (script.given_up, len(script.pauses)) == (True, 5)


def test_a_log_that_is_readable_again_is_not_given_up() -> None:
    script = Script([*["RUNNING"] * 9, "SUCCEEDED"], [*[None] * LOG_TRIES, "a"])
    script.follow()
    assert (script.shown, script.given_up) == (["a"], False)


def test_a_server_that_stays_silent_ends_the_following() -> None:
    script = Script([None], ["a"])
    with pytest.raises(ClusterError, match="broken"):
        script.follow()
    assert script.monotonic() > SILENT_S
    assert script.messages == ["broken; asking again"]


@pytest.mark.parametrize("state", ["unknown", "of another cluster"])
def test_a_job_that_is_not_known_any_more_ends_the_following(state: str) -> None:
    """A job of the same id, on another cluster at this address, says nothing of ours."""
    script = Script(["RUNNING", state], ["a", "theirs"])
    assert script.follow() is None
    assert script.shown == ["a"]


def test_enough_ends_it_earlier() -> None:
    script = Script(["RUNNING"], ["a", "ab", "abc"])
    ended = script.follow(until="b")
    assert ended is not None
    assert ended.status == "RUNNING"
    assert "".join(script.shown) == "ab"


def test_a_job_that_does_not_begin_says_why_once() -> None:
    script = Script([*["PENDING"] * 20, "SUCCEEDED"], [""])
    script.follow()
    assert script.messages == ["the job has not begun yet; Ray says: no node yet"]


def test_a_long_log_is_read_less_often() -> None:
    script = Script(["RUNNING", "RUNNING", "SUCCEEDED"], ["x" * 400_000, "x" * 40_000_000])
    script.follow()
    assert script.pauses == [2, 10]
