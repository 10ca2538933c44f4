"""The compiled engine: autograd's gradient, the same bits on any machine, code kept and missed."""

import ctypes
import importlib.util
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from engines import CPU, rows_of
from llvmlite import binding as llvm

from polyfit.engine import compiled, cpu, gpu, penalty
from polyfit.engine.affine_kernel import AffinePowerKernel
from polyfit.engine.batch import BatchConfig, BatchInputs, BatchResult
from polyfit.engine.compiled import fit_compiled
from polyfit.engine.data_kernels import reduce_compiled, target_compiled
from polyfit.engine.fit import fit_batch
from polyfit.engine.initial import TwisterKernel, initial_values
from polyfit.engine.iteration_kernel import IterationKernel
from polyfit.engine.kernel import Kernel, cpu_text, gpu_text
from polyfit.engine.layout import integers, kernel_of, layout
from polyfit.engine.trace import forward, trace
from polyfit.errors import ClusterError, Exit
from polyfit.numerics import elementary
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values
from polyfit.numerics.reduction import reduce
from polyfit.spec.fit import OBJECTIVES, SQUARED, Stop
from polyfit.spec.optimizer import Optimizer
from polyfit.work import fitting

LEVELS = {
    "x86-64-v2": ("sse4.2", "popcnt"),
    "x86-64-v3": ("avx2", "bmi2", "fma", "f16c"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
"""Kinds of CPU, and features that each needs beyond those before."""


def runs(level: str) -> bool:
    """Whether this machine runs code for a kind of CPU."""
    features, needed = llvm.get_host_cpu_features(), list(LEVELS)[: list(LEVELS).index(level) + 1]
    return all(features.get(name, False) for one in needed for name in LEVELS[one])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for machine code, in a process that has none yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POLYFIT_CACHE", str(folder))
    forget(monkeypatch)
    yield folder
    monkeypatch.undo()
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has loaded and learnt of the machine, as a new process has to."""
    monkeypatch.setattr(cpu, "_FUNCTIONS", {})
    for known in (cpu._check, cpu._host, cpu.cache_folder):
        known.cache_clear()


# --- the gradient is autograd's --------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 3, 9, 30])
@pytest.mark.parametrize("objective", SQUARED)
def test_updates_of_a_squared_objective_have_the_bits_of_autograds(
    objective: str, degree: int
) -> None:
    optimizer = "adam" if degree < 30 else "gd"
    text = (
        f"fit: {{degree: {degree}, objective: {objective}, optimizer: {optimizer}, steps: 12, "
        "points: 40, lr: 0.001, noise: 0.5}\nsweep: {seed: {count: 9}}\n"
        "record: {every: 1, of: [loss, gradient_norm, coefficients]}"
    )
    assert rows_of(text, "compiled").equals(rows_of(text, "eager"))


@pytest.mark.parametrize("degree", [0, 1, 3, 9, 30])
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name not in SQUARED])
def test_updates_over_all_points_are_autograds_to_rounding(objective: str, degree: int) -> None:
    """With a rate of 1 a coefficient changes by its entry of the gradient, as large as N."""
    text = (
        f"fit: {{degree: {degree}, objective: {objective}, steps: 3, points: 40, lr: 1.0, "
        "noise: 1, dtype: float64}\nsweep: {seed: {count: 9}}\n"
        "record: {every: 1, of: [loss, gradient_norm, coefficients]}"
    )
    one, other = rows_of(text, "compiled"), rows_of(text, "eager")
    for name in ("loss_history", "gradient_norm_history", "coefficients_history"):
        found, want = (np.array(rows[name].to_pylist()) for rows in (one, other))
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


def test_an_operation_that_cannot_be_emitted_is_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"no elementwise operation.*cosh"):
        trace(torch.cosh, 1, torch.float32)


def test_what_no_output_needs_is_not_traced() -> None:
    def wasteful(x: torch.Tensor) -> torch.Tensor:
        _ = x * 3.0
        return x * x

    graph = forward(wasteful, 1, torch.float32)
    assert [operation.name for operation in graph.operations] == ["mul"]


# --- the same bits for any lanes and any CPU -------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """What ``fit_batch`` gets for a batch."""

    inputs: BatchInputs

    def compiled(self, **changed: Any) -> BatchResult:
        """The batch by the compiled engine, with other values of some fields of its config."""
        config = replace(self.inputs.config, **changed)
        return fit_compiled(replace(self.inputs, config=config), CPU)

    def by_kernel(self, lanes: int, width: int, machine: cpu.Machine = cpu.HOST) -> list[bytes]:
        """The results of its kernel for so many lanes, in an array of whole ``width``."""
        inputs, count = self.inputs, len(self.inputs.lr_B)
        kernel = kernel_of(inputs)
        arrays = layout(kernel, inputs, width)
        function = cpu.Function(kernel, lanes, cpu.machine_code(cpu_text(kernel, lanes), machine))
        call = function.bind({**arrays, **integers(kernel, arrays, width)})
        call(begin=0, end=len(arrays["taken"]), update=0, until=inputs.config.steps, slot=0)
        taken = arrays["taken"][:count]
        for name in kernel.record:  # what stands after its end means nothing
            values = np.moveaxis(arrays[name][..., :count], -1, 1)
            values[np.array(inputs.updates)[:, None] >= taken] = 0.0
        names = ("final", "taken", "status", *kernel.record)
        return [np.ascontiguousarray(arrays[name][..., :count]).tobytes() for name in names]


def batch_of(text: str) -> Batch:
    """The one batch of a spec."""
    found: list[Batch] = []

    def caught(inputs: BatchInputs, *rest: Any) -> BatchResult:
        found.append(Batch(inputs))
        return fit_batch(inputs, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit_batch", caught)
        rows_of(text)
    (batch,) = found
    return batch


RECORD = "record: {every: 7, of: [loss, gradient_norm, coefficients]}"
BATCHES = [
    "fit: {degree: 3, steps: 33, points: 30}\nsweep: {seed: {count: 70}}",
    "fit: {degree: 2, steps: 33, points: 30, optimizer: adam, objective: mse, dtype: float64, "
    "stop: {gradient: 0.1}}\nsweep: {lr: [0.01, 0.3], seed: {count: 35}}",
    "fit: {degree: 2, steps: 33, points: 90, objective: huber, optimizer: momentum, noise: 1, "
    "stop: {loss_change: 0.01}}\nsweep: {noise_seed: {count: 7}, seed: {count: 10}}",
    "fit: {degree: 2, steps: 33, points: 30, objective: log_cosh, basis: power, lr: 0.001}\n"
    "sweep: {range: [[-1, 1], [0, 2]], seed: {count: 35}}",
    "fit: {degree: 2, steps: 33, points: 30, objective: log_cosh, dtype: float64}\n"
    "sweep: {seed: {count: 70}}",
]
"""One design or many, one row of data or many, both dtypes, fits that end early."""


@pytest.mark.parametrize("text", BATCHES, ids=range(len(BATCHES)))
def test_lanes_and_layout_change_no_bit(text: str) -> None:
    """A lane alone on fits side by side is what a thread of a GPU computes."""
    batch = batch_of(f"{text}\n{RECORD}")
    want = batch.by_kernel(8, 8)
    assert len(want) == 6
    for lanes, width in ((1, 70), (4, 4), (16, 16), (32, 32), (64, 64)):
        assert batch.by_kernel(lanes, width) == want, lanes
    result = batch.compiled()
    assert want[0] == np.ascontiguousarray(result.coefficients_BM.T).tobytes()
    assert want[1] == result.steps_taken_B.tobytes()


@pytest.mark.parametrize("level", LEVELS)
def test_rows_have_the_same_bits_for_any_kind_of_cpu(
    level: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From initial values to the evaluation, by each kernel that there is."""
    if not runs(level):
        pytest.skip(f"this machine does not run {level}")
    texts = [
        (
            "compiled",
            "fit: {degree: 2, steps: 23, points: 37, lr: 0.001, optimizer: adam, noise: 0.5}\n"
            f"sweep: {{objective: [mse, log_cosh], basis: [power, legendre], seed: {{count: 40}}}}"
            f"\n{RECORD}",
        ),
        (
            "compiled",
            "fit: {degree: 2, steps: 23, points: 37, objective: huber, basis: power, target: "
            "sin(x) / (2 + cos(x)) + sqrt(abs(x))}\nsweep: {range: [[-1, 1], [0, 3], [-2, 2]], "
            f"seed: {{count: 15}}}}\n{RECORD}",
        ),
        ("affine", f"fit: {{degree: 2, steps: 99}}\nsweep: {{seed: {{count: 40}}}}\n{RECORD}"),
    ]
    want = [rows_of(text, engine) for engine, text in texts]
    forget(monkeypatch)
    monkeypatch.setattr(cpu, "_host", lambda: (level, ""))
    for (engine, text), rows in zip(texts, want, strict=True):
        assert rows_of(text, engine).equals(rows)


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
@pytest.mark.parametrize("text", BATCHES, ids=range(len(BATCHES)))
def test_how_work_is_cut_into_calls_changes_no_bit(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    learn = compiled.Slices._learn

    def counted(self: compiled.Slices, done: int, before: float) -> None:
        calls.append(done)
        learn(self, done, before)

    monkeypatch.setattr(compiled.Slices, "_learn", counted)
    batch = batch_of(f"{text}\n{RECORD}")
    want = batch.compiled()
    calls.clear()
    monkeypatch.setattr(compiled, "CALL_S", seconds)
    monkeypatch.setattr(compiled, "_FIRST_TERMS", 1 if seconds < 1 else 1 << 40)
    found = batch.compiled()
    assert len(calls) == 1 if seconds > 1 else len(calls) >= 33
    assert found.coefficients_BM.tobytes() == want.coefficients_BM.tobytes()
    assert found.steps_taken_B.tobytes() == want.steps_taken_B.tobytes()
    assert found.status_B.tobytes() == want.status_B.tobytes()
    for name, values in want.recorded.items():
        before = np.array(batch.inputs.updates)[:, None] < want.steps_taken_B
        assert found.recorded[name][before].tobytes() == values[before].tobytes()


def test_a_signal_is_answered_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """These updates would take an hour."""
    begun, learn = threading.Event(), compiled.Slices._learn

    def told(self: compiled.Slices, done: int, before: float) -> None:
        learn(self, done, before)
        begun.set()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(compiled.Slices, "_learn", told)
    batch = batch_of("fit: {degree: 3, steps: 10}\nsweep: {seed: {count: 16}}\nrecord: none")
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        batch.compiled(steps=10**12)
    thread.join()


# --- other targets ---------------------------------------------------------------------------


def iteration(
    objective: str, optimizer: str, dtype: torch.dtype, stop: bool = True
) -> IterationKernel:
    """The kernel of degree 3 that records everything; its data are each fit's own."""
    rule, beta = Stop("gradient", 1e-3), 0.9 if optimizer == "momentum" else 0.0
    config = BatchConfig(
        3, 50, objective, Optimizer(optimizer, beta), 100, rule if stop else None, dtype
    )
    return IterationKernel(config, True, False, ("loss", "gradient_norm", "coefficients"))


def aarch64(kernel: Kernel, lanes: int) -> str:
    """The assembly of a kernel for an AArch64 CPU."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError:
        pytest.skip("this llvmlite makes no code for AArch64")
    machine = target.create_target_machine(cpu="neoverse-n1", opt=3)
    module = llvm.parse_assembly(f'target triple = "{triple}"\n{cpu_text(kernel, lanes)}')
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return str(machine.emit_assembly(module))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_aarch64_fuses_what_is_fused_everywhere_and_calls_nothing(objective: str) -> None:
    text = aarch64(iteration(objective, "adam", torch.float32), 8)
    assert bool(re.search(r"\bfml[as]\b", text)) == (objective not in SQUARED)
    assert not re.search(r"\bbl\b", text)
    assert re.search(r"\bfmul\s+v", text)


OPERATION = re.compile(r"\b(?:add|sub|mul|fma|mad|div|rcp|sqrt|rsqrt)\.[a-z0-9.]*f(?:32|64)\b")


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("optimizer", ["gd", "momentum", "adam"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_gpu_rounds_each_operation_as_ieee_754_says(
    objective: str, optimizer: str, capability: tuple[int, int], tmp_path: Path
) -> None:
    """Without .rn the assembler could fuse a product and a sum; .ftz would flush small numbers."""
    assembler = ptxas()
    for dtype, registers in ((torch.float32, 128), (torch.float64, 176)):
        text = gpu.ptx(iteration(objective, optimizer, dtype), capability)
        operations = OPERATION.findall(text)
        assert len(operations) > 50
        assert all(".rn." in operation for operation in operations)
        assert ("fma.rn" in text) == (objective not in SQUARED)
        assert ".approx" not in text
        assert ".ftz" not in text
        assert "call" not in text
        used, spilled = assembled(assembler, text, capability, tmp_path)
        assert (used <= registers, spilled) == (True, 0), used


@pytest.mark.parametrize(
    ("objective", "degree", "optimizer", "most"),
    [
        ("sse", 9, "gd", 0),
        ("huber", 9, "adam", 0),
        ("sse", 30, "gd", 3_200),  # R alone is 496 numbers, more than a thread has registers
        ("huber", 30, "gd", 300),
    ],
)
def test_a_gpus_thread_spills_little_but_where_its_numbers_are_many(
    objective: str, degree: int, optimizer: str, most: int, tmp_path: Path
) -> None:
    kernel = iteration(objective, optimizer, torch.float32)
    kernel = replace(kernel, config=replace(kernel.config, degree=degree), record=("loss",))
    spilled = assembled(ptxas(), gpu.ptx(kernel, (9, 0)), (9, 0), tmp_path)[1]
    assert spilled <= most, spilled


def test_a_gpu_draws_initial_values_with_few_registers(tmp_path: Path) -> None:
    """Its state stands in memory of the thread, in a place of fixed size."""
    for capability in ((8, 0), (9, 0)):
        text = gpu.ptx(TwisterKernel(), capability)
        assert all(".rn." in operation for operation in OPERATION.findall(text))
        assert not re.search("fma|call|alloca", text)
        used, spilled = assembled(ptxas(), text, capability, tmp_path)
        assert (used <= 64, spilled) == (True, 0), used


def test_newer_gpus_get_what_their_driver_makes_code_of(tmp_path: Path) -> None:
    text = gpu.ptx(iteration("sse", "gd", torch.float32), (12, 0))
    assert ".target sm_90" in text
    assembled(ptxas(), text, (12, 0), tmp_path)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("text", BATCHES, ids=range(len(BATCHES)))
def test_what_a_gpus_threads_are_told_has_the_bits_of_the_cpus(text: str, groups: int) -> None:
    """70 fits by groups of 32 threads: some threads take two fits, or none."""
    batch = batch_of(f"{text}\n{RECORD}")
    kernel, count = kernel_of(batch.inputs), len(batch.inputs.lr_B)
    arrays = layout(kernel, batch.inputs, count)
    numbers = integers(kernel, arrays, count)
    events = {"update": 0, "until": batch.inputs.config.steps, "slot": 0}
    by_threads(kernel, {**arrays, **numbers, **events, "begin": 0, "end": count}, groups)
    want = batch.compiled()
    assert arrays["final"].tobytes() == np.ascontiguousarray(want.coefficients_BM.T).tobytes()
    assert arrays["taken"].tobytes() == want.steps_taken_B.tobytes()
    assert arrays["status"].tolist() == want.status_B.tolist()
    for name, values in want.recorded.items():
        before = np.array(batch.inputs.updates)[:, None] < want.steps_taken_B
        found = np.moveaxis(arrays[name], -1, 1)
        assert found[before].tobytes() == values[before].tobytes()


def test_initial_values_drawn_by_a_gpus_threads_have_the_bits_of_the_cpus() -> None:
    seeds = np.arange(2**32 - 70, 2**32, dtype=np.uint32)
    values, near = np.zeros((31, 70), dtype=np.float32), np.zeros(70, dtype=np.int32)
    arrays = {"seeds": seeds, "values": values, "near": near}
    by_threads(TwisterKernel(), {**arrays, "batch": 70, "begin": 0, "end": 70, "size": 31}, 2)
    assert not near.any()
    want = initial_values(seeds.astype(np.int64), 31, compiled=True)
    assert np.ascontiguousarray(values.T).tobytes() == want.tobytes()


def by_threads(kernel: Kernel, arguments: dict[str, Any], groups: int, size: int = 32) -> None:
    """Run here what is written for a GPU, one thread of some groups after the other."""
    text = gpu_text(kernel).replace(" addrspace(1)", "").replace("ptx_kernel ", "")
    registers = ("tid.x", "ctaid.x", "ntid.x", "nctaid.x")
    for register in registers:
        read = f"call i32 @llvm.nvvm.read.ptx.sreg.{register}()"
        assert read in text
        text = text.replace(read, f"add i32 %{register}, 0")
    numbers = ", ".join(f"i32 %{register}" for register in registers)
    code = cpu.machine_code(text.replace("@run(", f"@run({numbers}, "))
    function = cpu.Function(kernel, 1, code)
    given = [
        value if isinstance(value, int) else value.ctypes.data
        for value in (arguments.get(name, 0) for name in kernel.arguments)
    ]
    kinds = [ctypes.c_int32] * 4 + [ctypes.c_int64] * len(given)
    run = ctypes.CFUNCTYPE(None, *kinds)(function._engine.get_function_address("run"))
    for group in range(groups):
        for thread in range(size):
            run(thread, group, size, groups, *given)


def ptxas() -> str:
    """NVIDIA's assembler, of its wheel."""
    found = importlib.util.find_spec("nvidia.cuda_nvcc")
    assert found is not None
    assert found.submodule_search_locations is not None
    (place,) = found.submodule_search_locations
    return str(Path(place) / "bin" / "ptxas")


def assembled(
    assembler: str, text: str, capability: tuple[int, int], folder: Path
) -> tuple[int, int]:
    """The registers of a thread, and the bytes that it spills."""
    (folder / "kernel.ptx").write_text(text)
    arch = f"-arch=sm_{capability[0]}{capability[1]}"
    result = subprocess.run(
        [assembler, "-v", arch, "kernel.ptx", "-o", "kernel.cubin"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    (registers,) = re.findall(r"Used (\d+) registers", result.stderr)
    (spilled,) = re.findall(r"(\d+) bytes spill stores", result.stderr)
    return int(registers), int(spilled)


# --- what is written of functions ------------------------------------------------------------


def true_log_cosh(x: float) -> float:
    return float(mpmath.log(mpmath.cosh(mpmath.mpf(x))))


def true_tanh(x: float) -> float:
    return float(mpmath.tanh(mpmath.mpf(x)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_emitted_log_cosh_and_its_slope_are_those_of_mpmath(dtype: torch.dtype) -> None:
    """One point whose datum is 0: the residual is the coefficient, at first the initial value."""
    batch = batch_of(
        "fit: {degree: 0, points: 1, objective: log_cosh, target: 0 * x, steps: 1, "
        f"lr: 0.001, dtype: {str(dtype).removeprefix('torch.')}}}\n"
        "record: {every: 1, of: [loss, gradient_norm]}"
    )
    sizes = np.concatenate([np.logspace(-15, 2.5, 200), np.linspace(0, 12, 400), [38, 39, 45]])
    x = np.concatenate([sizes, -sizes, [0.6249999, 0.625, 7.9, 7.9000001]]).astype(np.float32)
    same = batch.inputs.take(np.zeros(len(x), dtype=np.int64))
    result = fit_compiled(replace(same, start_BM=x[:, None]), CPU)
    loss, slope = (result.recorded[name][0] for name in ("loss", "gradient_norm"))
    with mpmath.workdps(40):
        values = np.array([true_log_cosh(one) for one in x.tolist()])
        slopes = np.array([abs(true_tanh(one)) for one in x.tolist()])
    epsilon = torch.finfo(dtype).eps
    # The value is a difference of numbers of about 1 where it is small.
    np.testing.assert_allclose(loss, values, rtol=2 * epsilon, atol=2 * epsilon)
    np.testing.assert_allclose(slope, slopes, rtol=4e-7 if dtype == torch.float32 else 4 * epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_written_exponential_and_logarithm_are_those_of_mpmath(dtype: torch.dtype) -> None:
    x = -torch.cat([torch.linspace(0, 78, 500), torch.logspace(-30, 0, 200)]).to(dtype)
    found = penalty._exponential(x).double().numpy()
    epsilon = torch.finfo(dtype).eps
    with mpmath.workdps(40):
        want = np.array([float(mpmath.exp(mpmath.mpf(one))) for one in x.tolist()])
    np.testing.assert_allclose(found, want, rtol=2 * epsilon)
    x = torch.cat([torch.linspace(0, 1, 500), torch.logspace(-30, 0, 200)]).to(dtype)
    found = penalty._log_of_share(x).double().numpy()
    with mpmath.workdps(40):
        want = np.array([float(mpmath.log(2 / (1 + mpmath.mpf(one)))) for one in x.tolist()])
    np.testing.assert_allclose(found, want, rtol=2 * epsilon, atol=epsilon)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", ["huber", "l1", "log_cosh"])
def test_written_penalties_keep_what_is_no_number(objective: str, dtype: torch.dtype) -> None:
    some = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0], dtype=dtype)
    found = penalty.ELEMENTARY_PENALTIES[objective](some)
    assert found[0].isnan()
    assert not found[1:3].isfinite().any()
    assert found[3:].tolist() == [0.0, 0.0]


# --- data ------------------------------------------------------------------------------------

POINTS = (1, 2, 3, 15, 16, 17, 31, 32, 33, 100)


@pytest.mark.parametrize("points", POINTS)
def test_the_compiled_reduction_has_the_bits_of_numpys(points: int) -> None:
    y = (
        np.random.default_rng(points).standard_normal((7, points))
        * 10.0 ** np.arange(-3, 4)[:, None]
    )
    y[5, points // 2], y[6, 0] = np.inf, np.nan
    for degree in (0, 1, 8, 14):
        if degree < points:
            for one, other in zip(reduce_compiled(degree, y), reduce(degree, y), strict=True):
                np.testing.assert_array_equal(one, other)
                assert one[:5].tobytes() == other[:5].tobytes()


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize(
    "target",
    ["sin(x)", "2 / 3 - cos(1.7 * x) / 3 * sin(0.1)", "sqrt(abs(x)) + x / (x - 1)", "x - 5"],
)
def test_compiled_targets_have_the_bits_of_numpys(target: str, points: int) -> None:
    low = np.linspace(-3, 1, 9)
    grid = Grid(low, low + np.linspace(0.1, 4, 9), points, 3, "power")
    with np.errstate(all="ignore"):
        want = target_values(target, grid)
    y, scale, reach = target_compiled(target, grid)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(scale, np.abs(want).max(axis=1))
    if target == "sin(x)":
        np.testing.assert_array_equal(reach, np.abs(grid.x()).max(axis=1))


def test_arguments_beyond_the_sines_limit_are_told() -> None:
    grid = Grid(np.array([0.0, -1.0]), np.array([1.0, 2 * elementary.LIMIT]), 5, 0, "power")
    reach = target_compiled("sin(x)", grid)[2]
    assert (reach <= elementary.LIMIT).tolist() == [True, False]


@pytest.mark.parametrize("basis", ["chebyshev", "power"])
def test_the_compiled_evaluation_is_the_eager_one(basis: str) -> None:
    """Of the same coefficients: a step of 1e-30 moves none. Sums are added in another order."""
    text = (
        f"fit: {{degree: 1, basis: {basis}, steps: 1, lr: 1.0e-30, dtype: float64, noise: 0.3}}\n"
        f"sweep: {{objective: [{', '.join(OBJECTIVES)}], points: {[*POINTS[1:]]}, "
        "range: [[-1, 1], [0, 3]], seed: {count: 3}}\nrecord: none"
    )
    found, want = rows_of(text, "compiled"), rows_of(text, "eager")
    for name in set(want.column_names) - {"loss", "gradient_norm"}:
        assert found[name].equals(want[name]), name
    squared = np.isin(want["objective"].to_pylist(), SQUARED)
    for name in ("loss", "gradient_norm"):
        one, other = found[name].to_numpy(), want[name].to_numpy()
        np.testing.assert_array_equal(one[squared], other[squared])
        np.testing.assert_allclose(one, other, rtol=1e-12)


# --- code that is kept -----------------------------------------------------------------------

TEXT = "fit: {degree: 1, steps: 20, points: 30}\nsweep: {seed: {count: 40}}"
PROGRAM = """
    import sys
    sys.path.insert(0, "tests")
    from engines import rows_of
    rows = rows_of(TEXT, "compiled")
    print(hash(str(rows.to_pylist())))
    from polyfit.engine import trace
    traced = trace.forward.cache_info().misses + trace.pullback.cache_info().misses
    print(traced, "sympy" in sys.modules)
"""


def program(cache: Path, body: str = PROGRAM) -> subprocess.Popen[str]:
    """A process of its own that computes ``TEXT``."""
    return subprocess.Popen(
        [sys.executable, "-c", f"TEXT = {TEXT!r}\n{textwrap.dedent(body)}"],
        env={**os.environ, "POLYFIT_CACHE": str(cache), "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def kept(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.iterdir()}


def test_two_processes_at_once_make_the_same_and_a_third_traces_nothing(cache: Path) -> None:
    one, other = [answer(process) for process in [program(cache), program(cache)]]
    assert one[0] == other[0]
    files = kept(cache)
    assert {Path(name).suffix for name in files} == {".o"}
    assert cache.stat().st_mode & 0o777 == 0o700
    warm = answer(program(cache))
    assert warm == [one[0], "0 False"]
    assert kept(cache) == files


@pytest.mark.parametrize("damage", ["empty", "begun", "half", "but one", "flipped", "not ours"])
def test_damaged_code_is_made_again_without_a_word(
    damage: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    want = rows_of(TEXT, "compiled")
    files = kept(cache)
    for name, whole in files.items():
        half = len(whole) // 2
        bad = {
            "empty": b"",
            "begun": whole[:20],
            "half": whole[:half],
            "but one": whole[:-1],
            "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
            "not ours": whole[32:],
        }[damage]
        (cache / name).write_bytes(bad)
    forget(monkeypatch)
    assert rows_of(TEXT, "compiled").equals(want)
    assert kept(cache) == files
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_can_write_is_not_used(
    mode: int, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They could put code there that we would run."""
    cache.mkdir()
    cache.chmod(mode)
    check_without_cache(capfd)
    assert kept(cache) == {}


@pytest.mark.parametrize("place", ["file", "file/cache"])
def test_what_cannot_be_a_folder_is_not_used(
    place: str,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch(0o600)
    monkeypatch.setenv("POLYFIT_CACHE", str(tmp_path / place))
    check_without_cache(capfd)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_we_cannot_write_is_not_used(
    cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(0o500)
    check_without_cache(capfd)


def test_a_full_disk_is_borne(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of files stands for the disk: the same error comes from the same call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        rows = rows_of(TEXT, "compiled")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert rows.equals(rows_of(TEXT, "compiled"))
    assert kept(cache) == {}
    assert capfd.readouterr() == ("", "")


def check_without_cache(capfd: pytest.CaptureFixture[str]) -> None:
    found = rows_of(TEXT, "compiled")
    assert found.equals(rows_of(TEXT, "eager"))
    assert capfd.readouterr() == ("", "")


def test_code_is_kept_in_the_users_cache_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cpu.cache_folder.__wrapped__
    assert folder() == tmp_path / "polyfit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "polyfit"


@pytest.mark.parametrize("change", ["kernel", "lanes", "torch", "llvmlite", "processor", "sources"])
def test_a_file_is_named_by_all_that_decides_its_code(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = iteration("sse", "gd", torch.float32)
    same = iteration("sse", "gd", torch.float32)
    before, lanes = cpu._named(kernel, 16), 16
    assert cpu._named(same, 16) == before
    match change:
        case "kernel":
            kernel = iteration("sse", "gd", torch.float64)
        case "lanes":
            lanes = 32
        case "torch" | "llvmlite":
            monkeypatch.setattr(f"{change}.__version__", "9.9.9")
        case "processor":
            monkeypatch.setattr(cpu, "_host", lambda: ("x86-64-v2", ""))
        case "sources":
            monkeypatch.setattr(cpu, "_sources", lambda: "others")
    assert cpu._named(kernel, lanes) != before


def kernels() -> Iterator[Kernel]:
    """Kernels of the iteration that differ in one thing."""
    for objective in OBJECTIVES:
        for optimizer in ("gd", "momentum", "adam"):
            for stop in (True, False):
                yield iteration(objective, optimizer, torch.float64, stop)
    one = iteration("sse", "gd", torch.float32)
    yield one
    yield replace(one, one_design=False)
    yield replace(one, one_data=True)
    yield replace(one, record=("loss",))
    yield replace(one, config=replace(one.config, degree=4))
    yield replace(one, config=replace(one.config, stop=Stop("loss_change", 1e-3)))
    affine = AffinePowerKernel(3, "sse", 0, True, True, ("loss",), False)
    yield affine
    yield replace(affine, degree=2)
    yield replace(affine, objective="mse")
    yield replace(affine, moments=1)
    yield replace(affine, one_map=False)
    yield replace(affine, one_R=False)
    yield replace(affine, record=())
    yield replace(affine, single=True)


def test_kernels_that_differ_have_other_words() -> None:
    words = [kernel.key for kernel in kernels()]
    assert len(set(words)) == len(words)


def test_a_kernels_words_decide_its_text() -> None:
    """What is not in the words (points, steps, beta, tolerance) is not in the code."""
    one = iteration("huber", "momentum", torch.float32)
    config = replace(
        one.config,
        points=7,
        steps=9,
        optimizer=Optimizer("momentum", 0.5),
        stop=Stop("gradient", 9.0),
    )
    assert replace(one, config=config).key == one.key
    assert cpu_text(replace(one, config=config), 4) == cpu_text(one, 4)


# --- missed with a clear word ----------------------------------------------------------------


def test_without_llvmlite_the_error_names_the_other_engine(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(ClusterError, match=r"llvmlite.*engine: eager") as caught:
        rows_of(TEXT, "compiled")
    assert caught.value.exit_code == Exit.CLUSTER
    with pytest.raises(ClusterError, match=r"llvmlite.*engine: eager"):
        gpu.ptx(iteration("sse", "gd", torch.float32), (9, 0))
    assert rows_of(TEXT, "eager").num_rows == 40


FORBIDDEN = """
    import ctypes, sys
    sys.path.insert(0, "tests")
    if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE: no memory becomes executable
        sys.exit(print("unable"))
    from engines import rows_of
    from polyfit.errors import ClusterError
    try:
        rows_of(TEXT, "compiled")
    except ClusterError as error:
        print(error)
"""


def test_memory_that_may_not_be_executed_is_told(cache: Path) -> None:
    (line,) = answer(program(cache, FORBIDDEN))
    if line == "unable":
        pytest.skip("this kernel cannot forbid executable memory")
    assert re.search(r"does not allow to run machine code.*use engine: eager", line)


def test_without_llvmlite_the_command_ends_with_6(tmp_path: Path) -> None:
    (tmp_path / "llvmlite.py").write_text("raise ImportError('no wheel for this machine')\n")
    (tmp_path / "spec.yaml").write_text(f"name: test\nengine: compiled\n{TEXT}\n")
    command = ["-m", "polyfit", "run", "spec.yaml", "--executor", "inline", "--store", "runs"]
    result = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == Exit.CLUSTER, result.stderr
    assert "no wheel for this machine" in result.stderr
    assert "engine: eager" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
