"""One shard in the store: computed, stored once, inspected, read again."""

import hashlib
import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch

from polyfit import __version__
from polyfit.engine.cpu import loading_s
from polyfit.errors import DamagedRun
from polyfit.run.keys import shard_key
from polyfit.run.manifest import Receipt
from polyfit.run.parquet import REFIT_HINT, check_shard, count_statuses, to_parquet
from polyfit.run.reuse import ReusedRows
from polyfit.spec.fit import SQUARED
from polyfit.spec.plan import ENGINE, SCHEMA, Plan, Shard
from polyfit.store.base import Store
from polyfit.work.fitting import AFFINE_DIFFERENCE, compute
from polyfit.work.usage import Stopwatch

__all__ = ["commit", "cpu_kind", "inspect_shard", "provenance", "read_again", "run_shard"]

MAX_READINGS: Final = 3
"""Times that a shard is read again until two readings agree."""

ANY_CPU: Final = "any"
"""Stands for the kind of CPU of rows that have the same bits on all."""

_NO_LOCK: Final = nullcontext()


def run_shard(
    plan: Plan,
    number: int,
    store: Store,
    device: torch.device,
    threads: int = 1,
    compute_lock: AbstractContextManager[Any] = _NO_LOCK,
    reused: ReusedRows | None = None,
    watch: Stopwatch | None = None,
) -> Receipt:
    """Compute shard ``number`` and store it; an object that is already there is inspected.

    Args:
        plan: the plan; the caller has checked its torch.
        number: which shard.
        store: the run's folder.
        device: where to iterate.
        threads: batches side by side; each kernel runs on one thread.
        compute_lock: held while the shard is computed, and free while it is written: another call
            computes the next shard meanwhile.
        reused: rows that need no fitting.
        watch: is told how long what takes.

    Raises:
        DamagedRun: the object at the shard's key is not this shard.
        StoreError: the store cannot be used.
    """
    shard, watch = plan.shard(number), watch or Stopwatch()
    with compute_lock, watch.running("fitting"):
        loaded_s = loading_s()
        rows = compute(plan, shard, device, threads, reused)
        statuses = count_statuses(rows["status"])
        footer = _footer(plan, shard, statuses, device)
        if plan.engine == "affine":
            footer["affine_difference"] = float(rows.schema.metadata[AFFINE_DIFFERENCE])
        data = to_parquet(rows, footer)
        del rows
        compiling_s = loading_s() - loaded_s
    watch.add("compiling", compiling_s)
    watch.add("fitting", -compiling_s)
    return commit(plan, shard, data, statuses, store)


def commit(
    plan: Plan, shard: Shard, data: bytes, statuses: dict[str, int], store: Store
) -> Receipt:
    """Store a shard's object. If there is one already, that is inspected and stays: another
    writer made it, or an earlier request of ours whose answer was lost.

    Raises:
        DamagedRun: the object at the shard's key is not this shard.
        StoreError: the store cannot be used.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    if store.create(shard_key(plan, shard.number), data, sha256, rows=True):
        return Receipt(shard.number, len(data), sha256, shard.fits, statuses)
    return inspect_shard(plan, shard.number, store)


def inspect_shard(plan: Plan, number: int, store: Store) -> Receipt:
    """The receipt of a stored shard, from its object alone.

    Raises:
        DamagedRun: the object is damaged, or another shard's or plan's.
    """
    shard, key = plan.shard(number), shard_key(plan, number)
    data = store.get(key)
    try:
        return Receipt.of(shard, data, check_shard(plan, shard, data))
    except DamagedRun as error:
        raise DamagedRun(f"{store.uri}/{key}: {error}; {REFIT_HINT}") from None


def read_again(plan: Plan, receipt: Receipt, store: Store) -> Receipt:
    """The receipt of a shard once two readings in a row agree; ``receipt`` is the first.

    For stores that do not check what they receive and return.

    Raises:
        DamagedRun: the object is damaged, or differs with each reading.
    """
    for _ in range(MAX_READINGS):
        again = inspect_shard(plan, receipt.shard, store)
        if again == receipt:
            return receipt
        receipt = again
    key = shard_key(plan, receipt.shard)
    raise DamagedRun(f"{store.uri}/{key} was different in each of {MAX_READINGS} readings")


def _footer(
    plan: Plan, shard: Shard, statuses: dict[str, int], device: torch.device
) -> dict[str, Any]:
    return {
        "plan": plan.hash,
        "fits": [shard.start, shard.stop],
        "statuses": statuses,
        "polyfit": __version__,
        **provenance(plan, device),
    }


def provenance(plan: Plan, device: torch.device) -> dict[str, Any]:
    """What decides the bits of rows computed here, besides their fields and what is recorded.

    ``device`` is the one whose bits they are.
    """
    return {
        "engine": plan.engine,
        "ENGINE": ENGINE,
        "SCHEMA": SCHEMA,
        "torch": torch.__version__,
        "device": "cpu" if _by_kernels(plan) else device.type,
        "cpu": cpu_kind(plan),
    }


def _by_kernels(plan: Plan) -> bool:
    """Whether kernels of ours compute all rows: then they have the bits of a CPU on a GPU too."""
    optimizers = plan.sweep.values("optimizer")
    return plan.engine != "eager" and not any(one.traits.second_order for one in optimizers)


def cpu_kind(plan: Plan) -> str:
    """The kind of CPU if it decides the bits of rows, else ``ANY_CPU``.

    It does where torch adds over points: the order depends on the length of the CPU's vectors.
    """
    if _by_kernels(plan) or set(plan.sweep.values("objective")) <= set(SQUARED):
        return ANY_CPU
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
