"""The fields of a fit: one value, many values, and back to JSON."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.spec.axis import ItemError, Values
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit, Rate, Stop
from polyfit.spec.optimizer import Optimizer

GENERATOR_KEYS = [
    *("count", "start", "stop", "step", "linspace", "logspace"),
    *("momentum", "beta", "of_limit", "gradient", "loss_change", "other"),
]
PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 10),
        st.integers(),
        st.sampled_from([2**32, 2**62, 2**63, 2**64, 10**19, -(10**19), 10**399, -(10**399)]),
        st.floats(),
        st.sampled_from([1e308, -1e308, 5e-324, math.inf]),
        st.sampled_from(["auto", "none", "gd", "momentum", "sse", "x", "pi", "1/0", "power", "("]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(GENERATOR_KEYS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def values(name: str, raw: Any) -> list[Any]:
    return list(Values.read(name, raw).items)


def test_the_canonical_order_is_that_of_the_fields_of_a_fit() -> None:
    order = "degree points basis range objective dtype target noise noise_seed steps"
    assert " ".join(CANONICAL_ORDER) == f"{order} stop optimizer lr seed"


@pytest.mark.parametrize("name", CANONICAL_ORDER)
def test_a_default_is_itself_allowed(name: str) -> None:
    field = FIELDS[name]
    assert field.read(field.write(field.default)) == field.default == getattr(Fit(), name)


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("degree", 0, 0),
        ("degree", 30, 30),
        ("points", 1, 1),
        ("points", 1_000_000, 1_000_000),
        ("basis", "legendre", "legendre"),
        ("range", [-1, "2*pi"], (-1.0, 2 * math.pi)),
        ("range", ["-pi", "pi"], (-math.pi, math.pi)),
        ("range", [-0.0, 1], (0.0, 1.0)),
        ("objective", "l1", "l1"),
        ("dtype", "float64", "float64"),
        ("target", " sin( (x) ) ", "sin(x)"),
        ("target", 1, "1"),
        ("noise", 0, 0.0),
        ("noise_seed", 2**64 - 1, 2**64 - 1),
        ("steps", 1_000_000_000, 1_000_000_000),
        ("stop", "none", None),
        ("stop", None, None),
        ("stop", {"gradient": 1}, Stop("gradient", 1.0)),
        ("stop", {"loss_change": 1e-3}, Stop("loss_change", 1e-3)),
        ("optimizer", "gd", Optimizer("gd")),
        ("optimizer", "momentum", Optimizer("momentum", 0.9)),
        ("optimizer", {"momentum": {"beta": 0}}, Optimizer("momentum", 0.0)),
        ("lr", "auto", Rate("auto")),
        ("lr", 1, Rate("number", 1.0)),
        ("lr", {"of_limit": 0.9}, Rate("of_limit", 0.9)),
        ("seed", 2**32 - 1, 2**32 - 1),
    ],
)
def test_an_allowed_value_is_read(name: str, raw: Any, expected: Any) -> None:
    found = FIELDS[name].read(raw)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("degree", -1),
        ("degree", 31),
        ("degree", 3.0),
        ("degree", True),
        ("degree", "3"),
        ("points", 0),
        ("points", 1_000_001),
        ("basis", "Power"),
        ("basis", ["power"]),
        ("range", [1, 1]),
        ("range", [1, -1]),
        ("range", [0]),
        ("range", [0, 1, 2]),
        ("range", "01"),
        ("range", [0, "x"]),
        ("range", [0, "1/0"]),
        ("range", [0, math.inf]),
        ("range", [-1e308, 1e308]),
        ("range", [0, True]),
        ("range", [1.0, 1.0000000000000002]),
        ("objective", "SSE"),
        ("dtype", "float16"),
        ("target", "y"),
        ("target", True),
        ("target", None),
        ("target", math.nan),
        ("noise", -1),
        ("noise", math.nan),
        ("noise", "0.1"),
        ("noise", 10**400),
        ("noise_seed", 2**64),
        ("steps", 0),
        ("stop", {"gradient": 0}),
        ("stop", {"gradient": 1, "loss_change": 1}),
        ("stop", {}),
        ("optimizer", "sgd"),
        ("optimizer", {"momentum": {"beta": 1}}),
        ("optimizer", {"momentum": {"beta": -0.1}}),
        ("optimizer", {"momentum": {}}),
        ("optimizer", {"momentum": {"beta": 0.9, "nesterov": True}}),
        ("optimizer", {"adam": {}}),
        ("lr", 0),
        ("lr", -1),
        ("lr", True),
        ("lr", "fast"),
        ("lr", {"of_limit": 0}),
        ("lr", {"of_limit": 1, "else": 2}),
        ("seed", 2**32),
        ("seed", -1),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(name: str, raw: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - an empty message stands for `allowed`
        FIELDS[name].read(raw)


@pytest.mark.parametrize("name", CANONICAL_ORDER)
@given(raw=PLAIN)
@settings(max_examples=60, deadline=None)
def test_any_plain_value_is_read_or_refused_and_what_is_read_survives_json(
    name: str, raw: Any
) -> None:
    field = FIELDS[name]
    try:
        value = field.read(raw)
    except ValueError:
        return
    assert field.read(json.loads(json.dumps(field.write(value), allow_nan=False))) == value


@pytest.mark.parametrize("name", CANONICAL_ORDER)
@given(raw=PLAIN)
@settings(max_examples=60, deadline=None)
def test_any_plain_axis_is_read_or_refused_and_what_is_read_survives_json(
    name: str, raw: Any
) -> None:
    try:
        read = Values.read(name, raw)
    except ValueError:
        return
    source = json.loads(json.dumps(read.source, allow_nan=False))
    assert len(read) == len(read.items) > 0
    assert Values.read(name, source) == read


# --- lists and generators --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("seed", [3, 1, 2], [3, 1, 2]),
        ("seed", {"count": 3}, [0, 1, 2]),
        ("seed", {"count": 3, "start": 5}, [5, 6, 7]),
        ("seed", {"count": 3, "start": 5, "step": -2}, [5, 3, 1]),
        ("seed", {"start": 2, "stop": 8, "step": 3}, [2, 5]),
        ("seed", {"start": 2, "stop": 9, "step": 3}, [2, 5, 8]),
        ("seed", {"start": 3, "stop": 0, "step": -1}, [3, 2, 1]),
        ("seed", {"start": 1, "stop": 4}, [1, 2, 3]),
        ("degree", {"linspace": [1, 9, 5]}, [1, 3, 5, 7, 9]),
        ("points", {"logspace": [1, 3, 3]}, [10, 100, 1000]),
        ("noise", {"count": 3, "step": 0.5}, [0.0, 0.5, 1.0]),
        ("noise", {"start": 0, "stop": 0.3, "step": 0.1}, [0.0, 0.1, 0.2]),
        ("noise", {"start": 1, "stop": 0, "step": -0.5}, [1.0, 0.5]),
        ("noise", {"linspace": [0, 1, 5]}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("lr", {"logspace": [-2, 0, 3]}, [Rate("number", v) for v in (0.01, 0.1, 1.0)]),
        ("lr", ["auto", 0.1], [Rate("auto"), Rate("number", 0.1)]),
    ],
)
def test_a_generator_makes_its_values_in_order(name: str, raw: Any, expected: list[Any]) -> None:
    assert values(name, raw) == expected


TENTHS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("noise", {"count": 10, "start": 0, "step": 0.1}, TENTHS),
        ("noise", {"start": 0, "stop": 1, "step": 0.1}, TENTHS),
        ("noise", {"start": 0.9, "stop": -0.1, "step": -0.1}, TENTHS[::-1]),
        ("noise", {"linspace": [0, 0.9, 10]}, TENTHS),
        ("noise", {"linspace": [0.7, 0.1, 7]}, [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("noise", {"linspace": [0, 1, 4]}, [0.0, 1 / 3, 2 / 3, 1.0]),
        ("noise", {"count": 4, "start": 1e22, "step": 1e22}, [1e22, 2e22, 3e22, 4e22]),
        ("lr", {"logspace": [-3, 0, 4]}, [Rate("number", v) for v in (0.001, 0.01, 0.1, 1.0)]),
        ("noise", {"logspace": [22.7, 23.1, 5]}, [10**22.7, 10**22.8, 10**22.9, 1e23, 10**23.1]),
    ],
)
def test_generated_numbers_are_the_decimals_that_a_person_would_write(
    name: str, raw: Any, expected: list[Any]
) -> None:
    assert values(name, raw) == expected


DECIMALS = st.decimals(0, 1000, places=4).map(str)


@given(DECIMALS, DECIMALS.filter(lambda text: float(text) > 0), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_the_three_ways_to_say_even_steps_give_the_same_decimals(
    start: str, step: str, count: int
) -> None:
    expected = [float(Decimal(start) + i * Decimal(step)) for i in range(count)]
    first, width, stop = float(start), float(step), Decimal(start) + count * Decimal(step)
    assert values("noise", {"count": count, "start": first, "step": width}) == expected
    assert values("noise", {"start": first, "stop": float(stop), "step": width}) == expected
    if count > 1:
        assert values("noise", {"linspace": [first, expected[-1], count]}) == expected


def test_integers_beyond_float64_are_kept_exact() -> None:
    start = 2**63 + 1
    found = values("noise_seed", {"start": start, "stop": start + 3})
    assert found == [start, start + 1, start + 2]


@given(st.integers(0, 1000), st.integers(-50, 50).filter(bool), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_start_stop_step_are_pythons_range(start: int, step: int, stop: int) -> None:
    raw = {"start": start, "stop": stop, "step": step}
    expected = list(range(start, stop, step))
    if expected:
        assert values("seed", raw) == expected
    else:
        with pytest.raises(ValueError, match="at least one value"):
            values("seed", raw)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(2, 50))
@settings(max_examples=60, deadline=None)
def test_linspace_begins_and_ends_where_it_says(a: float, b: float, n: int) -> None:
    try:
        found = values("noise", {"linspace": [a, b, n]})
    except ValueError:
        assert abs(b - a) <= (n - 1) * math.ulp(max(a, b))  # neighbours may round to one number
        return
    assert (found[0], found[-1], len(found)) == (a, b, n)
    assert found == sorted(found, reverse=a > b)


def test_a_thousand_million_seeds_take_no_memory() -> None:
    read = Values.read("seed", {"count": 1_000_000_000})
    assert (len(read), read.items) == (1_000_000_000, range(1_000_000_000))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("seed", [], "a list with at least one value, or a generator"),
        ("seed", 3, "a list with at least one value, or a generator"),
        ("seed", {"count": 0}, "at least one value"),
        ("seed", {"count": 1.5}, "at least one value"),
        ("seed", {"count": True}, "at least one value"),
        ("seed", {"count": 1e6}, "an integer as count"),
        ("seed", {"counts": 3}, r"\{count: n, start: a, step: d\}"),
        ("seed", {}, r"\{count: n, start: a, step: d\}"),
        ("seed", {"count": 3, "stop": 4}, r"\{count: n, start: a, step: d\}"),
        ("seed", {"count": 3, "step": 0}, "a step other than 0"),
        ("seed", {"start": 0, "stop": 3, "step": 0}, "a step other than 0"),
        ("seed", {"count": 3, "step": 0.5}, "integers"),
        ("seed", {"count": 2, "start": 2**32 - 1}, "2\\^32 - 1.*reaches 4294967296"),
        ("seed", {"count": 2, "start": -1}, "reaches -1"),
        ("seed", {"start": 0, "stop": 10**20}, "at most 2\\^62 values"),
        ("seed", {"start": 0, "stop": 10**30}, "at most 2\\^62 values"),
        ("noise_seed", {"count": 2**63}, "at most 2\\^62 values"),
        ("degree", {"linspace": [0, 3, 3]}, "integers; the generator makes 1.5"),
        ("degree", {"linspace": [-1e308, 1e308, 3]}, r"from 0 to 30; the generator makes -1e\+308"),
        ("degree", {"linspace": [0, 1, 1]}, "at least two values"),
        ("noise", {"linspace": [0, 1, 100_001]}, "from 1 to 100,000 values"),
        ("noise", {"linspace": [0, 0, 2]}, "each value once"),
        ("noise", {"linspace": [1, -1, 3]}, "the generator makes -1"),
        ("noise", {"count": 10**9}, "from 1 to 100,000 values"),
        ("noise", {"start": 0, "stop": 1e300}, "from 1 to 100,000 values"),
        ("lr", {"logspace": [0, 400, 3]}, "finite values"),
        ("lr", {"linspace": [0, 1, 3]}, "the generator makes 0.0"),
        ("basis", {"count": 2}, "a list: basis has no generator"),
        ("range", {"linspace": [0, 1, 3]}, "a list: range has no generator"),
    ],
)
def test_a_generator_that_makes_no_sense_is_refused(name: str, raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Values.read(name, raw)


def test_every_wrong_item_of_a_list_is_told() -> None:
    with pytest.raises(ItemError) as caught:
        Values.read("seed", [0, "a", 0, -1])
    allowed = "an integer from 0 to 2^32 - 1 (torch keeps 32 bits)"
    assert caught.value.items == [
        (1, "a", allowed),
        (2, 0, "each value once; it equals item 0"),
        (3, -1, allowed),
    ]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("noise", [0, 0.0]),
        ("noise", [0.0, -0.0]),
        ("lr", [1, 1.0]),
        ("target", ["sin(x)", "sin((x))"]),
        ("range", [["-pi", "pi"], [-math.pi, math.pi]]),
        ("optimizer", ["momentum", {"momentum": {"beta": 0.9}}]),
        ("stop", ["none", None]),
    ],
)
def test_a_value_written_in_two_ways_stands_twice(name: str, raw: list[Any]) -> None:
    with pytest.raises(ItemError) as caught:
        Values.read(name, raw)
    assert caught.value.items[0][2] == "each value once; it equals item 0"
    assert len(Values.read(name, raw, distinct=False)) == 2


def test_values_are_shown_as_they_are_written() -> None:
    shown = [Optimizer("gd"), Optimizer("momentum", 0.9), Rate("auto"), Rate("number", 0.1)]
    assert [str(value) for value in shown] == ["gd", "momentum(beta=0.9)", "auto", "0.1"]
    assert str(Rate("of_limit", 0.9)) == "{of_limit: 0.9}"
    assert str(Stop("gradient", 1e-6)) == "gradient=1e-06"
