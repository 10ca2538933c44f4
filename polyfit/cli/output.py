"""Standard output, which may be closed or full, and lines on stderr, which may be lost.

stdout holds what was asked for; everything else (progress, messages, errors) goes to stderr.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import click

from polyfit.errors import OutputError
from polyfit.show.log_line import json_line
from polyfit.work.progress import Message

__all__ = [
    "ClosedPipe",
    "check_folder",
    "discard_stdout",
    "forget_run",
    "guarded_stdout",
    "log_as_json",
    "logs_as_json",
    "stderr_may_fail",
    "write_file",
    "write_line",
]


_ABOUT: Final = ("run", "attempt")


class _Log:
    """The form of what is written to stderr."""

    as_json: ClassVar = False
    about: ClassVar[dict[str, Any]] = {}
    """What the lines so far were about."""


def log_as_json(chosen: bool) -> None:
    """From now on messages on stderr are lines of JSON, or are not."""
    _Log.as_json, _Log.about = chosen, {}


def forget_run() -> None:
    """The next messages are not about the run of those before."""
    _Log.about = {}


def logs_as_json() -> bool:
    """Whether messages are lines of JSON."""
    return _Log.as_json


class ClosedPipe(Exception):
    """Nobody reads our stdout any more, for example after ``| head``.

    It is no OSError, because click ends the process with code 1 for a broken pipe.
    """


@contextmanager
def guarded_stdout() -> Iterator[None]:
    """While the body runs, failures of stdout raise ClosedPipe or OutputError.

    At the end stdout is flushed, because a full disk may show only then.
    """
    guarded: Any = _GuardedStream(sys.stdout)
    with redirect_stdout(guarded):
        yield
        guarded.flush()


def discard_stdout() -> None:
    """Send the rest of the output nowhere, so that flushing it at exit raises nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_line(line: str) -> None:
    """Write one line to stderr."""
    if _Log.as_json:
        message = Message.of(line)
        _Log.about |= {name: message.facts[name] for name in _ABOUT if name in message.facts}
        line = json_line(message, _Log.about)
    with stderr_may_fail():
        click.echo(line, err=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that a user named, into a folder that exists.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def check_folder(path: Path) -> None:
    """Before the work for a file is done: whether the folder is there.

    Raises:
        OutputError: it is not.
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}")


@contextmanager
def stderr_may_fail() -> Iterator[None]:
    """A full disk or a closed pipe loses messages, but must not end a run."""
    with suppress(OSError):
        yield


class _GuardedStream:
    """A stream whose writes raise ClosedPipe or OutputError."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: Any) -> Any:
        with _output_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with _output_errors():
            self._stream.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipe from error
    except OSError as error:
        raise OutputError(
            f"standard output: {error.strerror or error}; the output is incomplete"
        ) from None
