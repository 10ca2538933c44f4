"""Code for other targets: AArch64, and GPUs by NVIDIA's assembler and by threads run here."""

import ctypes
import importlib.util
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_batches import BATCHES, RECORD, batch_of, iteration
from llvmlite import binding as llvm

from polyfit.engine import cpu, gpu
from polyfit.engine.initial import initial_values
from polyfit.engine.kernel import Kernel, cpu_text, gpu_text
from polyfit.engine.layout import kernel_of, layout
from polyfit.engine.twister_kernel import TwisterKernel
from polyfit.spec.fit import OBJECTIVES, SQUARED


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


@pytest.mark.parametrize("objective", ["huber", "log_cosh", "l1"])
def test_a_gpu_loads_a_points_functions_and_datum_at_once(objective: str) -> None:
    kernel = replace(iteration(objective, "gd", torch.float32), one_data=True)
    before_the_first_point = gpu.ptx(kernel, (9, 0)).partition("fma.rn")[0]
    (*_, last) = re.findall(r"ld\.global\.\S+", before_the_first_point)
    assert last == "ld.global.v4.b32"


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
    events = {"update": 0, "until": batch.inputs.config.steps, "slot": 0}
    by_threads(kernel, {**arrays, **events, "begin": 0, "end": count}, groups)
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
    function = cpu.Function(kernel, code)
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
