"""Kernels as machine code of an NVIDIA GPU: PTX by LLVM, loaded through NVIDIA's driver.

torch owns the memory and the context. Each thread computes one fit, with the bits of the CPU.
Threads of the host use streams of their own, so that one's copies pass beside another's kernel.

PTX ISA, https://docs.nvidia.com/cuda/parallel-thread-execution.
CUDA semantics of torch, https://docs.pytorch.org/docs/stable/notes/cuda.html.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit.engine.kernel import Kernel, gpu_text
from polyfit.errors import ClusterError

__all__ = ["launcher", "ptx", "run"]

_THREADS: Final = 128
"""Threads of a group: a few warps, so that few wait for the longest fit of their group."""

_TRIPLE: Final = "nvptx64-nvidia-cuda"

_NEWEST: Final = (9, 0)
"""The newest capability of the PTX written here; drivers make code for newer GPUs of it too."""

_IDLE: Final[list[torch.cuda.Stream]] = []
"""Streams that no thread uses now. torch keeps freed memory for the stream that it was used in, so
few streams are made, and used again."""

_LOCK: Final = threading.Lock()


def run(
    kernel: Kernel,
    arguments: Mapping[str, npt.NDArray[Any] | int],
    blank: Sequence[str],
    results: Sequence[str],
    device: torch.device,
    calls: Callable[[Callable[..., None]], object],
) -> dict[str, npt.NDArray[Any]]:
    """Some of a kernel's arrays as ``calls`` leave them on the GPU ``device``.

    Args:
        kernel: what is called.
        arguments: its arrays, contiguous, which stay as they are, and integers.
        blank: arrays that begin as zeros there, whatever they hold here.
        results: arrays whose contents come back.
        device: the GPU.
        calls: gets ``launcher``'s call.

    Raises:
        ClusterError: the driver refuses, or cuda-bindings is missing.
    """
    integers = {name: value for name, value in arguments.items() if isinstance(value, int)}
    with _stream(device) as stream:
        there = {
            name: _there(value, name in blank, device)
            for name, value in arguments.items()
            if not isinstance(value, int)
        }
        calls(launcher(kernel, {**there, **integers}, device))
        found = {name: there[name].to("cpu", non_blocking=True) for name in results}
        stream.synchronize()
    return {name: tensor.numpy() for name, tensor in found.items()}


def _there(array: npt.NDArray[Any], blank: bool, device: torch.device) -> Tensor:
    """An array on the GPU, once torch's current stream has come so far; or zeros of its shape.

    Only from and to pinned memory a copy passes beside kernels. torch keeps pinned memory that is
    let go of until the copies from it are done, and pins what a copy that is not waited for fills.
    """
    here = torch.from_numpy(np.require(array, requirements="W"))  # torch warns of what is not
    if blank:
        return torch.zeros_like(here, device=device)
    return here.pin_memory().to(device, non_blocking=True)


@contextmanager
def _stream(device: torch.device) -> Iterator[torch.cuda.Stream]:
    """A stream that is this thread's alone meanwhile, and torch's current one."""
    try:
        stream = _IDLE.pop()
    except IndexError:
        stream = torch.cuda.Stream(device)
    try:
        with torch.cuda.stream(stream):
            yield stream
    finally:
        _IDLE.append(stream)


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
    major, minor = min(capability, _NEWEST)
    machine = llvm.Target.from_triple(_TRIPLE).create_target_machine(
        cpu=f"sm_{major}{minor}", features="+ptx78", opt=3
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
    may set anew, in torch's current stream; it returns when the GPU has done it.

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
    with _LOCK:  # threads that begin with the same kernel make it once
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
