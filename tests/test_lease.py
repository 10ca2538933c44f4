"""One driver per run: who may take the lease, who loses it, and what a second driver is told."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from places import Place

from polyfit import lease as module
from polyfit.errors import Exit, RunHeld
from polyfit.lease import TIME_TO_LIVE_S, Holder, Keeper, Lease
from polyfit.ledger import LEASE
from polyfit.store import FolderStore, Store


class Clock:
    """Time that passes only where somebody waits for it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


def elsewhere(attempt: str) -> Holder:
    """A driver on another machine."""
    return replace(Holder.here(attempt), host="far", machine="another boot")


def stated(store: Store) -> dict[str, object]:
    found = json.loads(store.get(LEASE))
    assert isinstance(found, dict)
    return found


def test_the_first_driver_has_the_lease_at_once(store: Store) -> None:
    clock = Clock()
    Lease(store, elsewhere("one"), clock).acquire()
    assert clock.now == 0.0
    assert (stated(store)["attempt"], stated(store)["epoch"]) == ("one", 1)


def test_a_second_driver_waits_and_says_who_holds_the_run_and_since_when(store: Store) -> None:
    first, clock = Lease(store, elsewhere("one")), Clock()
    first.acquire()
    second = Lease(store, elsewhere("two"), clock)
    before = store.get(LEASE)
    original, renewals = clock.sleep, iter(range(1000))

    def sleep(seconds: float) -> None:
        original(seconds)
        if next(renewals) % 5 == 0:
            first.renew()

    clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(
        RunHeld, match=r"held by attempt one \(process \d+ on far\) since 20"
    ) as told:
        second.acquire()
    assert told.value.exit_code == Exit.HELD
    assert clock.now >= TIME_TO_LIVE_S
    assert json.loads(before)["attempt"] == stated(store)["attempt"] == "one"


def test_a_lease_that_is_not_renewed_is_taken_over_with_a_higher_epoch(store: Store) -> None:
    first, clock = Lease(store, elsewhere("one")), Clock()
    first.acquire()
    second = Lease(store, elsewhere("two"), clock)
    second.acquire()
    assert TIME_TO_LIVE_S <= clock.now < TIME_TO_LIVE_S + 2
    assert (stated(store)["attempt"], stated(store)["epoch"]) == ("two", 2)
    with pytest.raises(RunHeld, match=r"another driver has taken over: .* attempt two"):
        first.renew()
    first.release()
    assert stated(store)["released"] is False, "what is another's was let go of"


def test_a_released_lease_is_taken_at_once(store: Store) -> None:
    first, clock = Lease(store, elsewhere("one")), Clock()
    first.acquire()
    first.release()
    Lease(store, elsewhere("two"), clock).acquire(wait_s=0)
    assert clock.now == 0.0


def test_a_process_of_this_machine_that_is_gone_holds_nothing(store: Store) -> None:
    """``kill -9``: the same command goes on at once."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid(), open('/proc/self/stat').read())"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    gone = replace(Holder.here("one"), pid=int(ended[0]), began=ended[22])
    Lease(store, gone, Clock()).acquire()
    clock = Clock()
    Lease(store, Holder.here("two"), clock).acquire(wait_s=0)
    assert clock.now == 0.0


def test_a_process_of_this_machine_that_lives_holds_its_run(store: Store) -> None:
    Lease(store, Holder.here("one")).acquire()
    with pytest.raises(RunHeld, match="held by attempt one"):
        Lease(store, Holder.here("two"), Clock()).acquire(wait_s=3)


def test_of_two_who_take_over_at_once_one_wins(place: Place, store: Store) -> None:
    """Where conditions are ignored both do, and the first learns of it at its next renewal."""
    Lease(store, elsewhere("old")).acquire()
    found = store.read(LEASE)
    two, three = Lease(store, elsewhere("two")), Lease(store, elsewhere("three"))
    assert two._take(found) is True
    if place.honours_conditions:
        assert three._take(found) is False
        assert stated(store)["attempt"] == "two"
        return
    assert three._take(found) is True
    with pytest.raises(RunHeld, match=r"taken over: .* attempt three"):
        two.renew()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"attempt": 1}', "\x00"])
def test_a_lease_that_cannot_be_read_ends_with_its_time_to_live(store: Store, text: str) -> None:
    store.put(LEASE, text.encode())
    with pytest.raises(RunHeld, match="cannot be read"):
        Lease(store, elsewhere("one"), Clock()).acquire(wait_s=2)
    Lease(store, elsewhere("one"), Clock()).acquire(wait_s=TIME_TO_LIVE_S + 1)
    assert stated(store)["attempt"] == "one"


def test_a_keeper_renews_and_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.01)
    store = FolderStore(str(tmp_path))
    lease = Lease(store, Holder.here("one"))
    lease.acquire()
    keeper = Keeper(lease)
    while not stated(store)["renewals"]:
        keeper.check()
    keeper.close()
    assert stated(store)["released"] is True


def test_a_keeper_tells_of_a_run_that_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.01)
    store = FolderStore(str(tmp_path))
    lease = Lease(store, Holder.here("one"))
    lease.acquire()
    store.put(LEASE, replace(elsewhere("two"), epoch=2).to_json())
    keeper = Keeper(lease)
    keeper._thread.join(30)
    with pytest.raises(RunHeld, match="taken over"):
        keeper.check()
    keeper.close()
    assert stated(store)["attempt"] == "two"
