"""The kernel of the affine engine: fits taken from record to record by powers of affine maps.

Shapes: B fits, M = degree + 1 coefficients, S = M (1 + moments) numbers of a state, K records,
T = M (M + 1) / 2, J different numbers of updates between records, G maps.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from polyfit.engine.emit import Emitter
from polyfit.engine.emitted_objective import load_triangle
from polyfit.engine.kernel import Block, Kernel
from polyfit.engine.loops import Loop
from polyfit.engine.objective import squared_loss
from polyfit.engine.tape import Tape

__all__ = ["AffinePowerKernel"]

Values = list[str]


@dataclass(frozen=True)
class AffinePowerKernel(Kernel):
    """The kernel that takes fits from record to record, by one map each time.

    Args:
        degree, objective, moments: of the fits, and of their optimizer.
        one_map, one_R: whether one map, or one R, serves all fits.
        record: what is recorded of "loss", "coefficients", "gradient_norm".
        single: whether that is rounded to float32.

    Arrays of float64: ``start`` (M, B), ``maps`` (J, S + 1, S, G), of each the columns of the
    matrix and then the offset; R (T,) or (T, B) row by row, q (M, B), ``rest`` (B,). Of int64:
    ``map_of_jump`` (K + 1,), the map that leads to each record and to the end; ``map_of_fit`` (B,).

    Results: ``first`` and ``last`` (B,), the losses at both ends; ``extreme`` (B,), the largest of
    the state and the loss in size on the way, NaN if one is; ``final`` (M, B); in the fits' dtype
    ``loss`` and ``gradient_norm`` (K, B), ``coefficients`` (K, M, B).
    """

    degree: int
    objective: str
    moments: int
    one_map: bool
    one_R: bool
    record: tuple[str, ...]
    single: bool

    arrays: ClassVar = (
        "start", "maps", "R", "q", "rest", "map_of_jump", "map_of_fit", "first", "last", "extreme",
        "final", "loss", "gradient_norm", "coefficients",
    )  # fmt: skip
    integers: ClassVar = ("points", "num_records", "num_maps")

    @property
    def vectors(self) -> int:
        """S, the numbers of a state."""
        return (self.degree + 1) * (1 + self.moments)

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        return load_triangle(e, a, self.degree + 1) if self.one_R else []

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        _AffineBlock(self, Block(e, a, b), shared).write()


class _AffineBlock:
    """Writes what is done for one block of fits."""

    def __init__(self, kernel: AffinePowerKernel, block: Block, R: Values) -> None:
        self.kernel, self.block = kernel, block
        self.e, self.a = e, a = block.e, block.a
        self.size = size = kernel.degree + 1
        self.R = R or block.load_rows("R", size * (size + 1) // 2)
        self.q, self.rest = block.load_rows("q", size), block.load("rest")
        self.points = e.broadcast(e.new(f"uitofp i64 {a['points']} to double"))

    def write(self) -> None:
        e, a, block, size = self.e, self.a, self.block, self.size
        start = block.load_rows("start", size)
        start += [e.constant(0.0)] * (self.kernel.vectors - size)
        first = self._loss(start[:size])[1]
        block.store(first, "first")
        map_of_fit = block.load("map_of_fit", "i64")
        loop = Loop(e, "0", [(e.vector, value) for value in [*start, e.fabs(first)]])
        *state, extreme = loop.values
        state = self._mapped(loop.index, map_of_fit, state)
        c = state[:size]
        tape, loss = self._loss(c)
        for value in [*state, loss]:
            extreme = e.max_absolute(extreme, value)
        with e.when(e.compare_integers("ult", loop.index, a["num_records"])):
            self._record(loop.index, c, loss, tape)
        with e.when(e.compare_integers("eq", loop.index, a["num_records"])):
            block.store(loss, "last")
            block.store(extreme, "extreme")
            for k, value in enumerate(c):
                block.store(value, "final", k)
        loop.end(e.integer("add", a["num_records"], 1), 1, [*state, extreme])

    def _loss(self, c: Values) -> tuple[Tape, str]:
        tape = Tape(self.e, c)
        objective = self.kernel.objective
        return tape, squared_loss(tape, objective, self.R, self.q, self.rest, self.points, c)

    def _mapped(self, jump: str, map_of_fit: str, state: Values) -> Values:
        """The state after the map of a jump; each sum begins with its offset."""
        e, a, size = self.e, self.a, self.kernel.vectors
        number = e.load(a["map_of_jump"], jump, "i64")
        number = e.integer("mul", number, size * (size + 1))

        def entry(k: int) -> str:
            at = e.integer("add", number, k)
            if self.kernel.one_map:
                return e.load_uniform(a["maps"], at)
            at = e.broadcast(e.integer("mul", at, a["num_maps"]), "i64")
            return e.gather(a["maps"], e.new(f"add {e.of_lanes('i64')} {map_of_fit}, {at}"))

        after = []
        for i in range(size):
            value = entry(size * size + i)
            for j in range(size):
                value = e.add(value, e.mul(entry(j * size + i), state[j]))
            after.append(value)
        return after

    def _record(self, slot: str, c: Values, loss: str, tape: Tape) -> None:
        record = self.kernel.record
        if "loss" in record:
            self._store(loss, "loss", slot)
        if "gradient_norm" in record:
            self._store(self.e.norm(tape.gradient(loss, c)), "gradient_norm", slot)
        if "coefficients" in record:
            start = self.e.integer("mul", slot, self.size)
            for k, value in enumerate(c):
                self._store(value, "coefficients", self.e.integer("add", start, k))

    def _store(self, value: str, name: str, row: str) -> None:
        if self.kernel.single:
            self.block.store(self.e.float_from_double(value), name, row, "float")
        else:
            self.block.store(value, name, row)
