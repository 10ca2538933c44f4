"""The evaluation of fits at their final coefficients, in float64: one kernel.

Its lanes are points. Shapes: B fits, M = degree + 1 coefficients, T = M (M + 1) / 2, P problems, N
points, C clean targets, D data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from polyfit.engine.emit import Emitter
from polyfit.engine.kernel import Kernel
from polyfit.engine.loops import Points, over_points
from polyfit.engine.objective import residual, squared_loss
from polyfit.engine.penalty import ELEMENTARY_PENALTIES
from polyfit.engine.screening import ARRAYS, horner, largest_errors
from polyfit.engine.tape import Tape
from polyfit.spec.fit import SQUARED

__all__ = ["EvaluationKernel"]

Values = list[str]


@dataclass(frozen=True)
class EvaluationKernel(Kernel):
    """The kernel that computes what a row says of final coefficients.

    Args:
        degree, objective: of the fits.
        in_x: whether their basis is that of the powers of x.
        together: fits that are evaluated at a time; more than one where all have one problem.
        screened: whether points that cannot have the largest error are skipped. Possible for
            fits of one problem with a squared objective in powers of x.

    Arrays of float64: ``c`` and ``powers`` (B, M), the coefficients in the fits' basis and, where
    that is another, of the powers of x; ``R`` (P, T), or (T,) where ``triangle`` is 0, q (P, M)
    and ``rest`` (P,); the basis functions (M, N), t (N,), ``middle`` and ``half`` (P,); ``clean``
    (C, N) and y (D, N); those of ``screening``. Of int64: ``problem_of`` (B,), ``clean_of`` and
    ``data_of`` (P,).

    Results of float64, shape (B,): ``loss``, ``excess`` over the optimum (squared objectives),
    ``gradient_norm``; ``max_error`` against the clean target, ``change`` of a prediction by the
    powers of x, ``squares``, the sum of squared residuals (other objectives).
    """

    degree: int
    objective: str
    in_x: bool
    together: int = 1
    screened: bool = False

    arrays: ClassVar = (
        "c", "powers", "R", "q", "rest", "functions", "t", "middle", "half", "clean", "y",
        "problem_of", "clean_of", "data_of", "loss", "excess", "gradient_norm", "max_error",
        "change", "squares", *ARRAYS,
    )  # fmt: skip
    integers: ClassVar = ("points", "triangle")
    results: ClassVar = ("loss", "excess", "gradient_norm", "max_error", "change", "squares")

    def step(self, lanes: int) -> int:
        return self.together

    def block(self, e: Emitter, a: dict[str, str], shared: Any, b: str) -> None:
        _EvaluationBlock(self, e, a, b).write()


class _EvaluationBlock:
    """Writes the evaluation of fits that begin at ``b``."""

    def __init__(self, kernel: EvaluationKernel, e: Emitter, a: dict[str, str], b: str) -> None:
        self.kernel, self.e, self.a = kernel, e, a
        self.size = kernel.degree + 1
        self.squared = kernel.objective in SQUARED
        last = e.integer("sub", a["end"], 1)
        # If fewer fits are left, the last one is evaluated again.
        self.fits = [e.integer_min(e.integer("add", b, k), last) for k in range(kernel.together)]
        self.problem = e.load(a["problem_of"], b, "i64")

    def write(self) -> None:
        e, a = self.e, self.a
        self.clean_row = self._row("clean_of")
        self.data_row = "0" if self.squared else self._row("data_of")
        own, in_powers = [], []
        with e.with_lanes(1):
            self.middle = e.load(a["middle"], self.problem)
            self.half = e.load(a["half"], self.problem)
            for fit in self.fits:
                at = e.integer("mul", fit, self.size)
                c = self._numbers("c", at, self.size)
                powers = c if self.kernel.in_x else self._numbers("powers", at, self.size)
                if self.squared:
                    self._reduced(fit, c)
                own.append(c)
                in_powers.append(powers)
        if self.kernel.screened:
            errors = largest_errors(e, a, self.clean_row, self.middle, self.half, own)
            for fit, error in zip(self.fits, errors, strict=True):
                e.store(error, a["max_error"], fit)
        else:
            self._over_points(own, in_powers)

    def _row(self, name: str) -> str:
        number = self.e.load(self.a[name], self.problem, "i64")
        return self.e.integer("mul", number, self.a["points"])

    def _numbers(self, name: str, start: str, count: int) -> Values:
        """Scalars of an array from ``start`` on."""
        e = self.e
        return [e.load(self.a[name], e.integer("add", start, k)) for k in range(count)]

    def _reduced(self, fit: str, c: Values) -> None:
        """Loss, excess and gradient norm of a squared objective, from its reduction."""
        e, a, size = self.e, self.a, self.size
        start = e.integer("mul", self.problem, a["triangle"])
        R = self._numbers("R", start, size * (size + 1) // 2)
        q = self._numbers("q", e.integer("mul", self.problem, size), size)
        rest, objective = e.load(a["rest"], self.problem), self.kernel.objective
        points = e.new(f"uitofp i64 {a['points']} to double")
        tape = Tape(e, c)
        loss = squared_loss(tape, objective, R, q, rest, points, c)
        e.store(loss, a["loss"], fit)
        self._store_norm(fit, tape.gradient(loss, c))
        whole = squared_loss(Tape(e, c), objective, R, q, e.constant(0.0), points, c)
        e.store(whole, a["excess"], fit)

    def _store_norm(self, fit: str, g: Values) -> None:
        with self.e.with_lanes(1):
            self.e.store(self.e.norm(g), self.a["gradient_norm"], fit)

    def _over_points(self, own: list[Values], in_powers: list[Values]) -> None:
        e, a = self.e, self.a
        spread = [[*map(e.broadcast, c)] for c in own]
        powers = [[*map(e.broadcast, c)] for c in in_powers]
        middle, half = e.broadcast(self.middle), e.broadcast(self.half)
        names = ["max_error"] if self.kernel.in_x else ["max_error", "change"]
        joins: list[Callable[[str, str], str]] = [e.max_absolute] * len(names)
        if not self.squared:
            names += ["squares", "loss"]
            joins += [e.add_unfused] * (2 + self.size)

        def terms(points: Points) -> Values:
            x = e.add(middle, e.mul(half, points.load(a["t"])))
            functions = self._functions(points, x)
            clean = points.load(a["clean"], self.clean_row)
            found = []
            for c, c_in_powers in zip(spread, powers, strict=True):
                value = predicted = horner(e, c_in_powers, x)
                if not self.kernel.in_x:
                    predicted = c[0]
                    for one, function in zip(c[1:], functions, strict=True):
                        predicted = e.add(predicted, e.mul(one, function))
                found.append(e.sub(predicted, clean))
                if not self.kernel.in_x:
                    found.append(e.sub(value, predicted))
                if not self.squared:
                    y = points.load(a["y"], self.data_row)
                    off = e.sub(predicted, y)
                    tape = Tape(e, c)
                    loss = tape(
                        ELEMENTARY_PENALTIES[self.kernel.objective], residual(tape, c, functions, y)
                    )
                    found += [e.mul(off, off), loss, *tape.gradient(loss, c)]
            return found

        found = over_points(e, a["points"], terms, joins * len(own))
        for k, fit in enumerate(self.fits):
            results = found[k * len(joins) : (k + 1) * len(joins)]
            for name, value in zip(names, results, strict=False):
                e.store(value, a[name], fit)
            if not self.squared:
                self._store_norm(fit, results[len(names) :])

    def _functions(self, points: Points, x: str) -> Values:
        """The basis functions but the first."""
        if self.kernel.in_x:
            functions = [x][: self.size - 1]
            while len(functions) < self.size - 1:
                functions.append(self.e.mul(functions[-1], x))
            return functions
        rows = [self.e.integer("mul", self.a["points"], k) for k in range(1, self.size)]
        return [points.load(self.a["functions"], row) for row in rows]
