"""Proof from the store alone that a run has every fit exactly once and every shard is intact."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from polyfit.errors import DamagedRun, PlanMismatch, RunHeld
from polyfit.run.keys import MANIFEST, PLAN, shard_key
from polyfit.run.last_attempt import describe_last_attempt
from polyfit.run.ledger import Ledger
from polyfit.run.manifest import RESEAL_HINT, Receipt
from polyfit.run.parquet import REFIT_HINT, check_shard
from polyfit.run.state import State, read_state
from polyfit.spec.plan import Plan, Shard
from polyfit.store.base import NoSuchKey

__all__ = ["Verdict", "verify"]

_SEALED_SO: Final = f" (it was sealed so: remove {MANIFEST} too)"


@dataclass(slots=True)
class Verdict:
    """What ``verify`` found: intact shards, their fits, bytes and statuses, and one line per
    problem. ``problems`` is empty where every fit is stored exactly once."""

    shards: int
    fits: int
    bytes: int
    statuses: dict[str, int]
    problems: list[str] = field(default_factory=list)


def verify(ledger: Ledger) -> Verdict:
    """Read every object of a run in full, and compare it with the plan and the manifest.

    Checked are size, SHA-256, page checksums, footer, fits and statuses of each shard, and the
    manifest's totals. Memory holds one shard at a time, and the manifest.

    Raises:
        RunHeld: it is not complete, and a driver is at work on it.
        StoreError: the store cannot be used.
    """
    state = read_state(ledger.store, ledger.plan)
    if state.state is State.RUNNING:
        done = "?" if state.shards_done is None else f"{state.shards_done:,}"
        raise RunHeld(
            f"{ledger.store.uri} is running now, {done} of {state.shards:,} shards are stored: "
            f"verify it when it is complete ({state.driver})"
        )
    return _Verification(ledger).run()


class _Verification:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._store, self._plan = ledger, ledger.store, ledger.plan
        self._verdict = Verdict(0, 0, 0, {})
        self._statuses: Counter[str] = Counter()

    def run(self) -> Verdict:
        problems = self._verdict.problems
        problems.extend(_plan_problems(self._ledger))
        receipts = self._receipts()
        for number in range(self._plan.shards):
            of_shard = None if receipts is None else receipts.pop(number, [])
            problem = self._check(self._plan.shard(number), of_shard)
            if problem:
                problems.append(f"{_describe(self._plan, number)}: {problem}")
        for number in sorted(receipts or ()):
            problems.append(
                f"{MANIFEST} has a receipt of shard {number}, this plan has {self._plan.shards} "
                f"(fits 0 to {self._plan.fits - 1}); {RESEAL_HINT}"
            )
        problems.extend(_foreign_objects(self._ledger))
        self._verdict.statuses = dict(sorted(self._statuses.items()))
        return self._verdict

    def _receipts(self) -> dict[int, list[Receipt]] | None:
        """The manifest's receipts by shard; None where there is no valid manifest."""
        try:
            manifest = self._ledger.manifest()
        except (DamagedRun, PlanMismatch) as error:
            self._verdict.problems.append(str(error))
            return None
        if manifest is None:
            self._verdict.problems.append(
                f"no {MANIFEST}: the run (fits 0 to {self._plan.fits - 1}) is not complete; "
                f"{describe_last_attempt(self._ledger)}; run the same spec again"
            )
            return None
        by_shard: dict[int, list[Receipt]] = {}
        for receipt in manifest.receipts:
            by_shard.setdefault(receipt.shard, []).append(receipt)
        return by_shard

    def _check(self, shard: Shard, receipts: list[Receipt] | None) -> str | None:
        """Read one shard in full: what is wrong with it and what to do; None if it is intact."""
        try:
            data = self._store.get(shard_key(self._plan, shard.number))
        except NoSuchKey:
            return "missing; run the same spec again: it fits what is missing"
        except DamagedRun as error:
            return str(error)
        receipt = receipts[0] if receipts else None
        if receipt is not None:
            if len(data) != receipt.bytes:
                return f"{len(data)} bytes, the manifest says {receipt.bytes}; {REFIT_HINT}"
            if hashlib.sha256(data).hexdigest() != receipt.sha256:
                return f"other bytes than the manifest's SHA-256; {REFIT_HINT}"
        try:
            statuses = check_shard(self._plan, shard, data)
        except DamagedRun as error:
            return f"{error}; {REFIT_HINT}{'' if receipt is None else _SEALED_SO}"
        self._verdict.shards += 1
        self._verdict.fits += shard.fits
        self._verdict.bytes += len(data)
        self._statuses.update(statuses)
        return None if receipts is None else _manifest_problem(receipts, shard, statuses)


def _describe(plan: Plan, number: int) -> str:
    """A shard's key and its fits."""
    shard = plan.shard(number)
    return f"{shard_key(plan, number)} (fits {shard.start} to {shard.stop - 1})"


def _plan_problems(ledger: Ledger) -> Iterator[str]:
    """Where the stored plan is not, or does not agree with, the plan that was read when the run
    was opened."""
    plan = ledger.plan
    fits = f"(fits 0 to {plan.fits - 1})"
    try:
        stored = json.loads(ledger.store.get(PLAN))
    except (NoSuchKey, ValueError):
        stored = None
    if not isinstance(stored, dict) or stored.get("hash") != plan.hash:
        yield (
            f"{PLAN} is no longer that of plan {plan.run_id} {fits}: it is damaged, or "
            "another's; run the same spec again under another --run-id"
        )
        return
    for name, value in (("fits", plan.fits), ("shards", plan.shards)):
        if stored.get(name) != value:
            yield (
                f"{PLAN}: it says {name} {stored.get(name)}, its sweep has {value} {fits}; remove "
                "it and run the same spec again"
            )


def _manifest_problem(
    receipts: list[Receipt], shard: Shard, statuses: dict[str, int]
) -> str | None:
    """What the manifest says wrongly of a shard that is intact; None if nothing."""
    if len(receipts) != 1:
        return f"intact, but {MANIFEST} has {len(receipts)} receipts of it; {RESEAL_HINT}"
    (receipt,) = receipts
    if receipt.rows != shard.fits:
        return f"intact, but {MANIFEST} says {receipt.rows} rows; {RESEAL_HINT}"
    if receipt.statuses != statuses:
        stated = f"but {MANIFEST} says {receipt.statuses}"
        return f"intact, with statuses {statuses}, {stated}; {RESEAL_HINT}"
    return None


def _foreign_objects(ledger: Ledger) -> Iterator[str]:
    """Objects in the folder of shards that are no shards of this plan."""
    for number, entry in ledger.shards():
        if number is None:
            yield (
                f"{entry.key} is no shard of this plan ({ledger.plan.shards} shards, fits 0 to "
                f"{ledger.plan.fits - 1}); a reader of the whole folder would read it too: "
                "move it elsewhere"
            )
