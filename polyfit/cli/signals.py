"""SIGINT and SIGTERM while runs are at work: they raise, and the run ends in order."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NoReturn

from polyfit.errors import Exit

__all__ = ["SIGNALS", "signals_raised"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
RESENT_AFTER_S: Final = 0.05


@contextmanager
def signals_raised() -> Iterator[None]:
    """A signal raises, so that a run that has begun is noted and let go of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hook = [signal.getsignal(number) for number in SIGNALS], sys.unraisablehook
    raising = (signal.default_int_handler, _raise)
    sys.unraisablehook = partial(_send_again, hook)
    for number, handler, was in zip(SIGNALS, raising, before, strict=True):
        if was != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, was in zip(SIGNALS, before, strict=True):
            signal.signal(number, was)


def _send_again(hook: Callable[[Any], Any], lost: "sys.UnraisableHookArgs") -> None:
    """What a signal raises where Python calls back, as it does at each import, is lost."""
    number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
    if number is None:
        hook(lost)
    else:
        threading.Timer(RESENT_AFTER_S, os.kill, (os.getpid(), number)).start()


def _raise(number: int, frame: Any) -> NoReturn:
    raise SystemExit(int(Exit.DRAINED))
