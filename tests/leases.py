"""What the tests of leases share."""

import json
from dataclasses import replace

from polyfit.run.holder import Holder
from polyfit.run.lease import latest
from polyfit.store.base import Store

__all__ = ["elsewhere", "stated", "unexpected_message"]


def unexpected_message(line: str) -> None:
    raise AssertionError(line)


def elsewhere(attempt: str) -> Holder:
    """A driver on another machine."""
    return replace(Holder.here(attempt), host="far", machine="another boot")


def stated(store: Store) -> dict[str, object]:
    """Who holds the run, as the store says."""
    _, present = latest(store)
    assert present is not None
    found = json.loads(present.data)
    assert isinstance(found, dict)
    return found
