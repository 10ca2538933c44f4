"""Keeps a lease: a thread renews it while the driver works."""

import threading
from collections.abc import Callable
from typing import Final

from polyfit.errors import PolyfitError, RunHeld
from polyfit.run.lease import TIME_TO_LIVE_S, Lease

__all__ = ["FIRST_RENEWAL_S", "RENEW_EVERY_S", "LeaseRenewer"]

RENEW_EVERY_S: Final = 5.0
FIRST_RENEWAL_S: Final = 1.0
"""Seconds from taking a lease to its first renewal, which finds out whether another driver took it
at the same moment: not all stores decide between two that create one key at once."""


class LeaseRenewer:
    """Renews a lease until ``close``.

    Args:
        lease: acquired, and this driver's.
        on_message: called with a line where renewing or releasing fails for an unexpected reason.
    """

    def __init__(self, lease: Lease, on_message: Callable[[str], None]) -> None:
        self._lease, self._on_message = lease, on_message
        self._closed = threading.Event()
        self._taken_over: RunHeld | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunHeld where another driver has taken over."""
        if self._taken_over is not None:
            raise self._taken_over
        failure, self._failure = self._failure, None
        if failure is not None:
            self._on_message(
                f"the lease cannot be renewed ({type(failure).__name__}: {failure}): another "
                f"driver may take over the run after {TIME_TO_LIVE_S:g} s; the work continues, and "
                "renewing is tried again"
            )

    def close(self) -> None:
        """Stop renewing, and release the lease; where that fails, it expires by itself."""
        self._closed.set()
        self._thread.join(RENEW_EVERY_S)
        if self._taken_over is None and not self._thread.is_alive():
            try:
                self._lease.release()
            except PolyfitError:
                return
            except Exception as error:  # the caller may be raising an error that matters more
                self._on_message(f"the lease is not released ({type(error).__name__}: {error})")

    def _renew(self) -> None:
        pause_s, last = FIRST_RENEWAL_S, ""
        while not self._closed.wait(pause_s):
            pause_s = RENEW_EVERY_S
            try:
                self._lease.renew()
            except RunHeld as error:
                self._taken_over = error
                return
            except PolyfitError:
                continue  # the driver's own calls meet the same failure of the store, and report it
            except Exception as error:  # without renewals the run would be lost to another driver
                if repr(error) != last:
                    self._failure, last = error, repr(error)
