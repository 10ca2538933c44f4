"""The address of a store: URI, endpoint and region, which open it on any machine."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from polyfit.errors import StoreError, UsageError
from polyfit.store.aws import configured_endpoint, session
from polyfit.store.base import Store
from polyfit.store.folder import FolderStore
from polyfit.store.s3 import S3Store
from polyfit.store.uri import (
    DATE,
    AddressError,
    is_s3,
    mask_credentials,
    normalize_endpoint,
    normalize_uri,
)

__all__ = ["StoreAddress"]

_ALLOWED: Final = "a folder or s3://bucket/prefix"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """How to open a store anywhere. It travels to the actors; credentials do not.

    ``sse``, ``kms_key_id`` and ``storage_class`` are S3's words for how objects are written:
    the server-side encryption of all of them, its key, and the class of shards.
    """

    uri: str
    endpoint_url: str | None = None
    region: str | None = None
    sse: str | None = None
    kms_key_id: str | None = None
    storage_class: str | None = None

    @classmethod
    def of(
        cls,
        uri: str | os.PathLike[str],
        endpoint_url: str | None = None,
        date: str | None = None,
    ) -> "StoreAddress":
        """The address of ``uri`` as seen from here: a relative folder becomes absolute, and an
        endpoint or region from this machine's environment becomes part of the address.

        ``date`` takes the place of ``{date}`` in ``uri``.

        Raises:
            UsageError: the URI or the endpoint cannot be read, or there is no date for it.
            StoreError: the AWS configuration cannot be used.
        """
        text = os.fspath(uri) if isinstance(uri, str | os.PathLike) else None
        if not isinstance(text, str):
            raise UsageError(
                f"a {type(uri).__name__} is no store; allowed: {_ALLOWED}, as text or path"
            )
        normal = _normalized(text, date)
        endpoint = _checked_endpoint(endpoint_url, normal)
        if not is_s3(normal):
            try:
                return cls(str(Path(normal).expanduser().absolute()))
            except RuntimeError:
                raise UsageError(f"{normal!r}: there is no such home folder") from None
        configured, region = _environment(endpoint)
        return cls(normal, _checked_endpoint(configured, normal), region)

    def __str__(self) -> str:
        """As the command line takes it."""
        endpoint = ("--endpoint-url", self.endpoint_url) if self.endpoint_url else ()
        return shlex.join([self.uri, *endpoint])

    def beside(self, uri: str | os.PathLike[str], endpoint_url: str | None) -> "StoreAddress":
        """The address of another store, at this one's endpoint where none is given.

        Raises:
            UsageError, StoreError: as ``of``.
        """
        address = StoreAddress.of(uri)
        if not is_s3(address.uri):
            return address
        return StoreAddress.of(uri, endpoint_url or self.endpoint_url)

    def under(self, path: str) -> "StoreAddress":
        """The address of a folder below this one."""
        return replace(self, uri=f"{self.uri}/{path}")

    def open(self) -> Store:
        """The store; each call makes a client of its own, for one process."""
        if not is_s3(self.uri):
            return FolderStore(self.uri)
        return S3Store(
            self.uri,
            self.endpoint_url,
            self.region,
            sse=self.sse,
            kms_key_id=self.kms_key_id,
            storage_class=self.storage_class,
        )


def _normalized(uri: str, date: str | None) -> str:
    try:
        normal = normalize_uri(uri)
        if DATE in normal and date is None:
            raise AddressError(f"holds {DATE}, which nothing replaces here", "the date")
        return normal.replace(DATE, date or "")
    except AddressError as error:
        allowed = "s3://bucket/prefix" if str(error) == "is no bucket" else _ALLOWED
        text = f"{uri!r} {error}; allowed: {allowed}{error.advice}"
        raise UsageError(mask_credentials(text)) from None


def _checked_endpoint(endpoint_url: str | None, uri: str) -> str | None:
    """The endpoint in its normal form.

    Raises:
        UsageError: it is no endpoint, or not one for ``uri``.
    """
    if endpoint_url is None:
        return None
    try:
        return normalize_endpoint(endpoint_url, uri)
    except AddressError as error:
        allowed = f"http://... or https://...{error.advice}"
        text = f"endpoint {endpoint_url!r} {error}; allowed: {allowed}"
        raise UsageError(mask_credentials(text)) from None


def _environment(endpoint_url: str | None) -> tuple[str | None, str | None]:
    """Endpoint and region: those of boto3's own chain on this machine, where none is given."""
    import botocore.exceptions

    try:
        here = session()
        region = here.get_config_variable("region")
        return endpoint_url or configured_endpoint(here) or None, region
    except botocore.exceptions.BotoCoreError as error:
        raise StoreError(f"the AWS configuration cannot be used: {error}") from None
