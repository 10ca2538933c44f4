"""The fields of a fit: their types, defaults, what is allowed, and their canonical order.

Everything that must hold for every field (reading one value, writing it to JSON, listing many)
is said once here; spec, sweep, plan and rows all go by this table.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from fractions import Fraction
from math import ceil
from typing import Any, Final

from polyfit.errors import FormulaError
from polyfit.numerics.formula import Formula, constant

__all__ = [
    "BASES",
    "CANONICAL_ORDER",
    "FIELDS",
    "MAX_DEGREE",
    "OBJECTIVES",
    "OPTIMIZERS",
    "SQUARED",
    "Field",
    "Fit",
    "Optimizer",
    "Rate",
    "Stop",
    "Values",
]

BASES: Final = ("chebyshev", "legendre", "power")
OBJECTIVES: Final = ("sse", "mse", "huber", "log_cosh", "l1")
SQUARED: Final = ("sse", "mse")
OPTIMIZERS: Final = ("gd", "momentum", "adam", "newton")
DTYPES: Final = ("float32", "float64")

MAX_DEGREE: Final = 30
MAX_POINTS: Final = 1_000_000
MAX_STEPS: Final = 1_000_000_000
MAX_LISTED: Final = 100_000
"""Values that a generator of real numbers may make; integers in even steps have no such bound."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An update rule; ``beta`` is momentum's and 0 for the others."""

    name: str
    beta: float = 0.0

    def __str__(self) -> str:
        return f"momentum(beta={self.beta!r})" if self.name == "momentum" else self.name


@dataclass(frozen=True, slots=True)
class Rate:
    """A learning rate as asked for: ``auto``, a ``number``, or a share ``of_limit``."""

    kind: str
    value: float = 0.0

    def __str__(self) -> str:
        match self.kind:
            case "auto":
                return "auto"
            case "number":
                return repr(self.value)
        return f"{{of_limit: {self.value!r}}}"


@dataclass(frozen=True, slots=True)
class Stop:
    """End a fit early: ``gradient`` norm at most, or relative ``loss_change`` at most."""

    kind: str
    tolerance: float

    def __str__(self) -> str:
        return f"{self.kind}={self.tolerance!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One regression. The fields stand in canonical order, the slowest axis first."""

    degree: int = 3
    points: int = 2000
    basis: str = "chebyshev"
    range: tuple[float, float] = (-math.pi, math.pi)
    objective: str = "sse"
    dtype: str = "float32"
    target: str = "sin(x)"
    noise: float = 0.0
    noise_seed: int = 0
    steps: int = 2000
    stop: Stop | None = None
    optimizer: Optimizer = Optimizer("gd")
    lr: Rate = Rate("auto")
    seed: int = 0


CANONICAL_ORDER: Final = tuple(field.name for field in dataclass_fields(Fit))


@dataclass(frozen=True, slots=True)
class Field:
    """How one field is read from plain YAML values and written back as JSON.

    ``read`` raises ValueError for what is not allowed; ``allowed`` says what is. ``integer``
    and ``real`` tell which generators make sense.
    """

    name: str
    allowed: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value
    integer: bool = False
    real: bool = False

    @property
    def default(self) -> Any:
        return getattr(Fit(), self.name)


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one field along an axis, in order.

    ``items`` is a tuple, or a ``range`` for integers in even steps, so that a thousand million
    seeds take no memory. ``source`` is the canonical JSON it was made from.
    """

    field: str
    source: Any
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def read(cls, name: str, raw: Any, distinct: bool = True) -> "Values":
        """Read a list or a generator of field ``name``.

        ``distinct`` is False within a zip, where only a whole row may not stand twice.

        Raises:
            ValueError: what was found and what is allowed; for one item of a list the message
                is an ``ItemError`` that knows which.
        """
        field = FIELDS[name]
        if isinstance(raw, dict):
            return cls(name, *_generate(field, raw))
        if not isinstance(raw, list) or not raw:
            raise ValueError("a list with at least one value, or a generator")
        items: list[Any] = []
        problems: list[tuple[int, Any, str]] = []
        seen: dict[Any, int] = {}
        for i, item in enumerate(raw):
            try:
                value = field.read(item)
            except ValueError as error:
                problems.append((i, item, str(error) or field.allowed))
                continue
            if distinct and value in seen:
                problems.append((i, item, f"each value once; it stands at item {seen[value]} too"))
            seen.setdefault(value, i)
            items.append(value)
        if problems:
            raise ItemError(problems)
        return cls(name, [field.write(item) for item in items], tuple(items))


class ItemError(ValueError):
    """Items of a list that are not allowed: (position, what was found, what is allowed)."""

    def __init__(self, problems: list[tuple[int, Any, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


def _number(raw: Any) -> float:
    """A finite float64 from a YAML number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError
    try:
        value = float(raw)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(value):
        raise ValueError
    return value + 0.0  # -0.0 and 0.0 are one value


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise ValueError
        return raw

    return read


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    def read(raw: Any) -> str:
        if not isinstance(raw, str) or raw not in names:
            raise ValueError
        return raw

    return read


def _at_least_zero(raw: Any) -> float:
    value = _number(raw)
    if value < 0:
        raise ValueError
    return value


def _positive(raw: Any) -> float:
    value = _number(raw)
    if value <= 0:
        raise ValueError
    return value


def _end(raw: Any) -> float:
    if isinstance(raw, str):
        try:
            return _number(constant(raw))
        except FormulaError as error:
            raise ValueError(str(error)) from None
    return _number(raw)


def _range(raw: Any) -> tuple[float, float]:
    if not isinstance(raw, list | tuple) or len(raw) != 2:
        raise ValueError
    low, high = _end(raw[0]), _end(raw[1])
    width = high - low
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"low < high with a finite width, here {low!r} and {high!r}")
    if low + width / 2 in (low, high):
        raise ValueError("ends that float64 can tell from their middle")
    return low, high


def _target(raw: Any) -> str:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError
    try:
        return Formula.parse(raw if isinstance(raw, str) else repr(raw)).text
    except FormulaError as error:
        raise ValueError(str(error)) from None


def _optimizer(raw: Any) -> Optimizer:
    if isinstance(raw, str) and raw in ("gd", "adam", "newton"):
        return Optimizer(raw)
    match raw:
        case "momentum":
            return Optimizer("momentum", 0.9)
        case {"momentum": {"beta": beta, **unknown}, **others} if not unknown and not others:
            value = _at_least_zero(beta)
            if value < 1:
                return Optimizer("momentum", value)
    raise ValueError


def _rate(raw: Any) -> Rate:
    match raw:
        case "auto":
            return Rate("auto")
        case {"of_limit": share, **others} if not others:
            return Rate("of_limit", _positive(share))
    return Rate("number", _positive(raw))


def _stop(raw: Any) -> Stop | None:
    match raw:
        case None | "none":
            return None
        case {"gradient": tolerance, **others} if not others:
            return Stop("gradient", _positive(tolerance))
        case {"loss_change": tolerance, **others} if not others:
            return Stop("loss_change", _positive(tolerance))
    raise ValueError


def _write_optimizer(value: Optimizer) -> Any:
    return {"momentum": {"beta": value.beta}} if value.name == "momentum" else value.name


def _write_rate(value: Rate) -> Any:
    match value.kind:
        case "auto":
            return "auto"
        case "number":
            return value.value
    return {"of_limit": value.value}


def _count(name: str, allowed: str, low: int, high: int) -> Field:
    return Field(name, allowed, _integer(low, high), integer=True)


_RATE = "auto, a number above 0, or {of_limit: share} with a share above 0"
_STOP = "none, {gradient: norm} or {loss_change: ratio}, above 0"

FIELDS: Final[dict[str, Field]] = {
    field.name: field
    for field in (
        _count("degree", f"an integer from 0 to {MAX_DEGREE}", 0, MAX_DEGREE),
        _count("points", f"an integer from 1 to {MAX_POINTS:,}", 1, MAX_POINTS),
        Field("basis", " | ".join(BASES), _one_of(BASES)),
        Field("range", "two numbers or constant formulas [low, high]", _range, list),
        Field("objective", " | ".join(OBJECTIVES), _one_of(OBJECTIVES)),
        Field("dtype", " | ".join(DTYPES), _one_of(DTYPES)),
        Field("target", "a formula in x, such as sin(x)", _target),
        Field("noise", "a number from 0 (a standard deviation)", _at_least_zero, real=True),
        _count("noise_seed", "an integer from 0 to 2^64 - 1", 0, 2**64 - 1),
        _count("steps", f"an integer from 1 to {MAX_STEPS:,}", 1, MAX_STEPS),
        Field("stop", _STOP, _stop, lambda v: None if v is None else {v.kind: v.tolerance}),
        Field(
            "optimizer",
            "gd | adam | newton | {momentum: {beta: 0.9}} with beta from 0 to below 1",
            _optimizer,
            _write_optimizer,
        ),
        Field("lr", _RATE, _rate, _write_rate, real=True),
        _count("seed", "an integer from 0 to 2^32 - 1 (torch keeps 32 bits)", 0, 2**32 - 1),
    )
}
assert tuple(FIELDS) == CANONICAL_ORDER

_GENERATORS: Final = (
    "{count: n, start: a, step: d}, {start: a, stop: b, step: d} without b, "
    "{linspace: [a, b, n]}, {logspace: [a, b, n]} from 10^a to 10^b"
)


def _generate(field: Field, raw: dict[str, Any]) -> tuple[Any, Sequence[Any]]:
    """A generator's canonical source and its values."""
    if not (field.integer or field.real):
        raise ValueError(f"a list: {field.name} has no generator")
    match raw:
        case {"linspace": [a, b, int(n)], **others} if not others:
            return _spaced(field, "linspace", _number(a), _number(b), n, float)
        case {"logspace": [a, b, int(n)], **others} if not others:
            return _spaced(field, "logspace", _number(a), _number(b), n, _power_of_ten)
        case {"count": count, **others} if set(others) <= {"start", "step"}:
            return _stepped(field, others.get("start", 0), others.get("step", 1), count)
        case {"start": start, "stop": stop, **others} if set(others) <= {"step"}:
            step = others.get("step", 1)
            _positive_or_negative(step)
            size = (_exact(stop) - _exact(start)) / _exact(step)
            return _stepped(field, start, step, max(0, ceil(size)))
    raise ValueError(_GENERATORS)


def _exact(raw: Any) -> Fraction:
    """An integer itself, of any size; else as it is written."""
    written = _written(raw)
    return Fraction(raw) if isinstance(raw, int) else written


def _written(raw: Any) -> Fraction:
    """The shortest decimal of a number: of 0.1 a tenth, and not the binary number next to it."""
    return Fraction(repr(_number(raw)))


def _power_of_ten(exponent: Fraction) -> float:
    """10 to ``exponent``; that of an integer as its decimal is read, which pow may miss."""
    whole = exponent.denominator == 1
    return float(f"1e{exponent}") if whole else float(10.0 ** float(exponent))


def _evenly(first: Fraction, step: Fraction, count: int) -> Iterator[Fraction]:
    """``count`` numbers, exact: each is rounded once, when it is made a float."""
    return (first + step * i for i in range(count))


def _positive_or_negative(raw: Any) -> float:
    value = _number(raw)
    if value == 0:
        raise ValueError("a step other than 0")
    return value


def _stepped(field: Field, start: Any, step: Any, count: Any) -> tuple[Any, Sequence[Any]]:
    if isinstance(count, bool) or not isinstance(count, int):
        raise ValueError(f"at least one value, and an integer as count; {_GENERATORS}")
    if count < 1:
        raise ValueError(f"at least one value; {_GENERATORS}")
    _positive_or_negative(step)
    if not field.integer:
        _bounded(count)
        source = {"count": count, "start": _number(start), "step": _number(step)}
        return _listed(field, source, _evenly(_written(start), _written(step), count), float)
    if not all(isinstance(v, int) and not isinstance(v, bool) for v in (start, step)):
        raise ValueError(f"integers; {field.allowed}")
    if count > 2**62:
        raise ValueError("at most 2^62 values")
    items = range(start, start + step * count, step)
    for value in (items[0], items[-1]):
        try:
            field.read(value)
        except ValueError:
            raise ValueError(f"{field.allowed}; the generator reaches {value}") from None
    return {"count": count, "start": start, "step": step}, items


def _spaced(
    field: Field,
    kind: str,
    a: float,
    b: float,
    n: int,
    transform: Callable[[Fraction], float],
) -> tuple[Any, Sequence[Any]]:
    _bounded(n)
    if n < 2:
        raise ValueError("at least two values in linspace and logspace")
    step = (_written(b) - _written(a)) / (n - 1)
    return _listed(field, {kind: [a, b, n]}, _evenly(_written(a), step, n), transform)


def _bounded(count: int) -> None:
    if isinstance(count, bool) or not 1 <= count <= MAX_LISTED:
        raise ValueError(f"from 1 to {MAX_LISTED:,} values in a generator of real numbers")


def _listed(
    field: Field,
    source: dict[str, Any],
    numbers: Iterable[Fraction],
    transform: Callable[[Fraction], float],
) -> tuple[Any, Sequence[Any]]:
    items = []
    for number in numbers:
        try:
            value = transform(number)
        except OverflowError:
            value = math.inf
        item: Any = value
        if not math.isfinite(value):
            raise ValueError("finite values; the generator reaches one beyond float64")
        if field.integer:
            item = round(value)
            if abs(item - value) > 1e-9 * abs(value):
                raise ValueError(f"integers; the generator makes {value!r}")
        try:
            items.append(field.read(item))
        except ValueError:
            raise ValueError(f"{field.allowed}; the generator makes {value!r}") from None
    if len(set(items)) != len(items):
        raise ValueError("each value once; the generator makes one twice")
    return source, tuple(items)
