"""Elementwise operations as LLVM IR, for a vector of fits or for one fit.

An emitter writes one function. A value is the text of an operand: a vector of ``lanes`` numbers,
or one number where lanes is 1. A CPU computes a vector of fits at once, a thread of a GPU one fit.
Every operation has the meaning that IEEE 754 gives it and is rounded alone. Nothing is reordered;
where ``fused``, a product and the sum that takes it are rounded together, on every machine.

LLVM Language Reference Manual, https://llvm.org/docs/LangRef.html.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from polyfit.engine.trace import Graph

__all__ = ["BYTES", "Emitter", "Loop"]

BYTES: Final = {"float": 4, "double": 8, "i64": 8, "i32": 4}
"""Of each scalar type."""

_SUFFIXES: Final = {"float": "f32", "double": "f64", "i64": "i64", "i32": "i32"}
_SIGNED: Final = {"float": ("i32", 23, 127), "double": ("i64", 52, 1023)}
"""Of each type of numbers: the integer of its size, bits of the fraction, bias of the exponent."""


class Emitter:
    """Writes the body of one function.

    Args:
        real: "float" or "double", what values are made of.
        lanes: how many numbers a value has.
        fused: whether a product and the sum that takes it are rounded together.
        pointer: the type of addresses.
    """

    def __init__(self, real: str, lanes: int, fused: bool = False, pointer: str = "ptr") -> None:
        self.real, self.lanes, self.fused, self.pointer = real, lanes, fused, pointer
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self.block = "entry"
        self._products: dict[str, tuple[str, str]] = {}
        self._count = 0

    def of_lanes(self, scalar: str) -> str:
        """The type of a value whose lanes are of type ``scalar``."""
        return scalar if self.lanes == 1 else f"<{self.lanes} x {scalar}>"

    @property
    def vector(self) -> str:
        return self.of_lanes(self.real)

    @property
    def mask(self) -> str:
        return self.of_lanes("i1")

    @contextmanager
    def width(self, lanes: int) -> Iterator[None]:
        """Values of another number of lanes meanwhile."""
        before, self.lanes = self.lanes, lanes
        yield
        self.lanes = before

    @contextmanager
    def numbers(self, real: str) -> Iterator[None]:
        """Values of another type of numbers meanwhile."""
        before, self.real = self.real, real
        yield
        self.real = before

    # --- text --------------------------------------------------------------------------------

    def name(self, stem: str) -> str:
        """A new name, without its sign."""
        self._count += 1
        return f"{stem}{self._count}"

    def new(self, text: str) -> str:
        """A new value, computed by ``text``."""
        name = f"%{self.name('v')}"
        self.lines.append(f"  {name} = {text}")
        return name

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

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
        """What is written meanwhile runs only where the scalar ``condition`` holds."""
        then, after = self.name("then"), self.name("after")
        self.branch(condition, then, after)
        self.label(then)
        yield
        self.jump(after)
        self.label(after)

    def phi(self, kind: str, first: str, origin: str) -> tuple[str, int]:
        """A value that is ``first`` when control comes from block ``origin``, and its place."""
        name = self.new(f"phi {kind} [{first}, %{origin}]")
        return name, len(self.lines) - 1

    def close(self, place: int, value: str) -> None:
        """What the phi at ``place`` is when control comes from here."""
        self.lines[place] += f", [{value}, %{self.block}]"

    def call(self, name: str, result: str, arguments: Sequence[tuple[str, str]]) -> str:
        """A call of a function that is declared with this one."""
        kinds = ", ".join(kind for kind, _ in arguments)
        self.declared.add(f"declare {result} @{name}({kinds})")
        given = ", ".join(f"{kind} {value}" for kind, value in arguments)
        return self.new(f"call {result} @{name}({given})")

    # --- scalars -----------------------------------------------------------------------------

    def integer(self, name: str, a: str, b: str | int) -> str:
        """An operation on 64-bit integers."""
        return self.new(f"{name} i64 {a}, {b}")

    def smaller(self, a: str, b: str | int) -> str:
        """The smaller of two integers."""
        return self.call("llvm.umin.i64", "i64", [("i64", a), ("i64", str(b))])

    def compare(self, how: str, a: str, b: str | int) -> str:
        """A comparison of integers."""
        return self.new(f"icmp {how} i64 {a}, {b}")

    def logical(self, name: str, a: str, b: str) -> str:
        return self.new(f"{name} i1 {a}, {b}")

    # --- constants ---------------------------------------------------------------------------

    def constant(self, value: float) -> str:
        """``value``, rounded to the type of numbers, in every lane."""
        rounded = float(np.float32(value)) if self.real == "float" else value
        return self.same(self.real, f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}")

    def same(self, scalar: str, text: str | int) -> str:
        """A constant of type ``scalar`` in every lane."""
        return str(text) if self.lanes == 1 else f"splat ({scalar} {text})"

    def splat(self, scalar: str, kind: str | None = None) -> str:
        """A scalar in every lane."""
        kind = kind or self.real
        if self.lanes == 1:
            return scalar
        vector = self.of_lanes(kind)
        one = self.new(f"insertelement {vector} poison, {kind} {scalar}, i64 0")
        return self.new(
            f"shufflevector {vector} {one}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    # --- memory ------------------------------------------------------------------------------

    def address(self, base: str, index: str | int, kind: str) -> str:
        return self.new(f"getelementptr {kind}, {self.pointer} {base}, i64 {index}")

    def load(self, base: str, index: str | int, kind: str | None = None) -> str:
        """A scalar of an array."""
        kind = kind or self.real
        return self.new(f"load {kind}, {self.pointer} {self.address(base, index, kind)}")

    def load_all(self, base: str, index: str | int) -> str:
        """A number of an array in every lane."""
        return self.splat(self.load(base, index))

    def load_lanes(self, base: str, index: str | int, kind: str | None = None) -> str:
        """Neighbours of an array, one a lane."""
        kind = kind or self.real
        at = self.address(base, index, kind)
        return self.new(f"load {self.of_lanes(kind)}, {self.pointer} {at}, align {BYTES[kind]}")

    def store_lanes(self, value: str, base: str, index: str | int, kind: str | None = None) -> None:
        kind = kind or self.real
        at = self.address(base, index, kind)
        self.line(f"store {self.of_lanes(kind)} {value}, {self.pointer} {at}, align {BYTES[kind]}")

    # --- arithmetic --------------------------------------------------------------------------

    def mul(self, a: str, b: str) -> str:
        product = self.new(f"fmul {self.vector} {a}, {b}")
        self._products[product] = (a, b)
        return product

    def add(self, a: str, b: str) -> str:
        for product, other in ((b, a), (a, b)):
            if self.fused and product in self._products:
                return self.intrinsic("fma", *self._products[product], other)
        return self.new(f"fadd {self.vector} {a}, {b}")

    def sub(self, a: str, b: str) -> str:
        if self.fused and b in self._products:
            one, other = self._products[b]
            return self.intrinsic("fma", self.neg(one), other, a)
        if self.fused and a in self._products:
            return self.intrinsic("fma", *self._products[a], self.neg(b))
        return self.new(f"fsub {self.vector} {a}, {b}")

    def add_alone(self, a: str, b: str) -> str:
        """A sum that is rounded alone also where sums are fused."""
        return self.new(f"fadd {self.vector} {a}, {b}")

    def sub_alone(self, a: str, b: str) -> str:
        return self.new(f"fsub {self.vector} {a}, {b}")

    def div(self, a: str, b: str) -> str:
        return self.new(f"fdiv {self.vector} {a}, {b}")

    def neg(self, a: str) -> str:
        return self.new(f"fneg {self.vector} {a}")

    def size(self, a: str) -> str:
        """|a|."""
        return self.intrinsic("fabs", a)

    def intrinsic(self, name: str, *operands: str) -> str:
        """An intrinsic of LLVM on numbers, such as fma, sqrt and fabs."""
        suffix = _SUFFIXES[self.real]
        suffix = suffix if self.lanes == 1 else f"v{self.lanes}{suffix}"
        given = [(self.vector, operand) for operand in operands]
        return self.call(f"llvm.{name}.{suffix}", self.vector, given)

    def widened(self, a: str) -> str:
        """Numbers of type float as double."""
        return self.new(f"fpext {self.of_lanes('float')} {a} to {self.of_lanes('double')}")

    def narrowed(self, a: str) -> str:
        """Numbers of type double rounded to float."""
        return self.new(f"fptrunc {self.of_lanes('double')} {a} to {self.of_lanes('float')}")

    def as_bits(self, a: str) -> str:
        """The bits of numbers as integers."""
        whole = self.of_lanes(_SIGNED[self.real][0])
        return self.new(f"bitcast {self.vector} {a} to {whole}")

    def from_bits(self, a: str) -> str:
        whole = self.of_lanes(_SIGNED[self.real][0])
        return self.new(f"bitcast {whole} {a} to {self.vector}")

    def power_of_two(self, a: str) -> str:
        """2 to the power of whole numbers where that is a normal number; of NaN anything."""
        scalar, bits, bias = _SIGNED[self.real]
        whole = self.of_lanes(scalar)
        # Of NaN an integer is undefined, and what depends on it LLVM may leave out: any will do.
        undefined = self.new(f"fptosi {self.vector} {a} to {whole}")
        exponent = self.new(f"freeze {whole} {undefined}")
        biased = self.new(f"add {whole} {exponent}, {self.same(scalar, bias)}")
        return self.from_bits(self.new(f"shl {whole} {biased}, {self.same(scalar, bits)}"))

    def split(self, a: str) -> tuple[str, str]:
        """m from 1/2 to 1 and a whole n with m 2^n = a, for normal numbers above 0."""
        scalar, bits, bias = _SIGNED[self.real]
        whole, of = self.of_lanes(scalar), self.as_bits(a)
        exponent = self.new(f"lshr {whole} {of}, {self.same(scalar, bits)}")
        n = self.new(f"sub {whole} {exponent}, {self.same(scalar, bias - 1)}")
        back = self.new(f"shl {whole} {n}, {self.same(scalar, bits)}")
        m = self.from_bits(self.new(f"sub {whole} {of}, {back}"))
        return m, self.new(f"sitofp {whole} {n} to {self.vector}")

    def halved(self, how: Callable[[str, str], str], a: str) -> str:
        """All lanes joined to a scalar: each half with the other, until one number is left."""
        lanes = self.lanes
        while self.lanes > 1:
            half, whole = self.lanes // 2, self.vector
            parts = []
            for low in (0, half):
                places = ", ".join(f"i32 {low + k}" for k in range(half))
                parts.append(
                    self.new(
                        f"shufflevector {whole} {a}, {whole} poison, <{half} x i32> <{places}>"
                    )
                )
            self.lanes = half
            if half == 1:
                parts = [
                    self.new(f"extractelement <1 x {self.real}> {part}, i64 0") for part in parts
                ]
            a = how(*parts)
        self.lanes = lanes
        return a

    def gather(self, base: str, indices: str) -> str:
        """The numbers of an array at ``indices``, one a lane."""
        if self.lanes == 1:
            return self.load(base, indices)
        pointers = self.of_lanes("ptr")
        at = self.new(f"getelementptr {self.real}, ptr {base}, {self.of_lanes('i64')} {indices}")
        name = f"llvm.masked.gather.v{self.lanes}{_SUFFIXES[self.real]}.v{self.lanes}p0"
        self.declared.add(f"declare {self.vector} @{name}({pointers}, {self.mask}, {self.vector})")
        return self.new(
            f"call {self.vector} @{name}({pointers} align {BYTES[self.real]} {at}, "
            f"{self.mask} {self.same('i1', 'true')}, {self.vector} zeroinitializer)"
        )

    def masked_load(self, base: str, index: str, mask: str) -> str:
        """Neighbours of an array where ``mask`` holds, elsewhere 0."""
        at = self.address(base, index, self.real)
        name = f"llvm.masked.load.v{self.lanes}{_SUFFIXES[self.real]}.p0"
        zero = f"{self.vector} zeroinitializer"
        self.declared.add(
            f"declare {self.vector} @{name}({self.pointer}, {self.mask}, {self.vector})"
        )
        return self.new(
            f"call {self.vector} @{name}({self.pointer} align {BYTES[self.real]} {at}, "
            f"{self.mask} {mask}, {zero})"
        )

    def masked_store(self, value: str, base: str, index: str, mask: str) -> None:
        at = self.address(base, index, self.real)
        name = f"llvm.masked.store.v{self.lanes}{_SUFFIXES[self.real]}.p0"
        self.declared.add(f"declare void @{name}({self.vector}, {self.pointer}, {self.mask})")
        self.line(
            f"call void @{name}({self.vector} {value}, {self.pointer} align {BYTES[self.real]} "
            f"{at}, {self.mask} {mask})"
        )

    def numbered(self) -> str:
        """The number of each lane, as 64-bit integers."""
        if self.lanes == 1:
            return "0"
        return "<" + ", ".join(f"i64 {k}" for k in range(self.lanes)) + ">"

    def largest(self, so_far: str, a: str) -> str:
        """The larger of two sizes, NaN if one is; sizes are in the order of their bits."""
        scalar = _SIGNED[self.real][0]
        whole = self.of_lanes(scalar)
        one, other = self.as_bits(so_far), self.as_bits(self.size(a))
        more = self.new(f"icmp sgt {whole} {other}, {one}")
        return self.from_bits(self.select(more, other, one, scalar))

    # --- masks -------------------------------------------------------------------------------

    def where(self, how: str, a: str, b: str, kind: str | None = None) -> str:
        """Where a comparison holds: fcmp's of numbers, icmp's of integers of type ``kind``."""
        if kind is None:
            return self.new(f"fcmp {how} {self.vector} {a}, {b}")
        return self.new(f"icmp {how} {self.of_lanes(kind)} {a}, {b}")

    def select(self, mask: str, yes: str, no: str, kind: str | None = None) -> str:
        of = self.of_lanes(kind or self.real)
        return self.new(f"select {self.mask} {mask}, {of} {yes}, {of} {no}")

    def both(self, a: str, b: str) -> str:
        return self.new(f"and {self.mask} {a}, {b}")

    def either(self, a: str, b: str) -> str:
        return self.new(f"or {self.mask} {a}, {b}")

    def inverse(self, mask: str) -> str:
        return self.new(f"xor {self.mask} {mask}, {self.same('i1', 'true')}")

    def any(self, mask: str) -> str:
        """Whether ``mask`` holds in a lane, a scalar."""
        if self.lanes == 1:
            return mask
        return self.call(f"llvm.vector.reduce.or.v{self.lanes}i1", "i1", [(self.mask, mask)])

    def finite(self, a: str) -> str:
        """Where numbers are neither infinite nor NaN."""
        return self.where("olt", self.size(a), self.constant(float("inf")))

    def clamp(self, a: str, low: str, high: str) -> str:
        """Numbers brought between ``low`` and ``high``; NaN stays NaN."""
        above = self.select(self.where("ogt", low, a), low, a)
        return self.select(self.where("olt", high, above), high, above)

    # --- graphs ------------------------------------------------------------------------------

    def inline(self, graph: Graph, inputs: Sequence[str]) -> list[str]:
        """The outputs of ``graph`` for these values."""
        values = list(inputs)

        def operand(one: int | float) -> str:
            return values[one] if isinstance(one, int) else self.constant(one)

        for operation in graph.operations:
            values.append(self._operation(operation.name, [*map(operand, operation.operands)]))
        return [*map(operand, graph.outputs)]

    def _operation(self, name: str, operands: list[str]) -> str:
        match name:
            case "less":
                return self.where("olt", *operands)
            case "select":
                return self.select(*operands)
            case "sqrt" | "fabs" | "roundeven":
                return self.intrinsic(name, *operands)
        written: str = getattr(self, name)(*operands)
        return written


class Loop:
    """A loop over ``index``, from ``start`` in steps while it is below a stop, at least once.

    Args:
        emitter: where to write.
        start: the first index.
        carried: (type, first value) of what changes from turn to turn; inside the loop these are
            ``values``. ``end`` takes what they become, and leaves their last values.
    """

    def __init__(
        self, emitter: Emitter, start: str, carried: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.emitter = emitter
        before, self.head = emitter.block, emitter.name("loop")
        emitter.jump(self.head)
        emitter.label(self.head)
        self.index, self._place = emitter.phi("i64", start, before)
        phis = [emitter.phi(kind, first, before) for kind, first in carried]
        self.values = [name for name, _ in phis]
        self._places = [place for _, place in phis]

    def end(self, stop: str, step: str | int = 1, values: Sequence[str] = ()) -> None:
        """Close the loop; control goes on after it."""
        emitter, after = self.emitter, self.emitter.name("after")
        following = emitter.integer("add", self.index, step)
        again = emitter.compare("ult", following, stop)
        emitter.close(self._place, following)
        for place, value in zip(self._places, values, strict=True):
            emitter.close(place, value)
        emitter.branch(again, self.head, after)
        emitter.label(after)
