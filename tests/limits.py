"""How long a test waits: until an event. After half an hour it takes the wait for a hang.

No test depends on how fast a machine is, or on its load.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["HANG_S", "wait_for"]

HANG_S: Final = 1800.0
"""Seconds after which a wait is a hang. pytest's own ``timeout`` is longer: it says less."""

_POLL_S: Final = 0.02

T = TypeVar("T")


def wait_for(
    event: Callable[[], T], what: str, process: "subprocess.Popen[str] | None" = None
) -> T:
    """The first true value that ``event`` returns; ``process``, if any, must run until then.

    Raises:
        AssertionError: ``process`` ended before, or the wait took ``HANG_S``.
    """
    deadline = time.monotonic() + HANG_S
    while not (found := event()):
        assert time.monotonic() < deadline, f"waited for {HANG_S:g} s: {what}"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} before {what}")
        time.sleep(_POLL_S)
    return found
