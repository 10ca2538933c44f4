"""An object of a store as a file. Reading some columns of a shard does not read all of it."""

import io
from typing import Final

from polyfit.store.base import Store

__all__ = ["ObjectFile"]


class ObjectFile(io.RawIOBase):
    """A binary file that requests only what is read.

    Sequential reading is read ahead, up to ``MAX_REQUEST_BYTES``, so that few requests are needed.

    Args:
        store: where the object is.
        key: of the object.
        size: in bytes; asked from the store if None.
    """

    MIN_REQUEST_BYTES: Final = 1 << 20
    MAX_REQUEST_BYTES: Final = 1 << 22

    def __init__(self, store: Store, key: str, size: int | None = None) -> None:
        super().__init__()
        self._store, self._key = store, key
        self._size = store.size(key) if size is None else size
        self._position, self._request_bytes = 0, self.MIN_REQUEST_BYTES
        self._buffer_start, self._buffer = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"there is no byte {origin + offset} in {self._key}")
        self._position = origin + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        length = left if size < 0 else min(size, left)
        data = self._read(self._position, length) if length else b""
        self._position += len(data)
        return data

    def _read(self, start: int, length: int) -> bytes:
        buffer_stop = self._buffer_start + len(self._buffer)
        if not self._buffer_start <= start <= start + length <= buffer_stop:
            sequential = self._buffer_start < start <= buffer_stop
            doubled = min(2 * self._request_bytes, self.MAX_REQUEST_BYTES)
            self._request_bytes = doubled if sequential else self.MIN_REQUEST_BYTES
            self._buffer = self._store.get(self._key, start, max(length, self._request_bytes))
            self._buffer_start = start
        offset = start - self._buffer_start
        return self._buffer[offset : offset + length]
