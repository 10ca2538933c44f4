"""One driver per run: a lease in the store, with a time to live.

It saves money, no more: without it two drivers would compute the same shards twice, and whatever
they write at once stays correct by the store's conditions and by the plan's hash in every key.

The lease names its holder and is written again every few seconds, each time in place of exactly
what was read before. Who finds one that is let go of, whose holder was a process of this machine
and is gone, or that has not been renewed for its time to live, takes it over with a higher epoch;
the former holder learns of it at its next renewal, and ends.
"""

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from polyfit.errors import PolyfitError, RunHeld
from polyfit.ledger import LEASE, now
from polyfit.plan import dump_json
from polyfit.store import NoSuchKey, Store, Versioned

__all__ = ["RENEW_EVERY_S", "TIME_TO_LIVE_S", "Clock", "Holder", "Keeper", "Lease"]

TIME_TO_LIVE_S: Final = 20.0
RENEW_EVERY_S: Final = 5.0
_POLL_S: Final = 1.0


class Clock(Protocol):
    """Seconds that only rise, and a pause."""

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Do nothing for so long."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a run, as it stands in ``lease.json``.

    ``machine`` tells one boot of one machine (and one space of process numbers on it) from all
    others, ``began`` one process from a later one of the same number; empty where unknown.
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
        return cls(attempt, socket.gethostname(), pid, _machine(), _began(pid), now())

    @classmethod
    def read(cls, data: bytes) -> "Holder | None":
        """The holder that ``data`` names; None where it is no lease."""
        try:
            source = json.loads(data)
            names = {name: source[name] for name in cls.__dataclass_fields__}
            holder = cls(**names)
        except (ValueError, KeyError, TypeError):
            return None
        sound = isinstance(holder.epoch, int) and isinstance(holder.pid, int)
        return holder if sound else None

    def to_json(self) -> bytes:
        """As it stands in the store."""
        return dump_json(asdict(self))

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine, and is no more."""
        here = bool(self.machine) and bool(self.began) and self.machine == _machine()
        return here and _began(self.pid) != self.began


class Lease:
    """The lease of one run, as one driver sees it.

    Args:
        store: the run's folder.
        holder: this driver.
        clock: for waiting; the age of a lease is told by the store.
    """

    def __init__(self, store: Store, holder: Holder, clock: Clock = time) -> None:
        self._store, self._clock = store, clock
        self.holder = holder

    def acquire(self, wait_s: float = TIME_TO_LIVE_S) -> None:
        """Take the lease, waiting for it where another driver has it.

        Raises:
            RunHeld: it is still another's after ``wait_s`` seconds.
            StoreError: the store cannot be used.
        """
        begun = watched = self._clock.monotonic()
        seen: str | None = None
        while True:
            found = self._read()
            present = self._clock.monotonic()
            tag = found.tag if found is not None else None
            if tag is None or tag != seen:
                seen, watched = tag, present
            if self._free(found, present - watched) and self._take(found):
                return
            if found is not None and present - begun >= wait_s:
                raise RunHeld(f"{self._told(found)}; --wait SECONDS waits longer")
            self._clock.sleep(_POLL_S if found is not None else 0.0)

    def renew(self) -> None:
        """Say that this driver is still there.

        Raises:
            RunHeld: another driver has taken over.
            StoreError: the store cannot be used; the lease may still be ours.
        """
        self._write(replace(self.holder, renewals=self.holder.renewals + 1))

    def release(self) -> None:
        """Let go of the lease, if it is still ours.

        Raises:
            StoreError: the store cannot be used; the lease ends by itself.
        """
        try:
            self._write(replace(self.holder, released=True))
        except RunHeld:
            return

    def _write(self, holder: Holder) -> None:
        found = self._read()
        if found is None:  # removed by hand
            written = self._store.create(LEASE, holder.to_json())
        else:
            self._check(found)
            written = self._store.replace(LEASE, holder.to_json(), found.tag)
        if not written:  # by another, or by us: the store's answer to the first try was lost
            found = self._read()
            if found is not None:
                self._check(found)
        self.holder = holder

    def _check(self, found: Versioned) -> None:
        present = Holder.read(found.data)
        if present is None or present.attempt != self.holder.attempt:
            raise RunHeld(f"another driver has taken over: {self._told(found)}")

    def _read(self) -> Versioned | None:
        try:
            return self._store.read(LEASE)
        except NoSuchKey:
            return None

    @staticmethod
    def _free(found: Versioned | None, watched_s: float) -> bool:
        if found is None:
            return True
        holder = Holder.read(found.data)
        released = holder is not None and (holder.released or holder.gone)
        return released or max(found.age_s, watched_s) >= TIME_TO_LIVE_S

    def _take(self, found: Versioned | None) -> bool:
        before = Holder.read(found.data) if found is not None else None
        ours = replace(self.holder, epoch=(before.epoch if before else 0) + 1)
        if found is None:
            taken = self._store.create(LEASE, ours.to_json())
        else:
            taken = self._store.replace(LEASE, ours.to_json(), found.tag)
        if not taken:
            there = self._read()
            taken = there is not None and there.data == ours.to_json()
        if taken:
            self.holder = ours
        return taken

    def _told(self, found: Versioned) -> str:
        holder = Holder.read(found.data)
        if holder is None:
            return f"{self._store.uri}/{LEASE} cannot be read"
        return (
            f"{self._store.uri} is held by attempt {holder.attempt} (process {holder.pid} on "
            f"{holder.host}) since {holder.since}, renewed {found.age_s:.0f} s ago"
        )


class Keeper:
    """Renews a lease beside the driver's work, by a thread, until ``close``."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._ended = threading.Event()
        self._lost: RunHeld | None = None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunHeld where another driver has taken over."""
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        """Stop renewing, and let go of the lease; where the store fails, it ends by itself."""
        self._ended.set()
        self._thread.join(RENEW_EVERY_S)
        if self._lost is None and not self._thread.is_alive():
            try:
                self._lease.release()
            except PolyfitError:
                return

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_EVERY_S):
            try:
                self._lease.renew()
            except RunHeld as error:
                self._lost = error
                return
            except PolyfitError:
                continue  # the driver's own calls tell what is wrong with the store


@lru_cache(maxsize=1)
def _machine() -> str:
    """This boot of this machine, and the space of process numbers we are in; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When process ``pid`` began, in ticks since the boot; empty if there is none or unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields: list[Any] = text.rpartition(")")[2].split()  # the name before may hold anything
    ended = fields[0] in ("Z", "X")  # a zombie has ended; only its parent has not looked yet
    return "" if ended else str(fields[19])
