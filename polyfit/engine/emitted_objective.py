"""The loss of a block of fits and its gradient, emitted for the iteration.

Shapes: B fits, M = degree + 1 coefficients, N points.
"""

from polyfit.engine.batch import BatchConfig
from polyfit.engine.emit import Emitter
from polyfit.engine.kernel import Block, Memory
from polyfit.engine.objective import squared_loss
from polyfit.engine.point_sums import Passes, sums_in_one_pass
from polyfit.engine.point_terms import PointTerms
from polyfit.engine.tape import Tape

__all__ = ["EmittedObjective", "load_triangle"]

Values = list[str]


def load_triangle(e: Emitter, a: dict[str, str], size: int) -> Values:
    """The upper triangle of the R that all fits share, row by row."""
    return [e.load_uniform(a["R"], k) for k in range(size * (size + 1) // 2)]


class EmittedObjective:
    """Loads what the objective of a block needs, and writes losses and gradients.

    Args:
        config: of the batch.
        one_design: whether one R, or one table of basis functions, serves all fits.
        one_data: whether all fits have the same data over all points.
        block: the block of fits.
        triangle: the R that all fits share, if there is one.
        points: N as a number.
        pass_size: the most coefficients of a pass over points; 0: one pass takes all.
        memory: what passes need.
    """

    def __init__(
        self,
        config: BatchConfig,
        one_design: bool,
        one_data: bool,
        block: Block,
        triangle: Values,
        points: str,
        pass_size: int = 0,
        memory: Memory | None = None,
    ) -> None:
        self.config, self.e, self.points = config, block.e, points
        self.passes: Passes | None = None
        if config.squared:
            size = config.size
            self.triangle = triangle or block.load_rows("R", size * (size + 1) // 2)
            self.q = block.load_rows("q", size)
            self.rest = block.load("rest")
            return
        self.terms = PointTerms(config, one_design, one_data, block)
        if memory:
            self.passes = Passes(self.terms, pass_size, memory)

    def gradient(self, c: Values) -> Values:
        """The gradient at ``c``, or half of it."""
        if self.passes:
            return self.passes.sums(c, with_loss=False)
        return self.loss_and_gradient(c)[1]  # LLVM removes the loss

    def loss_and_gradient(self, c: Values) -> tuple[str, Values]:
        """The loss at ``c`` and its gradient, or half of it."""
        if not self.config.squared:
            passes, terms = self.passes, self.terms
            loss, *g = passes.sums(c, with_loss=True) if passes else sums_in_one_pass(terms, c)
            return loss, g
        tape, config = Tape(self.e, c), self.config
        loss = squared_loss(
            tape, config.objective, self.triangle, self.q, self.rest, self.points, c, config.halved
        )
        return loss, tape.gradient(loss, c)

    def norm(self, g: Values) -> str:
        """The norm of the whole gradient."""
        norm = self.e.norm(g)
        return self.e.add(norm, norm) if self.config.halved else norm
