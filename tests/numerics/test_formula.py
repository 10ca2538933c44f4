"""Formulas: values, what is refused, and the normal form."""

import ast
import contextlib
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.errors import FormulaError
from polyfit.numerics.elementary import power
from polyfit.numerics.formula import FUNCTIONS, MAX_CHARACTERS, MAX_DEPTH, Formula, constant


def at(text: str, x: float) -> float:
    return float(Formula.parse(text)(np.array([x]))[0])


PYTHONS: dict[str, Callable[[float], float]] = {
    **{name: getattr(math, name) for name in FUNCTIONS if hasattr(math, name)},
    "abs": abs,
    "sign": lambda x: float((x > 0) - (x < 0)),
}


def test_every_function_has_a_counterpart_in_python() -> None:
    assert set(PYTHONS) == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(x=st.floats(0.01, 0.99))
@settings(max_examples=20, deadline=None)
def test_a_function_has_the_value_of_pythons(name: str, x: float) -> None:
    assert at(f"{name}(x)", x) == pytest.approx(PYTHONS[name](x), rel=1e-14)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x", 0.5),
        ("2", 2.0),
        ("-x**2", -0.25),
        ("2**3**2", 512.0),
        ("2**-1", 0.5),
        ("7 - 2 - 1", 4.0),
        ("8 / 2 / 2", 2.0),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("+x", 0.5),
        ("--x", 0.5),
        ("pi", math.pi),
        ("e**x", math.exp(0.5)),
        (" \tsin( x )\n", math.sin(0.5)),
        ("1e-6", 1e-6),
        (".5e1", 5.0),
        ("1 / (1 + 25*x**2)", 1 / 7.25),
        ("exp(-abs(sin(pi*x)))", math.exp(-1.0)),
    ],
)
def test_a_formula_has_pythons_precedence_and_value(text: str, value: float) -> None:
    assert at(text, 0.5) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["log(-1)", "sqrt(-x)", "acos(2)", "0/0", "(-1)**0.5"])
def test_a_value_outside_the_domain_is_nan(text: str) -> None:
    assert math.isnan(at(text, 1.0))


@pytest.mark.parametrize("text", ["9**9**9**9", "1/0", "exp(1000)", "1e400", "-log(0)"])
def test_a_value_beyond_float64_is_infinite_at_once(text: str) -> None:
    assert at(text, 1.0) == math.inf


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_the_result_has_the_shape_of_x_and_is_float64(shape: tuple[int, ...]) -> None:
    for text in ("1", "x"):
        value = Formula.parse(text)(np.ones(shape))
        assert (value.shape, value.dtype) == (shape, np.dtype(np.float64))


def test_the_result_is_no_view_of_x() -> None:
    x = np.ones(3)
    Formula.parse("x")(x)[:] = 5.0
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_a_constant_is_read_without_x() -> None:
    assert constant("2*pi") == 2 * math.pi


def test_a_constant_with_x_is_refused() -> None:
    with pytest.raises(FormulaError, match=r"'2\*x' depends on x; allowed: a constant"):
        constant("2*x")


REFUSED = [
    "",
    " ",
    "x x",
    "sin",
    "sin x",
    "sin()",
    "sin(x, x)",
    "sin(x=x)",
    "sin(*x)",
    "sin(**x)",
    "y",
    "inf",
    "nan",
    "True",
    "None",
    "1j",
    "...",
    "'x'",
    "b'x'",
    "f'{x}'",
    "x.real",
    "x[0]",
    "[x]",
    "(x, x)",
    "{x}",
    "{x: x}",
    "x < 1",
    "x and x",
    "not x",
    "~x",
    "x % 2",
    "x // 2",
    "x @ x",
    "x << 2",
    "x | 1",
    "x if x else x",
    "lambda: x",
    "(y := x)",
    "[x for x in x]",
    "while True: pass",
    "x = 1",
    "x; x",
    "import os",
    "eval('1')",
    "exec('1')",
    "open('f')",
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "sin.__globals__",
    "(sin)(x)(x)",
    "pi()",
    "pow(x, 2)",
    "yield",
    "await x",
    "1if x else 2",
    "x\0",
    "\0",
    "x + \ud800",
    "π",
    "\uff58",  # fullwidth x, which Python's grammar takes for x
    "\uff53in(x)",
    "\u212f",  # script e
    "x\u00a0+ 1",
    "x\u2212 1",  # the minus of typographers
    "\u0661",  # a digit, not ASCII
    "sin(x)\u200b",
    "9" * 400,
    "(" * 300 + "x" + ")" * 300,
]


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(FormulaError, match="allowed: "):
        Formula.parse(text)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("x + foo", 5),
        ("  x + foo", 5),  # counted in the text as the message shows it
        ("x + foo(x)", 5),
        ("1 + sin(x, x)", 5),
        ("1 + sin", 5),
        ("x + [x]", 5),
        ("x + )", 5),
        ("2 * " + "9" * 400, 5),
        ("x + π", 5),
    ],
)
def test_a_refusal_names_the_column(text: str, column: int) -> None:
    with pytest.raises(FormulaError, match=rf"column {column}\b"):
        Formula.parse(text)


def test_a_refusal_shows_what_was_found() -> None:
    with pytest.raises(FormulaError, match=r"'x\.real' at column 5 is no part of a formula"):
        Formula.parse("1 + x.real")


def test_a_formula_may_have_1000_characters_and_no_more() -> None:
    Formula.parse("1" + " " * (MAX_CHARACTERS - 1))
    with pytest.raises(FormulaError, match="1,001 characters; allowed: at most 1,000"):
        Formula.parse("1" + " " * MAX_CHARACTERS)


def balanced(depth: int) -> str:
    return "x" if depth == 0 else f"({balanced(depth - 1)}+{balanced(depth - 1)})"


def test_a_formula_whose_normal_form_is_too_long_is_refused() -> None:
    """The normal form is what a plan holds: it must be readable again."""
    text = balanced(6) + "+" + balanced(7) + "+" + balanced(4)
    assert len(text) <= MAX_CHARACTERS
    with pytest.raises(FormulaError, match="characters in its normal form; allowed: at most 1,000"):
        Formula.parse(text)


@pytest.mark.parametrize("wrap", ["-{}", "sin({})", "{}+1", "1**{}"])
def test_a_formula_may_be_50_deep_and_no_more(wrap: str) -> None:
    text = "x"
    for _ in range(MAX_DEPTH - 1):
        text = wrap.format(text)
    Formula.parse(text)
    with pytest.raises(FormulaError, match="deeper than 50 levels; allowed: "):
        Formula.parse(wrap.format(text))


@pytest.mark.parametrize("text", ["-" * 999 + "x", "(" * 499 + "x" + ")" * 499, "x" + "+x" * 499])
def test_a_deep_formula_neither_overflows_nor_crashes(text: str) -> None:
    with pytest.raises(FormulaError):
        Formula.parse(text)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_formula_or_a_formula_error(text: str) -> None:
    with contextlib.suppress(FormulaError):
        Formula.parse(text)(np.array([0.5]))


# --- the normal form -------------------------------------------------------------------------

BLANKS = st.sampled_from(["", " ", "  "])
NUMBERS = st.one_of(
    st.integers(0, 10**20).map(str),
    st.floats(0, 1e300, allow_nan=False).map(repr),
    st.sampled_from(["1e-6", ".5", "3.", "1_000", "0x10", "1e400"]),
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One level more of the grammar; every operand in parentheses, so that nothing is hidden."""
    operators = st.sampled_from(["+", "-", "*", "/", "**"])
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda p: f"({p[0]}){p[1]}({p[2]})"),
        st.tuples(inner, operators, inner).map(lambda p: f"{p[0]}{p[1]}{p[2]}"),
        st.tuples(st.sampled_from("+-"), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(st.sampled_from(list(FUNCTIONS)), inner).map(lambda p: f"{p[0]}({p[1]})"),
    )


LEAVES = st.one_of(st.sampled_from(["x", "pi", "e"]), NUMBERS)
FORMULAS = st.recursive(LEAVES, grown, max_leaves=8)
POINTS = np.array([-2.0, -1.0, -0.5, 0.0, 0.3, 1.0, 7.0])


class Floats(ast.NodeTransformer):
    """Every number as numpy's float64, whose powers overflow to infinity."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Call(ast.Name("float", ast.Load()), [node], [])

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        return ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])


@given(FORMULAS)
@settings(max_examples=150, deadline=None)
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    normal = Formula.parse(text)
    assert Formula.parse(normal.text) == normal


@given(FORMULAS)
@settings(max_examples=150, deadline=None)
def test_a_formula_and_its_normal_form_have_pythons_value(text: str) -> None:
    """Python itself computes the text here, but for its powers."""
    names = {
        **FUNCTIONS,
        "power": power,
        "pi": math.pi,
        "e": math.e,
        "x": POINTS,
        "float": np.float64,
    }
    tree = ast.fix_missing_locations(Floats().visit(ast.parse(text, mode="eval")))
    with np.errstate(all="ignore"):
        expected = eval(compile(tree, "formula", "eval"), {}, names)
    np.testing.assert_array_equal(
        Formula.parse(text)(POINTS), np.broadcast_to(np.float64(expected), POINTS.shape)
    )


@given(FORMULAS, st.data())
@settings(max_examples=100, deadline=None)
def test_blanks_and_needless_parentheses_change_nothing(text: str, data: st.DataObject) -> None:
    tokens = re.findall(r"0x\w+|[\d._]+(?:e[-+]?\d+)?|\w+|\*\*|.", text)
    assert "".join(tokens) == text
    spread = "".join(token + data.draw(BLANKS) for token in tokens)
    assert Formula.parse(f" (({spread}) )") == Formula.parse(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("x-1-1", "x-(1-1)"), ("2**3**2", "(2**3)**2"), ("-x**2", "(-x)**2"), ("x/2/2", "x/(2/2)")],
)
def test_needed_parentheses_stay(one: str, other: str) -> None:
    assert Formula.parse(one) != Formula.parse(other)


@pytest.mark.parametrize(
    ("text", "said"), [("sin(x", "not closed"), ("sin(x))", "closed that was not opened")]
)
def test_a_parenthesis_without_its_other_is_named(text: str, said: str) -> None:
    with pytest.raises(FormulaError, match=f"; a parenthesis is {said}$"):
        Formula.parse(text)
