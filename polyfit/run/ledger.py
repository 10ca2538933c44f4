"""What a run's folder says: its plan, which shards are stored, attempts, failures, the manifest.

The store is the only memory of a run: what is left to do is the plan without what one listing
finds, whichever driver wrote it.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from polyfit.errors import DamagedRun, PlanMismatch, RunNotFound, StoreError
from polyfit.run.clock import now
from polyfit.run.keys import (
    ATTEMPT,
    ATTEMPT_PREFIX,
    FAILED_PREFIX,
    MANIFEST,
    PLAN,
    RECEIPT,
    SHARD_PREFIX,
    SPEC,
    STATUS,
    attempt_key,
    attempt_name,
    failed_key,
    failed_number,
    log_key,
    shard_number,
)
from polyfit.run.manifest import RESEAL_HINT, Manifest, Receipt
from polyfit.spec.plan import Plan, dump_json, unreadable_advice
from polyfit.store.base import Entry, NoSuchKey, Store

__all__ = ["Ledger", "plan_at"]

KNOWN_ATTEMPTS: Final = 20


def plan_at(store: Store) -> Plan:
    """The plan of the run whose folder is ``store``.

    Raises:
        RunNotFound: there is none.
        PlanMismatch: another version of polyfit made it.
    """
    try:
        data = store.get(PLAN)
    except NoSuchKey:
        raise RunNotFound(
            f"{store.uri} holds no run; expected {PLAN} there, as in <store>/<name>/<run id>; "
            "`polyfit list STORE` lists the runs in a store"
        ) from None
    return Plan.from_json(data, f"{store.uri}/{PLAN}")


class Ledger:
    """The records of one run: ``store`` is the run's own folder."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store = store
        self.plan = plan

    def open(self, spec_text: str) -> None:
        """Write plan and spec, or find that the same plan is stored.

        Raises:
            PlanMismatch: the run has another plan.
        """
        try:
            stored = self._stored_plan()
        except NoSuchKey:
            self.store.create(PLAN, self.plan.to_json())
            try:
                stored = self._stored_plan()
            except NoSuchKey:
                raise StoreError(
                    f"{self.store.uri}: {PLAN} was written and is not there: the store does not "
                    "keep what it accepts; check the store and its endpoint"
                ) from None
        if stored["hash"] != self.plan.hash:
            raise PlanMismatch(self._mismatch(stored))
        if self.manifest() is None:  # a sealed run is not written to
            self.store.create(SPEC, spec_text.encode())

    def honours_conditional_writes(self) -> bool:
        """Whether the store honours If-None-Match: it should refuse the same plan a second time.

        The answer is noted with the attempt and not in the manifest: two drivers may reach the
        same store through two servers, and must seal the same bytes.
        """
        return not self.store.create(PLAN, self.store.get(PLAN))

    def spec_text(self) -> str:
        """The spec as it was submitted; empty where it is not stored."""
        try:
            return self.store.get(SPEC).decode("utf-8", "replace")
        except NoSuchKey:
            return ""

    def _mismatch(self, stored: dict[str, Any]) -> str:
        """Why the run, which has the plan ``stored``, is not that of this plan; and what to do."""
        belongs = f"the run {self.store.uri} belongs to plan {stored['hash'][:12]}"
        if versions := self.plan.other_versions(stored):
            return (
                f"{belongs}, which another version made ({versions}); finish it with that version, "
                "or choose another --run-id"
            )
        return (
            f"{belongs}, this spec makes plan {self.plan.hash[:12]}: it was changed since, or is "
            f"another one. `polyfit status {self.store.uri} --spec > begun.yaml` writes the run's "
            "own, and `polyfit run begun.yaml` with the same --store, --run-id and --date goes on "
            "with it; this spec needs another --run-id"
        )

    def _stored_plan(self) -> dict[str, Any]:
        """The stored plan as it was written."""
        data = self.store.get(PLAN)
        try:
            stored: dict[str, Any] = json.loads(data)
            return {**stored, "hash": str(stored["hash"])}
        except (ValueError, KeyError, TypeError):
            raise PlanMismatch(
                f"{self.store.uri}/{PLAN} is no plan; {unreadable_advice(data)}"
            ) from None

    def done(self) -> set[int]:
        """The numbers of the plan's shards that are stored; one listing."""
        return {number for number, _ in self.shards() if number is not None}

    def shards(self) -> Iterator[tuple[int | None, Entry]]:
        """All objects in the folder of shards, in one listing; None for one that is no shard of
        this plan."""
        for entry in self.store.list(SHARD_PREFIX):
            yield shard_number(self.plan, entry.key), entry

    def complete(self) -> bool:
        """Whether the run is sealed and all of its shards are stored; one listing.

        Raises:
            DamagedRun: the size of a shard is not the one in the manifest, so that it cannot be
                read.
        """
        manifest, found = self.manifest(), 0
        if manifest is None:
            return False
        sizes = {receipt.shard: receipt.bytes for receipt in manifest.receipts}
        for number, entry in self.shards():
            if number is None:
                continue
            sealed = sizes.get(number, entry.size)
            if entry.size != sealed:
                raise DamagedRun(
                    f"{self.store.uri} was complete, and is damaged: {entry.key} has "
                    f"{entry.size} bytes, {MANIFEST} says {sealed}; remove that object and run the "
                    "same spec again"
                )
            found += 1
        return found == self.plan.shards

    def manifest(self) -> Manifest | None:
        """The manifest; None while the run is not complete.

        Raises:
            PlanMismatch: it is of another plan.
            DamagedRun: it cannot be read.
        """
        try:
            manifest = Manifest.from_json(self.store.get(MANIFEST))
        except NoSuchKey:
            return None
        if manifest.plan != self.plan.hash:
            raise PlanMismatch(
                f"{self.store.uri}/{MANIFEST} seals plan {manifest.plan[:12]}, this is plan "
                f"{self.plan.hash[:12]}; {RESEAL_HINT}"
            )
        return manifest

    def seal(self, receipts: Iterable[Receipt]) -> Manifest:
        """Write the manifest from the receipts of all shards.

        Raises:
            DamagedRun: a shard has no receipt, two, or one of another size; or the run was sealed
                before, with other receipts. Nothing is written.
        """
        ordered = sorted(receipts, key=lambda receipt: receipt.shard)
        if [receipt.shard for receipt in ordered] != list(range(self.plan.shards)):
            raise DamagedRun(
                f"{len(ordered)} receipts for {self.plan.shards} shards; the run is not sealed"
            )
        for receipt in ordered:
            if receipt.rows != self.plan.shard(receipt.shard).fits:
                raise DamagedRun(f"shard {receipt.shard} has {receipt.rows} rows; not sealed")
        manifest = Manifest(self.plan.hash, tuple(ordered))
        if not self.store.create(MANIFEST, manifest.to_json()) and self.manifest() != manifest:
            raise DamagedRun(
                f"{self.store.uri}/{MANIFEST} was made from other bytes than are stored now; the "
                f"stored shards are intact; {RESEAL_HINT}"
            )
        return manifest

    def note_attempt(self, attempt: str, facts: dict[str, Any]) -> None:
        """Write what is known of a driver's attempt."""
        self.store.put(attempt_key(attempt), dump_json(facts))

    def attempt(self, attempt: str) -> dict[str, Any]:
        """What is known of a driver's attempt; empty where nothing is."""
        if not ATTEMPT.fullmatch(attempt):
            return {}
        try:
            facts = json.loads(self.store.get(attempt_key(attempt)))
        except (NoSuchKey, ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def attempts(self, most: int = KNOWN_ATTEMPTS) -> list[dict[str, Any]]:
        """What is known of the latest attempts, at most so many, the latest last; only the name
        where it cannot be read."""
        keys = [entry.key for entry in self.store.list(ATTEMPT_PREFIX)]
        names = sorted(name for key in keys if (name := attempt_name(key)) is not None)
        return [self.attempt(name) or {"attempt": name} for name in names[-most:]]

    def note_log(self, attempt: str, text: bytes) -> None:
        """Write the log of an attempt's driver, or replace it."""
        self.store.put(log_key(attempt), text)

    def note_receipt(self, data: bytes) -> None:
        """Write what the run has taken so far, or replace it."""
        self.store.put(RECEIPT, data)

    def log(self, attempt: str) -> str:
        """The log of an attempt's driver; empty where none is stored."""
        if not ATTEMPT.fullmatch(attempt):
            return ""
        try:
            return self.store.get(log_key(attempt)).decode("utf-8", "replace")
        except NoSuchKey:
            return ""

    def note_lost_driver(self, attempt: str, found_by: str) -> bool:
        """Note with an attempt that its driver has died; False where it noted its own end, or
        nothing is known of it."""
        facts = self.attempt(attempt)
        if not facts or "exit_code" in facts:
            return False
        lost = {"found_by": found_by, "found_at": now()}
        self.note_attempt(attempt, {**facts, "exit_code": None, "lost": lost})
        return True

    def note_status(
        self,
        attempt: str,
        done: int,
        failed: int,
        state: str,
        stage: str,
        last_event_at: str,
        fits_done: int | None = None,
        fits_per_s: float | None = None,
    ) -> None:
        """Write the progress of the run, what it is doing, and when something happened last.

        A status that is old and says "running" is that of a driver that has died.
        """
        facts = {
            "attempt": attempt,
            "updated_at": now(),
            "state": state,
            "stage": stage,
            "last_event_at": last_event_at,
            "shards": self.plan.shards,
            "done": done,
            "failed": failed,
            "fits_done": fits_done,
            "fits_per_s": fits_per_s,
        }
        self.store.put(STATUS, dump_json(facts))

    def note_failure(self, number: int, kind: str, causes: list[str]) -> None:
        """Write why a shard could not be computed, or not be inspected; ``kind`` says which.

        After "compute" it is skipped until --retry-failed.
        """
        self.store.put(failed_key(number, kind), dump_json({"shard": number, "causes": causes}))

    def failed_shards(self) -> set[int]:
        """The numbers of the shards that have ever failed; one listing.

        Nothing is deleted: one that is stored by now was computed later.
        """
        found = (failed_number(entry.key) for entry in self.store.list(FAILED_PREFIX))
        return {number for number in found if number is not None}

    def causes(self, number: int) -> list[str]:
        """Why a shard failed, the first cause first; empty where it is not known."""
        try:
            return [
                str(cause) for cause in json.loads(self.store.get(failed_key(number)))["causes"]
            ]
        except (NoSuchKey, ValueError, KeyError, TypeError):
            return []
