"""The section ``record`` of a spec."""

import json

import pytest
from specs import spec

from polyfit.spec.record import Record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", []),
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
