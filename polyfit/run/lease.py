"""One driver per run: a lease in the store, with a time to live.

It saves money, no more: without it two drivers would compute the same shards twice, and whatever
they write at once stays correct by the store's conditions and by the plan's hash in every key.

Each taking of the lease is a generation, and has a key of its own: ``lease/000001.json``, then
``lease/000002.json``. The highest one says who holds the run. It is created only where there is
none yet (If-None-Match), so that of two who take over at once one has it; its holder alone writes
it again, every few seconds. Who finds one that was released, whose holder was a process of this
machine and is gone, or that has not been renewed for its time to live, creates the next; the former
holder finds that one at its next renewal, and ends. No other condition is needed of a store.

A holder writes its own key and then looks for the next one; who takes over creates the next key and
then looks whether the one before was renewed meanwhile, and gives the lease back if so. Whichever
comes first, one of the two sees the other.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from polyfit.errors import PolyfitError, RunHeld
from polyfit.run.ledger import LEASES, lease_generation, lease_key, now
from polyfit.spec.plan import dump_json
from polyfit.store.store import Aged, NoSuchKey, Store

__all__ = [
    "RENEW_EVERY_S",
    "TIME_TO_LIVE_S",
    "Clock",
    "Holder",
    "Lease",
    "LeaseRenewer",
    "last_driver",
    "latest",
]

TIME_TO_LIVE_S: Final = 20.0
RENEW_EVERY_S: Final = 5.0
LOOK_AGAIN_S: Final = 1.0
"""Seconds from taking a lease to the first renewal, which finds out whether another took it at the
same moment: not all stores decide between two who create one key at once."""

_POLL_S: Final = 1.0


class Clock(Protocol):
    """Seconds that only rise, and a pause."""

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Do nothing for so long."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a run, as it stands under a key of ``lease/``; ``epoch`` is the number there.

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
        self.lost_holder: Holder | None = None
        """The one before us, where it did not let go of the lease."""

    def acquire(self, wait_s: float = TIME_TO_LIVE_S) -> None:
        """Take the lease, waiting for it where another driver has it.

        Raises:
            RunHeld: it is still another's after ``wait_s`` seconds.
            StoreError: the store cannot be used.
        """
        begun = watched = self._clock.monotonic()
        seen: bytes | None = None
        epoch, found = latest(self._store)
        while True:
            present = self._clock.monotonic()
            if found is None or found.data != seen:
                seen, watched = found.data if found is not None else None, present
            if self._free(found, present - watched) and self._take(epoch, found):
                return
            if found is not None and present - begun >= wait_s:
                raise RunHeld(f"{self._told(found)}; --wait SECONDS waits longer")
            self._clock.sleep(_POLL_S)
            epoch, found = _after(self._store, epoch, _read(self._store, epoch))

    def renew(self) -> None:
        """Say that this driver is still there.

        Raises:
            RunHeld: another driver has taken over.
            StoreError: the store cannot be used; the lease may still be ours.
        """
        renewed = replace(self.holder, renewals=self.holder.renewals + 1)
        self._write(renewed)
        epoch, found = _after(self._store, renewed.epoch, None)
        self._check(found)
        self.holder = replace(renewed, epoch=epoch)

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
        """Write our own generation, unless another took the same one, as some stores let two."""
        self._check(_read(self._store, holder.epoch))
        self._store.put(lease_key(holder.epoch), holder.to_json())

    def _check(self, found: Aged | None) -> None:
        """Raise where what is there, if anything, is another's."""
        if found is None:
            return
        present = Holder.read(found.data)
        if present is None or present.attempt != self.holder.attempt:
            raise RunHeld(f"another driver has taken over: {self._told(found)}")

    @staticmethod
    def _free(found: Aged | None, watched_s: float) -> bool:
        if found is None:
            return True
        return _over(found) or max(found.age_s, watched_s) >= TIME_TO_LIVE_S

    def _take(self, epoch: int, found: Aged | None) -> bool:
        """Create the generation after ``epoch``, which is free as ``found``."""
        ours = replace(self.holder, epoch=epoch + 1)
        self._store.create(lease_key(ours.epoch), ours.to_json())
        there = _read(self._store, ours.epoch)
        if there is None or there.data != ours.to_json():  # whatever the answer to the first try
            return False
        if found is not None and not _over(found):
            again = _read(self._store, epoch)
            former = Holder.read(again.data) if again is not None else None
            if again is not None and former is not None and again.data != found.data:
                back = replace(former, epoch=ours.epoch)
                self._store.put(lease_key(ours.epoch), back.to_json())
                return False
        before = Holder.read(found.data) if found is not None else None
        self.lost_holder = before if before is not None and not before.released else None
        self.holder = ours
        return True

    def _told(self, found: Aged) -> str:
        holder = Holder.read(found.data)
        if holder is None:
            return f"{self._store.uri}/{LEASES} holds a lease that cannot be read"
        return (
            f"{self._store.uri} is held by attempt {holder.attempt} (process {holder.pid} on "
            f"{holder.host}) since {holder.since}, renewed {found.age_s:.0f} s ago"
        )


def last_driver(store: Store) -> tuple[Holder, bool] | None:
    """Who had a run's lease last, and whether it still has; None where nobody is known to."""
    _, found = latest(store)
    holder = Holder.read(found.data) if found is not None else None
    return None if holder is None else (holder, not Lease._free(found, 0.0))


def latest(store: Store) -> tuple[int, Aged | None]:
    """The highest generation of a run's lease, and what stands there; 0 and None before the first.

    Some listings come late, so the keys behind the last one listed are asked for too.
    """
    listed = (lease_generation(entry.key) for entry in store.list(LEASES))
    epoch = max(listed, default=0)
    return _after(store, epoch, _read(store, epoch) if epoch else None)


def _after(store: Store, epoch: int, found: Aged | None) -> tuple[int, Aged | None]:
    """The highest generation from ``epoch`` on, where ``found`` is what stands at ``epoch``."""
    while (further := _read(store, epoch + 1)) is not None:
        epoch, found = epoch + 1, further
    return epoch, found


def _read(store: Store, epoch: int) -> Aged | None:
    try:
        return store.read(lease_key(epoch))
    except NoSuchKey:
        return None


def _over(found: Aged) -> bool:
    """Whether the holder has let go, or is known to have ended."""
    holder = Holder.read(found.data)
    return holder is not None and (holder.released or holder.gone)


class LeaseRenewer:
    """Renews a lease beside the driver's work, by a thread, until ``close``.

    ``tell`` is called with a line where that fails for a reason that nobody has thought of.
    """

    def __init__(self, lease: Lease, tell: Callable[[str], None]) -> None:
        self._lease, self._tell = lease, tell
        self._ended = threading.Event()
        self._lost: RunHeld | None = None
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunHeld where another driver has taken over."""
        if self._lost is not None:
            raise self._lost
        failed, self._failed = self._failed, None
        if failed is not None:
            self._tell(
                f"the lease cannot be renewed ({type(failed).__name__}: {failed}): another driver "
                f"may take the run over {TIME_TO_LIVE_S:g} s later; going on, and trying again"
            )

    def close(self) -> None:
        """Stop renewing, and let go of the lease; where that fails, it ends by itself."""
        self._ended.set()
        self._thread.join(RENEW_EVERY_S)
        if self._lost is None and not self._thread.is_alive():
            try:
                self._lease.release()
            except PolyfitError:
                return
            except Exception as error:  # the run's own end is what matters to the caller
                self._tell(f"the lease is not released ({type(error).__name__}: {error})")

    def _keep(self) -> None:
        pause_s, last = LOOK_AGAIN_S, ""
        while not self._ended.wait(pause_s):
            pause_s = RENEW_EVERY_S
            try:
                self._lease.renew()
            except RunHeld as error:
                self._lost = error
                return
            except PolyfitError:
                continue  # the driver's own calls tell what is wrong with the store
            except Exception as error:  # a thread that died of it would be missed by nobody
                if repr(error) != last:
                    self._failed, last = error, repr(error)


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
