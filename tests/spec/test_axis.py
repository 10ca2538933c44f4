"""The values of one field along an axis."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from plain import PLAIN

from polyfit.spec.axis import ItemError, Values
from polyfit.spec.fit import CANONICAL_ORDER


@pytest.mark.slow
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


def test_every_wrong_item_of_a_list_is_reported() -> None:
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
