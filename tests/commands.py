"""The command ``polyfit`` as tests call it, and the small sweep that they run."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

TEXT = """\
name: small
shard: 10
fit: {steps: 12, points: 40}
sweep: {degree: [1, 3], seed: {count: 10}}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def process(*arguments: object, program: tuple[str, ...] = ("-m", "polyfit")) -> Ended:
    """``polyfit`` in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
