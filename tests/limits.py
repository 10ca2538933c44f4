"""How long a test waits: for an event, and no longer than only something that hangs takes.

No test depends on how fast a machine is, or on what else it does.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["HANG_S", "wait_for"]

HANG_S: Final = 1800.0
"""Seconds that only a hang takes. pytest's own ``timeout`` is longer: it says less."""

_POLL_S: Final = 0.02

T = TypeVar("T")


def wait_for(
    event: Callable[[], T], what: str, process: "subprocess.Popen[str] | None" = None
) -> T:
    """What ``event`` returns, as soon as that is true; ``process``, if any, must still run then.

    Raises:
        AssertionError: ``process`` ended before, or it hangs.
    """
    deadline = time.monotonic() + HANG_S
    while not (found := event()):
        assert time.monotonic() < deadline, f"waited for {HANG_S:g} s: {what}"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode} before {what}")
        time.sleep(_POLL_S)
    return found
