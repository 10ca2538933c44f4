"""A local folder as a store. On a shared file system it serves several machines."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polyfit.errors import DamagedRun, StoreError
from polyfit.store.base import Entry, IntegrityChecks, NoSuchKey, StoredObject

__all__ = ["FolderStore"]


class FolderStore:
    """A ``Store`` whose keys are paths of files below the folder ``uri``."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(uri)

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        with self._errors(key, writing=True), self._temporary_file(key, data) as (temporary, path):
            try:
                os.link(temporary, path)  # unlike a rename, it refuses to replace
            except FileExistsError:
                return False
            return True

    def put(self, key: str, data: bytes) -> None:
        with self._errors(key, writing=True), self._temporary_file(key, data) as (temporary, path):
            os.replace(temporary, path)

    def probe_integrity(self, key: str, data: bytes) -> IntegrityChecks:
        self.put(key, data)
        return IntegrityChecks()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._errors(key), open(self._root / key, "rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def get_with_age(self, key: str) -> StoredObject:
        with self._errors(key), open(self._root / key, "rb") as file:
            data, written_at = file.read(), os.fstat(file.fileno()).st_mtime
        # The time of a new file is by the clock of the file system, which may be another machine's.
        with self._errors(key, writing=True), tempfile.TemporaryFile(dir=self._root) as new:
            present = os.fstat(new.fileno()).st_mtime
        return StoredObject(data, max(0.0, present - written_at))

    def size(self, key: str) -> int:
        with self._errors(key):
            return (self._root / key).stat().st_size

    def list(self, prefix: str) -> Iterator[Entry]:
        folder = self._root / prefix.rpartition("/")[0]
        with self._errors(prefix):
            keys = sorted(
                path.relative_to(self._root).as_posix()
                for path in folder.rglob("*")
                if path.is_file() and not path.name.startswith(".")
            )
            for key in keys:
                if key.startswith(prefix):
                    yield Entry(key, (self._root / key).stat().st_size)

    def folders(self, prefix: str = "") -> Iterator[str]:
        with self._errors(prefix), suppress(FileNotFoundError, NotADirectoryError):
            names = [entry.name for entry in os.scandir(self._root / prefix) if entry.is_dir()]
            yield from sorted(names)

    @contextmanager
    def _temporary_file(self, key: str, data: bytes) -> Iterator[tuple[str, Path]]:
        """A hidden file with ``data``, safely on disk in the folder of ``key``; removed at the end.

        Gives its path and that of ``key``.
        """
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            yield temporary, path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    @contextmanager
    def _errors(self, key: str, writing: bool = False) -> Iterator[None]:
        """Raise errors of the file system as NoSuchKey or StoreError."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not writing:
                raise NoSuchKey(key) from None
            if isinstance(error, IsADirectoryError):
                raise DamagedRun(
                    f"{self._root / key} is a folder, and a file of the run belongs there; move it "
                    "elsewhere"
                ) from None
            cause = error.strerror or str(error)
            if isinstance(error, FileNotFoundError):
                cause = f"it cannot be made: {cause}"
            if isinstance(error, FileExistsError | NotADirectoryError):
                cause += _obstacle((self._root / key).parent)
            raise StoreError(f"folder {self.uri}: {cause} ({key or 'listing'})") from error


def _obstacle(folder: Path) -> str:
    """Which path prevents that ``folder`` is created because it is no folder; empty if none."""
    for path in (*reversed(folder.parents), folder):
        if os.path.lexists(path) and not path.is_dir():
            target = f", a link to {os.readlink(path)}," if path.is_symlink() else ""
            return f": {path}{target} is no folder"
    return ""
