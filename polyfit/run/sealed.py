"""Whether a run is complete, whatever its plan and the version of polyfit that made it."""

from dataclasses import dataclass

from polyfit.errors import DamagedRun
from polyfit.run.keys import MANIFEST, SHARD_PREFIX, sealed_key
from polyfit.run.manifest import Manifest
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey

__all__ = ["SealedRun"]


@dataclass(frozen=True, slots=True)
class SealedRun:
    """A complete run: its address and its manifest."""

    address: StoreAddress
    manifest: Manifest

    @classmethod
    def at(cls, address: StoreAddress) -> "SealedRun | None":
        """The run at ``address`` if its manifest and all of its shards are there, else None.

        One small object is read, and there is one listing.

        Raises:
            StoreError: the store cannot be used.
        """
        store = address.open()
        try:
            manifest = Manifest.from_json(store.get(MANIFEST))
        except (NoSuchKey, DamagedRun):  # whoever runs it says what is wrong
            return None
        sizes = {entry.key: entry.size for entry in store.list(SHARD_PREFIX)}
        stored = (
            sizes.get(sealed_key(manifest.plan, receipt.shard)) == receipt.bytes
            for receipt in manifest.receipts
        )
        return cls(address, manifest) if all(stored) else None
