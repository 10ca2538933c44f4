"""Who holds the lease of a run: a process on a machine, and whether it has died."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from polyfit.run.clock import now
from polyfit.spec.plan import dump_json

__all__ = ["Holder"]


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a run, as JSON stores it under a key of ``lease/``.

    ``epoch`` is the number in that key. ``machine`` tells one boot of one machine, and one
    namespace of process numbers on it, from all others; ``began`` tells a process from a later one
    with the same number. Both are empty where unknown.
    """

    attempt: str
    host: str
    pid: int
    machine: str
    began: str
    since: str
    epoch: int = 0
    renewals: int = 0
    released: bool = False

    @classmethod
    def here(cls, attempt: str) -> "Holder":
        """This process."""
        pid = os.getpid()
        return cls(attempt, socket.gethostname(), pid, _machine(), _process_start(pid), now())

    @classmethod
    def read(cls, data: bytes) -> "Holder | None":
        """The holder that ``data`` names; None where it is no lease."""
        try:
            source = json.loads(data)
            holder = cls(**{name: source[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            return None
        valid = isinstance(holder.epoch, int) and isinstance(holder.pid, int)
        return holder if valid else None

    def to_json(self) -> bytes:
        """As it is stored."""
        return dump_json(asdict(self))

    @property
    def died(self) -> bool:
        """Whether it was a process of this machine, and has died."""
        here = bool(self.machine) and bool(self.began) and self.machine == _machine()
        return here and _process_start(self.pid) != self.began


@lru_cache(maxsize=1)
def _machine() -> str:
    """This boot of this machine, and our namespace of process numbers; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """When process ``pid`` began, in ticks since the boot; empty if there is none or unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields: list[Any] = text.rpartition(")")[2].split()  # the command's name may hold anything
    has_ended = fields[0] in ("Z", "X")  # a zombie has ended; its parent has not read its status
    return "" if has_ended else str(fields[19])
