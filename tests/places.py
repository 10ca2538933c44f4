"""The kinds of store that tests run on: a folder, and five S3 servers that differ.

What is different is asserted under the store's name (``tests/store/test_store.py``) and stands in a
table in ``deploy/FAULTS.md``.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server

from polyfit.store import store as module
from polyfit.store.store import Checks, Store, StoreAddress

__all__ = ["PLACES", "SERVERS", "Place", "place_called", "use"]

SERVERS = ("seaweed", "moto", "rclone", "juicefs", "swift")
PLACES = ("folder", *SERVERS)


@dataclass(frozen=True)
class Place:
    """A store to try, and what it is known not to do; ``server`` is None for a folder."""

    name: str
    address: StoreAddress
    honours_conditions: bool = True
    server: S3Server | None = None

    @property
    def checks(self) -> Checks:
        """Moto takes whatever MD5 is stated, JuiceFS drops what is written beside an object."""
        return Checks(content_md5=self.name != "moto", metadata=self.name != "juicefs")

    @property
    def uri(self) -> str:
        return self.address.uri

    @property
    def store(self) -> Store:
        return self.address.open()


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the server and its keys where a user's shell would have them."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)


def place_called(
    name: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """An empty place of that kind, with its keys in the environment."""
    if name == "folder":
        return Place(name, StoreAddress.of(str(folder / "not" / "there" / "yet")))
    server: S3Server = request.getfixturevalue(name)
    use(server, monkeypatch)
    monkeypatch.setattr(module, "_client", _shared)
    return Place(name, StoreAddress.of(server.fresh_uri()), server.honours_conditions, server)


_make, _made = module._client, dict[Any, Any]()


def _shared(address: StoreAddress) -> Any:
    """One client for all tests with the same keys: to make one takes a tenth of a second."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    known = address.endpoint_url, address.region, *map(os.environ.get, names)
    if known not in _made:
        _made[known] = _make(address)
    return _made[known]
