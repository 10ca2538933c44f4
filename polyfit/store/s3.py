"""An S3-compatible server as a store: conditional writes, digests, and errors in words."""

import base64
import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from polyfit.errors import DamagedRun, StoreError
from polyfit.store.aws import split_bucket
from polyfit.store.base import Entry, IntegrityChecks, NoSuchKey, StoredObject
from polyfit.store.s3_answers import DIGEST
from polyfit.store.s3_client import make_client
from polyfit.store.s3_errors import as_store_error, code_of

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = ["S3Store"]

PAGE_KEYS = 1_000
"""Keys that a listing asks for at a time; no server of Amazon's gives more."""

READ_ATTEMPTS: Final = 5
CONFLICT_ATTEMPTS: Final = 5
CONFLICT_PAUSE_S: Final = 0.1

_READING: Final = ("GetObject", "HeadObject")
_ALREADY_THERE: Final = ("PreconditionFailed", "412")
_NO_CONDITIONS: Final = ("NotImplemented", "501")
_BEYOND_THE_END: Final = ("InvalidRange", "416")
_WRONG_DIGEST: Final = ("BadDigest", "InvalidDigest")
_SEND_AGAIN: Final = ("ConditionalRequestConflict", "409", *_WRONG_DIGEST)
"""Codes after which the same request is sent again. A digest is wrong where bytes changed on the
way."""


class S3Store:
    """A ``Store`` in a bucket, below a prefix.

    Args:
        uri: ``s3://bucket/prefix`` in its normal form.
        endpoint_url: of the server; Amazon's if None.
        region: of the bucket.
        sse: the server-side encryption of all objects, in S3's words; the bucket's own if None.
        kms_key_id: the key for it.
        storage_class: of shards.
    """

    def __init__(
        self,
        uri: str,
        endpoint_url: str | None = None,
        region: str | None = None,
        *,
        sse: str | None = None,
        kms_key_id: str | None = None,
        storage_class: str | None = None,
    ) -> None:
        self.uri = uri
        self._bucket, prefix = split_bucket(uri)
        self._prefix = f"{prefix}/" if prefix else ""
        self._where = f"bucket {self._bucket!r} at {endpoint_url or 'AWS'}"
        self._sse = sse
        encryption = {"ServerSideEncryption": sse, "SSEKMSKeyId": kms_key_id}
        self._encryption: dict[str, Any] = {name: text for name, text in encryption.items() if text}
        self._shard_options = {"StorageClass": storage_class} if storage_class else {}
        self._client = make_client(uri, endpoint_url, region)

    def create(
        self, key: str, data: bytes, sha256: str | None = None, *, rows: bool = False
    ) -> bool:
        options = self._shard_options if rows else {}
        return self._put(key, data, {"IfNoneMatch": "*"}, sha256, options)

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data)

    def probe_integrity(self, key: str, data: bytes) -> IntegrityChecks:
        compares_md5 = False
        with self._errors("PutObject", key):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._prefix + key,
                    Body=data,
                    ContentMD5=md5(b"other than " + data),
                    **self._encryption,
                )
            except Exception as error:
                if code_of(error) not in _WRONG_DIGEST:
                    raise
                compares_md5 = True
        self.put(key, data)
        with self._errors("GetObject", key):
            keeps_metadata = _stated_digest(self._fetch(key)[1]) is not None
        return IntegrityChecks(compares_md5, keeps_metadata)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        end = "" if length is None else start + length - 1
        whole = not start and length is None
        with self._errors("GetObject", key):
            try:
                return self._fetch(key, None if whole else f"bytes={start}-{end}")[0]
            except Exception as error:
                if code_of(error) in _BEYOND_THE_END:
                    return b""
                raise

    def get_with_age(self, key: str) -> StoredObject:
        with self._errors("GetObject", key):
            data, answer = self._fetch(key)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            present = parsedate_to_datetime(date) if date else datetime.now(UTC)
            written_at = answer.get("LastModified", present)
            return StoredObject(data, max(0.0, (present - written_at).total_seconds()))

    def size(self, key: str) -> int:
        with self._errors("HeadObject", key):
            answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
            return answer["ContentLength"]

    def list(self, prefix: str) -> Iterator[Entry]:
        with self._errors("ListObjectsV2", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket,
                Prefix=self._prefix + prefix,
                PaginationConfig={"PageSize": PAGE_KEYS},
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Entry(item["Key"].removeprefix(self._prefix), item["Size"])

    def folders(self, prefix: str = "") -> Iterator[str]:
        full_prefix = self._prefix + prefix
        with self._errors("ListObjectsV2", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=full_prefix, Delimiter="/"
            )
            for page in pages:
                for item in page.get("CommonPrefixes", ()):
                    yield item["Prefix"].removeprefix(full_prefix).removesuffix("/")

    def _put(
        self,
        key: str,
        data: bytes,
        condition: dict[str, Any] | None = None,
        sha256: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> bool:
        """Write an object with two digests: the server compares one, each reader the other."""
        condition = condition or {}
        with self._errors("PutObject", key):
            for attempt in range(CONFLICT_ATTEMPTS):
                try:
                    answer = self._client.put_object(
                        Bucket=self._bucket,
                        Key=self._prefix + key,
                        Body=data,
                        ContentMD5=md5(data),
                        Metadata={DIGEST: sha256 or _sha256(data)},
                        **self._encryption,
                        **(options or {}),
                        **condition,
                    )
                    break
                except Exception as error:
                    code = code_of(error)
                    if code in _ALREADY_THERE:
                        return False
                    if code in _NO_CONDITIONS and condition:
                        condition = {}  # then as a store that ignores the condition
                        continue
                    if code not in _SEND_AGAIN or attempt + 1 == CONFLICT_ATTEMPTS:
                        raise
                    time.sleep(random.uniform(0.0, CONFLICT_PAUSE_S * 2**attempt))
        self._check_encryption(key, answer.get("ServerSideEncryption"))
        return True

    def _check_encryption(self, key: str, stated: str | None) -> None:
        if self._sse and stated != self._sse:
            raise StoreError(
                f"{self._where}: sse: {self._sse} was asked for "
                f"{self._prefix}{key}, whose answer names {stated or 'no encryption'}: "
                "the object may not be encrypted; use a store that does it, or leave sse out"
            )

    def _fetch(
        self, key: str, byte_range: str | None = None
    ) -> "tuple[bytes, GetObjectOutputTypeDef]":
        """An object's bytes, and the answer that they came with.

        Asks again where the body is cut off, or has not the digest that was written with it:
        botocore's own retries end where the body begins.

        Raises:
            DamagedRun: the digest differs each time.
        """
        import botocore.exceptions as aws

        options: dict[str, Any] = {"Range": byte_range} if byte_range else {}
        for attempt in range(READ_ATTEMPTS):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **options)
            try:
                data = answer["Body"].read()
            except (aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError):
                if attempt + 1 == READ_ATTEMPTS:
                    raise
                continue
            if byte_range or _stated_digest(answer) in (None, _sha256(data)):
                return data, answer
        raise DamagedRun(
            "holds other bytes than were written; remove that object and run the same spec again"
        )

    @contextmanager
    def _errors(self, call: str, key: str) -> Iterator[None]:
        """Raise what a call raises as an error that names the place, the call and its key."""
        try:
            yield
        except StoreError:
            raise
        except DamagedRun as error:
            raise DamagedRun(f"{self.uri}/{key} {error}") from None
        except Exception as error:
            if call in _READING and code_of(error) in ("NoSuchKey", "404"):
                raise NoSuchKey(key) from None
            raise as_store_error(error, self._where, f"{call} {self._prefix}{key}") from error


def _stated_digest(answer: "GetObjectOutputTypeDef") -> str | None:
    """The digest that an object was written with; rclone gives its name a capital letter."""
    metadata = {name.lower(): text for name, text in answer.get("Metadata", {}).items()}
    return metadata.get(DIGEST)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    """The header Content-MD5 of ``data``."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
