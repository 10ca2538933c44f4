"""Generators: a few numbers of a spec -> the values of one field.

Integers in even steps become a ``range``, so that a thousand million seeds take no memory. Real
numbers are made exactly, as fractions of the decimals that are written, and rounded once.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from polyfit.spec import random_values
from polyfit.spec.fields import FIELDS, Field
from polyfit.spec.fit import Rate
from polyfit.spec.names import meant
from polyfit.spec.readers import number, positive
from polyfit.spec.suggestions import is_allowed, of_exponents, whole

__all__ = ["GENERATOR_KEYS", "MAX_LISTED", "MAX_RANDOM_SEED", "generate", "is_random"]

MAX_LISTED: Final = 100_000
"""Values that a generator of real numbers may make; integers in even steps have no such bound."""

MAX_RANDOM_SEED: Final = 2**64 - 1

GENERATOR_KEYS: Final = (
    *("count", "start", "stop", "step", "linspace", "logspace"),
    *("uniform", "log_uniform", "seed"),
)

_FORMS: Final = (
    "{count: n, start: a, step: d}, {start: a, stop: b, step: d} without b, "
    "{linspace: [a, b, n]}, {logspace: [a, b, n]} from 10^a to 10^b, "
    "{uniform: [a, b, n], seed: s}, {log_uniform: [a, b, n], seed: s}"
)
_SHARES: Final = replace(
    FIELDS["lr"],
    name="of_limit",
    allowed="a share above 0",
    read=lambda raw: Rate("of_limit", positive(raw)),
)


def generate(field: Field, raw: dict[str, Any]) -> tuple[Any, Sequence[Any]]:
    """A generator's canonical source and its values.

    Raises:
        ValueError: what is allowed.
    """
    if not (field.integer or field.real):
        raise ValueError(f"a list: {field.name} has no generator")
    match raw:
        case {"of_limit": dict() as inner, **others} if not others and field.name == "lr":
            source, items = generate(_SHARES, inner)
            return {"of_limit": source}, items
        case {"uniform": [a, b, n], **others} if set(others) <= {"seed"}:
            return _random(field, "uniform", a, b, n, others.get("seed", 0))
        case {"log_uniform": [a, b, n], **others} if set(others) <= {"seed"}:
            return _random(field, "log_uniform", a, b, n, others.get("seed", 0))
        case {"linspace": [a, b, n], **others} if not others:
            return _spaced(field, "linspace", number(a), number(b), n, float)
        case {"logspace": [a, b, n], **others} if not others:
            return _log_spaced(field, number(a), number(b), n)
        case {"count": count, **others} if set(others) <= {"start", "step"}:
            return _stepped(field, others.get("start", 0), others.get("step", 1), count)
        case {"start": start, "stop": stop, **others} if set(others) <= {"step"}:
            step = others.get("step", 1)
            _check_step(step)
            size = (_exact(stop) - _exact(start)) / _exact(step)
            return _stepped(field, start, step, max(0, math.ceil(size)))
    raise ValueError(_three(raw) or _FORMS + _advice(raw))


def _three(raw: dict[str, Any]) -> str:
    """What a generator of two ends takes, where it is given something else; "" of all others."""
    for kind in ("linspace", "logspace", "uniform", "log_uniform"):
        given = raw.get(kind)
        if kind in raw and not (isinstance(given, list) and len(given) == 3):
            text = f"{{{kind}: [a, b, n]}}: two ends and how many values"
            match given:
                case [int() | float() as a, int() | float() as b]:
                    return f"{text}; did you mean {{{kind}: [{a}, {b}, 10]}}?"
            return text
    return ""


def _advice(raw: dict[str, Any]) -> str:
    """What was probably meant by keys that no generator has."""
    hints = ((key, meant(key, GENERATOR_KEYS)) for key in raw if key not in GENERATOR_KEYS)
    lasts = (value[-1] if isinstance(value, list) and value else value for value in raw.values())
    floats = ((last, integer) for last in lasts if (integer := whole(last)))
    return "".join(
        [
            *(f"; did you mean {hint!r} for {key!r}?" for key, hint in hints if hint),
            *(f"; did you mean {integer} for {last!r}?" for last, integer in floats),
        ]
    )


def _random(
    field: Field, kind: str, low: Any, high: Any, count: Any, seed: Any
) -> tuple[Any, Sequence[Any]]:
    _check_two(count, kind)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_RANDOM_SEED:
        raise ValueError(f"a seed from 0 to 2^64 - 1; {_FORMS}")
    log = kind == "log_uniform"
    if field.integer:
        for end in (low, high):
            _check_reached(field, end)
    least, most = number(low), number(high)
    if not least < most or (log and least <= 0) or not math.isfinite(most - least):
        above = "0 < a < b" if log else "a < b"
        raise ValueError(f"{above}, the ends of {kind}")
    source = {kind: [low, high, count] if field.integer else [least, most, count], "seed": seed}
    if field.integer:
        return source, tuple(random_values.integers(field.name, seed, low, high, count, log))
    drawn = random_values.reals(field.name, seed, least, most, count, log)
    return source, tuple(_read_generated(field, value) for value in drawn)


def _check_reached(field: Field, value: Any) -> None:
    try:
        field.read(value)
    except ValueError:
        raise ValueError(f"{field.allowed}; the generator reaches {value}") from None


def _stepped(field: Field, start: Any, step: Any, count: Any) -> tuple[Any, Sequence[Any]]:
    if isinstance(count, bool) or not isinstance(count, int):
        hint = f"; did you mean {found}?" if (found := whole(count)) else ""
        raise ValueError(f"at least one value, and an integer as count; {_FORMS}{hint}")
    if count < 1:
        raise ValueError(f"at least one value; {_FORMS}")
    _check_step(step)
    if field.integer:
        return _integer_steps(field, start, step, count)
    _check_count(count)
    source = {"count": count, "start": number(start), "step": number(step)}
    return source, _listed(field, _evenly(_decimal(start), _decimal(step), count), float)


def _integer_steps(field: Field, start: Any, step: Any, count: int) -> tuple[Any, range]:
    if not all(isinstance(v, int) and not isinstance(v, bool) for v in (start, step)):
        raise ValueError(f"integers; {field.allowed}")
    if count > 2**62:
        raise ValueError("at most 2^62 values")
    items = range(start, start + step * count, step)
    for value in (items[0], items[-1]):
        _check_reached(field, value)
    return {"count": count, "start": start, "step": step}, items


def _spaced(
    field: Field,
    kind: str,
    a: float,
    b: float,
    count: Any,
    transform: Callable[[Fraction], float],
) -> tuple[Any, Sequence[Any]]:
    _check_two(count, kind)
    step = (_decimal(b) - _decimal(a)) / (count - 1)
    return {kind: [a, b, count]}, _listed(field, _evenly(_decimal(a), step, count), transform)


def _log_spaced(field: Field, a: float, b: float, count: Any) -> tuple[Any, Sequence[Any]]:
    try:
        return _spaced(field, "logspace", a, b, count, _power_of_ten)
    except ValueError as error:
        far = count > 1 and not is_allowed(field, _whole_power(max(a, b)))
        raise ValueError(f"{error}{of_exponents(a, b, count) if far else ''}") from None


def _whole_power(exponent: float) -> float:
    """10 to ``exponent``, as an integer where it is one; infinite beyond float64."""
    if exponent > 308:
        return math.inf
    value = 10.0**exponent
    return int(value) if value.is_integer() else value


def _listed(
    field: Field, numbers: Iterable[Fraction], transform: Callable[[Fraction], float]
) -> tuple[Any, ...]:
    items = tuple(_item(field, one, transform) for one in numbers)
    if len(set(items)) != len(items):
        raise ValueError("each value once; the generator makes one twice")
    return items


def _item(field: Field, exact: Fraction, transform: Callable[[Fraction], float]) -> Any:
    try:
        value = transform(exact)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError("finite values; the generator reaches one beyond float64")
    if field.integer and abs(round(value) - value) > 1e-9 * abs(value):
        raise ValueError(f"integers; the generator makes {value!r}")
    return _read_generated(field, round(value) if field.integer else value, value)


def _read_generated(field: Field, value: Any, written: Any = None) -> Any:
    try:
        return field.read(value)
    except ValueError:
        shown = value if written is None else written
        raise ValueError(f"{field.allowed}; the generator makes {shown!r}") from None


def _evenly(first: Fraction, step: Fraction, count: int) -> Iterator[Fraction]:
    return (first + step * i for i in range(count))


def _power_of_ten(exponent: Fraction) -> float:
    """10 to ``exponent``; of an integer as its decimal is read: pow may miss it by a bit."""
    whole = exponent.denominator == 1
    return float(f"1e{exponent}") if whole else float(10.0 ** float(exponent))


def _decimal(raw: Any) -> Fraction:
    """The shortest decimal of a number: for 0.1 a tenth, not the binary number next to it."""
    return Fraction(repr(number(raw)))


def _exact(raw: Any) -> Fraction:
    """An integer of any size itself, any other number as its decimal."""
    decimal = _decimal(raw)
    return Fraction(raw) if isinstance(raw, int) else decimal


def _check_step(raw: Any) -> None:
    if number(raw) == 0:
        raise ValueError("a step other than 0")


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_LISTED:
        raise ValueError(f"from 1 to {MAX_LISTED:,} values in a generator of real numbers")


def _check_two(count: Any, kind: str) -> None:
    """Check how many values there are to be between two ends."""
    if isinstance(count, bool) or not isinstance(count, int):
        hint = f"; did you mean {found} for {count!r}?" if (found := whole(count)) else ""
        raise ValueError(f"an integer as the number of values in {kind}{hint}")
    _check_count(count)
    if count < 2:
        raise ValueError(f"at least two values in {kind}; a single one is written as it is")


def is_random(source: dict[str, Any]) -> bool:
    """Whether a generator's canonical source makes random values."""
    return "uniform" in source or "log_uniform" in source
