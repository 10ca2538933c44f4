"""Fields of a fit: what is allowed, and how it is read and written."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from plain import PLAIN

from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER, Fit, Rate, Stop
from polyfit.spec.optimizer import Optimizer


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


@pytest.mark.slow
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


def test_values_are_shown_as_they_are_written() -> None:
    shown = [Optimizer("gd"), Optimizer("momentum", 0.9), Rate("auto"), Rate("number", 0.1)]
    assert [str(value) for value in shown] == ["gd", "momentum(beta=0.9)", "auto", "0.1"]
    assert str(Rate("of_limit", 0.9)) == "{of_limit: 0.9}"
    assert str(Stop("gradient", 1e-6)) == "gradient=1e-06"
