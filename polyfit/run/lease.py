"""One driver per run: a lease in the store, with a time to live.

The lease only saves work. Two drivers at once would compute the same shards twice, but what they
write stays correct, by conditional writes and by the plan's hash in every key.

Each time the lease is taken is a generation with a key of its own: ``lease/000001.json``, then
``lease/000002.json``. The highest one says who holds the run. It is created only where there is
none yet (If-None-Match), so that of two drivers at once one gets it. Its holder alone writes it
again, every few seconds. A driver creates the next generation where the last one was released,
where its holder was a process of this machine and has died, or where it was not renewed for its
time to live. The former holder finds the new generation at its next renewal, and ends. No other
condition is needed of a store.

A holder writes its own key and then looks for the next one. A driver that takes over creates the
next key and then looks whether the one before was renewed meanwhile; if so it gives the lease back.
In any order, one of the two sees the other.
"""

import time
from dataclasses import replace
from typing import Final

from polyfit.errors import RunHeld
from polyfit.run.clock import Clock
from polyfit.run.holder import Holder
from polyfit.run.keys import LEASE_PREFIX, lease_generation, lease_key
from polyfit.store.base import NoSuchKey, Store, StoredObject

__all__ = ["TIME_TO_LIVE_S", "Lease", "last_driver", "latest"]

TIME_TO_LIVE_S: Final = 20.0
_POLL_S: Final = 1.0


class Lease:
    """The lease of one run, as one driver sees it.

    Args:
        store: the run's folder.
        holder: this driver.
        clock: for waiting; the age of a lease is by the store's clock.
    """

    def __init__(self, store: Store, holder: Holder, clock: Clock = time) -> None:
        self._store, self._clock = store, clock
        self.holder = holder
        self.lost_holder: Holder | None = None
        """The holder before us, if it did not release the lease."""

    def acquire(self, wait_s: float = TIME_TO_LIVE_S) -> None:
        """Take the lease, waiting for it where another driver has it.

        Raises:
            RunHeld: another driver still has it after ``wait_s`` seconds.
            StoreError: the store cannot be used.
        """
        started = unchanged_since = self._clock.monotonic()
        last_data: bytes | None = None
        epoch, found = latest(self._store)
        while True:
            present = self._clock.monotonic()
            if found is None or found.data != last_data:
                last_data, unchanged_since = found.data if found is not None else None, present
            if self._is_free(found, present - unchanged_since) and self._take(epoch, found):
                return
            if found is not None and present - started >= wait_s:
                raise RunHeld(f"{self._describe(found)}; --wait SECONDS waits longer")
            self._clock.sleep(_POLL_S)
            epoch, found = _highest_from(self._store, epoch, _read(self._store, epoch))

    def renew(self) -> None:
        """Show that this driver is still there.

        Raises:
            RunHeld: another driver has taken over.
            StoreError: the store cannot be used; the lease may still be ours.
        """
        # Noted before it is known to be written: the next renewal must not write the same bytes,
        # which would look to others as none.
        self.holder = replace(self.holder, renewals=self.holder.renewals + 1)
        self._write(self.holder)
        epoch, found = _highest_from(self._store, self.holder.epoch, None)
        self._check_ours(found)
        self.holder = replace(self.holder, epoch=epoch)

    def release(self) -> None:
        """Release the lease, if it is still ours.

        Raises:
            StoreError: the store cannot be used; the lease expires by itself.
        """
        try:
            self._write(replace(self.holder, released=True))
        except RunHeld:
            return

    def _write(self, holder: Holder) -> None:
        """Write our own generation, unless another driver has the same one: stores that ignore
        conditions let two create it."""
        self._check_ours(_read(self._store, holder.epoch))
        self._store.put(lease_key(holder.epoch), holder.to_json())

    def _check_ours(self, found: StoredObject | None) -> None:
        """Raise RunHeld where ``found``, if anything, is another driver's."""
        if found is None:
            return
        holder = Holder.read(found.data)
        if holder is None or holder.attempt != self.holder.attempt:
            raise RunHeld(f"another driver has taken over: {self._describe(found)}")

    @staticmethod
    def _is_free(found: StoredObject | None, unchanged_s: float) -> bool:
        if found is None:
            return True
        return _has_ended(found) or max(found.age_s, unchanged_s) >= TIME_TO_LIVE_S

    def _take(self, epoch: int, found: StoredObject | None) -> bool:
        """Create the generation after ``epoch``, which was free when it was read as ``found``."""
        ours = replace(self.holder, epoch=epoch + 1)
        self._store.create(lease_key(ours.epoch), ours.to_json())
        # What is stored decides, not the answer: the answer to a first try may have been lost.
        stored = _read(self._store, ours.epoch)
        if stored is None or stored.data != ours.to_json():
            return False
        if found is not None and not _has_ended(found):
            again = _read(self._store, epoch)
            former = Holder.read(again.data) if again is not None else None
            if again is not None and former is not None and again.data != found.data:
                returned = replace(former, epoch=ours.epoch)
                self._store.put(lease_key(ours.epoch), returned.to_json())
                return False
        before = Holder.read(found.data) if found is not None else None
        self.lost_holder = before if before is not None and not before.released else None
        self.holder = ours
        return True

    def _describe(self, found: StoredObject) -> str:
        holder = Holder.read(found.data)
        if holder is None:
            return f"{self._store.uri}/{LEASE_PREFIX} holds a lease that cannot be read"
        return (
            f"{self._store.uri} is held by attempt {holder.attempt} (process {holder.pid} on "
            f"{holder.host}) since {holder.since}, renewed {found.age_s:.0f} s ago"
        )


def last_driver(store: Store) -> tuple[Holder, bool] | None:
    """Who had a run's lease last, and whether it still has it; None if there was no driver."""
    _, found = latest(store)
    holder = Holder.read(found.data) if found is not None else None
    return None if holder is None else (holder, not Lease._is_free(found, 0.0))


def latest(store: Store) -> tuple[int, StoredObject | None]:
    """The highest generation of a run's lease, and its object; 0 and None before the first.

    Some stores list late, so the keys after the last one listed are asked for too.
    """
    generations = (lease_generation(entry.key) for entry in store.list(LEASE_PREFIX))
    epoch = max(generations, default=0)
    return _highest_from(store, epoch, _read(store, epoch) if epoch else None)


def _highest_from(
    store: Store, epoch: int, found: StoredObject | None
) -> tuple[int, StoredObject | None]:
    """The highest generation from ``epoch`` on, whose object is ``found``."""
    while (following := _read(store, epoch + 1)) is not None:
        epoch, found = epoch + 1, following
    return epoch, found


def _read(store: Store, epoch: int) -> StoredObject | None:
    try:
        return store.get_with_age(lease_key(epoch))
    except NoSuchKey:
        return None


def _has_ended(found: StoredObject) -> bool:
    """Whether the holder has released the lease, or is known to have died."""
    holder = Holder.read(found.data)
    return holder is not None and (holder.released or holder.died)
