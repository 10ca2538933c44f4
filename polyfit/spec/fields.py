"""The table of a fit's fields: how each is read and written, and what is allowed.

The spec, the sweep, the plan and the rows all go by this table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from polyfit.spec import readers
from polyfit.spec.fit import BASES, CANONICAL_ORDER, DTYPES, OBJECTIVES, Fit
from polyfit.spec.optimizer import TRAITS

__all__ = ["FIELDS", "MAX_DEGREE", "Field"]

MAX_DEGREE: Final = 30
MAX_POINTS: Final = 1_000_000
MAX_STEPS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Field:
    """How one field is read from plain YAML values and written back as JSON.

    ``read`` raises ValueError for a value that is not allowed; ``allowed`` says what is.
    ``integer`` and ``real``: which generators the field has. ``names`` are the texts that it may
    be; ``schema`` is the JSON Schema of what ``read`` takes.
    """

    name: str
    allowed: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value
    integer: bool = False
    real: bool = False
    names: tuple[str, ...] = ()
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def default(self) -> Any:
        return getattr(Fit(), self.name)


_NUMBER_OR_TEXT: Final = {"type": ["number", "string"]}
_ABOVE_ZERO: Final = {"type": "number", "exclusiveMinimum": 0}
_BETA: Final = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}


def _one_key(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a mapping of one key."""
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }


def _integer(name: str, allowed: str, low: int, high: int) -> Field:
    return Field(
        name,
        allowed,
        readers.integer(low, high),
        integer=True,
        schema={"type": "integer", "minimum": low, "maximum": high},
    )


def _choice(name: str, names: tuple[str, ...]) -> Field:
    return Field(
        name, " | ".join(names), readers.one_of(names), names=names, schema={"enum": [*names]}
    )


FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        _integer("degree", f"an integer from 0 to {MAX_DEGREE}", 0, MAX_DEGREE),
        _integer("points", f"an integer from 1 to {MAX_POINTS:,}", 1, MAX_POINTS),
        _choice("basis", BASES),
        Field(
            "range",
            "two numbers or constant formulas [low, high]",
            readers.range_of_x,
            list,
            schema={"type": "array", "items": _NUMBER_OR_TEXT, "minItems": 2, "maxItems": 2},
        ),
        _choice("objective", OBJECTIVES),
        _choice("dtype", DTYPES),
        Field("target", "a formula in x, such as sin(x)", readers.target, schema=_NUMBER_OR_TEXT),
        Field(
            "noise",
            "a number from 0 (a standard deviation)",
            readers.at_least_zero,
            real=True,
            schema={"type": "number", "minimum": 0},
        ),
        _integer("noise_seed", "an integer from 0 to 2^64 - 1", 0, 2**64 - 1),
        _integer("steps", f"an integer from 1 to {MAX_STEPS:,}", 1, MAX_STEPS),
        Field(
            "stop",
            "none, {gradient: norm} or {loss_change: ratio}, above 0",
            readers.stop,
            readers.write_stop,
            names=("none",),
            schema={
                "anyOf": [
                    {"enum": ["none", None]},
                    *(_one_key(name, _ABOVE_ZERO) for name in ("gradient", "loss_change")),
                ]
            },
        ),
        Field(
            "optimizer",
            "gd | adam | newton | {momentum: {beta: 0.9}} with beta from 0 to below 1",
            readers.optimizer,
            readers.write_optimizer,
            names=tuple(TRAITS),
            schema={"anyOf": [{"enum": [*TRAITS]}, _one_key("momentum", _one_key("beta", _BETA))]},
        ),
        Field(
            "lr",
            "auto, a number above 0, or {of_limit: share} with a share above 0",
            readers.rate,
            readers.write_rate,
            real=True,
            names=("auto",),
            schema={"anyOf": [{"const": "auto"}, _ABOVE_ZERO, _one_key("of_limit", _ABOVE_ZERO)]},
        ),
        _integer("seed", "an integer from 0 to 2^32 - 1 (torch keeps 32 bits)", 0, 2**32 - 1),
    )
}
assert tuple(FIELDS) == CANONICAL_ORDER
