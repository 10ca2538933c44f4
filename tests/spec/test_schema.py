"""Names, and keys of the top level of a spec."""

import re

import pytest

from polyfit.errors import SpecError
from polyfit.spec.fit import Fit
from polyfit.spec.record import AUTOMATIC
from polyfit.spec.spec import Spec


def test_a_name_is_enough() -> None:
    found = Spec.parse("name: a")
    assert (found.fit, found.grids[0].axes, found.store) == (Fit(), (), None)
    assert found.record == AUTOMATIC


def test_a_missing_name_is_reported() -> None:
    with pytest.raises(SpecError, match=r"^<spec>:1: name: found nothing; allowed: 1 to 63 of a-z"):
        Spec.parse("fit: {}")


@pytest.mark.parametrize("name", ["a", "0-a", "a" * 63])
def test_a_name_is_allowed(name: str) -> None:
    assert Spec.parse(f"name: '{name}'").name == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a" * 64, "a/b", "..", "a ", "ä"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="name: found"):
        Spec.parse(f"name: '{name}'")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name: 123", "1: name: found 123;"),
        ("name: true", "1: name: found true;"),
        ("name: a\nstore: {uri: 2026}", "2: store.uri: found 2026;"),
    ],
)
def test_quotes_are_advised_for_text_that_looks_like_a_number(text: str, found: str) -> None:
    with pytest.raises(SpecError, match=f"^<spec>:{found} allowed: .*; a .* in quotes is text$"):
        Spec.parse(text)
    quoted = re.sub("(123|true|2026)", r"'\1'", text)
    assert Spec.parse(quoted).name in ("123", "true", "a")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]", "3", "text", "null"])
def test_a_section_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"<spec>:1: found .*; allowed: a mapping with at least"):
        Spec.parse(text)
