"""``python -m polyfit`` is the ``polyfit`` command: it answers signals before it loads anything.

What a command needs takes up to a second to load. A signal that comes meanwhile would end the
process without a word (SIGTERM), or with a traceback through whatever was being loaded (Ctrl-C);
the first process of a container would not even hear SIGTERM.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import Any, Final, NoReturn

from polyfit.errors import Exit, import_error_message

__all__ = ["program"]

_SIGNALS: Final = {
    signal.SIGINT: (Exit.INTERRUPTED, "interrupted"),
    signal.SIGTERM: (Exit.DRAINED, "ended by SIGTERM"),
}


def program() -> NoReturn:
    """The command as a process of its own. Signals end it, except while a run answers them."""
    atexit.register(_end)  # the first to be registered is the last to run
    _open_closed_streams()
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as after a script's `&`
            signal.signal(number, _end_by_signal)
    try:
        _end.code = _main()
    finally:
        for number in _SIGNALS:  # nothing is left that is worth waiting for
            signal.signal(number, lambda *_: _end())
    sys.exit(_end.code)


def _main() -> int:
    try:
        from polyfit.cli.app import main
    except ImportError as error:  # what a command needs itself is imported, and reported, there
        os.write(2, f"polyfit: {import_error_message(error)}\n".encode())
        return Exit.USAGE
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else Exit.INTERNAL
    except KeyboardInterrupt:  # another one, while the first was reported
        return Exit.INTERRUPTED


class _Ending:
    """Ends the process without the interpreter's teardown.

    Native threads of the numeric libraries were seen to abort there, after all was done, in some of
    the shortest runs on a busy machine.
    """

    code: int = Exit.INTERNAL

    def __call__(self) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(self.code)


_end: Final = _Ending()


def _open_closed_streams() -> None:
    """Let a stream for output that is closed, as by ``2>&-``, write to nowhere.

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


def _end_by_signal(number: int, frame: Any) -> NoReturn:
    """End here and now: an exception can be lost, or turned into another, in what is loading."""
    code, what = _SIGNALS[signal.Signals(number)]
    try:
        os.write(2, f"polyfit: {what}; run the same command to start again\n".encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    program()
