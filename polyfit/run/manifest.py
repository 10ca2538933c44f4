"""Receipts of stored shards, and the manifest that seals a run with them."""

import builtins
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from polyfit.errors import DamagedRun
from polyfit.run.keys import MANIFEST
from polyfit.spec.plan import Shard, dump_json

__all__ = ["RESEAL_HINT", "Manifest", "Receipt", "Receipts"]

RESEAL_HINT: Final = (
    f"remove {MANIFEST} and run the same spec again: it inspects every shard and seals the run"
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a stored shard: its size in bytes, digest, rows, and fits per status."""

    shard: int
    bytes: int
    sha256: str
    rows: int
    statuses: dict[str, int]

    @classmethod
    def of(cls, shard: Shard, data: builtins.bytes, statuses: dict[str, int]) -> "Receipt":
        """The receipt of a shard whose object is ``data``."""
        digest = hashlib.sha256(data).hexdigest()
        return cls(shard.number, len(data), digest, shard.fits, statuses)


class Receipts:
    """The receipts that a driver collects until the seal, about 70 bytes each.

    A run has up to a million shards; a ``Receipt`` object takes ten times as much memory.
    """

    def __init__(self, num_shards: int) -> None:
        self._absent = array("q", [-1]) * num_shards
        self._bytes, self._rows = self._absent[:], self._absent[:]
        self._sha256 = bytearray(32 * num_shards)
        self._statuses: dict[str, array[int]] = {}
        self._count = 0

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of a shard that has none yet."""
        n = receipt.shard
        self._bytes[n], self._rows[n] = receipt.bytes, receipt.rows
        self._sha256[32 * n : 32 * n + 32] = bytes.fromhex(receipt.sha256)
        for status, num_fits in receipt.statuses.items():
            if status not in self._statuses:
                self._statuses[status] = self._absent[:]
            self._statuses[status][n] = num_fits
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._bytes[number] >= 0

    def __iter__(self) -> Iterator[Receipt]:
        """In the order of their shards."""
        for n, size in enumerate(self._bytes):
            if size >= 0:
                digest = self._sha256[32 * n : 32 * n + 32].hex()
                counts = {name: fits[n] for name, fits in self._statuses.items() if fits[n] >= 0}
                yield Receipt(n, size, digest, self._rows[n], counts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The receipts of all shards in order, under the plan's hash."""

    plan: str
    receipts: tuple[Receipt, ...]

    @property
    def statuses(self) -> dict[str, int]:
        """How many fits of the run have each status, sorted by its name."""
        total: Counter[str] = Counter()
        for receipt in self.receipts:
            total.update(receipt.statuses)
        return dict(sorted(total.items()))

    def to_json(self) -> bytes:
        """As it is stored."""
        return dump_json(
            {
                "plan": self.plan,
                **self._totals(),
                "shards": [asdict(receipt) for receipt in self.receipts],
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """The manifest that ``to_json`` wrote.

        Raises:
            DamagedRun: it cannot be read, or its totals are not those of its receipts.
        """
        try:
            source = json.loads(data)
            manifest = cls(source["plan"], tuple(Receipt(**item) for item in source["shards"]))
            totals = manifest._totals()
            stated = {name: source[name] for name in totals}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(f"{MANIFEST} cannot be read: {error}; {RESEAL_HINT}") from None
        for name, total in totals.items():
            if stated[name] != total:
                raise DamagedRun(
                    f"{MANIFEST}: it says {name} {stated[name]}, its receipts say {total}; "
                    f"{RESEAL_HINT}"
                )
        return manifest

    def _totals(self) -> dict[str, Any]:
        return {
            "fits": sum(receipt.rows for receipt in self.receipts),
            "bytes": sum(receipt.bytes for receipt in self.receipts),
            "statuses": self.statuses,
        }
