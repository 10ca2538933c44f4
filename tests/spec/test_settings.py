"""Settings of a spec from the command line: --set KEY=VALUE."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.errors import SpecError
from polyfit.spec.document import Document
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

TEXT = "name: a  # a comment\nfit: {degree: 3}\nsweep:\n  seed: {count: 5}\n"


def changed(*given_settings: str, text: str = TEXT) -> Spec:
    return Spec.parse(text, "job.yaml", given_settings)


def refused(*given_settings: str, text: str = TEXT) -> list[str]:
    with pytest.raises(SpecError) as caught:
        changed(*given_settings, text=text)
    return caught.value.problems


def test_a_setting_is_what_the_same_text_in_the_file_would_be() -> None:
    found = changed("fit.degree=5", "sweep.seed={count: 10}", "name=x", "limits.fits=20")
    written = Spec.parse("name: x\nfit: {degree: 5}\nsweep: {seed: {count: 10}}")
    assert (found.name, found.limits.fits) == ("x", 20)
    assert Plan.of(found).hash == Plan.of(written).hash


def test_the_stored_text_says_what_is_run() -> None:
    found = changed("fit.degree=5", "sweep.noise=[0, 0.5]")
    assert Spec.parse(found.text).grids == found.grids != Spec.parse(TEXT).grids
    assert changed().text == TEXT


@pytest.mark.parametrize(
    ("given_settings", "read"),
    [
        (["fit.steps=5", "fit.steps=7"], lambda spec: spec.fit.steps == 7),
        (["fit.target=x + 0*x"], lambda spec: spec.fit.target == "x + 0 * x"),
        (["fit.lr=1e-6"], lambda spec: spec.fit.lr.value == 1e-6),
        (["sweep=[{seed: [1]}, {seed: [2]}]", "sweep[1].seed=[3]"], lambda s: s.grids[1].size == 1),
        (["store=runs", "store.uri=other"], lambda spec: spec.store.uri == "other"),
        (["exclude=['seed == 3']"], lambda spec: spec.grids[0].size == 4),
        (["resources.actors.max=3"], lambda spec: spec.resources.actors.max == 3),
    ],
)
def test_of_one_key_the_last_setting_counts_and_sections_are_made(
    given_settings: list[str], read: Any
) -> None:
    assert read(changed(*given_settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("fit.degree=40", "--set fit.degree: found 40; allowed: an integer from 0 to 30"),
        ("fit.degre=4", "--set fit.degre: unknown key (did you mean 'degree'?); allowed: degree"),
        ("degree=4", "--set degree: unknown key (did you mean 'fit.degree'?); allowed: name"),
        ("sweep.degree=[1, 40]", "--set sweep.degree[1]: found 40; allowed: an integer from 0"),
        ("fit.objective=l1", "--set fit.objective: found objective l1 with lr auto"),
        ("fit.lr={", "--set fit.lr: while parsing a flow node; expected the node content"),
        ("fit.lr=*a", "--set fit.lr: an alias (*a); allowed: the value written out"),
        ("fit.degree", "--set 'fit.degree': allowed: KEY=VALUE, such as fit.degree=5"),
        ("=3", "--set '=3': allowed: KEY=VALUE, such as fit.degree=5"),
        ("fit.degree.x=3", "--set fit.degree.x: found 3 at fit.degree; allowed: a mapping there"),
        ("sweep.zip[0].lr=[1]", "--set sweep.zip[0].lr: found no sweep.zip; allowed: an entry"),
        (
            "fit.seed=5",
            "--set fit.seed: found a value of a field that the sweep varies (sweep.seed on line 4)"
            "; allowed: --set 'sweep.seed=[...]', or another field",
        ),
    ],
)
def test_a_setting_is_the_place_of_its_own_defects(setting: str, message: str) -> None:
    (found,) = refused(setting)
    assert found.startswith(message)


def test_defects_of_settings_and_of_the_file_are_reported_together() -> None:
    found = refused("fit.degree=40", "x", text="name: A\nfit: {lr: 0}\n")
    assert [line[:22] for line in found] == [
        "--set 'x': allowed: KE",
        "--set fit.degree: foun",
        "job.yaml:1: name: foun",
        "job.yaml:2: fit.lr: fo",
    ]


def test_a_setting_in_one_grid_of_several_is_not_in_vain() -> None:
    text = "name: a\nsweep: [{degree: [1, 3]}, {seed: {count: 3}}]"
    assert changed("fit.degree=5", text=text).grids[1].base.degree == 5


WORDS = st.sampled_from(
    ["1e-6", "no", "0x1f", "null", "~", "1_000", "2001-01-01", "=", "<<", "a: b"]
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), WORDS, st.text(max_size=5),
              st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3) | WORDS, inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


@given(PLAIN)
@settings(max_examples=200, deadline=None)
def test_what_a_document_writes_reads_the_same(value: Any) -> None:
    written = Document(value=value).write()
    read = Document.read(written.encode("utf-8"))
    assert (read.defects, read.value) == ([], value)
