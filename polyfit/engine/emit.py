"""Elementwise operations as LLVM IR, for a vector of fits or for one fit.

An emitter writes one function. A value is the text of an operand: a vector of ``lanes`` numbers,
or one number where lanes is 1. A CPU computes a vector of fits at once, a thread of a GPU one fit.
Every operation has the meaning that IEEE 754 gives it and is rounded on its own. Nothing is
reordered. Where ``fused``, a product and the sum that takes it are rounded together, on every
machine.

LLVM Language Reference Manual, https://llvm.org/docs/LangRef.html.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

__all__ = ["NUM_BYTES", "Emitter"]

NUM_BYTES: Final = {"float": 4, "double": 8, "i64": 8, "i32": 4}
"""Of each scalar type."""

_SUFFIXES: Final = {"float": "f32", "double": "f64", "i64": "i64", "i32": "i32"}
_BITS: Final = {"float": ("i32", 23, 127), "double": ("i64", 52, 1023)}
"""Of each floating type: the integer of its size, bits of the fraction, bias of the exponent."""


class Emitter:
    """Writes the body of one function.

    Args:
        real: "float" or "double", the type of numbers.
        lanes: how many numbers a value has.
        fused: whether a product and the sum that takes it are rounded together.
        pointer: the type of addresses.

    In its methods ``element`` is the scalar type of each lane, by default ``real``.
    """

    def __init__(self, real: str, lanes: int, fused: bool = False, pointer: str = "ptr") -> None:
        self.real, self.lanes, self.fused, self.pointer = real, lanes, fused, pointer
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self.block = "entry"
        self._products: dict[str, tuple[str, str]] = {}
        self._count = 0

    def of_lanes(self, element: str) -> str:
        """The type of a value whose lanes have this scalar type."""
        return element if self.lanes == 1 else f"<{self.lanes} x {element}>"

    @property
    def vector(self) -> str:
        """The type of numbers, one per lane."""
        return self.of_lanes(self.real)

    @property
    def mask(self) -> str:
        """The type of truth values, one per lane."""
        return self.of_lanes("i1")

    @contextmanager
    def with_lanes(self, lanes: int) -> Iterator[None]:
        """Write values of another number of lanes."""
        before, self.lanes = self.lanes, lanes
        yield
        self.lanes = before

    @contextmanager
    def with_real(self, real: str) -> Iterator[None]:
        """Write numbers of another type."""
        before, self.real = self.real, real
        yield
        self.real = before

    # --- text --------------------------------------------------------------------------------

    def name(self, stem: str) -> str:
        """A new name, without LLVM's percent sign."""
        self._count += 1
        return f"{stem}{self._count}"

    def new(self, instruction: str) -> str:
        """The result of an instruction."""
        name = f"%{self.name('v')}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def call(self, name: str, result: str, arguments: Sequence[tuple[str, str]]) -> str:
        """A call of a function, which is declared too; ``arguments`` are types and values."""
        types = ", ".join(type_ for type_, _ in arguments)
        self.declared.add(f"declare {result} @{name}({types})")
        given = ", ".join(f"{type_} {value}" for type_, value in arguments)
        return self.new(f"call {result} @{name}({given})")

    # --- control flow ------------------------------------------------------------------------

    def label(self, name: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{name}:")
        self.block = name

    def jump(self, to: str) -> None:
        self.line(f"br label %{to}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.line(f"br i1 {condition}, label %{yes}, label %{no}")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Write what runs only where the scalar ``condition`` holds."""
        then, after = self.name("then"), self.name("after")
        self.branch(condition, then, after)
        self.label(then)
        yield
        self.jump(after)
        self.label(after)

    def values_when(
        self,
        condition: str,
        otherwise: Sequence[str],
        write: Callable[[], Sequence[str]],
        type_: str | None = None,
    ) -> list[str]:
        """The values that ``write`` writes if the scalar ``condition`` holds, else ``otherwise``.

        ``type_`` is that of the values, by default ``vector``.
        """
        before = self.block
        with self.when(condition):
            values = write()
            end = self.block
        return [
            self.new(f"phi {type_ or self.vector} [{no}, %{before}], [{yes}, %{end}]")
            for no, yes in zip(otherwise, values, strict=True)
        ]

    def phi(self, type_: str, first: str, origin: str) -> tuple[str, int]:
        """A value that is ``first`` when control comes from block ``origin``, and its line."""
        name = self.new(f"phi {type_} [{first}, %{origin}]")
        return name, len(self.lines) - 1

    def close(self, line: int, value: str) -> None:
        """The value that the phi at ``line`` has when control comes from here."""
        self.lines[line] += f", [{value}, %{self.block}]"

    # --- 64-bit integers, truth values ---------------------------------------------------------

    def integer(self, name: str, a: str, b: str | int) -> str:
        """An operation such as add, sub, mul."""
        return self.new(f"{name} i64 {a}, {b}")

    def integer_min(self, a: str, b: str | int) -> str:
        return self.call("llvm.umin.i64", "i64", [("i64", a), ("i64", str(b))])

    def compare_integers(self, how: str, a: str, b: str | int) -> str:
        """A scalar truth value; ``how`` is LLVM's name, such as eq or ult."""
        return self.new(f"icmp {how} i64 {a}, {b}")

    def logical(self, name: str, a: str, b: str) -> str:
        """An operation on scalar truth values."""
        return self.new(f"{name} i1 {a}, {b}")

    # --- constants ---------------------------------------------------------------------------

    def constant(self, value: float) -> str:
        """``value``, rounded to the type of numbers, in every lane."""
        rounded = float(np.float32(value)) if self.real == "float" else value
        bits = struct.unpack("<Q", struct.pack("<d", rounded))[0]
        return self.uniform(self.real, f"0x{bits:016X}")

    def uniform(self, element: str, text: str | int) -> str:
        """A constant in every lane."""
        return str(text) if self.lanes == 1 else f"splat ({element} {text})"

    def broadcast(self, scalar: str, element: str | None = None) -> str:
        """A scalar value in every lane."""
        element = element or self.real
        if self.lanes == 1:
            return scalar
        vector = self.of_lanes(element)
        one = self.new(f"insertelement {vector} poison, {element} {scalar}, i64 0")
        return self.new(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    # --- memory ------------------------------------------------------------------------------

    def address(self, base: str, index: str | int, element: str) -> str:
        return self.new(f"getelementptr {element}, {self.pointer} {base}, i64 {index}")

    def load(self, base: str, index: str | int, element: str | None = None) -> str:
        """A scalar of an array."""
        element = element or self.real
        return self.new(f"load {element}, {self.pointer} {self.address(base, index, element)}")

    def load_uniform(self, base: str, index: str | int) -> str:
        """A number of an array in every lane."""
        return self.broadcast(self.load(base, index))

    def load_lanes(self, base: str, index: str | int, element: str | None = None) -> str:
        """Neighbours in an array, one per lane."""
        element = element or self.real
        at, align = self.address(base, index, element), NUM_BYTES[element]
        return self.new(f"load {self.of_lanes(element)}, {self.pointer} {at}, align {align}")

    def store_lanes(
        self, value: str, base: str, index: str | int, element: str | None = None
    ) -> None:
        element = element or self.real
        at, align = self.address(base, index, element), NUM_BYTES[element]
        self.line(f"store {self.of_lanes(element)} {value}, {self.pointer} {at}, align {align}")

    def store(self, value: str, base: str, index: str | int) -> None:
        """Store a scalar in an array."""
        with self.with_lanes(1):
            self.store_lanes(value, base, index)

    def masked_load(self, base: str, index: str, mask: str) -> str:
        """Neighbours in an array where ``mask`` holds, 0 elsewhere."""
        at = f"align {NUM_BYTES[self.real]} {self.address(base, index, self.real)}"
        return self._masked("load", "p0", f"{self.pointer} {at}", self.pointer, mask)

    def masked_store(self, value: str, base: str, index: str, mask: str) -> None:
        at, align = self.address(base, index, self.real), NUM_BYTES[self.real]
        name = f"llvm.masked.store.v{self.lanes}{_SUFFIXES[self.real]}.p0"
        self.declared.add(f"declare void @{name}({self.vector}, {self.pointer}, {self.mask})")
        self.line(
            f"call void @{name}({self.vector} {value}, {self.pointer} align {align} {at}, "
            f"{self.mask} {mask})"
        )

    def gather(self, base: str, indices: str) -> str:
        """The numbers of an array at ``indices``, one per lane."""
        if self.lanes == 1:
            return self.load(base, indices)
        pointers = self.of_lanes("ptr")
        at = self.new(f"getelementptr {self.real}, ptr {base}, {self.of_lanes('i64')} {indices}")
        given = f"{pointers} align {NUM_BYTES[self.real]} {at}"
        mask = self.uniform("i1", "true")
        return self._masked("gather", f"v{self.lanes}p0", given, pointers, mask)

    def _masked(self, name: str, suffix: str, given: str, pointers: str, mask: str) -> str:
        name = f"llvm.masked.{name}.v{self.lanes}{_SUFFIXES[self.real]}.{suffix}"
        self.declared.add(f"declare {self.vector} @{name}({pointers}, {self.mask}, {self.vector})")
        zeros = f"{self.vector} zeroinitializer"
        return self.new(f"call {self.vector} @{name}({given}, {self.mask} {mask}, {zeros})")

    # --- arithmetic --------------------------------------------------------------------------

    def mul(self, a: str, b: str) -> str:
        product = self.mul_unfused(a, b)
        self._products[product] = (a, b)
        return product

    def add(self, a: str, b: str) -> str:
        for product, other in ((b, a), (a, b)):
            if self.fused and product in self._products:
                one, factor = self._products[product]
                if one == self.constant(1.0):
                    return self.add_unfused(factor, other)  # the same bits; LLVM keeps the fma
                return self.intrinsic("fma", one, factor, other)
        return self.add_unfused(a, b)

    def sub(self, a: str, b: str) -> str:
        if self.fused and b in self._products:
            one, other = self._products[b]
            return self.intrinsic("fma", self.neg(one), other, a)
        if self.fused and a in self._products:
            return self.intrinsic("fma", *self._products[a], self.neg(b))
        return self.sub_unfused(a, b)

    def mul_unfused(self, a: str, b: str) -> str:
        """A product that is rounded on its own even where ``fused``."""
        return self.new(f"fmul {self.vector} {a}, {b}")

    def add_unfused(self, a: str, b: str) -> str:
        return self.new(f"fadd {self.vector} {a}, {b}")

    def sub_unfused(self, a: str, b: str) -> str:
        return self.new(f"fsub {self.vector} {a}, {b}")

    def div(self, a: str, b: str) -> str:
        return self.new(f"fdiv {self.vector} {a}, {b}")

    def neg(self, a: str) -> str:
        return self.new(f"fneg {self.vector} {a}")

    def fabs(self, a: str) -> str:
        return self.intrinsic("fabs", a)

    def sign(self, a: str) -> str:
        """-1, 0 or 1; of NaN 0, as torch has it."""
        zero, signed = self.constant(0.0), self.intrinsic("copysign", self.constant(1.0), a)
        return self.select(self.compare_lanes("one", a, zero), signed, zero)

    def intrinsic(self, name: str, *operands: str) -> str:
        """An intrinsic of LLVM on numbers, such as fma, sqrt and fabs."""
        suffix = _SUFFIXES[self.real]
        suffix = suffix if self.lanes == 1 else f"v{self.lanes}{suffix}"
        given = [(self.vector, operand) for operand in operands]
        return self.call(f"llvm.{name}.{suffix}", self.vector, given)

    def norm(self, vectors: Sequence[str]) -> str:
        """The Euclidean norm of the vectors in each lane; nothing is fused."""
        total = self.mul_unfused(vectors[0], vectors[0])
        for vector in vectors[1:]:
            total = self.add_unfused(total, self.mul_unfused(vector, vector))
        return self.intrinsic("sqrt", total)

    def reduce_lanes(self, how: Callable[[str, str], str], a: str) -> str:
        """All lanes reduced to a scalar: each half with the other, until one number is left."""
        lanes = self.lanes
        while self.lanes > 1:
            half, whole = self.lanes // 2, self.vector
            parts = []
            for low in (0, half):
                places = ", ".join(f"i32 {low + k}" for k in range(half))
                shuffle = f"shufflevector {whole} {a}, {whole} poison, <{half} x i32> <{places}>"
                parts.append(self.new(shuffle))
            self.lanes = half
            if half == 1:
                one = f"extractelement <1 x {self.real}>"
                parts = [self.new(f"{one} {part}, i64 0") for part in parts]
            a = how(*parts)
        self.lanes = lanes
        return a

    # --- bits of numbers ---------------------------------------------------------------------

    def float_from_double(self, a: str) -> str:
        """Numbers of type double rounded to float."""
        return self.new(f"fptrunc {self.of_lanes('double')} {a} to {self.of_lanes('float')}")

    def as_bits(self, a: str) -> str:
        """The bits of numbers as integers."""
        return self.new(f"bitcast {self.vector} {a} to {self.of_lanes(_BITS[self.real][0])}")

    def from_bits(self, a: str) -> str:
        return self.new(f"bitcast {self.of_lanes(_BITS[self.real][0])} {a} to {self.vector}")

    def power_of_two(self, a: str) -> str:
        """2 to the power of whole numbers where that is a normal number; unspecified for NaN."""
        element, bits, bias = _BITS[self.real]
        whole = self.of_lanes(element)
        # The integer of NaN is undefined, and LLVM may remove what depends on it: freeze makes it
        # some integer.
        undefined = self.new(f"fptosi {self.vector} {a} to {whole}")
        exponent = self.new(f"freeze {whole} {undefined}")
        biased = self.new(f"add {whole} {exponent}, {self.uniform(element, bias)}")
        return self.from_bits(self.new(f"shl {whole} {biased}, {self.uniform(element, bits)}"))

    def frexp(self, a: str) -> tuple[str, str]:
        """m from 1/2 to 1 and a whole n with m 2^n = a, for normal numbers above 0."""
        element, bits, bias = _BITS[self.real]
        whole, of = self.of_lanes(element), self.as_bits(a)
        exponent = self.new(f"lshr {whole} {of}, {self.uniform(element, bits)}")
        n = self.new(f"sub {whole} {exponent}, {self.uniform(element, bias - 1)}")
        scale = self.new(f"shl {whole} {n}, {self.uniform(element, bits)}")
        m = self.from_bits(self.new(f"sub {whole} {of}, {scale}"))
        return m, self.new(f"sitofp {whole} {n} to {self.vector}")

    def max_absolute(self, so_far: str, a: str) -> str:
        """The larger of ``so_far`` and |a|, NaN if one is.

        Numbers without a sign are in the order of their bits, and NaN is above all.
        """
        element = _BITS[self.real][0]
        one, other = self.as_bits(so_far), self.as_bits(self.fabs(a))
        larger = self.compare_lanes("sgt", other, one, element)
        return self.from_bits(self.select(larger, other, one, element))

    # --- masks -------------------------------------------------------------------------------

    def compare_lanes(self, how: str, a: str, b: str, element: str | None = None) -> str:
        """A mask: LLVM's fcmp of numbers, or its icmp where ``element`` names an integer type."""
        if element is None:
            return self.new(f"fcmp {how} {self.vector} {a}, {b}")
        return self.new(f"icmp {how} {self.of_lanes(element)} {a}, {b}")

    def lanes_below(self, count: str) -> str:
        """A mask: the lanes whose number is below the scalar integer ``count``."""
        numbers = "<" + ", ".join(f"i64 {k}" for k in range(self.lanes)) + ">"
        return self.compare_lanes("ult", numbers, self.broadcast(count, "i64"), "i64")

    def select(self, mask: str, yes: str, no: str, element: str | None = None) -> str:
        of = self.of_lanes(element or self.real)
        return self.new(f"select {self.mask} {mask}, {of} {yes}, {of} {no}")

    def mask_and(self, a: str, b: str) -> str:
        return self.new(f"and {self.mask} {a}, {b}")

    def mask_or(self, a: str, b: str) -> str:
        return self.new(f"or {self.mask} {a}, {b}")

    def mask_not(self, mask: str) -> str:
        return self.new(f"xor {self.mask} {mask}, {self.uniform('i1', 'true')}")

    def any_lane(self, mask: str) -> str:
        """Whether ``mask`` holds in a lane, a scalar."""
        if self.lanes == 1:
            return mask
        return self.call(f"llvm.vector.reduce.or.v{self.lanes}i1", "i1", [(self.mask, mask)])
