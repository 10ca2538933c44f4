"""The section ``record`` of a spec."""

import json

import numpy as np
import pytest
from specs import spec

from polyfit.spec.record import AUTOMATIC, Record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", []),
        ("auto", [0, 1, 2, 5, 9]),
        ("{at: auto, of: [coefficients]}", [0, 1, 2, 5, 9]),
        ("{every: 4}", [3, 7]),
        ("{every: 100}", []),
        ("{at: [0, 1, 9]}", [0, 1, 9]),
        ("{at: [5], of: [coefficients, gradient_norm]}", [5]),
    ],
)
def test_a_record_says_at_which_updates(text: str, expected: list[int]) -> None:
    found = spec(f"fit: {{steps: 10}}\nrecord: {text}").record
    assert found.updates(10) == expected
    assert Record.restore(json.loads(json.dumps(found.canonical()))) == found


@pytest.mark.parametrize("text", ["auto", "{every: 4}", "{every: 100}", "{at: [0, 1, 9]}", "none"])
def test_updates_are_counted_as_they_are_listed(text: str) -> None:
    record = spec(f"fit: {{steps: 300}}\nrecord: {text}").record
    steps = range(1, 300)
    assert [record.count(s) for s in steps] == [len(record.updates(s)) for s in steps]
    counted = [sum(u < s // 3 for u in record.updates(s)) for s in steps]
    assert record.counts(np.array(steps), np.array(steps) // 3).tolist() == counted


def test_the_automatic_record_grows_by_a_few_for_each_power_of_ten() -> None:
    assert AUTOMATIC.updates(1) == [0]
    assert AUTOMATIC.updates(2000)[-4:] == [200, 500, 1000, 1999]
    assert AUTOMATIC.updates(10**9)[-3:] == [200_000_000, 500_000_000, 999_999_999]
