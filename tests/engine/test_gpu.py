"""What holds on an accelerator: `make gpu-check` on a machine that has one."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from test_golden import CASES, GOLDEN, digest

from polyfit.engine import compiled as compiled_engine
from polyfit.engine import gpu
from polyfit.engine.batch import BatchConfig, BatchResult
from polyfit.engine.eager import Eager
from polyfit.engine.fit import pick_device
from polyfit.engine.initial import initial_values
from polyfit.engine.iteration_kernel import IterationKernel
from polyfit.engine.kernel import Kernel
from polyfit.engine.twister_kernel import MAX_SIZE
from polyfit.errors import ClusterError
from polyfit.spec.fit import OBJECTIVES
from polyfit.spec.optimizer import Optimizer
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.work import batches
from polyfit.work.fitting import compute

pytestmark = pytest.mark.skipif(
    not torch.accelerator.is_available(), reason="this machine has no accelerator"
)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA alone can be asked for this")
CPU = torch.device("cpu")
JOBS = Path(__file__).resolve().parents[2] / "jobs"


def both(text: str) -> tuple[pa.Table, pa.Table]:
    """All rows of a spec, from the CPU and from the accelerator."""
    plan = Plan.of(Spec.parse(text))
    shard = Shard(0, 0, plan.fits)
    return compute(plan, shard, CPU), compute(plan, shard, pick_device(accelerated=True))


def close(one: pa.Table, other: pa.Table, tolerance: float, names: tuple[str, ...]) -> None:
    assert one["status"].to_pylist() == other["status"].to_pylist()
    for name in names:
        for a, b in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True):
            largest = np.max(np.abs(np.array(a, dtype=np.float64)), initial=0.0)
            np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * largest, err_msg=name)


def same(one: pa.Table, other: pa.Table) -> None:
    """Equal rows; NaN is null in them."""
    for name in one.column_names:
        assert one[name].to_pylist() == other[name].to_pylist(), name


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
def test_the_tutorials_job_has_the_numbers_it_has_on_the_cpu(dtype: str, tolerance: float) -> None:
    text = (JOBS / "sine.yaml").read_text().replace("float32", dtype)
    text = f"{text}sweep: {{seed: {{count: 10}}}}\n"
    close(*both(f"{text}engine: eager\n"), tolerance, NUMBERS)
    same(*both(f"{text}engine: compiled\n"))


NUMBERS = ("loss", "max_error", "coefficients", "loss_history")
RECORDED = "record: {every: 7, of: [loss, gradient_norm, coefficients]}\n"


@CUDA
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["gd", "momentum", "adam"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_compiled_fit_has_all_bits_that_it_has_on_the_cpu(
    objective: str, optimizer: str, dtype: str
) -> None:
    rows = both(
        f"name: test\nengine: compiled\nfit: {{objective: {objective}, optimizer: {optimizer}, "
        f"dtype: {dtype}, lr: 0.001, steps: 99, points: 70, noise: 0.5}}\n"
        "sweep: {degree: [0, 3, 9], noise_seed: [1, 2], seed: {count: 150}}\n" + RECORDED
    )
    same(*rows)


@CUDA
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_ranges_of_their_own_have_all_bits_that_they_have_on_the_cpu(objective: str) -> None:
    """Powers of x, whose functions the kernel makes, or whose R is each fit's own."""
    rows = both(
        f"name: test\nengine: compiled\nfit: {{objective: {objective}, basis: power, steps: 50, "
        "lr: 0.0001, points: 70}\nsweep: {range: [[-1, 1], [0, 2], [-3, 1]], "
        "noise: [0, 0.3], dtype: [float32, float64], seed: {count: 50}}\n" + RECORDED
    )
    same(*rows)


@CUDA
def test_how_a_gpus_work_is_cut_into_calls_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "name: test\nengine: compiled\nfit: {steps: 77, points: 70}\n"
        "sweep: {objective: [sse, huber], seed: {count: 300}}\n" + RECORDED
    )
    rows = both(text)[1]
    monkeypatch.setattr(compiled_engine, "CALL_S", 1e-9)
    same(rows, both(text)[1])


@CUDA
def test_kernels_of_the_same_code_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ptx = [], gpu.ptx

    def noted(kernel: Kernel, capability: tuple[int, int]) -> str:
        made.append(kernel.key)
        return ptx(kernel, capability)

    monkeypatch.setattr(gpu, "ptx", noted)
    monkeypatch.setattr(gpu, "_FUNCTIONS", {})
    both("name: test\nengine: compiled\nsweep: {steps: [3, 5, 8], points: [20, 30]}\n")
    assert made
    assert len(made) == len(set(made))


@CUDA
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("affine", "newton")])
def test_a_gpu_meets_the_digests_that_any_machine_must(case: str) -> None:
    """Where the same test of the CPU in test_golden.py fails too, it is not for the GPU.

    ``affine`` never runs there, and torch runs ``newton``, on a GPU with other bits.
    """
    assert digest(case, pick_device(accelerated=True)) == json.loads(GOLDEN.read_text())[case]


@CUDA
@pytest.mark.parametrize("size", [1, 4, 31, MAX_SIZE])
def test_initial_values_have_all_bits_that_they_have_on_the_cpu(size: int) -> None:
    anywhere = np.random.default_rng(0).integers(0, 2**32, 100_001)
    device = pick_device(accelerated=True)
    for seeds in (np.arange(100_001), anywhere, anywhere[:33]):
        want = initial_values(seeds, size, compiled=True)
        found = initial_values(seeds, size, compiled=True, device=device)
        assert found.tobytes() == want.tobytes()


@CUDA
@pytest.mark.parametrize("objective", ["sse", "huber"])
def test_batches_side_by_side_have_the_rows_of_one_after_the_other(
    objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread in a stream of its own, whose memory it and later threads use again."""
    monkeypatch.setattr(batches, "MIN_BATCH_FITS", 500)
    plan = Plan.of(
        Spec.parse(
            f"name: test\nengine: compiled\nfit: {{objective: {objective}, steps: 300, points: 70, "
            "noise: 0.1}\nsweep: {degree: [2, 3], noise_seed: [1, 2], seed: {count: 8000}}\n"
            + RECORDED
        )
    )
    shard, device = Shard(0, 0, plan.fits), pick_device(accelerated=True)
    want = compute(plan, shard, CPU)
    for _ in range(3):
        assert compute(plan, shard, device, threads=8).equals(want)
    assert len(gpu._IDLE) <= 9
    assert all(stream.query() for stream in gpu._IDLE)


@pytest.mark.parametrize("objective", ["sse", "huber", "log_cosh"])
@pytest.mark.parametrize("optimizer", ["gd", "momentum", "adam"])
def test_a_fit_alone_is_the_fit_in_a_batch(objective: str, optimizer: str) -> None:
    plan = Plan.of(
        Spec.parse(
            f"name: test\nengine: compiled\nfit: {{objective: {objective}, optimizer: {optimizer}, "
            "dtype: float64, steps: 100}\nsweep: {seed: {count: 37}}\n"
        )
    )
    device = pick_device(accelerated=True)
    together = compute(plan, Shard(0, 0, 37), device)
    for place in (0, 17, 36):
        same(together.slice(place, 1), compute(plan, Shard(0, place, place + 1), device))


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize(
    ("fit_of", "sweep"),
    [
        ("stop: {gradient: 1.0e-3}", "lr: [{of_limit: 0.1}, {of_limit: 0.5}]"),
        ("stop: {loss_change: 1.0e-6}, optimizer: momentum, objective: mse", "points: [50, 60]"),
        ("stop: {gradient: 1.0e-3}, objective: huber", "points: [50, 60]"),
        ("steps: 1000", "lr: [{of_limit: 3.0}, {of_limit: 8.0}]"),
    ],
)
def test_fits_end_one_by_one_as_on_the_cpu(engine: str, fit_of: str, sweep: str) -> None:
    rows = both(
        f"name: test\nengine: {engine}\nfit: {{{fit_of}, dtype: float64}}\nsweep: {{{sweep}, "
        "basis: [chebyshev, legendre], range: [[-1, 1], [0, 3]], seed: {count: 50}}\n"
        "record: {every: 130, of: [loss]}\n"
    )
    taken = [table["steps_taken"].to_pylist() for table in rows]
    assert taken[0] == taken[1]
    assert len(set(taken[0])) > 1
    if engine == "compiled":
        same(*rows)
        return
    sound = [table.filter(pc.not_equal(table["status"], "diverged")) for table in rows]
    close(sound[0], sound[1], 1e-9, (*NUMBERS, "rmse"))


@pytest.mark.parametrize("objective", ["sse", "huber", "log_cosh"])
def test_newton_comes_to_the_optimum_of_the_cpu(objective: str) -> None:
    rows = both(
        f"name: test\nfit: {{optimizer: newton, objective: {objective}, dtype: float64, "
        "noise: 0.3, points: 100, steps: 100}\n"
        "sweep: {degree: [1, 5, 9], noise_seed: [1, 2], seed: {count: 10}}\nrecord: none\n"
    )
    for name in ("loss", "rmse"):
        one, other = (table[name].to_numpy() for table in rows)
        np.testing.assert_allclose(other, one, rtol=1e-9)


@contextmanager
def waits() -> Iterator[list[str]]:
    """What the host waited for the device for, as CUDA's allocator tells it."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            found += [str(one.message) for one in told if "synchroniz" in str(one.message)]


@CUDA
@pytest.mark.parametrize(
    "fit_of", ["optimizer: gd", "optimizer: adam, lr: 0.01", "stop: {gradient: 1.0e-30}"]
)
def test_eager_waits_once_per_recorded_point_and_at_the_end(
    fit_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.of(
        Spec.parse(
            f"name: test\nengine: eager\nfit: {{{fit_of}, steps: 1000, points: 50}}\n"
            "sweep: {seed: {count: 300}}\nrecord: {every: 100, of: [loss, coefficients]}\n"
        )
    )
    counts, iterate = [], Eager.iterate

    def counted(self: Eager) -> BatchResult:
        with waits() as found:
            result = iterate(self)
        counts.append(len(found))
        return result

    monkeypatch.setattr(Eager, "iterate", counted)
    compute(plan, Shard(0, 0, plan.fits), pick_device(accelerated=True))
    at_the_end = 8
    assert len(counts) == 1
    assert 0 < counts[0] <= 10 + at_the_end


@CUDA
def test_the_driver_has_what_it_refuses_in_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ptx", lambda kernel, capability: ".version 9000.0\n")
    # Of a degree that no other test here has: functions are kept.
    kind = BatchConfig(7, 50, "sse", Optimizer("gd"), 10, None, torch.float32)
    with pytest.raises(ClusterError, match=r"driver refuses a kernel: CUDA_ERROR_.*engine: eager"):
        gpu.run(IterationKernel(kind, True, True, ()), {}, (), (), torch.device("cuda"), bool)


@CUDA
def test_a_batch_beyond_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 MiB for a batch whose residuals alone take 31, and several of their size at once."""
    plan = Plan.of(
        Spec.parse(
            "name: test\nengine: eager\nfit: {objective: huber, steps: 10, points: 2000}\n"
            "sweep: {seed: {count: 4096}}\nrecord: none\n"
        )
    )
    shard, device = Shard(0, 0, plan.fits), pick_device(accelerated=True)
    want = compute(plan, shard, device)
    sizes: list[int] = []
    halves = batches.Batch.halves

    def counted(self: Any) -> Any:
        sizes.append(len(self.at))
        return halves(self)

    monkeypatch.setattr(batches.Batch, "halves", counted)
    torch.accelerator.memory.empty_cache()
    total = torch.accelerator.memory.get_memory_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(40 * 2**20 / total)
    try:
        found = compute(plan, shard, device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sizes[0] == 4096
    close(want, found, 1e-5, ("loss", "max_error", "coefficients"))
