"""Bytes in and out: a local folder or S3, behind one small interface.

Keys are relative paths with ``/``. Objects are written whole or not at all. Nothing here deletes.
"""

import base64
import contextlib
import hashlib
import io
import os
import random
import shlex
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from polyfit.errors import DamagedRun, StoreError, UsageError
from polyfit.store.address import AddressError, in_bucket, masked, normal, normal_endpoint
from polyfit.store.answers import DIGEST, attend, code_of, told
from polyfit.store.aws import (
    configured_endpoint,
    runs_program_for_keys,
    session,
    split_bucket,
    unless_configured,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = [
    "Aged",
    "Checks",
    "Entry",
    "FolderStore",
    "NoSuchKey",
    "Remote",
    "S3Store",
    "Store",
    "StoreAddress",
]

CONNECT_TIMEOUT_S: Final = 5
READ_TIMEOUT_S: Final = 30
ATTEMPTS: Final = 5
CONFLICT_ATTEMPTS: Final = 5
CONFLICT_PAUSE_S: Final = 0.1
DEFAULT_REGION: Final = "us-east-1"


class NoSuchKey(LookupError):
    """There is no object under this key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing; ``size`` in bytes."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Aged:
    """An object as it was read; ``age_s`` is the time since it was written, in seconds, by the
    store's own clock."""

    data: bytes
    age_s: float


@dataclass(frozen=True, slots=True)
class Checks:
    """How wrong bytes are noticed: the store compares the MD5 of what it gets, and whoever reads
    compares the SHA-256 that the store keeps as metadata. A folder needs neither."""

    content_md5: bool = True
    metadata: bool = True


class Store(Protocol):
    """A place for objects. Every method raises StoreError where the place cannot be used."""

    uri: str

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        """Write an object that is not there yet; False where one is, which stays as it is.

        A store that ignores the condition overwrites, and says True. ``sha256`` spares working
        out the digest of ``data`` again, in hexadecimal digits. ``rows``, which are large and
        stay, have the address's storage class.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object, in place of an older one."""

    def checks(self, key: str, data: bytes) -> Checks:
        """Write an object, in place of an older one, and find out what is checked of it."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """An object's bytes from ``start`` on, ``length`` at most.

        S3 compares a whole object with the digest that it was written with.

        Raises:
            NoSuchKey: there is none.
            DamagedRun: it is not what was written, however often it is read.
        """

    def read(self, key: str) -> Aged:
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
        """The objects whose keys begin with ``prefix``, in the order of their keys.

        Within one folder, that is: some servers list folder by folder.
        """

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names of the folders right below ``prefix``, which is empty or ends with ``/``."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """How to open a store anywhere: it travels to the actors, credentials do not.

    ``sse``, ``kms_key_id`` and ``storage_class`` are S3's words for how objects are written:
    the server-side encryption of all of them, its key, the class of those with rows.
    """

    uri: str
    endpoint_url: str | None = None
    region: str | None = None
    sse: str | None = None
    kms_key_id: str | None = None
    storage_class: str | None = None

    @classmethod
    def of(cls, uri: str | os.PathLike[str], endpoint_url: str | None = None) -> "StoreAddress":
        """The address of ``uri`` as seen from here: a relative folder becomes absolute, and an
        endpoint or region from this machine's environment is made explicit.

        Raises:
            UsageError: the URI or the endpoint cannot be read.
        """
        text = os.fspath(uri) if isinstance(uri, str | os.PathLike) else None
        if not isinstance(text, str):
            raise UsageError(
                f"a {type(uri).__name__} is no store; allowed: {_FORM}, as text or path"
            )
        try:
            place = normal(text)
        except AddressError as error:
            allowed = "s3://bucket/prefix" if str(error) == "is no bucket" else _FORM
            raise UsageError(
                masked(f"{text!r} {error}; allowed: {allowed}{error.advice}")
            ) from None
        given = _checked(endpoint_url, place)
        if not in_bucket(place):
            try:
                return cls(str(Path(place).expanduser().absolute()))
            except RuntimeError:
                raise UsageError(f"{place!r}: there is no such home folder") from None
        url, region = _surroundings(given)
        return cls(place, _checked(url, place), region)

    def __str__(self) -> str:
        """As the command line takes it."""
        endpoint = ("--endpoint-url", self.endpoint_url) if self.endpoint_url else ()
        return shlex.join([self.uri, *endpoint])

    def beside(self, uri: str | os.PathLike[str], endpoint_url: str | None) -> "StoreAddress":
        """The address of another place, at this one's endpoint where none is given.

        Raises:
            UsageError: as ``of``.
        """
        address = StoreAddress.of(uri)
        if not in_bucket(address.uri):
            return address
        return StoreAddress.of(uri, endpoint_url or self.endpoint_url)

    def under(self, path: str) -> "StoreAddress":
        """The address of a folder below this one."""
        return replace(self, uri=f"{self.uri}/{path}")

    def open(self) -> Store:
        """The store; a client per call, for one process."""
        if self.uri.startswith("s3://"):
            return S3Store(self)
        return FolderStore(self.uri)


_FORM: Final = "a folder or s3://bucket/prefix"


def _checked(endpoint_url: str | None, uri: str) -> str | None:
    """The endpoint in its one form.

    Raises:
        UsageError: it is none, or does not go with ``uri``.
    """
    if endpoint_url is None:
        return None
    try:
        return normal_endpoint(endpoint_url, uri)
    except AddressError as error:
        allowed = f"http://... or https://...{error.advice}"
        raise UsageError(masked(f"endpoint {endpoint_url!r} {error}; allowed: {allowed}")) from None


def _surroundings(endpoint_url: str | None) -> tuple[str | None, str | None]:
    """Endpoint and region, the given ones or those of boto3's own chain on this machine."""
    import botocore.exceptions

    try:
        here = session()
        region = here.get_config_variable("region")
        url = endpoint_url or configured_endpoint(here)
    except botocore.exceptions.BotoCoreError as error:
        raise StoreError(f"the AWS configuration cannot be used: {error}") from None
    return url or None, region


class Remote(io.RawIOBase):
    """An object of a store as a file that reads only what is asked for.

    One who reads on is read ahead for, up to ``AHEAD`` bytes, so that few requests serve. Its
    ``size`` in bytes, where it is known, is not asked for.
    """

    NEAR: Final = 1 << 20
    """Bytes that a request reads at least."""

    AHEAD: Final = 1 << 22

    def __init__(self, store: Store, key: str, size: int | None = None) -> None:
        super().__init__()
        self._store, self._key = store, key
        self._size = store.size(key) if size is None else size
        self._at, self._ahead = 0, self.NEAR
        self._held = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"there is no byte {at} in {self._key}")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size < 0 else min(size, left)
        data = self._read(self._at, length) if length else b""
        self._at += len(data)
        return data

    def _read(self, start: int, length: int) -> bytes:
        first, data = self._held
        if not first <= start <= start + length <= first + len(data):
            on = first < start <= first + len(data)
            self._ahead = min(2 * self._ahead, self.AHEAD) if on else self.NEAR
            first, data = start, self._store.get(self._key, start, max(length, self._ahead))
            self._held = first, data
        return data[start - first : start - first + length]


class FolderStore:
    """A local folder. A shared file system serves several machines."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(uri)

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        with self._told(key, writing=True), self._written(key, data) as (temporary, path):
            try:
                os.link(temporary, path)  # unlike a rename, refuses to replace
            except FileExistsError:
                return False
            return True

    def put(self, key: str, data: bytes) -> None:
        with self._told(key, writing=True), self._written(key, data) as (temporary, path):
            os.replace(temporary, path)

    def checks(self, key: str, data: bytes) -> Checks:
        self.put(key, data)
        return Checks()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        with self._told(key), open(self._root / key, "rb") as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def read(self, key: str) -> Aged:
        with self._told(key), open(self._root / key, "rb") as file:
            data, written = file.read(), os.fstat(file.fileno()).st_mtime
        with self._told(key, writing=True), tempfile.TemporaryFile(dir=self._root) as fresh:
            present = os.fstat(fresh.fileno()).st_mtime  # by the clock of the file system
        return Aged(data, max(0.0, present - written))

    def size(self, key: str) -> int:
        with self._told(key):
            return (self._root / key).stat().st_size

    def list(self, prefix: str) -> Iterator[Entry]:
        base = self._root / prefix.rpartition("/")[0]
        with self._told(prefix):
            found = sorted(
                path.relative_to(self._root).as_posix()
                for path in base.rglob("*")
                if path.is_file() and not path.name.startswith(".")
            )
            for key in found:
                if key.startswith(prefix):
                    yield Entry(key, (self._root / key).stat().st_size)

    def folders(self, prefix: str = "") -> Iterator[str]:
        with self._told(prefix), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [entry.name for entry in os.scandir(self._root / prefix) if entry.is_dir()]
            yield from sorted(names)

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[tuple[str, Path]]:
        """A hidden file with ``data`` at rest beside ``key``'s place, gone at the end."""
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
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    @contextlib.contextmanager
    def _told(self, key: str, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not writing:
                raise NoSuchKey(key) from None
            cause = error.strerror or str(error)
            if isinstance(error, FileExistsError | NotADirectoryError):
                cause += _in_the_way((self._root / key).parent)
            raise StoreError(f"folder {self.uri}: {cause} ({key or 'listing'})") from error


def _in_the_way(folder: Path) -> str:
    """What keeps ``folder`` from being made; empty where that is nothing that stands there."""
    for place in (*reversed(folder.parents), folder):
        if os.path.lexists(place) and not place.is_dir():
            to = f", a link to {os.readlink(place)}," if place.is_symlink() else ""
            return f": {place}{to} is no folder"
    return ""


class S3Store:
    """A bucket of an S3-compatible server, below a prefix."""

    def __init__(self, address: StoreAddress) -> None:
        self.uri = address.uri
        self._bucket, prefix = split_bucket(address.uri)
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = address.endpoint_url
        self._storage_class = address.storage_class
        self._sealed: dict[str, Any] = {}
        if address.sse:
            self._sealed["ServerSideEncryption"] = address.sse
        if address.kms_key_id:
            self._sealed["SSEKMSKeyId"] = address.kms_key_id
        self._client = _client(address)

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        return self._put(key, data, {"IfNoneMatch": "*"}, sha256, rows)

    def _put(
        self,
        key: str,
        data: bytes,
        condition: dict[str, Any],
        sha256: str | None = None,
        rows: bool = False,
    ) -> bool:
        """Write an object, with the digests by which wrong bytes are found on either way."""
        metadata = {DIGEST: sha256 or _sha256(data)}
        options: dict[str, Any] = {"ContentMD5": _md5(data), "Metadata": metadata, **self._sealed}
        if rows and self._storage_class:
            options["StorageClass"] = self._storage_class
        with self._telling("PutObject", key):
            for attempt in range(CONFLICT_ATTEMPTS):
                try:
                    answer = self._client.put_object(
                        Bucket=self._bucket,
                        Key=self._prefix + key,
                        Body=data,
                        **options,
                        **condition,
                    )
                    break
                except Exception as error:
                    code = code_of(error)
                    if code in ("PreconditionFailed", "412"):
                        return False
                    if code in ("NotImplemented", "501") and condition:
                        condition = {}  # the store knows no such condition: as one that ignores it
                        continue
                    if code not in _AGAIN or attempt + 1 == CONFLICT_ATTEMPTS:
                        raise
                    time.sleep(random.uniform(0.0, CONFLICT_PAUSE_S * 2**attempt))
        self._check_sealed(key, answer.get("ServerSideEncryption"))
        return True

    def _check_sealed(self, key: str, said: str | None) -> None:
        asked = self._sealed.get("ServerSideEncryption")
        if asked and said != asked:
            raise StoreError(
                f"bucket {self._bucket!r} at {self._endpoint or 'AWS'}: sse: {asked} was asked for "
                f"{self._prefix}{key}, whose answer names {said or 'no encryption'}: "
                "what lies there may not be encrypted; use a store that does it, or leave sse out"
            )

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data, {})

    def checks(self, key: str, data: bytes) -> Checks:
        compared = False
        with self._telling("PutObject", key):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=data,
                    ContentMD5=_md5(b"other than " + data),
                    **self._sealed,
                )
            except Exception as error:
                if code_of(error) not in ("BadDigest", "InvalidDigest"):
                    raise
                compared = True
        self.put(key, data)
        with self._telling("GetObject", key):
            return Checks(compared, _stated(self._fetch(key, {})[1]) is not None)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        asked: dict[str, Any] = {}
        if start or length is not None:
            end = "" if length is None else start + length - 1
            asked["Range"] = f"bytes={start}-{end}"
        with self._telling("GetObject", key):
            try:
                return self._fetch(key, asked)[0]
            except Exception as error:
                if code_of(error) in ("InvalidRange", "416"):  # it begins behind the last byte
                    return b""
                raise

    def read(self, key: str) -> Aged:
        with self._telling("GetObject", key):
            data, answer = self._fetch(key, {})
            stated = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            present = parsedate_to_datetime(stated) if stated else datetime.now(UTC)
            written = answer.get("LastModified", present)
            return Aged(data, max(0.0, (present - written).total_seconds()))

    def _fetch(self, key: str, asked: dict[str, Any]) -> "tuple[bytes, GetObjectOutputTypeDef]":
        """An object's bytes, and the answer that they came with.

        An answer that breaks off or whose bytes are not those that were written is asked for
        again: botocore's own retries end where the body begins.
        """
        import botocore.exceptions as aws

        for last in (*[False] * (ATTEMPTS - 1), True):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **asked)
            try:
                data = answer["Body"].read()
            except (aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError):
                if last:
                    raise
                continue
            if asked or _stated(answer) in (None, _sha256(data)):
                return data, answer
        raise DamagedRun(
            "holds other bytes than were written; remove that object and run the same spec again"
        )

    def size(self, key: str) -> int:
        with self._telling("HeadObject", key):
            answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            return answer["ContentLength"]

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._telling("ListObjectsV2", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Entry(item["Key"].removeprefix(self._prefix), item["Size"])

    def folders(self, prefix: str = "") -> Iterator[str]:
        whole = self._prefix + prefix
        with self._telling("ListObjectsV2", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=whole, Delimiter="/"
            )
            for page in pages:
                for item in page.get("CommonPrefixes", ()):
                    yield item["Prefix"].removeprefix(whole).removesuffix("/")

    @contextlib.contextmanager
    def _telling(self, call: str, key: str) -> Iterator[None]:
        """What a call raises as an error that names the place, the call and its key."""
        try:
            yield
        except StoreError:
            raise
        except DamagedRun as error:
            raise DamagedRun(f"{self.uri}/{key} {error}") from None
        except Exception as error:
            if call in _READS and code_of(error) in ("NoSuchKey", "404"):
                raise NoSuchKey(key) from None
            where = f"bucket {self._bucket!r} at {self._endpoint or 'AWS'}"
            raise told(error, where, f"{call} {self._prefix}{key}") from error


_READS: Final = ("GetObject", "HeadObject")

_AGAIN: Final = ("ConditionalRequestConflict", "409", "BadDigest", "InvalidDigest")
"""Codes that say: the same request once more. A digest is bad where bytes changed on the way."""


def _stated(answer: "GetObjectOutputTypeDef") -> str | None:
    """The digest that an object was written with; rclone gives the name a capital letter."""
    named = {name.lower(): text for name, text in answer.get("Metadata", {}).items()}
    return named.get(DIGEST)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _md5(data: bytes) -> str:
    """What a server compares the bytes with that it gets."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _client(address: StoreAddress) -> "S3Client":
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    defaults: dict[str, Any] = {}
    if address.endpoint_url:
        # Many S3-compatible servers know no virtual hosts, and refuse checksums they do not know.
        defaults = {
            # Not signed: as botocore does over https, where a Content-MD5 is there too. That header
            # is signed, and not all servers would compare a signed SHA-256 with what they get.
            "s3": {"addressing_style": "path", "payload_signing_enabled": False},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        if split_bucket(address.uri)[0].startswith("arn:"):
            del defaults["s3"]["addressing_style"]  # an access point is a host
    here = session()
    try:
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=32,
            **unless_configured(here, defaults),
        )
        client = boto3.Session(botocore_session=here).client(
            "s3",
            endpoint_url=address.endpoint_url,
            region_name=address.region or DEFAULT_REGION,
            config=config,
        )
    except BotoCoreError as error:
        raise told(error, address.uri, "a client for S3") from None
    except Exception as error:
        if runs_program_for_keys(here):  # botocore reads unseen what that prints
            raise StoreError(
                f"{address.uri}: no credentials ({type(error).__name__}: {error}); check the "
                "profile's credential_process, and that it prints JSON with Version: 1, "
                "AccessKeyId and SecretAccessKey"
            ) from None
        if isinstance(error, ValueError):
            raise StoreError(f"{address.uri}: {error}") from None
        raise
    attend(client)
    return client
