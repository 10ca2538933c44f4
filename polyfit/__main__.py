"""``python -m polyfit`` is the ``polyfit`` command: it answers signals before it loads anything.

What a command needs takes up to a second to load. A signal that comes meanwhile would end the
process without a word (SIGTERM), or with a traceback through whatever was being loaded (Ctrl-C).
"""

import os
import signal
import sys
from typing import Any, Final, NoReturn

from polyfit.errors import Exit, not_loaded

__all__ = ["program"]

_ENDS: Final = {
    signal.SIGINT: (Exit.INTERRUPTED, "interrupted"),
    signal.SIGTERM: (Exit.DRAINED, "ended by SIGTERM"),
}


def program() -> NoReturn:
    """The command as a process of its own; until a run takes the signals over, they end it."""
    _fill_closed()
    for number in _ENDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as after a script's `&`
            signal.signal(number, _leave)
    try:
        from polyfit.cli.app import program as command
    except ImportError as error:  # what a command needs is loaded later, and told there
        os.write(2, f"polyfit: {not_loaded(error)}\n".encode())
        sys.exit(Exit.USAGE)
    command()


def _fill_closed() -> None:
    """Have a stream for output that is closed, as by ``2>&-``, lead nowhere.

    Ray does not start without one, and a file opened later would take its number.
    """
    for number, name in (1, "stdout"), (2, "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


def _leave(number: int, frame: Any) -> NoReturn:
    """End here and now: an exception can be lost, or turned into another, in what is loading."""
    code, what = _ENDS[signal.Signals(number)]
    line = f"polyfit: {what}; nothing is left half done: the same command begins anew\n"
    try:
        os.write(2, line.encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    program()
