"""Generators of values."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import values

from polyfit.spec.axis import Values
from polyfit.spec.fit import Rate


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
        ("seed", {"start": 1, "end": 5}, "did you mean 'stop' for 'end'"),
        ("lr", {"loguniform": [1, 2, 3]}, "did you mean 'log_uniform' for 'loguniform'"),
        ("noise", {"uniform": [1, 0, 5]}, "a < b, the ends of uniform"),
        ("noise", {"log_uniform": [0, 1, 5]}, "0 < a < b, the ends of log_uniform"),
        ("noise", {"uniform": [0, 1, 5], "seed": -1}, r"a seed from 0 to 2\^64 - 1"),
        ("noise", {"uniform": [0, 5e-324, 5]}, "a range with 5 values; 2 were drawn"),
        ("degree", {"uniform": [0, 31, 3]}, "30; the generator reaches 31"),
        ("degree", {"uniform": [0.5, 3, 3]}, "30; the generator reaches 0.5"),
        ("degree", {"uniform": [0, 5, 7]}, "at most the 6 integers from 0 to 5, each once"),
        (
            "lr",
            {"log_uniform": [0.1, 1]},
            r"how many values; did you mean \{log_uniform: \[0.1, 1, 10",
        ),
        (
            "seed",
            {"uniform": [7], "seed": 1},
            r"\{uniform: \[a, b, n\]\}: two ends and how many values$",
        ),
        ("lr", {"of_limit": {"logspace": 3}}, r"\{logspace: \[a, b, n\]\}: two ends"),
        ("lr", {"log_uniform": [0.1, 1, 1]}, "at least two values in log_uniform; a single one"),
        ("noise", {"uniform": [0, 1, 5.0]}, "number of values in uniform; did you mean 5"),
        ("noise", {"log_uniform": [1, 2, "five"]}, "an integer as the number of values"),
        ("lr", {"of_limit": {"linspace": [0, 1, 3]}}, "a share above 0; the generator makes 0.0"),
        ("basis", {"count": 2}, "a list: basis has no generator"),
        ("range", {"linspace": [0, 1, 3]}, "a list: range has no generator"),
    ],
)
def test_a_generator_that_makes_no_sense_is_refused(name: str, raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Values.read(name, raw)


# A plan states its generators and not their values: these are the same on every machine for good.
RANDOM = [
    ("noise", {"uniform": [0, 0.5, 3], "seed": 1},
     [0.16771807018959628, 0.10744269945808083, 0.2379513414379973]),
    ("noise", {"log_uniform": [1e-6, 1, 3], "seed": 2**64 - 1},
     [1.3894374606940187e-05, 2.3493035958584684e-06, 0.021110727251012214]),
    ("seed", {"uniform": [0, 2**32 - 1, 3]}, [425454589, 1477891864, 4099435149]),
    ("points", {"log_uniform": [10, 10**6, 3], "seed": 5}, [460277, 37776, 24]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "expected"), RANDOM)
def test_random_values_have_the_same_bits_everywhere(
    name: str, raw: Any, expected: list[Any]
) -> None:
    assert values(name, raw) == expected


@given(
    st.sampled_from(["uniform", "log_uniform"]),
    st.sampled_from(["noise", "lr", "seed", "points"]),
    st.integers(2, 300),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=60, deadline=None)
def test_random_values_are_distinct_within_their_ends_and_fewer_are_a_prefix(
    kind: str, name: str, count: int, seed: int
) -> None:
    found = values(name, {kind: [1, 400, count], "seed": seed})
    numbers = [one.value if isinstance(one, Rate) else one for one in found]
    assert len(set(numbers)) == count
    assert all(1 <= one <= 400 for one in numbers)
    fewer = max(2, count // 2)
    assert values(name, {kind: [1, 400, fewer], "seed": seed}) == found[:fewer]


def test_a_random_generator_may_reach_all_integers_of_its_range() -> None:
    assert sorted(values("degree", {"uniform": [0, 30, 31]})) == list(range(31))
    assert sorted(values("degree", {"log_uniform": [1, 30, 30]})) == list(range(1, 31))


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ({"linspace": [0.1, 1.2, 12]}, [n / 10 for n in range(1, 13)]),
        ({"logspace": [-1, 1, 3]}, [0.1, 1.0, 10.0]),
        ({"start": 0.5, "stop": 1, "step": 0.25}, [0.5, 0.75]),
        ([0.5, 0.9], [0.5, 0.9]),
    ],
)
def test_shares_of_the_limit_have_generators_and_lists(share: Any, expected: list[float]) -> None:
    assert values("lr", {"of_limit": share}) == [Rate("of_limit", one) for one in expected]
