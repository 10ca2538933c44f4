"""A kernel: a function that does the same for every block of a batch.

Its arguments are addresses of arrays and integers, in an order that the kernel names. A vector of
a batch has the length ``batch``; a call works on the fits from ``begin`` to ``end``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from polyfit.engine.emit import Emitter, Loop

__all__ = ["RANGE", "Kernel", "cpu_text", "gpu_text"]

RANGE: Final = ("batch", "begin", "end")
"""Integers that every kernel takes; begin is a multiple of its lanes."""


class Kernel(ABC):
    """What a kernel's function does.

    ``words`` hold all that decides its code, besides the sources of this wing and the lanes.
    """

    arrays: ClassVar[tuple[str, ...]]
    integers: ClassVar[tuple[str, ...]]
    real: str
    fused: bool = False

    @property
    @abstractmethod
    def words(self) -> str: ...

    def step(self, lanes: int) -> int:
        """Fits of a block; lanes are fits, unless a kernel's lanes are points."""
        return lanes

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments, arrays first."""
        return (*self.arrays, *RANGE, *self.integers)

    @abstractmethod
    def before(self, e: Emitter, a: dict[str, str]) -> object:
        """Write what all blocks share; ``a`` holds the arguments. The answer goes to ``block``."""

    @abstractmethod
    def block(self, e: Emitter, a: dict[str, str], shared: object, b: str) -> None:
        """Write what is done for the block of fits that begins at ``b``."""


def cpu_text(kernel: Kernel, lanes: int) -> str:
    """LLVM IR of ``run(arguments)`` for a CPU: one block of ``lanes`` fits after the other."""
    e = Emitter(kernel.real, lanes, kernel.fused)
    e.label("entry")
    a = {}
    for number, name in enumerate(kernel.arguments):
        at = e.new(f"getelementptr i64, ptr %arguments, i64 {number}")
        a[name] = e.new(f"load {'ptr' if name in kernel.arrays else 'i64'}, ptr {at}")
    shared = kernel.before(e, a)
    blocks = Loop(e, a["begin"])
    kernel.block(e, a, shared, blocks.index)
    blocks.end(a["end"], kernel.step(lanes))
    e.line("ret void")
    return _module("define void @run(ptr noalias %arguments)", e)


_REGISTERS: Final = ("tid.x", "ctaid.x", "ntid.x", "nctaid.x")


def gpu_text(kernel: Kernel) -> str:
    """LLVM IR of the same function for an NVIDIA GPU: each thread computes one fit at a time."""
    pointer = "ptr addrspace(1)"
    e = Emitter(kernel.real, 1, kernel.fused, pointer)
    e.label("entry")
    a = {name: f"%{name}" for name in kernel.arguments}
    thread, group, size, groups = (
        e.new(f"zext i32 {e.call(f'llvm.nvvm.read.ptx.sreg.{name}', 'i32', [])} to i64")
        for name in _REGISTERS
    )
    mine = e.integer("add", e.integer("add", e.integer("mul", group, size), thread), a["begin"])
    shared = kernel.before(e, a)  # in the first block: memory taken there has a fixed size
    with e.when(e.compare("ult", mine, a["end"])):
        blocks = Loop(e, mine)
        kernel.block(e, a, shared, blocks.index)
        blocks.end(a["end"], e.integer("mul", size, groups))
    e.line("ret void")
    given = ", ".join(
        f"{pointer if name in kernel.arrays else 'i64'} %{name}" for name in kernel.arguments
    )
    return _module(f"define ptx_kernel void @run({given})", e)


def _module(head: str, e: Emitter) -> str:
    return "\n".join([f"{head} {{", *e.lines, "}", *sorted(e.declared), ""])
