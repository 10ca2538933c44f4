"""The present time: as JSON holds it, and as what a lease waits by."""

from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "now"]


class Clock(Protocol):
    """A clock that is never set back, and a pause; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Return after so many seconds."""


def now() -> str:
    """The time in UTC to the second, as JSON holds it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
