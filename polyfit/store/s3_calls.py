"""What this process asks of S3: how long the calls take, and how often one is sent again."""

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["CALLS", "Calls", "watch_calls"]

MAX_KEPT: Final = 10_000
_BEGUN: Final = "polyfit_begun"


class Calls:
    """Calls that have ended since they were last taken; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=MAX_KEPT)
        self._retries = 0

    def add(self, seconds: float) -> None:
        """A call has ended, with its retries, well or not."""
        with self._lock:
            self._seconds.append(seconds)

    def add_retry(self) -> None:
        """A request was sent once more."""
        with self._lock:
            self._retries += 1

    def take(self) -> tuple[list[float], int]:
        """How long each call took, in seconds, and the number of retries; of more than
        ``MAX_KEPT`` calls the latest."""
        with self._lock:
            taken = list(self._seconds), self._retries
            self._seconds.clear()
            self._retries = 0
            return taken


CALLS: Final = Calls()
"""Those of this process."""


def watch_calls(client: "S3Client") -> None:
    """Add the calls of ``client`` to ``CALLS``, by botocore's public events."""
    events = client.meta.events
    events.register("before-call.s3.*", _begin)
    events.register("after-call.s3.*", _end)
    events.register("after-call-error.s3.*", _end)
    events.register("needs-retry.s3.*", _count_retry)


def _begin(context: dict[str, Any], **_: Any) -> None:
    context[_BEGUN] = time.monotonic()


def _end(context: dict[str, Any], **_: Any) -> None:
    CALLS.add(time.monotonic() - context[_BEGUN])


def _count_retry(attempts: int, **_: Any) -> None:
    if attempts > 1:  # asked after each sending
        CALLS.add_retry()
