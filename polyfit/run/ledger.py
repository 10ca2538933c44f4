"""A run's keys, which shards are done, receipts, and the manifest that seals the run.

The store is the only memory of a run: what is left to do is the plan less what a listing finds,
whoever wrote it. Keys of shards carry the plan's hash, so that another plan's are never taken
for this one's.
"""

import builtins
import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from polyfit.errors import DamagedRun, PlanMismatch, RunNotFound, StoreError
from polyfit.spec.plan import Plan, Shard, dump_json, unreadable_advice
from polyfit.store.store import Entry, NoSuchKey, Store

__all__ = [
    "LEASES",
    "MANIFEST",
    "PLAN",
    "RESEAL_HINT",
    "Ledger",
    "Manifest",
    "Receipt",
    "Receipts",
    "attempt_key",
    "lease_generation",
    "lease_key",
    "now",
    "plan_at",
    "shard_key",
]

PLAN: Final = "plan.json"
SPEC: Final = "spec.yaml"
STATUS: Final = "status.json"
MANIFEST: Final = "manifest.json"
LEASES: Final = "lease/"

RESEAL_HINT: Final = (
    f"remove {MANIFEST} and run the same spec again: it inspects every shard and seals the run"
)


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
            f"{store.uri} holds no run; expected {PLAN} there, as in <store>/<name>/<run id>"
        ) from None
    return Plan.from_json(data, f"{store.uri}/{PLAN}")


def shard_key(plan: Plan, number: int) -> str:
    """The key of a shard; it names shard and plan."""
    return f"shards/{number:06d}-{plan.hash[:8]}.parquet"


def attempt_key(attempt: str) -> str:
    """The key under which a driver says that it is at work."""
    return f"attempts/{attempt}.json"


def lease_key(generation: int) -> str:
    """The key of a run's lease as it was taken for the so-many-th time, from 1 on."""
    return f"{LEASES}{generation:06d}.json"


_LEASE: Final = re.compile(rf"{LEASES}(\d{{6,}})\.json")


def lease_generation(key: str) -> int:
    """The generation that has this key; 0 where none has."""
    match = _LEASE.fullmatch(key)
    return int(match[1]) if match else 0


def failed_key(number: int, kind: str = "compute") -> str:
    """The key of the causes for which a shard was set aside, or could not be inspected."""
    return f"failed/{number:06d}{'' if kind == 'compute' else f'-{kind}'}.json"


_ATTEMPT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_FAILED: Final = re.compile(r"failed/(\d{6})\.json")


def now() -> str:
    """The time in UTC to the second, as JSON holds it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a shard at rest; a few hundred bytes."""

    shard: int
    bytes: int
    sha256: str
    rows: int
    statuses: dict[str, int]

    @classmethod
    def of(cls, shard: Shard, data: builtins.bytes, statuses: dict[str, int]) -> "Receipt":
        """The receipt of a shard whose object is ``data``."""
        digest = hashlib.sha256(data).hexdigest()
        return cls(shard.number, len(data), digest, shard.fits, statuses)


class Receipts:
    """The receipts of a run as a driver holds them until the seal: some seventy bytes each.

    A run has up to a million shards, and an object per receipt would be ten times that.
    """

    def __init__(self, shards: int) -> None:
        self._none = array("q", [-1]) * shards  # what a shard without a receipt has everywhere
        self._bytes, self._rows = self._none[:], self._none[:]
        self._sha256 = bytearray(32 * shards)
        self._statuses: dict[str, array[int]] = {}
        self._count = 0

    def add(self, receipt: Receipt) -> None:
        """Take a receipt; there is none of its shard yet."""
        n = receipt.shard
        self._bytes[n], self._rows[n] = receipt.bytes, receipt.rows
        self._sha256[32 * n : 32 * n + 32] = bytes.fromhex(receipt.sha256)
        for status, fits in receipt.statuses.items():
            if status not in self._statuses:
                self._statuses[status] = self._none[:]
            self._statuses[status][n] = fits
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._bytes[number] >= 0

    def __iter__(self) -> Iterator[Receipt]:
        """In the order of their shards."""
        for n, size in enumerate(self._bytes):
            if size >= 0:
                digest = self._sha256[32 * n : 32 * n + 32].hex()
                counts = {name: fits[n] for name, fits in self._statuses.items() if fits[n] >= 0}
                yield Receipt(n, size, digest, self._rows[n], counts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The seal: every shard's receipt in order, and totals."""

    plan: str
    receipts: tuple[Receipt, ...]

    @property
    def statuses(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for receipt in self.receipts:
            total.update(receipt.statuses)
        return dict(sorted(total.items()))

    def to_json(self) -> bytes:
        """As it stands in the store."""
        return dump_json(
            {
                "plan": self.plan,
                **self._totals(),
                "shards": [asdict(receipt) for receipt in self.receipts],
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """The manifest that ``to_json`` wrote.

        Raises:
            DamagedRun: it cannot be read, or its totals are not those of its receipts.
        """
        try:
            source = json.loads(data)
            manifest = cls(source["plan"], tuple(Receipt(**item) for item in source["shards"]))
            totals = manifest._totals()
            stated = {name: source[name] for name in totals}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedRun(f"{MANIFEST} cannot be read: {error}; {RESEAL_HINT}") from None
        for name, total in totals.items():
            if stated[name] != total:
                raise DamagedRun(
                    f"{MANIFEST}: {name} {stated[name]} stands there, its receipts say {total}; "
                    f"{RESEAL_HINT}"
                )
        return manifest

    def _totals(self) -> dict[str, Any]:
        return {
            "fits": sum(receipt.rows for receipt in self.receipts),
            "bytes": sum(receipt.bytes for receipt in self.receipts),
            "statuses": self.statuses,
        }


class Ledger:
    """The books of one run: ``store`` is the run's own folder."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store = store
        self.plan = plan
        self._shards = re.compile(rf"shards/(\d{{6}})-{plan.hash[:8]}\.parquet")

    def open(self, spec_text: str) -> None:
        """Write plan and spec, or find the same plan there.

        Raises:
            PlanMismatch: the run is another plan's.
        """
        try:
            there = self._stated_plan()
        except NoSuchKey:
            self.store.create(PLAN, self.plan.to_json())
            try:
                there = self._stated_plan()
            except NoSuchKey:
                raise StoreError(
                    f"{self.store.uri}: {PLAN} was written and is not there: what takes it does "
                    "not keep it; check the store and its endpoint"
                ) from None
        if there != self.plan.hash:
            raise PlanMismatch(
                f"the run {self.store.uri} belongs to plan {there[:12]}, this spec makes plan "
                f"{self.plan.hash[:12]}; choose another --run-id, or leave it out"
            )
        if self.manifest() is None:  # once sealed, nothing is written any more
            self.store.create(SPEC, spec_text.encode())

    def honours_conditional_writes(self) -> bool:
        """Whether the store honours If-None-Match: the plan is written a second time, byte for
        byte, which it should refuse.

        The answer is an attempt's to note, not the manifest's: two drivers may see the same
        store through two doors, and what they seal must be the same bytes.
        """
        return not self.store.create(PLAN, self.store.get(PLAN))

    def _stated_plan(self) -> str:
        data = self.store.get(PLAN)
        try:
            return str(json.loads(data)["hash"])
        except (ValueError, KeyError, TypeError):
            raise PlanMismatch(
                f"{self.store.uri}/{PLAN} is no plan; {unreadable_advice(data)}"
            ) from None

    def done(self) -> set[int]:
        """The numbers of the plan's shards that are at rest; one listing."""
        return {number for number, _ in self._listed()}

    def _listed(self) -> Iterator[tuple[int, Entry]]:
        for entry in self.store.list("shards/"):
            number = self.shard_number(entry.key)
            if number is not None:
                yield number, entry

    def complete(self) -> bool:
        """Whether the run is sealed and every shard of it is there; one listing.

        Raises:
            DamagedRun: a shard has not the size that it was sealed with, and who reads it will not
                be able to.
        """
        manifest, found = self.manifest(), 0
        if manifest is None:
            return False
        sizes = {receipt.shard: receipt.bytes for receipt in manifest.receipts}
        for number, entry in self._listed():
            sealed = sizes.get(number, entry.size)
            if entry.size != sealed:
                raise DamagedRun(
                    f"{self.store.uri} was complete, and is damaged: {entry.key} has "
                    f"{entry.size} bytes, {MANIFEST} says {sealed}; remove that object and run the "
                    "same spec again"
                )
            found += 1
        return found == self.plan.shards

    def shard_number(self, key: str) -> int | None:
        """Which of the plan's shards has this key; None where none has."""
        match = self._shards.fullmatch(key)
        return int(match[1]) if match and int(match[1]) < self.plan.shards else None

    def manifest(self) -> Manifest | None:
        """The seal, None while the run is not complete.

        Raises:
            PlanMismatch: it seals another plan.
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
                f"{self.store.uri}/{MANIFEST} was sealed over other bytes than are there now, "
                f"every shard of which is whole; {RESEAL_HINT}"
            )
        return manifest

    def note_attempt(self, attempt: str, facts: dict[str, Any]) -> None:
        """Write what is known of a driver's attempt."""
        self.store.put(attempt_key(attempt), dump_json(facts))

    def attempt(self, attempt: str) -> dict[str, Any]:
        """What is known of a driver's attempt; empty where nothing is."""
        if not _ATTEMPT.fullmatch(attempt):
            return {}
        try:
            facts = json.loads(self.store.get(attempt_key(attempt)))
        except (NoSuchKey, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def note_lost_driver(self, attempt: str, found_by: str) -> bool:
        """Note with an attempt that its driver is gone; False where it has noted its own end, or
        nothing is known of it."""
        facts = self.attempt(attempt)
        if not facts or "exit_code" in facts:
            return False
        lost = {"found_by": found_by, "found_at": now()}
        self.note_attempt(attempt, {**facts, "exit_code": None, "lost": lost})
        return True

    def note_status(
        self, attempt: str, done: int, failed: int, state: str, stage: str, last_event_at: str
    ) -> None:
        """Write how far the run is, what it is at, and since when nothing has happened; of a
        "running" one that is old the driver is gone."""
        facts = {
            "attempt": attempt,
            "updated_at": now(),
            "state": state,
            "stage": stage,
            "last_event_at": last_event_at,
            "shards": self.plan.shards,
            "done": done,
            "failed": failed,
        }
        self.store.put(STATUS, dump_json(facts))

    def note_failure(self, number: int, kind: str, causes: list[str]) -> None:
        """Write why a shard could not be had: "compute" sets it aside, "inspect" does not."""
        self.store.put(failed_key(number, kind), dump_json({"shard": number, "causes": causes}))

    def failed_shards(self) -> set[int]:
        """The numbers of the shards that were ever set aside; one listing.

        One that is at rest by now has been mended: nothing here deletes.
        """
        found = (_FAILED.fullmatch(entry.key) for entry in self.store.list("failed/"))
        return {int(match[1]) for match in found if match}

    def causes(self, number: int) -> list[str]:
        """Why a shard was set aside, the first cause first; empty where it is not known."""
        try:
            return [
                str(cause) for cause in json.loads(self.store.get(failed_key(number)))["causes"]
            ]
        except (NoSuchKey, ValueError, KeyError, TypeError):
            return []
