"""The kinds of store that tests run on: a folder, and five S3 servers that differ.

What is different is asserted under the store's name (``tests/store/test_store.py``) and stands in a
table in ``deploy/FAULTS.md``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from servers import S3Server

from polyfit.errors import PolyfitError, StoreError
from polyfit.store import s3
from polyfit.store.address import StoreAddress
from polyfit.store.base import IntegrityChecks, Store
from polyfit.store.s3_client import make_client

__all__ = ["OPERATIONS", "PLACES", "SERVERS", "Place", "error_message", "place_called", "use"]

SERVERS = ("seaweed", "moto", "rclone", "juicefs", "swift")
PLACES = ("folder", *SERVERS)
OPERATIONS: Final[dict[str, Callable[[Store], object]]] = {
    "create": lambda store: store.create("key", b""),
    "put": lambda store: store.put("key", b""),
    "get": lambda store: store.get("key"),
    "list": lambda store: list(store.list("")),
}
"""What can fail, by the name of the method."""


@dataclass(frozen=True)
class Place:
    """A store to try, and what it is known not to do; ``server`` is None for a folder."""

    name: str
    address: StoreAddress
    honours_conditions: bool = True
    server: S3Server | None = None

    @property
    def checks(self) -> IntegrityChecks:
        """Moto takes whatever MD5 is stated, JuiceFS drops what is written beside an object."""
        return IntegrityChecks(content_md5=self.name != "moto", metadata=self.name != "juicefs")

    @property
    def uri(self) -> str:
        return self.address.uri

    @property
    def store(self) -> Store:
        return self.address.open()


def error_message(action: Callable[[], object], kind: type[PolyfitError] = StoreError) -> str:
    """The message of the error that ``action`` raises, which is one line."""
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the server's address and keys as a user's shell would."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)


def place_called(
    name: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """An empty store of that kind, with its keys in the environment."""
    if name == "folder":
        return Place(name, StoreAddress.of(str(folder / "not" / "there" / "yet")))
    server: S3Server = request.getfixturevalue(name)
    use(server, monkeypatch)
    monkeypatch.setattr(s3, "make_client", _shared_client)
    return Place(name, StoreAddress.of(server.fresh_uri()), server.honours_conditions, server)


_clients: dict[Any, Any] = {}


def _shared_client(uri: str, endpoint_url: str | None, region: str | None) -> Any:
    """One client for all tests with the same keys: to make one takes a tenth of a second."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    key = endpoint_url, region, *map(os.environ.get, names)
    if key not in _clients:
        _clients[key] = make_client(uri, endpoint_url, region)
    return _clients[key]
