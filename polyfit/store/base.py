"""What a store can do, whatever kind it is.

Keys are relative paths with ``/``. Objects are written whole or not at all, and never deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Entry", "IntegrityChecks", "NoSuchKey", "Store", "StoredObject"]


class NoSuchKey(LookupError):
    """There is no object under this key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing; ``size`` in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's bytes, and the seconds since it was written, by the store's own clock."""

    data: bytes
    age_s: float


@dataclass(frozen=True, slots=True)
class IntegrityChecks:
    """How a store finds changed bytes. A folder needs neither check.

    ``content_md5``: the store compares what it receives with an MD5 that is sent along.
    ``metadata``: it keeps a SHA-256 beside the object, and the reader compares.
    """

    content_md5: bool = True
    metadata: bool = True


class Store(Protocol):
    """A place for objects. Every method raises StoreError where the place cannot be used."""

    uri: str

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        """Write an object that does not exist yet; False where one exists, which is not changed.

        A store that ignores the condition overwrites, and returns True.

        Args:
            key: where.
            data: the bytes.
            sha256: the digest of ``data`` in hexadecimal digits, where the caller has it already.
            rows: a shard, for which the address's storage class is meant.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object, or replace it."""

    def probe_integrity(self, key: str, data: bytes) -> IntegrityChecks:
        """Write or replace an object, and find out by it which checks the store does."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """At most ``length`` bytes of an object, from byte ``start`` on.

        S3 compares a whole object with the digest that it was written with.

        Raises:
            NoSuchKey: there is none.
            DamagedRun: its bytes are not those that were written, however often they are read.
        """

    def get_with_age(self, key: str) -> StoredObject:
        """A small object, and its age.

        Raises:
            NoSuchKey: there is none.
        """

    def size(self, key: str) -> int:
        """An object's size in bytes.

        Raises:
            NoSuchKey: there is none.
        """

    def list(self, prefix: str) -> Iterator[Entry]:
        """The objects whose keys begin with ``prefix``.

        They are in the order of their keys within one folder; some servers list folder by folder.
        """

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names of the folders directly below ``prefix``, which is empty or ends with ``/``."""
