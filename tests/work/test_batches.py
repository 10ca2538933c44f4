"""How many fits a batch may hold."""

import numpy as np
import pytest
import torch

from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.work import batches, fitting


def on_a_gpu(
    text: str,
    threads: int,
    free: int,
    monkeypatch: pytest.MonkeyPatch,
    fits: int = 2**20,
    kept: int = 0,
) -> int:
    """How many of ``fits`` alike a batch may hold where so many bytes of memory are free, and
    torch keeps so many."""
    told = {
        "get_memory_info": (free, 2 * free),
        "memory_reserved": 2**20 + kept,
        "memory_allocated": 2**20,
    }
    for name, number in told.items():
        monkeypatch.setattr(torch.accelerator.memory, name, lambda device, told=number: told)
    plan = Plan.of(Spec.parse(f"name: test\n{text}\nsweep: {{seed: {{count: 3}}}}"))
    work = fitting.ShardFitting(plan, Shard(0, 0, 3), torch.device("cuda"), threads=threads)
    return work.batches.max_fits(work.batches.example(0), fits)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("degree", [1, 9, 30])
def test_no_array_of_an_accelerators_batch_has_more_numbers_than_32_bits_count(
    degree: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its memory: a design for each range, the state and all that a fit has of its own."""
    for objective, numbers in (
        ("sse", (degree + 2) * (degree + 6)),
        ("huber", 100 * (degree + 1)),
    ):
        text = f"engine: {engine}\nfit: {{degree: {degree}, objective: {objective}, points: 100}}"
        fits = on_a_gpu(text, 1, 10**15, monkeypatch, 10**12)
        assert 10**6 < fits * numbers < 2**31


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize(
    ("fit_of", "numbers"),
    [
        ("degree: 3", 3 * 4 + 4 + 10),  # state, its moments, ends; q; R
        ("degree: 3, optimizer: adam", 4 * 4 + 4 + 10),
        ("degree: 3, objective: huber, points: 500", 3 * 4 + 500),
    ],
)
def test_batches_of_all_threads_take_half_of_the_free_memory_at_most(
    engine: str, fit_of: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is recorded."""
    text = f"engine: {engine}\nfit: {{{fit_of}, steps: 1000}}\nrecord: "
    told = {"none": 0, "{every: 1, of: [loss]}": 1000, "{every: 2, of: [coefficients]}": 2000}
    for record, more in told.items():
        for threads in (1, 8):
            fits = on_a_gpu(text + record, threads, 2**30, monkeypatch)
            assert 0 < fits * threads * 8 * (numbers + more) <= 2**29


def test_memory_that_torch_keeps_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    want = on_a_gpu("engine: eager", 1, 2**30, monkeypatch)
    assert on_a_gpu("engine: eager", 1, 2**29, monkeypatch, kept=2**29) == want


def test_each_thread_has_batches_enough_for_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_gpu("engine: compiled", 1, 2**36, monkeypatch, 2**18) >= 2**18
    assert on_a_gpu("engine: compiled", 8, 2**36, monkeypatch, 2**18) * 8 * 3 <= 2**18 + 24
    assert on_a_gpu("engine: compiled", 64, 2**36, monkeypatch, 2**18) == batches.MIN_BATCH_FITS
    assert on_a_gpu("engine: eager", 8, 2**36, monkeypatch, 2**18) > 2**18


def test_only_one_half_of_a_configs_first_batch_is_the_first() -> None:
    """The affine engine checks the first: a shard is not checked twice where memory ran out."""
    batch = batches.Batch(np.arange(4), np.array([0, 0, 1, 2]), first_of_config=True)
    first, second = batch.halves()
    assert (first.first_of_config, second.first_of_config) == (True, False)
    assert second.problem_of.tolist() == [0, 1]
