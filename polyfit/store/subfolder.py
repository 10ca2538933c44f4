"""A folder of a store as a store of its own, by the same client."""

from collections.abc import Iterator
from dataclasses import replace

from polyfit.store.base import Entry, IntegrityChecks, Store, StoredObject

__all__ = ["Subfolder"]


class Subfolder:
    """A ``Store`` of what lies below ``path`` in ``store``; ``path`` does not end with ``/``."""

    def __init__(self, store: Store, path: str) -> None:
        self.uri = f"{store.uri}/{path}"
        self._store, self._path = store, path

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        return self._store.create(self._key(key), data, sha256, rows=rows)

    def put(self, key: str, data: bytes) -> None:
        self._store.put(self._key(key), data)

    def probe_integrity(self, key: str, data: bytes) -> IntegrityChecks:
        return self._store.probe_integrity(self._key(key), data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._store.get(self._key(key), start, length)

    def get_with_age(self, key: str) -> StoredObject:
        return self._store.get_with_age(self._key(key))

    def size(self, key: str) -> int:
        return self._store.size(self._key(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in self._store.list(self._key(prefix)):
            yield replace(entry, key=entry.key.removeprefix(f"{self._path}/"))

    def folders(self, prefix: str = "") -> Iterator[str]:
        return self._store.folders(self._key(prefix))

    def _key(self, key: str) -> str:
        return f"{self._path}/{key}"
