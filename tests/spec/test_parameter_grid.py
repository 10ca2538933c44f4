"""Index <-> parameters with conditions, random axes and grids that follow one another."""

import ast
import json
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import plan_of
from sweeps import GENERATORS, VALUES

from polyfit.errors import SpecError
from polyfit.run.overlap import Overlap
from polyfit.spec.cost import COST_FIELDS, cost_groups
from polyfit.spec.field_conditions import FieldCondition
from polyfit.spec.fit import CANONICAL_ORDER, Fit
from polyfit.spec.plan import Plan
from polyfit.spec.precheck import Precheck
from polyfit.spec.spec import Spec
from polyfit.spec.sweep import Sweep

RANDOM = {
    "degree": {"uniform": [0, 5, 4], "seed": 2},
    "noise": {"uniform": [0, 0.5, 3]},
    "lr": {"log_uniform": [1e-3, 1, 3], "seed": 9},
    "seed": {"log_uniform": [1, 1000, 4]},
}

OTHERS = [
    "seed in [0, 1, 9, 5]", "not lr < 0.1", "lr == None", "stop == None", "range_low < -1",
    "1 < seed <= 7", "degree + seed > 6", "noise_seed >= 18446744073709551614",
    "range_high - range_low > 3", "points > 10 * degree + 1", "basis < dtype",
]  # fmt: skip


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(CANONICAL_ORDER), min_size=1, max_size=4, unique=True))
    sweep: dict[str, Any] = {}
    for name in names:
        lists = st.lists(st.sampled_from(VALUES[name]), min_size=2, max_size=3, unique_by=str)
        made = [st.just(source[name]) for source in (GENERATORS, RANDOM) if name in source]
        sweep[name] = draw(st.one_of(lists, *made))
    if draw(st.booleans()) and not {"basis", "dtype"} & set(names):
        bases = ["power", "legendre", "power"]
        sweep["zip"] = [{"basis": bases, "dtype": ["float32", "float32", "float64"]}]
    return sweep


def parsed(sweep: Any, exclude: list[str]) -> Spec | None:
    """The spec, or None where its user is told that everything is excluded or fitted twice."""
    source = {"name": "test", "fit": {"points": 2000}, "sweep": sweep, "exclude": exclude}
    try:
        return Spec.parse(json.dumps(source))
    except SpecError as error:
        if all("at least one" in line or "each fit once" in line for line in error.problems):
            return None
        raise


def names_of(fit: Fit) -> dict[str, Any]:
    """What conditions see of a fit."""
    names: dict[str, Any] = {name: getattr(fit, name) for name in CANONICAL_ORDER}
    names["range_low"], names["range_high"] = fit.range
    names |= {"optimizer": str(fit.optimizer), "stop": fit.stop and str(fit.stop)}
    names["lr"] = fit.lr.value if fit.lr.kind == "number" else None
    return names


def holds(text: str, fit: Fit) -> bool:
    """Whether a condition holds, by Python's own rules, unknown being as false as in SQL."""
    return _kleene(ast.parse(text, mode="eval").body, names_of(fit)) is True


def _kleene(node: ast.expr, names: dict[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=op, values=values):
            found = [_kleene(value, names) for value in values]
            decided = isinstance(op, ast.Or)
            return decided if decided in found else (None if None in found else not decided)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = _kleene(operand, names)
            return None if value is None else not value
    unknown = any(isinstance(n, ast.Name) and names[n.id] is None for n in ast.walk(node))
    if unknown and "None" not in ast.unparse(node):
        return None
    return eval(compile(ast.Expression(node), "", "eval"), {}, names)


@st.composite
def conditions(draw: st.DrawFn, fits: list[Fit]) -> str:
    """A condition that some of the fits are likely to meet, and others not."""
    seen = {name: {str(getattr(fit, name)) for fit in fits} for name in CANONICAL_ORDER}
    name = draw(st.sampled_from([n for n in CANONICAL_ORDER if len(seen[n]) > 1] or ["seed"]))
    value = names_of(draw(st.sampled_from(fits))).get(name)
    operators = ["==", "!="] if isinstance(value, str) else ["<", "<=", "==", "!=", ">", ">="]
    own = f"{name} {draw(st.sampled_from(operators))} {value!r}"
    atom = own if isinstance(value, str | int | float) else draw(st.sampled_from(OTHERS))
    form = draw(st.sampled_from(["{0}", "{0}", "{0} and {1}", "{0} and not ({1})", "{0} or {1}"]))
    return form.format(atom, draw(st.sampled_from(OTHERS)))


@pytest.mark.slow
@given(
    st.one_of(grids().map(lambda one: [one]), st.lists(grids(), max_size=3, min_size=1)), st.data()
)
@settings(max_examples=150, deadline=None)
def test_the_fits_are_the_combinations_that_no_condition_excludes_in_order(
    sources: list[dict[str, Any]], data: st.DataObject
) -> None:
    alone = [Spec.parse(json.dumps({"name": "a", "sweep": source})) for source in sources]
    fits = [fit for one in map(Sweep.of, alone) for fit in map(one.fit, range(one.size))]
    exclude = data.draw(st.lists(conditions(fits), max_size=2, min_size=len(sources) % 2))
    expected = [fit for fit in fits if not any(holds(text, fit) for text in exclude)]
    spec = parsed(sources, exclude)
    if spec is None:
        assert not expected or len(set(expected)) < len(expected)
        return
    sweep = Sweep.of(spec)
    assert [sweep.fit(i) for i in range(sweep.size)] == expected
    assert len(set(expected)) == len(expected)
    every = np.arange(sweep.size)
    assert Overlap(sweep, sweep).indices(every).tolist() == every.tolist()
    other = Sweep.of(alone[-1])
    places = {fit: place for place, fit in enumerate(expected)}
    shared = [places.get(other.fit(i), -1) for i in range(other.size)]
    assert Overlap(other, sweep).indices(np.arange(other.size)).tolist() == shared
    for name in CANONICAL_ORDER:
        values = [getattr(fit, name) for fit in expected]
        for column in (sweep.column(name, every), sweep.column(name, every).compact()):
            assert [column.items[code] for code in column.codes] == values
        assert set(sweep.values(name)) == set(values)
    assert Sweep.restore(json.loads(json.dumps(sweep.canonical(), sort_keys=True))) == sweep
    check_counts(sweep, expected)


def check_counts(sweep: Sweep, expected: list[Fit]) -> None:
    found: dict[Any, int] = {}
    for values, count in cost_groups(sweep):
        found[values] = found.get(values, 0) + count
    costs = [tuple(getattr(fit, name) for name in COST_FIELDS) for fit in expected]
    assert found == {cost: costs.count(cost) for cost in costs}
    checked = Precheck.of(sweep)
    assert (checked.fits, checked.unchecked) == (len(expected), 0)


def test_one_grid_in_a_list_is_that_grid() -> None:
    one, listed = (plan_of(f"sweep: {text}") for text in ("{degree: [1, 3]}", "[{degree: [1, 3]}]"))
    assert one.hash == listed.hash


HUGE = """\
fit: {points: 100}
sweep:
  degree: {start: 1, stop: 11}
  basis: [chebyshev, power]
  seed: {count: 50000000}
exclude: ["degree > 5 and basis == 'power'", "10 <= seed < 20 and degree == 1", "seed == 49999999"]
"""


def test_a_thousand_million_fits_with_conditions_are_counted_without_a_list() -> None:
    plan_of("")
    tracemalloc.start()
    try:
        plan = plan_of(HUGE)
        order = plan.costly_first(range(plan.shards))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plan.fits == 15 * 49_999_999 - 20
    assert len(order) == plan.shards
    assert peak < 50_000_000
    last = plan.sweep.fit(plan.fits - 1)
    assert (last.degree, last.basis, last.seed) == (10, "chebyshev", 49_999_998)
    assert plan.sweep.fit(10).seed == 20


def test_every_condition_has_a_normal_form_in_the_plan() -> None:
    plain, spaced = (
        plan_of(f"sweep: {{degree: [1, 3]}}\nexclude: ['{text}']")
        for text in ("degree>2", " degree  > (2)")
    )
    assert plain.hash == spaced.hash != plan_of("sweep: {degree: [1, 3]}").hash
    assert plain.sweep.canonical()["exclude"] == ["degree > 2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("degree = 3", "did you mean == for =?"),
        ("degre == 3", "'degre' is an unknown name (did you mean 'degree'?)"),
        ("basis == power", "did you mean 'power' in quotes?"),
        ("basis == 'powr'", "did you mean 'power'?"),
        ("optimizer == 'momentum'", "did you mean 'momentum(beta=0.9)', with its beta?"),
        ("range == 3", "write range == [-3, 3], or compare range_low"),
        ("1 < 2", "a condition that names a field"),
        ("__import__('os')", "a condition on degree, points"),
        ("x" * 1001, "at most 1,000 characters"),
    ],
)
def test_a_condition_that_cannot_be_read_says_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FieldCondition.parse(text)


def test_long_axes_may_be_compared_with_numbers_only() -> None:
    for text in ("seed + 0 == 3", "seed > degree"):
        with pytest.raises(SpecError, match=r"of seed, which has 2,000,000 values, only compari"):
            plan_of(f"sweep: {{degree: [1, 2], seed: {{count: 2000000}}}}\nexclude: ['{text}']")


def test_a_condition_on_a_range_is_one_on_its_two_ends() -> None:
    text = "name: q\nsweep: {range: [[-1, 1], [-2, 2]], degree: [1, 2]}\nexclude: ['%s']\n"
    conditions = ("range == [-1, 1]", "range_low == -1 and range_high == 1")
    plans = [Plan.of(Spec.parse(text % condition)) for condition in conditions]

    assert plans[0].fits == 2
    assert plans[0].hash == plans[1].hash
