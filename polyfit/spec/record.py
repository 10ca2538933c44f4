"""The section ``record``: what is recorded of a fit, and at which updates."""

from bisect import bisect_left
from itertools import takewhile
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field
from pydantic_core import PydanticCustomError

from polyfit.numerics.arrays import Index
from polyfit.spec.section import Count, Section

__all__ = ["AUTOMATIC", "MAX_RECORDED", "RECORDABLE", "RECORD_WORDS", "Record", "read_record"]

RECORD_WORDS: Final = ("auto", "none")
"""What the section may be instead of a mapping."""

RECORDABLE: Final = ("loss", "coefficients", "gradient_norm")
MAX_RECORDED: Final = 10_000
"""Updates that are recorded of one fit."""


_Updates = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0)], ...],
    Field(strict=False, min_length=1, max_length=MAX_RECORDED),
]

_ONE_TWO_FIVE: Final = (0, *(digit * 10**k for k in range(10) for digit in (1, 2, 5)))
"""0, 1, 2, 5, 10, 20, 50, ...: no fit has more updates than these reach."""


class Record(Section):
    """What is recorded of a fit: ``of`` at every ``every``-th update, or at the updates ``at``.

    ``at: auto`` are the updates 0, 1, 2, 5, 10, 20, 50, ... and the last one.
    """

    every: Count = Field(0, description="an integer from 1")  # 0: not stated
    at: _Updates | Literal["auto"] = Field(
        (), description="auto or a rising list of integers from 0"
    )
    of: Annotated[
        tuple[Literal["loss", "coefficients", "gradient_norm"], ...], Field(strict=False)
    ] = Field(
        ("loss",),
        min_length=1,
        description="a list out of " + ", ".join(RECORDABLE) + ", each once",
    )

    def updates(self, steps: int) -> list[int]:
        """The updates recorded in a fit of ``steps`` updates, counted from 0, rising."""
        if self.every:
            return list(range(self.every - 1, steps, self.every))
        if self.at == "auto":
            return sorted({*takewhile(lambda update: update < steps, _ONE_TWO_FIVE), steps - 1})
        return [u for u in self.at if u < steps]

    def counts(self, steps: Index, taken: Index) -> Index:
        """How many updates are recorded of fits of ``steps`` updates that end after ``taken``.

        Both have the shape (fits,).
        """
        if self.every:
            return taken // self.every
        counts = np.zeros_like(taken)
        for value in np.unique(steps):
            some = steps == value
            counts[some] = np.searchsorted(self.updates(int(value)), taken[some])
        return counts

    def count(self, steps: int) -> int:
        """How many updates are recorded in a fit of ``steps`` updates; lists none of them."""
        if self.every:
            return steps // self.every
        if self.at == "auto":
            before = bisect_left(_ONE_TWO_FIVE, steps)
            return before + int(_ONE_TWO_FIVE[before - 1] < steps - 1)
        return bisect_left(self.at, steps)  # they rise

    def canonical(self) -> Any:
        """As JSON; ``none`` where nothing is recorded."""
        if not self.of:
            return "none"
        at = self.at if self.at == "auto" else list(self.at)
        when = {"every": self.every} if self.every else {"at": at}
        return {**when, "of": [name for name in RECORDABLE if name in self.of]}

    @classmethod
    def restore(cls, source: Any) -> "Record":
        """The record that ``canonical`` wrote."""
        return _NOTHING if source == "none" else cls.model_validate(source)


AUTOMATIC: Final = Record(at="auto")
_NOTHING: Final = Record.model_construct(every=0, at=(), of=())


def read_record(raw: Any) -> Any:
    """What pydantic is to read as a Record: ``none`` is one that records nothing."""
    if raw in RECORD_WORDS:
        return AUTOMATIC if raw == "auto" else _NOTHING
    keys_known = isinstance(raw, dict) and set(raw) <= set(Record.model_fields)
    if keys_known and ("every" in raw) == ("at" in raw):  # a misspelt key has a message of its own
        raise PydanticCustomError("type", "either every or at")
    return raw
