"""What answers at the address of a job server may be no Ray; then that is what is said."""

import pytest
from odd import Answer, odd_s3

from polyfit.errors import ClusterError
from polyfit.work.job_server import JobServer

TOKEN = "asks for a token, and does not accept what was sent: set RAY_AUTH_MODE=token"
NO_RAY = "it answers, but not as the job server of a Ray cluster does"


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"Unauthorized: Missing authentication token", TOKEN),
        (403, b"Forbidden: Invalid authentication token", TOKEN),
        (401, b"log in", "not as a Ray cluster does: Authentication required: log in"),
        (403, b"<html>no", "not as a Ray cluster does: Authentication failed: <html>no"),
        (200, b"<html>hello", NO_RAY),
        (200, b"{}", NO_RAY),
        (200, b"[]", NO_RAY),
        (404, b"", "Version check returned 404"),
    ],
)
def test_a_token_is_asked_for_by_ray_alone(status: int, body: bytes, words: str) -> None:
    answer = Answer(status, body=body)
    with odd_s3(lambda asked: answer) as server, pytest.raises(ClusterError) as refused:
        JobServer(server.url)
    assert words in str(refused.value)
    assert server.url in str(refused.value)
    assert "\n" not in str(refused.value)
