"""The books of a run: one plan per run, what is done, and a seal that counts every fit once."""

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from places import Place

from polyfit.errors import DamagedRun, PlanMismatch
from polyfit.run.clock import now
from polyfit.run.keys import MANIFEST, PLAN, SPEC, STATUS, attempt_key, failed_key, shard_key
from polyfit.run.ledger import Ledger
from polyfit.run.manifest import Manifest, Receipt, Receipts
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.base import Store

TEXT = "name: small\nshard: 10\nfit: {steps: 12}\nsweep: {seed: {count: 25}}\n"
PLAN_OF_25 = Plan.of(Spec.parse(TEXT))
OTHER = Plan.of(Spec.parse(TEXT.replace("steps: 12", "steps: 13")))


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, PLAN_OF_25)


def receipts() -> list[Receipt]:
    """One of each shard: 10, 10 and 5 fits."""
    return [
        Receipt.of(PLAN_OF_25.shard(n), b"shard %d" % n, {"completed": PLAN_OF_25.shard(n).fits})
        for n in range(3)
    ]


def strict(data: bytes) -> Any:
    """JSON as other languages read it: no NaN, no Infinity, no key twice."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    return json.loads(data, parse_constant=refuse, object_pairs_hook=once)


# --- one plan per run ------------------------------------------------------------------------


def test_opening_a_new_run_writes_plan_and_spec(ledger: Ledger, store: Store) -> None:
    ledger.open(TEXT)
    assert store.get(PLAN) == PLAN_OF_25.to_json()
    assert store.get(SPEC) == TEXT.encode()


def test_whether_a_store_honours_conditions_is_known_by_its_refusal(
    place: Place, ledger: Ledger, store: Store
) -> None:
    ledger.open(TEXT)
    assert ledger.honours_conditional_writes() is place.honours_conditions
    assert store.get(PLAN) == PLAN_OF_25.to_json()


def test_opening_twice_changes_nothing(ledger: Ledger, store: Store) -> None:
    ledger.open(TEXT)
    before = list(store.list(""))
    Ledger(store, PLAN_OF_25).open(TEXT)
    assert store.get(SPEC) == TEXT.encode()
    assert list(store.list("")) == before


def test_the_spec_of_a_run_is_the_first_ones_where_conditions_hold(
    place: Place, ledger: Ledger, store: Store
) -> None:
    ledger.open(TEXT)
    other = "# another comment\n" + TEXT
    Ledger(store, PLAN_OF_25).open(other)
    assert store.get(SPEC) == (TEXT if place.honours_conditions else other).encode()


def test_another_plan_is_refused_and_nothing_is_written(store: Store) -> None:
    Ledger(store, PLAN_OF_25).open(TEXT)
    before = {entry.key: store.get(entry.key) for entry in store.list("")}
    with pytest.raises(PlanMismatch) as caught:
        Ledger(store, OTHER).open("name: other")
    assert {entry.key: store.get(entry.key) for entry in store.list("")} == before
    for fact in (store.uri, PLAN_OF_25.run_id, OTHER.run_id, "--run-id"):
        assert fact in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"null", b"\xff"])
def test_a_plan_that_cannot_be_read_is_refused(ledger: Ledger, store: Store, data: bytes) -> None:
    store.put(PLAN, data)
    with pytest.raises(PlanMismatch, match="is no plan"):
        ledger.open(TEXT)


def test_what_is_nothing_of_ours_is_not_to_be_removed(ledger: Ledger, store: Store) -> None:
    store.put(PLAN, b"<html>Sign in</html>")
    with pytest.raises(PlanMismatch) as caught:
        ledger.open(TEXT)
    assert "remove" not in str(caught.value)
    assert "it begins with b'<html>Sign in</html>': leave it there" in str(caught.value)


def test_of_two_plans_at_once_the_second_is_refused(
    place: Place, ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's plan comes between our look and our writing; where conditions are ignored it
    is overwritten, and its own workers refuse the run."""
    create = store.create

    def late(key: str, data: bytes) -> bool:
        if key == PLAN:
            create(PLAN, OTHER.to_json())
        return create(key, data)

    monkeypatch.setattr(store, "create", late)
    if place.honours_conditions:
        with pytest.raises(PlanMismatch, match="belongs to plan"):
            ledger.open(TEXT)
    else:
        ledger.open(TEXT)
        assert store.get(PLAN) == PLAN_OF_25.to_json()


# --- what is done ----------------------------------------------------------------------------


def test_a_new_run_has_nothing_done(ledger: Ledger) -> None:
    assert ledger.done() == set()


def test_stored_shards_are_done(ledger: Ledger, store: Store) -> None:
    for number in (2, 0):
        store.put(shard_key(PLAN_OF_25, number), b"")
    assert ledger.done() == {0, 2}


def test_shards_of_other_plans_are_not_done(ledger: Ledger, store: Store) -> None:
    store.put(shard_key(OTHER, 1), b"")
    assert ledger.done() == set()


def test_shards_beyond_the_plan_are_not_done(ledger: Ledger, store: Store) -> None:
    store.put(f"shards/000003-{PLAN_OF_25.hash[:8]}.parquet", b"")
    assert ledger.done() == set()


@pytest.mark.parametrize(
    "key",
    [
        "shards/0-{hash}.parquet",
        "shards/0000001-{hash}.parquet",
        "shards/000001-{hash}.parquet.bak",
        "shards/000001-{hash}xparquet",
        "shards/000001.parquet",
        "shards/in/000001-{hash}.parquet",
        "shards/x000001-{hash}.parquet",
        "old/shards/000001-{hash}.parquet",
        "shards/_SUCCESS",
        "shards-2/000001-{hash}.parquet",
    ],
)
def test_keys_that_are_no_shards_are_not_done(ledger: Ledger, store: Store, key: str) -> None:
    store.put(key.format(hash=PLAN_OF_25.hash[:8]), b"")
    assert ledger.done() == set()


def test_a_shards_key_names_shard_and_plan() -> None:
    assert shard_key(PLAN_OF_25, 7) == f"shards/000007-{PLAN_OF_25.hash[:8]}.parquet"


# --- receipts --------------------------------------------------------------------------------


def test_receipts_are_given_back_as_they_were_taken_in_the_order_of_shards() -> None:
    wanted = [
        Receipt(0, 0, "00" * 32, 10, {}),
        Receipt(2, 2**40, "ab" * 32, 2**40, {"diverged": 0, "completed": 7}),
        Receipt(4, 7, "ff" * 32, 5, {"converged": 5}),
    ]
    held = Receipts(5)
    for receipt in (wanted[2], wanted[0], wanted[1]):
        held.add(receipt)
    assert list(held) == wanted
    assert (len(held), [n in held for n in range(5)]) == (3, [True, False, True, False, True])


@pytest.mark.slow
def test_receipts_of_100_000_shards_take_few_bytes_each() -> None:
    tracemalloc.start()
    try:
        held = Receipts(100_000)
        for n in range(100_000):
            statuses = {"completed": n, "converged": 100_000 - n, "diverged": 1}
            held.add(Receipt(n, n, f"{n:064x}", 1000, statuses))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held) == 100_000
    assert peak < 90 * 100_000


# --- the seal --------------------------------------------------------------------------------


def test_a_run_without_a_seal_has_no_manifest(ledger: Ledger) -> None:
    assert ledger.manifest() is None


def test_the_manifest_is_read_as_it_was_sealed(ledger: Ledger) -> None:
    sealed = ledger.seal(reversed(receipts()))
    assert sealed == ledger.manifest() == Manifest(PLAN_OF_25.hash, tuple(receipts()))


def test_the_manifest_has_every_shard_and_the_totals(ledger: Ledger, store: Store) -> None:
    ledger.seal(receipts())
    found = strict(store.get(MANIFEST))
    assert {name: found[name] for name in ("plan", "fits", "bytes", "statuses")} == {
        "plan": PLAN_OF_25.hash,
        "fits": 25,
        "bytes": 21,
        "statuses": {"completed": 25},
    }
    assert found["shards"][1] == {
        "shard": 1,
        "bytes": 7,
        "sha256": receipts()[1].sha256,
        "rows": 10,
        "statuses": {"completed": 10},
    }


def test_totals_add_up_over_shards() -> None:
    one, other, _ = receipts()
    manifest = Manifest("", (one, replace(other, statuses={"diverged": 4, "completed": 6})))
    assert manifest.statuses == {"completed": 16, "diverged": 4}


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        ([], "0 receipts for 3 shards"),
        (receipts()[:2], "2 receipts for 3 shards"),
        ([*receipts(), receipts()[1]], "4 receipts for 3 shards"),
        ([*receipts()[:2], receipts()[1]], "3 receipts for 3 shards"),
        ([*receipts()[:2], replace(receipts()[2], shard=3)], "3 receipts for 3 shards"),
        ([*receipts()[:2], replace(receipts()[2], rows=4)], "shard 2 has 4 rows"),
        ([*receipts()[:2], replace(receipts()[2], rows=6)], "shard 2 has 6 rows"),
    ],
    ids=["none", "missing", "doubled", "doubled for another", "strange", "short", "long"],
)
def test_receipts_that_do_not_add_up_are_refused_and_nothing_is_written(
    ledger: Ledger, store: Store, planted: list[Receipt], message: str
) -> None:
    with pytest.raises(DamagedRun, match=message):
        ledger.seal(planted)
    assert list(store.list("")) == []


def test_a_second_seal_of_the_same_receipts_is_the_first(ledger: Ledger, store: Store) -> None:
    """Two drivers, or one whose answer was lost."""
    sealed = ledger.seal(receipts())
    before = store.get(MANIFEST)
    assert Ledger(store, PLAN_OF_25).seal(receipts()) == sealed
    assert store.get(MANIFEST) == before


def test_a_second_seal_of_other_receipts_is_refused_where_conditions_hold(
    place: Place, ledger: Ledger, store: Store
) -> None:
    """Elsewhere the last one stays: every shard was inspected before it."""
    first = ledger.seal(receipts())
    others = [replace(receipts()[0], sha256="0" * 64), *receipts()[1:]]
    if place.honours_conditions:
        with pytest.raises(DamagedRun, match="was made from other bytes"):
            ledger.seal(others)
        assert ledger.manifest() == first
    else:
        assert ledger.seal(others) == ledger.manifest() != first


def test_the_seal_of_another_plan_is_refused(ledger: Ledger, store: Store) -> None:
    store.put(MANIFEST, Manifest(OTHER.hash, ()).to_json())
    with pytest.raises(PlanMismatch, match=OTHER.run_id):
        ledger.manifest()


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"{}", b"null", b"\xff", b'{"plan": "x", "shards": [{"shard": 0}]}'],
)
def test_a_manifest_that_cannot_be_read_is_damage(
    ledger: Ledger, store: Store, data: bytes
) -> None:
    store.put(MANIFEST, data)
    with pytest.raises(DamagedRun, match=MANIFEST):
        ledger.manifest()


@pytest.mark.parametrize(
    ("name", "wrong"), [("fits", 26), ("bytes", 0), ("statuses", {"diverged": 25})]
)
def test_a_manifest_whose_totals_are_not_its_receipts_is_damage(
    ledger: Ledger, store: Store, name: str, wrong: object
) -> None:
    ledger.seal(receipts())
    store.put(MANIFEST, json.dumps({**strict(store.get(MANIFEST)), name: wrong}).encode())
    with pytest.raises(DamagedRun, match=f"{MANIFEST}: it says {name} "):
        ledger.manifest()


# --- what is noted ---------------------------------------------------------------------------


def test_the_status_says_how_far_the_run_is(ledger: Ledger, store: Store) -> None:
    ledger.note_status("one", 2, 1, "running", "fitting", "then", 40, 2.5)
    found = strict(store.get(STATUS))
    assert found.pop("updated_at") <= now()
    assert found == {
        "attempt": "one",
        "state": "running",
        "stage": "fitting",
        "last_event_at": "then",
        "shards": 3,
        "done": 2,
        "failed": 1,
        "fits_done": 40,
        "fits_per_s": 2.5,
    }


def test_an_attempt_is_noted_under_its_own_key(ledger: Ledger, store: Store) -> None:
    ledger.note_attempt("one", {"pid": 1})
    ledger.note_attempt("two", {"pid": 2})
    assert strict(store.get(attempt_key("one"))) == {"pid": 1}


def test_a_lost_attempt_is_noted_once_and_one_that_noted_its_end_stays(
    ledger: Ledger, store: Store
) -> None:
    ledger.note_attempt("one", {"pid": 1})
    assert ledger.note_lost_driver("one", "two") is True
    noted = strict(store.get(attempt_key("one")))
    assert noted["lost"].pop("found_at") <= now()
    assert noted == {"pid": 1, "exit_code": None, "lost": {"found_by": "two"}}
    assert ledger.note_lost_driver("one", "three") is False
    ledger.note_attempt("ended", {"pid": 1, "exit_code": 5})
    assert ledger.note_lost_driver("ended", "two") is False
    assert strict(store.get(attempt_key("ended"))) == {"pid": 1, "exit_code": 5}


@pytest.mark.parametrize("attempt", ["none", "", "../plan", "a/b", "X"])
def test_nothing_is_known_of_what_is_no_attempt(ledger: Ledger, attempt: str) -> None:
    assert ledger.attempt(attempt) == {}
    assert ledger.note_lost_driver(attempt, "two") is False


@pytest.mark.parametrize("data", [b"", b"[]", b"{"])
def test_of_an_attempt_that_cannot_be_read_nothing_is_known(
    ledger: Ledger, store: Store, data: bytes
) -> None:
    store.put(attempt_key("one"), data)
    assert ledger.attempt("one") == {}


def test_a_failed_shard_is_noted_with_its_causes(ledger: Ledger, store: Store) -> None:
    ledger.note_failure(7, "compute", ["first\nline", "second"])
    assert strict(store.get(failed_key(7))) == {"shard": 7, "causes": ["first\nline", "second"]}


def test_what_is_no_json_is_not_written(ledger: Ledger, store: Store) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        ledger.note_attempt("one", {"loss": float("nan")})
    assert list(store.list("")) == []
