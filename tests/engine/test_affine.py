"""The affine engine: the iteration's trajectory, and its ends, without iterating."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from polyfit.engine import affine
from polyfit.errors import EngineError, Exit
from polyfit.run.keys import shard_key
from polyfit.run.parquet import FOOTER
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.store.folder import FolderStore
from polyfit.work import batches, fitting
from polyfit.work.fitting import compute
from polyfit.work.storing import run_shard

CPU = torch.device("cpu")

MIXED = (
    "fit: {degree: 3, points: 60, dtype: float64, steps: 140, noise: 0.1}\n"
    "record: {every: 20, of: [loss, coefficients, gradient_norm]}\n"
    "sweep: {range: [[-2, 2], [0, 1.5]], noise_seed: {count: 2}, optimizer: [gd, momentum], "
    "lr: [auto, {of_limit: 0.9}], seed: {count: 5}}\n"
)
"""Data, rates and optimizers give every few fits a map of their own."""


def rows_of(text: str, engine: str) -> pa.Table:
    plan = Plan.of(Spec.parse(f"name: test\nengine: {engine}\n{text}"))
    return compute(plan, Shard(0, 0, plan.fits), CPU)


def numbers(rows: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.array(rows[name].to_pylist(), dtype=np.float64)


def test_it_follows_the_iteration_over_problems_rates_and_optimizers() -> None:
    leapt, iterated = rows_of(MIXED, "affine"), rows_of(MIXED, "eager")
    assert leapt["status"].to_pylist() == iterated["status"].to_pylist()
    assert leapt["lr"].equals(iterated["lr"])
    for name in ("coefficients", "loss_history", "coefficients_history", "loss", "rmse"):
        np.testing.assert_allclose(numbers(leapt, name), numbers(iterated, name), rtol=1e-11)
    # A gradient that has almost vanished keeps the rounding of what it was made from.
    np.testing.assert_allclose(
        numbers(leapt, "gradient_norm_history"),
        numbers(iterated, "gradient_norm_history"),
        rtol=1e-9,
        atol=1e-10,
    )


def test_what_overflows_ends_as_the_iteration_says() -> None:
    text = (
        "fit: {basis: power, degree: 3, points: 60, steps: 400}\n"
        "record: {every: 50, of: [loss]}\n"
        "sweep: {lr: [{of_limit: 0.5}, {of_limit: 1.02}, {of_limit: 1.5}, {of_limit: 40}], "
        "seed: {count: 3}}"
    )
    leapt, iterated = rows_of(text, "affine"), rows_of(text, "eager")
    assert set(leapt["status"].to_pylist()) == {"completed", "diverged"}
    for name in ("status", "steps_taken"):
        assert leapt[name].to_pylist() == iterated[name].to_pylist()
    lengths = [list(map(len, rows["loss_history"].to_pylist())) for rows in (leapt, iterated)]
    assert lengths[0] == lengths[1]
    assert min(lengths[0]) < max(lengths[0])


def test_fits_that_end_at_0_are_as_near_the_iteration_as_their_roundings() -> None:
    """The best constant is 0, and half of the limit takes one step to it."""
    rows = rows_of(
        "fit: {target: sin(x), degree: 0, basis: power}\n"
        "sweep: {points: [1, 7, 100, 2000], steps: [1, 2, 3], objective: [sse, mse], "
        "seed: {count: 20}}",
        "affine",
    )
    assert max(abs(c) for (c,) in rows["coefficients"].to_pylist()) < 1e-6


def test_a_rate_that_cannot_be_held_has_taken_no_step() -> None:
    (row,) = rows_of("fit: {degree: 3, points: 60, lr: 1.0e-60}", "affine").to_pylist()
    assert (row["status"], row["steps_taken"]) == ("diverged", 0)


def test_a_fit_does_not_know_its_batch_mates() -> None:
    plan = Plan.of(Spec.parse(f"name: test\nengine: affine\n{MIXED}"))
    together = compute(plan, Shard(0, 0, plan.fits), CPU).to_pylist()
    for place in (0, 7, 33, plan.fits - 1):
        alone = compute(plan, Shard(0, place, place + 1), CPU).to_pylist()
        assert alone == together[place : place + 1]
    halves = [compute(plan, Shard(0, *ends), CPU) for ends in ((0, 29), (29, plan.fits))]
    assert [row for half in halves for row in half.to_pylist()] == together


def test_the_room_for_maps_decides_no_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    text = MIXED.replace("count: 5", "count: 50")
    whole = rows_of(text, "affine")
    monkeypatch.setattr(affine, "_MAX_MAP_BYTES", 1)
    assert rows_of(text, "affine").equals(whole)


def test_each_shard_says_how_far_it_is_from_the_iteration(tmp_path: Path) -> None:
    plan = Plan.of(Spec.parse(f"name: test\nengine: affine\n{MIXED}"))
    store = FolderStore(str(tmp_path))
    run_shard(plan, 0, store, CPU)
    data = store.get(shard_key(plan, 0))
    footer = json.loads(pq.ParquetFile(pa.BufferReader(data)).metadata.metadata[FOOTER])
    assert footer["engine"] == "affine"
    assert 0.0 < footer["affine_difference"] < 1e-12


def test_what_a_shard_says_of_the_iteration_does_not_depend_on_the_order_of_its_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each batch waits for the next one to be done, as threads may let it."""
    monkeypatch.setitem(batches.BATCH_LIMITS, "affine", batches.BatchLimits(11, 1))
    plan = Plan.of(Spec.parse(f"name: test\nengine: affine\n{MIXED}"))
    shard, run = Shard(0, 0, plan.fits), fitting.ShardFitting.run
    found = compute(plan, shard, CPU)
    held: list[batches.Batch] = []

    def last_first(work: fitting.ShardFitting, batch: batches.Batch) -> None:
        held.append(batch)
        if sum(len(batch.at) for batch in held) == plan.fits:
            for batch in reversed(held):
                run(work, batch)

    monkeypatch.setattr(fitting.ShardFitting, "run", last_first)
    assert compute(plan, shard, CPU).equals(found, check_metadata=True)


def test_a_shard_that_is_off_the_iteration_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = affine.fit_affine

    def wrong(*arguments: Any) -> Any:
        result = right(*arguments)
        return dataclasses.replace(
            result, coefficients_BM=result.coefficients_BM * np.float64(1 + 1e-9)
        )

    monkeypatch.setattr(fitting, "fit_affine", wrong)
    plan = Plan.of(Spec.parse(f"name: test\nengine: affine\n{MIXED}"))
    store = FolderStore(str(tmp_path))
    with pytest.raises(
        EngineError,
        match=r"engine affine differs from the iteration by 1e-09.*; use another engine",
    ) as e:
        run_shard(plan, 0, store, CPU)
    assert e.value.exit_code == Exit.INTERNAL
    assert list(store.list("shards/")) == []
