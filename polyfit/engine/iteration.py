"""The whole iteration of a batch as one kernel: its loops over updates and points inside.

Shapes: B fits, the length of a vector; M = degree + 1 coefficients; S = M (1 + moments) numbers of
a state; T = M (M + 1) / 2; N points; K recorded updates.

A call takes the fits of a range from update ``update`` to ``until``. Where that is the last update,
or where all have ended, their ends are in ``final``, ``status`` and ``taken``; else their state is
kept for the next call. Between two events (a test, a record, an end) a loop updates and does
nothing else. A fit that has ended keeps the coefficients of its test, and its lane runs on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from polyfit.engine.emit import Emitter, Loop
from polyfit.engine.kernel import Kernel
from polyfit.engine.model import (
    MOMENTS,
    WRITTEN,
    BatchConfig,
    Hyperparameters,
    residual,
    squared_loss,
    updated,
)
from polyfit.engine.status import CHECK_EVERY, COMPLETED, CONVERGED, DIVERGED, LOSS_GROWTH
from polyfit.engine.tape import Tape
from polyfit.engine.trace import forward

__all__ = ["GOING", "PARAMETERS", "Iteration", "real_of"]

PARAMETERS: Final = ("points", "beta", "tolerance")
"""The numbers of the array ``parameters``, in their order."""

GOING: Final = -1
"""``taken`` of a fit that has not ended."""

SUMMED: Final = 64
"""Points whose terms are added one after the other. The sums of so many are added with
compensation, so that a million points cost no digits: Kahan, Further remarks on reducing
truncation errors (1965)."""

Values = list[str]


def real_of(dtype: torch.dtype) -> str:
    """The emitter's name of a dtype."""
    return "float" if dtype == torch.float32 else "double"


@dataclass(frozen=True)
class Iteration(Kernel):
    """The iteration of one kind of fit.

    Args:
        kind: of the fits; its points, steps, beta and tolerance do not matter.
        one_design: whether one R, or one table of functions, serves all fits. Where each has its
            own over all points, these are the powers of x, made in the loop.
        one_data: whether all fits have the same data over all points.
        record: what is recorded of "loss", "coefficients", "gradient_norm".

    Arrays: ``state`` (S, B), ``lr`` (B,), R (T,) or (T, B) row by row, q (M, B), ``rest`` (B,);
    ``functions`` (N, M - 1) without the first, or ``middle`` and ``half`` (B,) and ``t`` (N,) in
    float64; y (N,), or in groups of ``width`` fits (B / width, N, width); ``taken`` and ``status``
    (B,) int64; ``first`` and ``last`` (B,), the losses of the first update and the last test;
    ``final`` (M, B); ``records`` (K + 1,) int64, ended by a number beyond all updates; ``loss``
    and ``gradient_norm`` (K, B), ``coefficients`` (K, M, B); ``unbias`` (L, 2), Adam's divisors,
    of which the last serve all later updates; ``parameters``.

    Integers: the range of updates, the first record not before it, N, the last update, L.
    """

    kind: BatchConfig
    one_design: bool
    one_data: bool
    record: tuple[str, ...]

    arrays: ClassVar = (
        "state", "lr", "R", "q", "rest", "functions", "middle", "half", "t", "y", "taken",
        "status", "first", "last", "final", "records", "loss", "gradient_norm", "coefficients",
        "unbias", "parameters",
    )  # fmt: skip
    integers: ClassVar = ("update", "until", "slot", "points", "steps", "width", "divisors")

    @property
    def real(self) -> str:  # type: ignore[override]
        return real_of(self.kind.dtype)

    @property
    def fused(self) -> bool:  # type: ignore[override]
        """Those of a squared objective have the bits of eager torch."""
        return not self.kind.squared

    @property
    def words(self) -> str:
        stop = self.kind.stop.kind if self.kind.stop else None
        words = (
            "iteration", self.kind.degree, self.kind.objective, self.kind.optimizer.name, stop,
            self.real, self.one_design, self.one_data, *self.record,
        )  # fmt: skip
        return " ".join(map(str, words))

    @property
    def vectors(self) -> int:
        """S, the numbers of a state."""
        return self.kind.size * (1 + MOMENTS[self.kind.optimizer.name])

    def before(self, e: Emitter, a: dict[str, str]) -> object:
        shared = {name: e.load_all(a["parameters"], k) for k, name in enumerate(PARAMETERS)}
        if self.kind.squared and self.one_design:
            size = self.kind.size
            triangle = [e.load_all(a["R"], k) for k in range(size * (size + 1) // 2)]
            return shared, triangle
        return shared, []

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        parameters, triangle = shared
        _Block(self, e, a, parameters, triangle, b).write()


class _Block:
    """Writes what is done for one block of fits."""

    def __init__(
        self,
        kernel: Iteration,
        e: Emitter,
        a: dict[str, str],
        parameters: dict[str, str],
        triangle: Values,
        b: str,
    ) -> None:
        self.kernel, self.kind, self.e, self.a, self.b = kernel, kernel.kind, e, a, b
        self.parameters, self.triangle = parameters, triangle

    def write(self) -> None:
        e = self.e
        taken = e.load_lanes(self.a["taken"], self.b, "i64")
        going = e.where("slt", taken, e.same("i64", 0), "i64")
        with e.when(e.any(going)):
            self._load()
            self._iterate(going)

    # --- memory ------------------------------------------------------------------------------

    def _row(self, k: str | int) -> str:
        """Where the block lies in row ``k`` of an array of vectors."""
        return self.e.integer("add", self.e.integer("mul", self.a["batch"], k), self.b)

    def _rows(self, name: str, count: int) -> Values:
        return [self.e.load_lanes(self.a[name], self._row(k)) for k in range(count)]

    def _load(self) -> None:
        e, a, kernel = self.e, self.a, self.kernel
        self.lr = e.load_lanes(a["lr"], self.b)
        if self.kind.halved:
            self.lr = e.add(self.lr, self.lr)
        if self.kind.squared:
            if not kernel.one_design:
                self.triangle = self._rows("R", self.kind.size * (self.kind.size + 1) // 2)
            self.q = self._rows("q", self.kind.size)
            self.rest = e.load_lanes(a["rest"], self.b)
            return
        if not kernel.one_design:
            with e.numbers("double"):
                self.middle = e.load_lanes(a["middle"], self.b)
                self.half = e.load_lanes(a["half"], self.b)
        if not kernel.one_data:
            group = e.integer("mul", e.integer("udiv", self.b, a["width"]), a["width"])
            start = e.integer("mul", group, a["points"])
            self.data_at = e.integer("add", start, e.integer("sub", self.b, group))

    # --- updates -----------------------------------------------------------------------------

    def _iterate(self, going: str) -> None:
        """Events, and between them loops of updates."""
        e, a = self.e, self.a
        begin, leave = e.block, e.name("leave")
        first = [
            ("i64", a["update"]), ("i64", a["slot"]), (e.mask, going),
            (e.vector, e.load_lanes(a["last"], self.b)),
            *((e.vector, value) for value in self._rows("state", self.kernel.vectors)),
        ]  # fmt: skip
        event, begin = e.name("event"), e.block
        e.jump(event)
        e.label(event)
        phis = [e.phi(kind, value, begin) for kind, value in first]
        update, slot, going, last, *state = [name for name, _ in phis]
        c = state[: self.kind.size]
        loss, g = self._gradient(c)
        slot = self._recorded(update, slot, c, loss, g)
        going, last = self._tested(update, going, last, c, loss, g, leave)
        following = e.integer("add", update, 1)
        until = self._next_event(update, slot)
        state = self._updates(following, until, self._updated(update, state, g))
        for (_, place), value in zip(phis, [until, slot, going, last, *state], strict=True):
            e.close(place, value)
        cut = e.logical(
            "and", e.compare("eq", until, a["until"]), e.compare("ult", until, a["steps"])
        )
        save = e.name("save")
        e.branch(cut, save, event)
        e.label(save)
        for k, value in enumerate(state):
            e.store_lanes(value, a["state"], self._row(k))
        e.store_lanes(last, a["last"], self.b)
        e.jump(leave)
        e.label(leave)

    def _next_event(self, update: str, slot: str) -> str:
        e = self.e
        tenth = e.integer("udiv", update, CHECK_EVERY)
        tenth = e.integer("mul", e.integer("add", tenth, 1), CHECK_EVERY)
        until = e.smaller(tenth, self.a["until"])
        if self.kernel.record:
            until = e.smaller(until, e.load(self.a["records"], slot, "i64"))
        return until

    def _updates(self, update: str, until: str, state: Values) -> Values:
        """The state after the updates from ``update`` to ``until``, of which there may be none."""
        e = self.e
        before, after = e.block, e.name("event")
        some = e.name("some")
        e.branch(e.compare("ult", update, until), some, after)
        e.label(some)
        loop = Loop(e, update, [(e.vector, value) for value in state])
        g = self._gradient(loop.values[: self.kind.size])[1]
        new = self._updated(loop.index, loop.values, g)
        loop.end(until, 1, new)
        e.jump(after)
        updated_in = e.block
        e.label(after)
        joined = []
        for none, value in zip(state, new, strict=True):
            joined.append(e.new(f"phi {e.vector} [{none}, %{before}], [{value}, %{updated_in}]"))
        return joined

    def _updated(self, update: str, state: Values, g: Values) -> Values:
        """The state after one update, each coefficient by itself."""
        e, size, name = self.e, self.kind.size, self.kind.optimizer.name
        one = two = e.constant(1.0)
        if name == "adam":
            last = e.integer("sub", self.a["divisors"], 1)
            at = e.integer("mul", e.smaller(update, last), 2)
            one = e.load_all(self.a["unbias"], at)
            two = e.load_all(self.a["unbias"], e.integer("add", at, 1))
        count = self.kernel.vectors // size
        graph = forward(_update_of(name), 5 + count, self.kind.dtype)
        rows = [
            e.inline(graph, [g[k], self.lr, self.parameters["beta"], one, two, *state[k::size]])
            for k in range(size)
        ]
        return [row[m] for m in range(count) for row in rows]

    # --- events ------------------------------------------------------------------------------

    def _recorded(self, update: str, slot: str, c: Values, loss: str, g: Values) -> str:
        """Record what is asked for; the answer is the next slot."""
        e, a, record = self.e, self.a, self.kernel.record
        if not record:
            return slot
        wanted = e.compare("eq", e.load(a["records"], slot, "i64"), update)
        with e.when(wanted):
            if "loss" in record:
                e.store_lanes(loss, a["loss"], self._row(slot))
            if "gradient_norm" in record:
                e.store_lanes(self._norm(g), a["gradient_norm"], self._row(slot))
            if "coefficients" in record:
                start = e.integer("mul", slot, self.kind.size)
                for k, value in enumerate(c):
                    at = self._row(e.integer("add", start, k))
                    e.store_lanes(value, a["coefficients"], at)
        return e.integer("add", slot, e.new(f"zext i1 {wanted} to i64"))

    def _tested(
        self, update: str, going: str, last: str, c: Values, loss: str, g: Values, leave: str
    ) -> tuple[str, str]:
        """Keep the first loss; test what has ended. With all ended control goes to ``leave``.

        The answer is what goes on, and the loss at the last test. A coefficient that is not finite
        makes the loss so: it is enough to look at that.
        """
        e, a = self.e, self.a
        zero = e.compare("eq", update, 0)
        with e.when(zero):
            e.store_lanes(loss, a["first"], self.b)
        last = e.new(f"select i1 {zero}, {e.vector} {loss}, {e.vector} {last}")
        tenth = e.compare("eq", e.integer("urem", update, CHECK_EVERY), 0)
        final = e.compare("eq", update, a["steps"])
        due = e.logical("or", e.logical("and", tenth, e.compare("ne", update, 0)), final)
        before, test, keep, after = e.block, e.name("test"), e.name("keep"), e.name("tested")
        e.branch(due, test, after)
        e.label(test)
        unsound = e.where("uge", loss, e.constant(float("inf")))
        good, ended = e.same("i64", COMPLETED), e.either(unsound, e.splat(final, "i1"))
        if self.kind.stop is not None:
            converged = self._stopped(last, loss, g)
            good = e.select(converged, e.same("i64", CONVERGED), good, "i64")
            ended = e.either(converged, ended)
        ended = e.both(going, ended)
        e.branch(e.any(ended), keep, after)
        e.label(keep)
        self._keep_ends(update, ended, unsound, good, c, loss)
        left = e.both(going, e.inverse(ended))
        e.branch(e.any(left), after, leave)
        e.label(after)
        return (
            e.new(f"phi {e.mask} [{going}, %{before}], [{going}, %{test}], [{left}, %{keep}]"),
            e.new(f"phi {e.vector} [{last}, %{before}], [{loss}, %{test}], [{loss}, %{keep}]"),
        )

    def _keep_ends(
        self, update: str, ended: str, unsound: str, good: str, c: Values, loss: str
    ) -> None:
        """Keep how fits ended that end here."""
        e = self.e
        first = e.load_lanes(self.a["first"], self.b)
        grown = e.where("ogt", loss, e.mul(first, e.constant(LOSS_GROWTH)))
        diverged = e.either(unsound, grown)
        status = e.select(diverged, e.same("i64", DIVERGED), good, "i64")
        self._keep(ended, status, "status", 0, "i64")
        self._keep(ended, e.splat(update, "i64"), "taken", 0, "i64")
        for k, value in enumerate(c):
            self._keep(ended, value, "final", k, e.real)

    def _keep(self, mask: str, value: str, name: str, k: int, kind: str) -> None:
        """Put ``value`` into row ``k`` of an array where ``mask`` holds."""
        e, at = self.e, self._row(k)
        before = e.load_lanes(self.a[name], at, kind)
        e.store_lanes(e.select(mask, value, before, kind), self.a[name], at, kind)

    def _stopped(self, last: str, loss: str, g: Values) -> str:
        e, tolerance = self.e, self.parameters["tolerance"]
        assert self.kind.stop is not None
        if self.kind.stop.kind == "gradient":
            return e.where("ole", self._norm(g), tolerance)
        change = e.size(e.sub_alone(last, loss))
        return e.where("ole", change, e.new(f"fmul {e.vector} {tolerance}, {e.size(last)}"))

    def _norm(self, g: Values) -> str:
        e = self.e
        squares = [e.new(f"fmul {e.vector} {d}, {d}") for d in g]
        total = squares[0]
        for square in squares[1:]:
            total = e.add_alone(total, square)
        norm = e.intrinsic("sqrt", total)
        return e.add(norm, norm) if self.kind.halved else norm

    # --- objectives --------------------------------------------------------------------------

    def _gradient(self, c: Values) -> tuple[str, Values]:
        """The loss at ``c`` and its gradient, or half of it; what is not used LLVM leaves out."""
        if not self.kind.squared:
            return self._over_points(c)
        tape = Tape(self.e, self.kind.dtype, c)
        points = self.parameters["points"] if self.kind.objective == "mse" else None
        loss = squared_loss(tape, self.triangle, self.q, self.rest, points, c, self.kind.halved)
        return loss, tape.gradient(loss, c)

    def _over_points(self, c: Values) -> tuple[str, Values]:
        e, points, zero = self.e, self.a["points"], self.e.constant(0.0)
        count = 1 + self.kind.size
        outer = Loop(e, "0", [(e.vector, zero)] * (2 * count))
        inner = Loop(e, outer.index, [(e.vector, zero)] * count)
        terms = self._at_point(c, inner.index)
        sums = [e.add(so_far, term) for so_far, term in zip(inner.values, terms, strict=True)]
        inner.end(e.smaller(e.integer("add", outer.index, SUMMED), points), 1, sums)
        totals, lost = [], []
        for k, part in enumerate(sums):
            total, corrected = outer.values[k], e.sub_alone(part, outer.values[count + k])
            totals.append(e.add_alone(total, corrected))
            lost.append(e.sub_alone(e.sub_alone(totals[-1], total), corrected))
        outer.end(points, SUMMED, [*totals, *lost])
        return totals[0], totals[1:]

    def _at_point(self, c: Values, n: str) -> Values:
        """The loss of point ``n`` and its gradient."""
        tape = Tape(self.e, self.kind.dtype, c)
        of = residual(tape, c, self._functions(n), self._datum(n))
        loss = tape(WRITTEN[self.kind.objective], of)
        return [loss, *tape.gradient(loss, c)]

    def _functions(self, n: str) -> Values:
        """All basis functions at point ``n`` but the first."""
        e, a, count = self.e, self.a, self.kind.degree
        if self.kernel.one_design:
            start = e.integer("mul", n, count)
            return [e.load_all(a["functions"], e.integer("add", start, k)) for k in range(count)]
        if count == 0:
            return []
        with e.numbers("double"):
            offset = e.new(f"fmul {e.vector} {self.half}, {e.load_all(a['t'], n)}")
            x = e.add_alone(self.middle, offset)
        powers = [x if e.real == "double" else e.narrowed(x)]
        for _ in range(count - 1):
            powers.append(e.new(f"fmul {e.vector} {powers[-1]}, {powers[0]}"))
        return powers

    def _datum(self, n: str) -> str:
        e, a = self.e, self.a
        if self.kernel.one_data:
            return e.load_all(a["y"], n)
        at = e.integer("add", self.data_at, e.integer("mul", n, a["width"]))
        return e.load_lanes(a["y"], at)


@cache
def _update_of(name: str) -> Callable[..., Any]:
    """One update of one coefficient: of its gradient, the hyperparameters and its state."""

    def update(
        g: Tensor, lr: Tensor, beta: Tensor, one: Tensor, two: Tensor, c: Tensor, *moments: Tensor
    ) -> Sequence[Tensor]:
        hyper = Hyperparameters(name, beta, one, two, torch.sqrt)
        new, after = updated(hyper, [c], [[moment] for moment in moments], lr, [g])
        return [*new, *(vector for (vector,) in after)]

    return update
