"""One driver per run: who may take the lease, who loses it, and the message for a second driver."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from leases import elsewhere, stated
from places import Place

from polyfit.errors import Exit, RunHeld, StoreError
from polyfit.run import lease as lease_module
from polyfit.run.holder import Holder
from polyfit.run.keys import lease_key
from polyfit.run.lease import TIME_TO_LIVE_S, Lease, last_driver, latest
from polyfit.store.base import Store


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


def test_the_first_driver_has_the_lease_at_once(store: Store) -> None:
    clock = Clock()
    Lease(store, elsewhere("one"), clock).acquire()
    assert clock.now == 0.0
    assert (stated(store)["attempt"], stated(store)["epoch"]) == ("one", 1)


def test_a_second_driver_waits_and_says_who_holds_the_run_and_since_when(store: Store) -> None:
    first, clock = Lease(store, elsewhere("one")), Clock()
    first.acquire()
    second = Lease(store, elsewhere("two"), clock)
    before = stated(store)
    original, renewals = clock.sleep, iter(range(1000))

    def sleep(seconds: float) -> None:
        original(seconds)
        if next(renewals) % 5 == 0:
            first.renew()

    clock.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(
        RunHeld, match=r"held by attempt one \(process \d+ on far\) since 20"
    ) as unexpected_message:
        second.acquire()
    assert unexpected_message.value.exit_code == Exit.HELD
    assert clock.now >= TIME_TO_LIVE_S
    assert before["attempt"] == stated(store)["attempt"] == "one"


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


def test_a_renewal_after_one_whose_answer_was_lost_looks_like_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others take a lease for old whose bytes do not change."""
    holder = Lease(store, elsewhere("one"))
    holder.acquire()

    def lost(*given: object) -> None:
        raise StoreError("the answer is lost", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(lease_module, "_highest_from", lost)
        with pytest.raises(StoreError):
            holder.renew()
    before = latest(store)[1]
    holder.renew()
    after = latest(store)[1]
    assert before is not None
    assert after is not None
    assert before.data != after.data


def test_a_released_lease_is_taken_at_once(store: Store) -> None:
    first, clock = Lease(store, elsewhere("one")), Clock()
    first.acquire()
    first.release()
    Lease(store, elsewhere("two"), clock).acquire(wait_s=0)
    assert clock.now == 0.0


def test_a_process_of_this_machine_that_has_died_holds_nothing(store: Store) -> None:
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
    found = latest(store)
    two, three = Lease(store, elsewhere("two")), Lease(store, elsewhere("three"))
    assert two._take(*found) is True
    if place.honours_conditions:
        assert three._take(*found) is False
        assert stated(store)["attempt"] == "two"
        return
    assert three._take(*found) is True
    with pytest.raises(RunHeld, match=r"taken over: .* attempt three"):
        two.renew()


def test_of_many_who_begin_at_the_same_moment_one_is_left_after_the_first_renewal(
    store: Store,
) -> None:
    """Swift answers two who create one key at once that both did."""
    barrier = threading.Barrier(4)

    def left(name: str) -> bool:
        lease = Lease(store, elsewhere(name))
        barrier.wait()
        try:
            lease.acquire(wait_s=0)
            taken = True
        except RunHeld:
            taken = False
        barrier.wait()
        try:
            if taken:
                lease.renew()
        except RunHeld:
            taken = False
        return taken

    with ThreadPoolExecutor(4) as pool:
        holders = [name for name, held in zip("abcd", pool.map(left, "abcd"), strict=True) if held]
    assert holders == [stated(store)["attempt"]]


def test_a_lease_that_was_renewed_while_another_took_it_over_is_given_back(store: Store) -> None:
    """Whoever takes over may have looked long before it wrote."""
    one, two = Lease(store, elsewhere("one")), Lease(store, elsewhere("two"))
    one.acquire()
    seen = latest(store)
    one.renew()
    assert two._take(*seen) is False
    one.renew()
    assert (one.holder.epoch, stated(store)["attempt"]) == (2, "one")
    one.release()
    two.acquire(wait_s=0)
    assert (stated(store)["attempt"], stated(store)["epoch"]) == ("two", 3)


def test_a_renewal_that_arrives_after_the_lease_was_taken_over_changes_nothing(
    store: Store,
) -> None:
    one, two = Lease(store, elsewhere("one")), Lease(store, elsewhere("two"))
    one.acquire()
    late = replace(one.holder, renewals=1).to_json()
    assert two._take(*latest(store)) is True
    store.put(lease_key(1), late)
    two.renew()
    assert stated(store)["attempt"] == "two"


def test_generations_that_a_listing_does_not_show_yet_are_found(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in ("one", "two"):
        lease = Lease(store, elsewhere(attempt))
        lease.acquire()
        lease.release()
    monkeypatch.setattr(type(store), "list", lambda self, prefix: iter([]))
    assert (latest(store)[0], stated(store)["attempt"]) == (2, "two")


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"attempt": 1}', "\x00"])
def test_a_lease_that_cannot_be_read_ends_with_its_time_to_live(store: Store, text: str) -> None:
    store.put(lease_key(1), text.encode())
    with pytest.raises(RunHeld, match="cannot be read"):
        Lease(store, elsewhere("one"), Clock()).acquire(wait_s=2)
    Lease(store, elsewhere("one"), Clock()).acquire(wait_s=TIME_TO_LIVE_S + 1)
    assert stated(store)["attempt"] == "one"


def test_the_last_driver_is_at_work_until_its_lease_is_released_or_old(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert last_driver(store) is None
    first = Lease(store, elsewhere("one"))
    first.acquire()
    assert last_driver(store) == (first.holder, True)
    with monkeypatch.context() as old:
        old.setattr(lease_module, "TIME_TO_LIVE_S", 0.0)
        assert last_driver(store) == (first.holder, False)
    first.release()
    assert last_driver(store) == (replace(first.holder, released=True), False)
    store.put(lease_key(1), b"{}")
    assert last_driver(store) is None


def test_a_driver_that_takes_over_knows_whether_the_one_before_was_lost(store: Store) -> None:
    first = Lease(store, elsewhere("one"))
    first.acquire()
    second = Lease(store, elsewhere("two"), Clock())
    second.acquire()
    assert (first.lost_holder, second.lost_holder) == (None, first.holder)
    second.release()
    third = Lease(store, elsewhere("three"), Clock())
    third.acquire()
    assert third.lost_holder is None
