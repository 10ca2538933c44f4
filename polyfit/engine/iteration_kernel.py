"""The whole iteration of a batch as one kernel: its loops over updates and points inside.

Shapes: B fits, the length of a vector; M = degree + 1 coefficients; S = M (1 + moments) numbers of
a state; T = M (M + 1) / 2; N points; K recorded updates.

A call takes the fits of a range from update ``update`` to ``until``. If that is the last update, or
if all have ended, their results are in ``final``, ``status`` and ``taken``; otherwise their state
is stored for the next call. Between two events (a test, a record, an end) a loop updates and does
nothing else. A fit that has ended keeps the coefficients of that test, and its lane continues.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, Final

import torch

from polyfit.engine.batch import (
    CHECK_EVERY,
    COMPLETED,
    CONVERGED,
    DIVERGED,
    LOSS_GROWTH,
    BatchConfig,
)
from polyfit.engine.emit import Emitter
from polyfit.engine.emitted_objective import EmittedObjective, load_triangle
from polyfit.engine.kernel import Block, Kernel, Memory
from polyfit.engine.loops import Loop
from polyfit.engine.optimizer import updated
from polyfit.engine.point_sums import Passes
from polyfit.engine.tape import inline
from polyfit.engine.trace import forward

__all__ = ["GOING", "PARAMETERS", "IterationKernel"]

PARAMETERS: Final = ("points", "beta", "tolerance")
"""The numbers of the array ``parameters``, in their order."""

GOING: Final = -1
"""``taken`` of a fit that has not ended."""

Values = list[str]


@dataclass(frozen=True)
class IterationKernel(Kernel):
    """The kernel of the iteration.

    Args:
        config: of the fits; its points, steps, beta and tolerance do not matter.
        one_design: whether one R, or one table of basis functions, serves all fits. Otherwise, over
            all points, the functions are the powers of x, computed in the loop.
        one_data: whether all fits have the same data over all points.
        record: what is recorded of "loss", "coefficients", "gradient_norm".
        pass_size: the most coefficients of a pass over points; 0: one pass takes all.

    Arrays: ``state`` (S, B), ``lr`` (B,), R (T,) or (T, B) row by row, q (M, B), ``rest`` (B,);
    ``functions`` (N, ``row_numbers``), or ``middle`` and ``half`` (B,) and ``t`` (N,) in float64; y
    (N,) if not in ``functions``, or in groups of ``width`` fits (B / width, N, width); ``taken``
    and ``status`` (B,) int64; ``first`` and ``last`` (B,), the losses of the first update and the
    last test; ``final`` (M, B); ``records`` (K + 1,) int64, ended by a number beyond all updates;
    ``loss`` and ``gradient_norm`` (K, B), ``coefficients`` (K, M, B); ``corrections`` (L, 2) of
    Adam's bias, of which the last serve all later updates; ``parameters``.

    Integers: the range of updates, the first record not before it, N, the last update, L.
    """

    config: BatchConfig
    one_design: bool
    one_data: bool
    record: tuple[str, ...]
    pass_size: int = 0

    arrays: ClassVar = (
        "state", "lr", "R", "q", "rest", "functions", "middle", "half", "t", "y", "taken",
        "status", "first", "last", "final", "records", "loss", "gradient_norm", "coefficients",
        "corrections", "parameters",
    )  # fmt: skip
    integers: ClassVar = ("update", "until", "slot", "points", "steps", "width", "num_corrections")

    @property
    def real(self) -> str:
        return "float" if self.config.dtype == torch.float32 else "double"

    @property
    def fused(self) -> bool:
        """Not for squared objectives, which have the bits of the eager engine."""
        return not self.config.squared

    @property
    def key(self) -> str:
        config = self.config
        stop = config.stop.kind if config.stop else None
        words = (
            "iteration", config.degree, config.objective, config.optimizer.name, stop, self.real,
            self.one_design, self.one_data, self.pass_size, *self.record,
        )  # fmt: skip
        return " ".join(map(str, words))

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        parameters = {name: e.load_uniform(a["parameters"], k) for k, name in enumerate(PARAMETERS)}
        one_R, size = self.config.squared and self.one_design, self.config.size
        memory = Memory(e, Passes.num_vectors(size)) if self.pass_size else None
        return parameters, load_triangle(e, a, size) if one_R else [], memory

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        _IterationBlock(self, Block(e, a, b), *shared).write()


class _IterationBlock:
    """Writes the iteration of one block of fits."""

    def __init__(
        self,
        kernel: IterationKernel,
        block: Block,
        parameters: dict[str, str],
        triangle: Values,
        memory: Memory | None,
    ) -> None:
        self.kernel, self.config, self.block = kernel, kernel.config, block
        self.e, self.a = block.e, block.a
        self.parameters, self.triangle, self.memory = parameters, triangle, memory

    def write(self) -> None:
        e = self.e
        taken = self.block.load("taken", "i64")
        going = e.compare_lanes("slt", taken, e.uniform("i64", 0), "i64")
        with e.when(e.any_lane(going)):
            self.lr = self.block.load("lr")
            if self.config.halved:
                self.lr = e.add(self.lr, self.lr)
            self.objective = EmittedObjective(
                self.config, self.kernel.one_design, self.kernel.one_data, self.block,
                self.triangle, self.parameters["points"], self.kernel.pass_size, self.memory,
            )  # fmt: skip
            self._iterate(going)

    # --- updates -----------------------------------------------------------------------------

    def _iterate(self, going: str) -> None:
        """Events, and between them loops of updates."""
        e, a = self.e, self.a
        state = self.block.load_rows("state", self.config.num_states)
        first = [
            ("i64", a["update"]), ("i64", a["slot"]), (e.mask, going),
            *((e.vector, value) for value in (self.block.load("last"), *state)),
        ]  # fmt: skip
        before, event, save, leave = e.block, e.name("event"), e.name("save"), e.name("leave")
        e.jump(event)
        e.label(event)
        phis = [e.phi(type_, value, before) for type_, value in first]
        update, slot, going, last, *state = [name for name, _ in phis]
        c = state[: self.config.size]
        loss, g = self.objective.loss_and_gradient(c)
        slot = self._record(update, slot, c, loss, g)
        going, last = self._test(update, going, last, c, loss, g, leave)
        following = e.integer("add", update, 1)
        until = self._next_event(update, slot)
        state = self._updates(following, until, self._updated(update, state, g))
        for (_, line), value in zip(phis, [until, slot, going, last, *state], strict=True):
            e.close(line, value)
        more = e.compare_integers("ult", until, a["steps"])
        cut = e.logical("and", e.compare_integers("eq", until, a["until"]), more)
        e.branch(cut, save, event)
        e.label(save)
        for k, value in enumerate(state):
            self.block.store(value, "state", k)
        self.block.store(last, "last")
        e.jump(leave)
        e.label(leave)

    def _next_event(self, update: str, slot: str) -> str:
        """The update of the next test or record, or the end of the call."""
        e = self.e
        test = e.integer("add", e.integer("udiv", update, CHECK_EVERY), 1)
        until = e.integer_min(e.integer("mul", test, CHECK_EVERY), self.a["until"])
        if self.kernel.record:
            until = e.integer_min(until, e.load(self.a["records"], slot, "i64"))
        return until

    def _updates(self, update: str, until: str, state: Values) -> Values:
        """The state after the updates from ``update`` to ``until``, of which there may be none."""
        e = self.e

        def write() -> Values:
            loop = Loop(e, update, [(e.vector, value) for value in state])
            g = self.objective.gradient(loop.values[: self.config.size])
            after = self._updated(loop.index, loop.values, g)
            loop.end(until, 1, after)
            return after

        return e.values_when(e.compare_integers("ult", update, until), state, write)

    def _updated(self, update: str, state: Values, g: Values) -> Values:
        """The state after one update, which takes each coefficient by itself."""
        e, size, name = self.e, self.config.size, self.config.optimizer.name
        one = two = e.constant(1.0)
        if name == "adam":
            last = e.integer("sub", self.a["num_corrections"], 1)
            at = e.integer("mul", e.integer_min(update, last), 2)
            one = e.load_uniform(self.a["corrections"], at)
            two = e.load_uniform(self.a["corrections"], e.integer("add", at, 1))
        count = self.config.num_states // size
        graph = forward(_update_of(name), 5 + count, self.config.dtype)
        hyper = [self.lr, self.parameters["beta"], one, two]
        rows = [inline(e, graph, [g[k], *hyper, *state[k::size]]) for k in range(size)]
        return [row[m] for m in range(count) for row in rows]

    # --- events ------------------------------------------------------------------------------

    def _record(self, update: str, slot: str, c: Values, loss: str, g: Values) -> str:
        """Record what is asked for; returns the next slot."""
        e, record = self.e, self.kernel.record
        if not record:
            return slot
        due = e.compare_integers("eq", e.load(self.a["records"], slot, "i64"), update)
        with e.when(due):
            if "loss" in record:
                self.block.store(loss, "loss", slot)
            if "gradient_norm" in record:
                self.block.store(self.objective.norm(g), "gradient_norm", slot)
            if "coefficients" in record:
                start = e.integer("mul", slot, self.config.size)
                for k, value in enumerate(c):
                    self.block.store(value, "coefficients", e.integer("add", start, k))
        return e.integer("add", slot, e.new(f"zext i1 {due} to i64"))

    def _test(
        self, update: str, going: str, last: str, c: Values, loss: str, g: Values, leave: str
    ) -> tuple[str, str]:
        """Store the first loss; test which fits have ended. If all have, control goes to ``leave``.

        Returns which fits continue, and the loss at the last test. The loss alone is tested for
        finiteness: it is not finite where a coefficient is not.
        """
        e, a = self.e, self.a
        zero = e.compare_integers("eq", update, 0)
        with e.when(zero):
            self.block.store(loss, "first")
        last = e.new(f"select i1 {zero}, {e.vector} {loss}, {e.vector} {last}")
        tenth = e.compare_integers("eq", e.integer("urem", update, CHECK_EVERY), 0)
        final = e.compare_integers("eq", update, a["steps"])
        tested = e.logical("and", tenth, e.compare_integers("ne", update, 0))
        before, test, keep, after = e.block, e.name("test"), e.name("keep"), e.name("tested")
        e.branch(e.logical("or", tested, final), test, after)
        e.label(test)
        unsound = e.compare_lanes("uge", loss, e.constant(float("inf")))
        status, ended = e.uniform("i64", COMPLETED), e.mask_or(unsound, e.broadcast(final, "i1"))
        if self.config.stop is not None:
            converged = self._stop_is_met(self.config.stop.kind, last, loss, g)
            status = e.select(converged, e.uniform("i64", CONVERGED), status, "i64")
            ended = e.mask_or(converged, ended)
        ended = e.mask_and(going, ended)
        e.branch(e.any_lane(ended), keep, after)
        e.label(keep)
        self._keep_ended(update, ended, unsound, status, c, loss)
        left = e.mask_and(going, e.mask_not(ended))
        e.branch(e.any_lane(left), after, leave)
        e.label(after)
        return (
            e.new(f"phi {e.mask} [{going}, %{before}], [{going}, %{test}], [{left}, %{keep}]"),
            e.new(f"phi {e.vector} [{last}, %{before}], [{loss}, %{test}], [{loss}, %{keep}]"),
        )

    def _stop_is_met(self, rule: str, last: str, loss: str, g: Values) -> str:
        e, tolerance = self.e, self.parameters["tolerance"]
        if rule == "gradient":
            return e.compare_lanes("ole", self.objective.norm(g), tolerance)
        change = e.fabs(e.sub_unfused(last, loss))
        return e.compare_lanes("ole", change, e.mul_unfused(tolerance, e.fabs(last)))

    def _keep_ended(
        self, update: str, ended: str, unsound: str, status: str, c: Values, loss: str
    ) -> None:
        """Store the results of the fits that end at this update."""
        e = self.e
        limit = e.mul(self.block.load("first"), e.constant(LOSS_GROWTH))
        diverged = e.mask_or(unsound, e.compare_lanes("ogt", loss, limit))
        status = e.select(diverged, e.uniform("i64", DIVERGED), status, "i64")
        self._replace(ended, status, "status", 0, "i64")
        self._replace(ended, e.broadcast(update, "i64"), "taken", 0, "i64")
        for k, value in enumerate(c):
            self._replace(ended, value, "final", k, e.real)

    def _replace(self, mask: str, value: str, name: str, k: int, element: str) -> None:
        """Replace numbers in row ``k`` of an array where ``mask`` holds."""
        e, at = self.e, self.block.row(k)
        before = e.load_lanes(self.a[name], at, element)
        e.store_lanes(e.select(mask, value, before, element), self.a[name], at, element)


@cache
def _update_of(name: str) -> Callable[..., Any]:
    """One update of one coefficient, the same object each time, so that it is traced once."""
    return partial(updated, name, torch.sqrt)
