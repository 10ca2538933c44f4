"""A lease is renewed while the driver works, and released at the end."""

from dataclasses import replace
from pathlib import Path

import pytest
from leases import elsewhere, stated, unexpected_message
from limits import HANG_S, wait_for
from places import Place

from polyfit.errors import RunHeld
from polyfit.run import renewal
from polyfit.run.holder import Holder
from polyfit.run.keys import lease_key
from polyfit.run.lease import Lease
from polyfit.run.renewal import LeaseRenewer
from polyfit.store.base import Store, StoredObject
from polyfit.store.folder import FolderStore


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


def test_a_lease_is_renewed_and_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "FIRST_RENEWAL_S", 0.01)
    monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0.01)
    store = FolderStore(str(tmp_path))
    lease = Lease(store, Holder.here("one"))
    lease.acquire()
    renewer = LeaseRenewer(lease, unexpected_message)
    wait_for(lambda: stated(store)["renewals"], "a renewal")
    renewer.check()
    renewer.close()
    assert stated(store)["released"] is True


def test_a_renewer_reports_that_another_driver_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "FIRST_RENEWAL_S", 0.01)
    monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0.01)
    store = FolderStore(str(tmp_path))
    lease = Lease(store, Holder.here("one"))
    lease.acquire()
    store.put(lease_key(2), replace(elsewhere("two"), epoch=2).to_json())
    renewer = LeaseRenewer(lease, unexpected_message)
    renewer._thread.join(HANG_S)
    with pytest.raises(RunHeld, match="taken over"):
        renewer.check()
    renewer.close()
    assert stated(store)["attempt"] == "two"


class Broken(FolderStore):
    """A store that fails in a way that nobody has thought of, as long as it is ``broken``."""

    broken = False

    def get_with_age(self, key: str) -> StoredObject:
        if self.broken:
            raise KeyError("ETag")
        return super().get_with_age(key)


def test_a_renewer_survives_an_unexpected_error_and_reports_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "FIRST_RENEWAL_S", 0.01)
    monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0.01)
    store = Broken(str(tmp_path))
    lease = Lease(store, Holder.here("one"))
    lease.acquire()
    lines: list[str] = []
    store.broken = True
    renewer = LeaseRenewer(lease, lines.append)
    while not lines:
        renewer.check()
    renewals, store.broken = lease.holder.renewals, False
    while lease.holder.renewals == renewals:
        renewer.check()
    store.broken = True
    renewer.close()
    first, *_, last = lines
    assert "cannot be renewed (KeyError: 'ETag'): another driver may take over the run" in first
    assert "not released (KeyError: 'ETag')" in last
    assert len(lines) <= 3, "a renewal, once more at the end perhaps, and the release"
