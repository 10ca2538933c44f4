"""One shard at a time: written once, the same bytes each time, inspected where it is there."""

import dataclasses
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from engines import rows_of

from polyfit.engine import batch_data
from polyfit.engine.batch import BatchInputs
from polyfit.engine.fit import fit_batch
from polyfit.errors import DamagedRun
from polyfit.numerics.formula import FUNCTIONS
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values
from polyfit.run.keys import shard_key
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.store.folder import FolderStore
from polyfit.work import batches, fitting
from polyfit.work.storing import inspect_shard, run_shard

CPU = torch.device("cpu")
TEXT = (
    "name: test\nshard: 8\nfit: {steps: 12, points: 40}\n"
    "sweep: {degree: [1, 4], lr: [auto, 100.0], seed: {count: 5}}"
)


@pytest.fixture
def plan() -> Plan:
    return Plan.of(Spec.parse(TEXT))


def test_a_shard_comes_to_rest_with_a_receipt(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    receipt = run_shard(plan, 1, store, CPU)
    data = store.get(shard_key(plan, 1))
    assert (receipt.shard, receipt.rows, receipt.bytes) == (1, 8, len(data))
    assert sum(receipt.statuses.values()) == 8
    assert set(receipt.statuses) == {"completed", "diverged"}


def test_the_same_plan_gives_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    one, other = FolderStore(str(tmp_path / "a")), FolderStore(str(tmp_path / "b"))
    assert run_shard(plan, 0, one, CPU) == run_shard(plan, 0, other, CPU, threads=2)
    assert one.get(shard_key(plan, 0)) == other.get(shard_key(plan, 0))


def test_a_shard_already_there_is_inspected_and_not_rewritten(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    first = run_shard(plan, 2, store, CPU)
    written = (tmp_path / shard_key(plan, 2)).stat().st_mtime_ns
    assert run_shard(plan, 2, store, CPU) == first
    assert inspect_shard(plan, 2, store) == first
    assert (tmp_path / shard_key(plan, 2)).stat().st_mtime_ns == written


def test_another_shard_under_a_shards_key_is_refused(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    run_shard(plan, 0, store, CPU)
    store.put(shard_key(plan, 1), store.get(shard_key(plan, 0)))
    with pytest.raises(DamagedRun, match="of other shards"):
        run_shard(plan, 1, store, CPU)


def test_a_truncated_shard_is_refused(plan: Plan, tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path))
    run_shard(plan, 0, store, CPU)
    store.put(shard_key(plan, 0), store.get(shard_key(plan, 0))[:-10])
    with pytest.raises(DamagedRun, match="cannot be read"):
        inspect_shard(plan, 0, store)


def test_shards_do_not_depend_on_their_size(plan: Plan, tmp_path: Path) -> None:
    """The same fits in shards of another size have the same rows."""
    import pyarrow.parquet as pq

    tables = []
    for size in (8, 3):
        other = dataclasses.replace(plan, shard_fits=size)
        store = FolderStore(str(tmp_path / str(size)))
        rows = []
        for number in range(other.shards):
            run_shard(other, number, store, CPU)
            path = tmp_path / str(size) / shard_key(other, number)
            rows += pq.ParquetFile(path).read().to_pylist()
        tables.append(rows)
    assert tables[0] == tables[1]
    assert [row["fit"] for row in tables[0]] == list(range(plan.fits))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ranges", ["[[-pi, pi]]", "[[-pi, pi], [-2, 1], [0, 3]]"])
def test_compiled_rows_have_all_bits_of_eager_ones(dtype: str, ranges: str) -> None:
    """For gd on a squared objective; what is judged on the points too."""
    text = (
        f"fit: {{steps: 20, points: 51, dtype: {dtype}}}\n"
        f"sweep: {{basis: [power, chebyshev], range: {ranges}, seed: {{count: 70}}}}"
    )
    eager, compiled = rows_of(text), rows_of(text, "compiled")
    assert eager.num_rows == 140 * ranges.count("], [") + 140
    for name in eager.column_names:
        assert compiled[name].equals(eager[name]), name


def test_a_batch_that_memory_cannot_hold_is_halved_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = Plan.of(Spec.parse("name: test\nfit: {steps: 20}\nsweep: {seed: {count: 21}}"))
    shard = Shard(0, 0, plan.fits)
    whole = fitting.compute(plan, shard, CPU)
    sizes: list[int] = []

    released: list[weakref.ref[torch.Tensor]] = []

    def small_memory(inputs: BatchInputs, *rest: Any) -> Any:
        sizes.append(len(inputs.lr_B))
        assert all(
            one() is None for one in released
        )  # else there would be no more room than before
        if sizes[-1] > 6:
            large = torch.zeros(sizes[-1])
            released.append(weakref.ref(large))
            raise torch.OutOfMemoryError
        return fit_batch(inputs, *rest)

    monkeypatch.setattr(fitting, "fit_batch", small_memory)
    assert fitting.compute(plan, shard, CPU).equals(whole)
    assert sizes == [21, 10, 5, 5, 11, 5, 6]


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
    assert on_a_gpu("engine: compiled", 8, 2**36, monkeypatch, 2**18) * 8 * 3 <= 2**18 + 24
    assert on_a_gpu("engine: compiled", 64, 2**36, monkeypatch, 2**18) == batches.MIN_BATCH_FITS
    assert on_a_gpu("engine: eager", 8, 2**36, monkeypatch, 2**18) > 2**18


def test_memory_that_cannot_hold_one_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fitting, "fit", no_memory)
    plan = Plan.of(Spec.parse("name: test\nfit: {steps: 20}\nsweep: {seed: {count: 3}}"))
    with pytest.raises(torch.OutOfMemoryError):
        fitting.compute(plan, Shard(0, 0, 3), CPU)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_targets_do_not_depend_on_their_neighbours(name: str) -> None:
    """2001 points leave a rest in every vector loop."""
    low = np.linspace(-3.0, 0.5, 40)
    many = target_values(f"{name}(x)", Grid(low, low + 1.7, 2001, 3, "power"))
    for place in (0, 7, 39):
        grid = Grid(float(low[place]), float(low[place] + 1.7), 2001, 3, "power")
        np.testing.assert_array_equal(many[place], target_values(f"{name}(x)", grid))


@pytest.mark.parametrize(
    "target",
    [
        "sin(x)",
        "2 / 3 - cos(1.7 * x) / 3 * sin(0.1)",
        "sqrt(abs(x)) + x / (x - 1)",  # infinite at a point of some ranges
        "sin(1e6 * x * x)",  # beyond the sine's limit on some ranges
        "exp(-x**2) + tanh(x) ** 3",
    ],
)
def test_compiled_data_have_the_bits_of_numpys(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_data, "MIN_COMPILED_ADDITIONS", 0)
    ranges = [[-1 - k / 7, k / 5] for k in range(16)]
    spec = Spec.parse(f"name: test\nfit: {{target: {target}, points: 29, steps: 2}}\n"
                      f"sweep: {{range: {ranges}}}")  # fmt: skip
    eager, compiled = (
        fitting.compute(dataclasses.replace(Plan.of(spec), engine=engine), Shard(0, 0, 16), CPU)
        for engine in ("eager", "compiled")
    )
    for name in ("optimum_loss", "coefficients", "power_coefficients", "status"):
        assert compiled[name].to_pylist() == eager[name].to_pylist(), name
    assert pc.is_null(eager["optimum_loss"]).to_pylist().count(False) >= 8
