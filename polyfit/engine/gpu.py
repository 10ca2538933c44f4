"""Kernels as machine code of an NVIDIA GPU: PTX by LLVM, loaded through NVIDIA's driver.

torch owns the memory and the context. Each thread computes one fit, with the bits of the CPU.

PTX ISA, https://docs.nvidia.com/cuda/parallel-thread-execution.
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

from polyfit.engine.kernel import Kernel, gpu_text
from polyfit.errors import ClusterError

__all__ = ["launcher", "ptx"]

_THREADS: Final = 128
"""Threads of a group: a few warps, so that few wait for the longest fit of their group."""

_TRIPLE: Final = "nvptx64-nvidia-cuda"


def ptx(kernel: Kernel, capability: tuple[int, int]) -> str:
    """The PTX of ``kernel`` for GPUs of a compute capability.

    Raises:
        ClusterError: llvmlite is missing.
    """
    try:
        from llvmlite import binding as llvm
    except (ImportError, OSError) as error:
        raise ClusterError(
            f"llvmlite, which makes the engine's machine code, cannot be used here ({error}); "
            "install it, or use engine: eager"
        ) from None
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    name = f"sm_{capability[0]}{capability[1]}"
    machine = llvm.Target.from_triple(_TRIPLE).create_target_machine(
        cpu=name, features="+ptx78", opt=3
    )
    module = llvm.parse_assembly(f'target triple = "{_TRIPLE}"\n{gpu_text(kernel)}')
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_unrolling = tuning.slp_vectorization = tuning.loop_vectorization = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    text: str = machine.emit_assembly(module)
    return text


def launcher(
    kernel: Kernel, arguments: Mapping[str, Tensor | int], device: torch.device
) -> Callable[..., None]:
    """A call of ``kernel`` with these tensors of ``device`` and integers, some of which each call
    may set anew; it returns when the GPU has done it.

    Raises:
        ClusterError: the driver refuses, or cuda-bindings is missing.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise ClusterError(
            f"cuda-bindings, which loads kernels into a GPU, cannot be used here ({error}); "
            "install it, use engine: eager, or gpus_per_actor: 0"
        ) from None
    torch.cuda.set_device(device)
    function = _function(kernel, torch.cuda.get_device_capability(device))
    kinds = [ctypes.c_void_p] * len(kernel.arrays)
    kinds += [ctypes.c_int64] * (len(kernel.arguments) - len(kernel.arrays))  # type: ignore[list-item]
    given: dict[str, Any] = dict.fromkeys(kernel.arguments, 0)
    for name, value in arguments.items():
        given[name] = value.data_ptr() if isinstance(value, Tensor) else value
    stream = torch.cuda.current_stream(device)
    kept = dict(arguments)

    def call(**integers: int) -> None:
        given.update(integers)
        assert kept  # the tensors live as long as the call
        groups = max(1, -(-(given["end"] - given["begin"]) // _THREADS))
        _checked(
            driver.cuLaunchKernel(
                function, groups, 1, 1, _THREADS, 1, 1, 0, stream.cuda_stream,
                (tuple(given.values()), tuple(kinds)), 0,
            )
        )  # fmt: skip
        stream.synchronize()

    return call


@lru_cache(maxsize=256)
def _function(kernel: Kernel, capability: tuple[int, int]) -> Any:
    from cuda.bindings import driver

    (module,) = _checked(driver.cuModuleLoadData(ptx(kernel, capability).encode() + b"\0"))
    (function,) = _checked(driver.cuModuleGetFunction(module, b"run"))
    return function


def _checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call of the driver gives besides its error."""
    from cuda.bindings import driver

    error, *rest = answer
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ClusterError(f"the GPU's driver refuses a kernel: {error.name}; use engine: eager")
    return tuple(rest)
