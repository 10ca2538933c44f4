"""Histories of faults over a simulated store and clock, which find planted faults."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
from simulate import Violation, histories, history, simulated

from polyfit.errors import StoreError
from polyfit.run import lease, ledger
from polyfit.run.keys import MANIFEST, shard_key
from polyfit.run.manifest import Manifest, Receipt
from polyfit.work import storing
from polyfit.work.attempt import Attempt

HISTORIES = 2_000
"""``make simulate`` goes through 100,000."""

FAILED_ONCE: tuple[int, ...] = (1283,)
"""Seeds that have shown a defect: they are tried first."""


def test_no_history_breaks_a_promise() -> None:
    parts = [range(at, at + 250) for at in range(0, HISTORIES, 250)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for faults, broken in pool.map(histories, [FAILED_ONCE, *parts]):
            assert not broken, broken[:3]
            assert not faults or faults["histories"] in (250, len(FAILED_ONCE))


def test_a_history_is_the_same_every_time() -> None:
    with simulated():
        assert [history(11).told, history(12).told] == [history(11).told, history(12).told]


# --- planted faults --------------------------------------------------------------------------

Planted = Callable[[], Any]


def the_lease_is_not_looked_at() -> Any:
    return patch.object(lease.Lease, "_is_free", staticmethod(lambda found, unchanged_s: True))


def the_seal_comes_before_the_last_receipt() -> Any:
    def seal(self: ledger.Ledger, receipts: Any) -> Manifest:
        manifest = Manifest(self.plan.hash, tuple(sorted(receipts, key=lambda one: one.shard)[1:]))
        self.store.create(MANIFEST, manifest.to_json())
        return manifest

    return patch.object(ledger.Ledger, "seal", seal)


def a_shard_is_acknowledged_before_it_is_written() -> Any:
    def commit(plan: Any, shard: Any, data: bytes, statuses: Any, store: Any) -> Receipt:
        with suppress(StoreError):
            store.create(shard_key(plan, shard.number), data)
        return Receipt.of(shard, data, statuses)

    return patch.object(storing, "commit", commit)


def another_plans_run_is_taken() -> Any:
    stated = ledger.Ledger._stored_plan

    def agreed(self: ledger.Ledger) -> dict[str, Any]:
        return {**stated(self), "hash": self.plan.hash}

    return patch.object(ledger.Ledger, "_stored_plan", agreed)


def a_lost_workers_shard_is_forgotten() -> Any:
    handle = Attempt._handle

    def forgetting(self: Any, result: Any, todo: Any) -> None:
        if not result.lost:
            handle(self, result, todo)

    return patch.object(Attempt, "_handle", forgetting)


def a_shard_is_written_without_a_condition() -> Any:
    def commit(plan: Any, shard: Any, data: bytes, statuses: Any, store: Any) -> Receipt:
        store.put(shard_key(plan, shard.number), data)
        return Receipt.of(shard, data, statuses)

    return patch.object(storing, "commit", commit)


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        (the_lease_is_not_looked_at, "took the lease from"),
        (the_seal_comes_before_the_last_receipt, "the seal does not count every shard once"),
        (a_shard_is_acknowledged_before_it_is_written, "acknowledged, and is not at rest"),
        (another_plans_run_is_taken, "is another plan's"),
        (a_lost_workers_shard_is_forgotten, "4 receipts for 5 shards"),
        (a_shard_is_written_without_a_condition, "was written twice"),
    ],
)
def test_a_planted_fault_is_found(planted: Planted, found: str) -> None:
    def search() -> None:
        for seed in range(2000):
            history(seed)

    with simulated(), planted(), pytest.raises(Violation, match=found):
        search()
