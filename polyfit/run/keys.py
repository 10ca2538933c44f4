"""The keys of a run's objects, all relative to the run's own folder."""

import re
from typing import Final

from polyfit.spec.plan import Plan

__all__ = [
    "ATTEMPT",
    "ATTEMPT_PREFIX",
    "FAILED_PREFIX",
    "LEASE_PREFIX",
    "MANIFEST",
    "PLAN",
    "RECEIPT",
    "REPORT",
    "SHARD_PREFIX",
    "SPEC",
    "STATUS",
    "attempt_key",
    "attempt_name",
    "failed_key",
    "failed_number",
    "lease_generation",
    "lease_key",
    "log_key",
    "sealed_key",
    "shard_key",
    "shard_number",
]

PLAN: Final = "plan.json"
SPEC: Final = "spec.yaml"
STATUS: Final = "status.json"
MANIFEST: Final = "manifest.json"
SHARD_PREFIX: Final = "shards/"
LEASE_PREFIX: Final = "lease/"
FAILED_PREFIX: Final = "failed/"
ATTEMPT_PREFIX: Final = "attempts/"
REPORT: Final = "report.html"
RECEIPT: Final = "receipt.json"

ATTEMPT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""What names an attempt."""

_SHARD: Final = re.compile(rf"{SHARD_PREFIX}(\d{{6}})-([0-9a-f]{{8}})\.parquet")
_LEASE: Final = re.compile(rf"{LEASE_PREFIX}(\d{{6,}})\.json")
_FAILED: Final = re.compile(rf"{FAILED_PREFIX}(\d{{6}})\.json")


def shard_key(plan: Plan, number: int) -> str:
    """The key of a shard. With the plan's hash in it, the shards of two plans are never mixed."""
    return sealed_key(plan.hash, number)


def sealed_key(plan_hash: str, number: int) -> str:
    """The same, where only the hash of the plan is known."""
    return f"{SHARD_PREFIX}{number:06d}-{plan_hash[:8]}.parquet"


def shard_number(plan: Plan, key: str) -> int | None:
    """Which of the plan's shards has this key; None if none."""
    match = _SHARD.fullmatch(key)
    if match is None or match[2] != plan.hash[:8]:
        return None
    number = int(match[1])
    return number if number < plan.shards else None


def attempt_key(attempt: str) -> str:
    """The key of what a driver notes about its attempt."""
    return f"{ATTEMPT_PREFIX}{attempt}.json"


def log_key(attempt: str) -> str:
    """The key of the log of an attempt's driver."""
    return f"{ATTEMPT_PREFIX}{attempt}.log"


def attempt_name(key: str) -> str | None:
    """The attempt whose driver's notes have this key; None if it is another key."""
    name = key.removeprefix(ATTEMPT_PREFIX).removesuffix(".json")
    return name if ATTEMPT.fullmatch(name) and key == attempt_key(name) else None


def lease_key(generation: int) -> str:
    """The key of a generation of the run's lease, from 1 on."""
    return f"{LEASE_PREFIX}{generation:06d}.json"


def lease_generation(key: str) -> int:
    """The generation that has this key; 0 if none."""
    match = _LEASE.fullmatch(key)
    return int(match[1]) if match else 0


def failed_key(number: int, kind: str = "compute") -> str:
    """The key of the causes why a shard could not be computed, or not be inspected."""
    return f"{FAILED_PREFIX}{number:06d}{'' if kind == 'compute' else f'-{kind}'}.json"


def failed_number(key: str) -> int | None:
    """The shard whose causes of failed computation have this key; None if none."""
    match = _FAILED.fullmatch(key)
    return int(match[1]) if match else None
