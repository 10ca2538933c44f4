"""Kernels as machine code of an NVIDIA GPU: PTX by LLVM, loaded through NVIDIA's driver.

torch owns the memory and the context. Each thread computes one fit, with the bits of the CPU.
Each thread of the host uses a stream of its own, so that its copies overlap with other kernels.

PTX ISA, https://docs.nvidia.com/cuda/parallel-thread-execution.
CUDA semantics of torch, https://docs.pytorch.org/docs/stable/notes/cuda.html.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyfit.engine.kernel import Kernel, gpu_text
from polyfit.engine.llvm import binding, parsed
from polyfit.errors import ClusterError

__all__ = ["launcher", "ptx", "run"]

_THREADS: Final = 128
"""Threads of a block: a few warps, so that few wait for the longest fit of their block."""

_TRIPLE: Final = "nvptx64-nvidia-cuda"

_NEWEST: Final = (9, 0)
"""The newest capability of this PTX; drivers translate it for newer GPUs too."""

_IDLE: Final[list[torch.cuda.Stream]] = []
"""Streams that no thread is using. torch keeps freed memory for the stream that used it, so few
streams are made, and used again."""

_FUNCTIONS: Final[dict[tuple[str, tuple[int, int]], Any]] = {}
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
        arguments: its integers, and its arrays, contiguous and not changed here.
        blank: arrays that are zeros on the GPU at the start, whatever they hold here.
        results: arrays whose contents are returned.
        device: the GPU.
        calls: gets ``launcher``'s call.

    Raises:
        ClusterError: the driver refuses, or cuda-bindings is missing.
    """
    with _stream(device) as stream:
        there: dict[str, Any] = {
            name: value if isinstance(value, int) else _there(value, name in blank, device)
            for name, value in arguments.items()
        }
        calls(launcher(kernel, there, device))
        found = {name: there[name].to("cpu", non_blocking=True) for name in results}
        stream.synchronize()
    return {name: tensor.numpy() for name, tensor in found.items()}


def _there(array: npt.NDArray[Any], blank: bool, device: torch.device) -> Tensor:
    """An array on the GPU, once torch's current stream has got that far; or zeros of its shape.

    Only copies from and to pinned memory overlap with kernels. torch keeps released pinned memory
    until the copies from it are done, and pins the target of a copy that nobody waits for.
    """
    here = torch.from_numpy(np.require(array, requirements="W"))  # torch warns if not
    if blank:
        return torch.zeros_like(here, device=device)
    return here.pin_memory().to(device, non_blocking=True)


@contextmanager
def _stream(device: torch.device) -> Iterator[torch.cuda.Stream]:
    """A stream that this thread alone uses, as torch's current one."""
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
    llvm = binding()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    major, minor = min(capability, _NEWEST)
    machine = llvm.Target.from_triple(_TRIPLE).create_target_machine(
        cpu=f"sm_{major}{minor}", features="+ptx78", opt=3
    )
    module = parsed(f'target triple = "{_TRIPLE}"\n{gpu_text(kernel)}')
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_unrolling = tuning.slp_vectorization = tuning.loop_vectorization = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    text: str = machine.emit_assembly(module)
    return text


def launcher(
    kernel: Kernel, arguments: Mapping[str, Tensor | int], device: torch.device
) -> Callable[..., None]:
    """A call of ``kernel`` in torch's current stream, which returns when the GPU is done.

    Takes tensors of ``device``, and integers, which each call may replace.

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
    function = _function(kernel, torch.cuda.get_device_capability(device))
    types = tuple(
        ctypes.c_void_p if name in kernel.arrays else ctypes.c_int64 for name in kernel.arguments
    )
    given: dict[str, Any] = dict.fromkeys(kernel.arguments, 0)
    for name, value in arguments.items():
        given[name] = value.data_ptr() if isinstance(value, Tensor) else value
    stream = torch.cuda.current_stream(device)
    alive = dict(arguments)

    def call(**integers: int) -> None:
        given.update(integers)
        assert alive  # the tensors have to live as long as the call
        groups = max(1, -(-(given["end"] - given["begin"]) // _THREADS))
        _checked(
            driver.cuLaunchKernel(
                function, groups, 1, 1, _THREADS, 1, 1, 0, stream.cuda_stream,
                (tuple(given.values()), types), 0,
            )
        )  # fmt: skip
        stream.synchronize()

    return call


def _function(kernel: Kernel, capability: tuple[int, int]) -> Any:
    """The loaded function of a kernel: one for all whose code is the same."""
    from cuda.bindings import driver

    key = (kernel.key, capability)
    with _LOCK:  # threads that start with the same kernel load it once
        if key not in _FUNCTIONS:
            (module,) = _checked(driver.cuModuleLoadData(ptx(kernel, capability).encode() + b"\0"))
            (_FUNCTIONS[key],) = _checked(driver.cuModuleGetFunction(module, b"run"))
        return _FUNCTIONS[key]


def _checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call of the driver returns besides its error."""
    from cuda.bindings import driver

    error, *rest = answer
    if error != driver.CUresult.CUDA_SUCCESS:
        raise ClusterError(f"the GPU's driver refuses a kernel: {error.name}; use engine: eager")
    return tuple(rest)
