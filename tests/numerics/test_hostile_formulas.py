"""Hostile formulas are refused; others take little time and memory."""

from pathlib import Path

import numpy as np
import pytest
from hostile import AT_ONCE, CODE, DEEP, DIGITS, FUZZ, LIKENESSES, limited
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.errors import FormulaError
from polyfit.numerics.formula import FUNCTIONS, MAX_CHARACTERS, Formula


def refuses(text: str) -> str:
    with pytest.raises(FormulaError, match="allowed: ") as caught:
        Formula.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 6 * MAX_CHARACTERS
    return message


@pytest.mark.parametrize("text", [*CODE, *LIKENESSES, *DEEP, *DIGITS], ids=lambda text: text[:20])
def test_a_hostile_formula_is_refused(text: str, tmp_path: Path) -> None:
    text = text.replace("MARK", str(tmp_path / "mark"))
    refuses(text)
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_powers_of_powers_take_no_memory() -> None:
    answers = limited("values", list(AT_ONCE))
    assert answers == [f"[{value}, {value}, {value}]" for value in AT_ONCE.values()]


TOKENS = st.one_of(
    st.sampled_from(["x", "pi", "e", "1", "0", "2.5", "1e308", "1e-320", "0x1f", "9" * 40]),
    st.sampled_from(["+", "-", "*", "/", "**", "(", ")", " "]),
    st.sampled_from([f"{name}(" for name in FUNCTIONS]),
    st.sampled_from(
        [
            *("//", "%", "@", ",", ".", ":", ";", "=", "==", "<", "!", "&", "|", "~", "^", "->"),
            *(":=", "[", "]", "{", "}", "'", '"', "'''", "f'", "b'", "r'", "\\", "#", "\n", "\t"),
            *("\0", "\r", "\x0c", "$", "?", "`", "_", "j", "0b", "0o", "0x", "1_", "...", "e9"),
            *("if ", "else ", "for ", "in ", "is ", "not ", "and ", "or ", "lambda ", "lambda:"),
            *("await ", "async ", "yield ", "import ", "del ", "None", "True", "print(", "sin"),
            *(".real", "__class__", "*x", "\u00a0", "\uff58", "\u03c0", "\ud800", "\U0001d431"),
        ]
    ),
    st.text(max_size=3),
)


POINTS = np.array([[-np.inf, -1e308, -1.0, -0.0], [5e-324, 0.5, np.inf, np.nan]])


def evaluated(text: str) -> None:
    """Any text is a formula or a FormulaError; a formula has a value at every point."""
    refusal = ""
    try:
        formula = Formula.parse(text)
    except FormulaError as error:
        refusal = str(error)
    if refusal:
        assert "allowed: " in refusal
        return
    assert Formula.parse(formula.text) == formula
    for x in (POINTS, POINTS[0], POINTS[:, :0], POINTS[0, 0, ...]):
        value = formula(x)
        assert (value.shape, value.dtype) == (x.shape, np.dtype(np.float64))
        assert not np.shares_memory(value, x)


@given(st.lists(TOKENS, max_size=30).map("".join))
@settings(FUZZ, max_examples=2000)
def test_any_tokens_are_a_formula_or_a_users_error(text: str) -> None:
    evaluated(text)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "**", " - ", "**-"])
    return st.one_of(
        st.tuples(inner, operators, inner).map("".join),
        st.tuples(st.sampled_from(["-", "+", *FUNCTIONS]), inner).map(lambda p: f"{p[0]}({p[1]})"),
    )


@given(
    st.recursive(
        st.sampled_from(["x", "x", "pi", "e", "0", "9", "1e308", "1e400", ".5", "0x1f", "9" * 308]),
        grown,
        max_leaves=30,
    ),
    st.data(),
)
@settings(FUZZ, max_examples=800)
def test_a_changed_formula_is_a_formula_or_a_users_error(text: str, data: st.DataObject) -> None:
    evaluated(text)
    at = data.draw(st.integers(0, len(text)))
    evaluated(text[:at] + data.draw(TOKENS) + text[at + data.draw(st.integers(0, 1)) :])
