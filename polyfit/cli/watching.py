"""Watching a run that goes on when the watching is ended."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from polyfit.errors import Exit

__all__ = ["watching"]

_ENDED: Final = {
    signal.SIGINT: (Exit.INTERRUPTED, "interrupted"),
    signal.SIGTERM: (Exit.DRAINED, "ended by SIGTERM"),
}


@contextmanager
def watching(what_goes_on: str) -> Iterator[None]:
    """While the body watches, a signal ends it at once, and says what goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> NoReturn:
        """End here and now: an exception can be lost in a library's callback."""
        code, what = _ENDED[signal.Signals(number)]
        try:
            os.write(2, f"polyfit: {what}; {what_goes_on}\n".encode())
        finally:
            os._exit(code)

    before = {number: signal.getsignal(number) for number in _ENDED}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
