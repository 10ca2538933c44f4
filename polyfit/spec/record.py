"""The section ``record``: what is recorded of a fit, and at which updates."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from polyfit.spec.section import Count, Section

__all__ = ["MAX_RECORDED", "Record", "read_record"]

RECORDABLE: Final = ("loss", "coefficients", "gradient_norm")
MAX_RECORDED: Final = 10_000
"""Updates that are recorded of one fit."""


class Record(Section):
    """What is recorded of a fit: ``of`` at every ``every``-th update, or at the updates ``at``."""

    every: Count | None = Field(None, description="an integer from 1")
    at: Annotated[tuple[Annotated[int, Field(strict=True, ge=0)], ...], Field(strict=False)] = (
        Field(
            (),
            min_length=1,
            max_length=MAX_RECORDED,
            description="a rising list of integers from 0",
        )
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
        if self.every is not None:
            return list(range(self.every - 1, steps, self.every))
        return [u for u in self.at if u < steps]

    def canonical(self) -> Any:
        """As JSON; ``none`` where nothing is recorded."""
        if not self.of:
            return "none"
        when = {"every": self.every} if self.every is not None else {"at": list(self.at)}
        return {**when, "of": [name for name in RECORDABLE if name in self.of]}

    @classmethod
    def restore(cls, source: Any) -> "Record":
        """The record that ``canonical`` wrote."""
        return _NOTHING if source == "none" else cls.model_validate(source)


_NOTHING: Final = Record.model_construct(every=None, at=(), of=())


def read_record(raw: Any) -> Any:
    """What pydantic is to read as a Record: ``none`` is one that records nothing."""
    if raw == "none":
        return _NOTHING
    keys_known = isinstance(raw, dict) and set(raw) <= set(Record.model_fields)
    if keys_known and ("every" in raw) == ("at" in raw):  # a misspelt key has a message of its own
        raise PydanticCustomError("type", "either every or at")
    return raw
