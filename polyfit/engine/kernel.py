"""A kernel: a function that does the same for every block of a batch.

Its arguments are addresses of arrays and integers, in an order that the kernel names. A vector of
a batch has the length ``batch``; a call works on the fits from ``begin`` to ``end``.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from polyfit.engine.emit import Emitter
from polyfit.engine.loops import Loop

__all__ = ["Block", "Kernel", "Memory", "cpu_text", "gpu_text"]

_RANGE: Final = ("batch", "begin", "end")
"""Integers that every kernel takes; begin is a multiple of its step."""


class Kernel(ABC):
    """What a kernel's function does. Implementations are frozen dataclasses."""

    arrays: ClassVar[tuple[str, ...]]
    integers: ClassVar[tuple[str, ...]]

    @property
    def real(self) -> str:
        """The type of numbers, float or double."""
        return "double"

    @property
    def fused(self) -> bool:
        """Whether a product and the sum that takes it are rounded together."""
        return False

    @property
    def key(self) -> str:
        """All that decides its code, besides the sources of this wing and the lanes."""
        return repr(self)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments, arrays first."""
        return (*self.arrays, *_RANGE, *self.integers)

    def step(self, lanes: int) -> int:
        """Fits of a block: as many as lanes, unless the lanes are points."""
        return lanes

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        """Write what all blocks share; ``a`` holds the arguments. ``block`` gets the result."""
        return None

    @abstractmethod
    def block(self, e: Emitter, a: dict[str, str], shared: object, b: str) -> None:
        """Write what is done for the block of fits that begins at ``b``."""


_STACK: Final = 64
"""Bytes of which the stack's address is a multiple. LLVM keeps vectors there that registers do not
hold; at the 16 bytes of the calling convention many would lie across two cache lines."""


class Memory:
    """Vectors on the stack, by their places; ``Kernel.before`` makes it, for all blocks."""

    def __init__(self, e: Emitter, num_vectors: int, element: str | None = None) -> None:
        self.e, self.type = e, e.of_lanes(element or e.real)
        self.base = e.new(f"alloca {self.type}, i64 {num_vectors}, align {_STACK}")

    def load(self, place: str | int) -> str:
        return self.e.new(f"load {self.type}, ptr {self._address(place)}")

    def store(self, vector: str, place: str | int) -> None:
        self.e.line(f"store {self.type} {vector}, ptr {self._address(place)}")

    def _address(self, place: str | int) -> str:
        return self.e.new(f"getelementptr {self.type}, ptr {self.base}, i64 {place}")


class Block:
    """Access to arrays of vectors where the lanes are the fits that begin at ``b``."""

    def __init__(self, e: Emitter, a: dict[str, str], b: str) -> None:
        self.e, self.a, self.b = e, a, b

    def row(self, k: str | int) -> str:
        """The index of the block in row ``k``."""
        if k == 0:
            return self.b
        return self.e.integer("add", self.e.integer("mul", self.a["batch"], k), self.b)

    def load(self, name: str, element: str | None = None) -> str:
        return self.e.load_lanes(self.a[name], self.b, element)

    def load_rows(self, name: str, num_rows: int) -> list[str]:
        return [self.e.load_lanes(self.a[name], self.row(k)) for k in range(num_rows)]

    def store(self, value: str, name: str, k: str | int = 0, element: str | None = None) -> None:
        """Store a vector in row ``k``."""
        self.e.store_lanes(value, self.a[name], self.row(k), element)


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
    return _module(f"define void @run(ptr noalias %arguments) alignstack({_STACK})", e)


_ALIGNED: Final = 16
"""Bytes of which the address of each array on a GPU is a multiple; torch gives 512."""

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
    first = e.integer("add", e.integer("add", e.integer("mul", group, size), thread), a["begin"])
    shared = kernel.before(e, a)  # in the entry block: memory allocated there has a fixed size
    with e.when(e.compare_integers("ult", first, a["end"])):
        blocks = Loop(e, first)
        kernel.block(e, a, shared, blocks.index)
        blocks.end(a["end"], e.integer("mul", size, groups))
    e.line("ret void")
    parameters = ", ".join(
        f"{f'{pointer} align {_ALIGNED}' if name in kernel.arrays else 'i64'} %{name}"
        for name in kernel.arguments
    )
    return _module(f"define ptx_kernel void @run({parameters})", e)


def _module(head: str, e: Emitter) -> str:
    return "\n".join([f"{head} {{", *e.lines, "}", *sorted(e.declared), ""])
