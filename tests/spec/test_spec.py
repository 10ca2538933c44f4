"""Specs: text -> what is asked."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from specs import EXAMPLE, spec

from polyfit.errors import SpecError, UsageError
from polyfit.spec.fit import Fit, Rate, Stop
from polyfit.spec.optimizer import Optimizer
from polyfit.spec.plan import Plan
from polyfit.spec.record import Record
from polyfit.spec.spec import Spec


def test_the_example_of_every_section_loads() -> None:
    found = Spec.parse(EXAMPLE, "example.yaml")
    assert found.name == "sine-sweep"
    assert found.fit == Fit(basis="power", lr=Rate("number", 1e-6))
    assert [(axis.fields, len(axis)) for axis in found.grids[0].axes] == [
        (("degree",), 3),
        (("range",), 2),
        (("optimizer", "lr"), 2),
        (("seed",), 1000),
    ]
    assert found.record == Record(every=100, of=("loss",))
    assert (found.engine, found.shard) == ("auto", None)
    assert found.store is not None
    assert (found.store.uri, found.store.endpoint_url) == ("s3://bucket/prefix", None)
    assert (found.resources.gpus_per_actor, found.resources.cpus_per_actor) == ("auto", 1)
    assert (found.resources.actors.min, found.resources.actors.max) == (1, "auto")
    assert (found.limits.fits, found.limits.core_hours, found.limits.bytes) == (None, None, None)
    assert (found.text, found.source) == (EXAMPLE, "example.yaml")


def test_a_field_left_out_has_its_default() -> None:
    assert spec("fit: {degree: 5}").fit == Fit(degree=5)


@pytest.mark.parametrize("path", sorted(Path("jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_of_the_repository_is_a_spec_with_a_plan(path: Path) -> None:
    assert Plan.of(Spec.load(path)).fits >= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stop: {gradient: 1e-6}", Stop("gradient", 1e-6)),
        ("stop: {loss_change: 1e-9}", Stop("loss_change", 1e-9)),
        ("stop: none", None),
        ("stop: null", None),
        ("optimizer: {momentum: {beta: 0.5}}", Optimizer("momentum", 0.5)),
        ("lr: {of_limit: 0.9}", Rate("of_limit", 0.9)),
        ("lr: 1e-6", Rate("number", 1e-6)),
        ("range: [0, 2*pi]", (0.0, 2 * math.pi)),
        ("target: 1 / (1 + 25*x**2)", "1 / (1 + 25 * x ** 2)"),
    ],
)
def test_a_field_is_read_in_each_of_its_forms(text: str, expected: Any) -> None:
    assert getattr(spec(f"fit: {{{text}}}").fit, text.partition(":")[0]) == expected


def test_a_mapping_is_a_spec() -> None:
    source = {"name": "a", "store": {"uri": Path("runs")}, "sweep": {"seed": (1, 2)}}
    found = Spec.parse(source)
    assert (found.name, len(found.grids[0].axes[0]), json.loads(found.text)["name"]) == (
        "a",
        2,
        "a",
    )
    assert Spec.of(source) == found
    assert Spec.of(found) is found


def test_keywords_and_numpy_make_the_spec_that_a_file_would() -> None:
    made = Spec.of(
        name="a",
        fit={"degree": np.int64(5), "range": (-1, np.float32(0.5))},
        sweep={
            "seed": range(3, 11, 2),
            "lr": np.linspace(0.1, 0.3, 3),
            "points": np.arange(10, 13),
            "noise": (0, 0.5),
        },
    )
    text = (
        "name: a\nfit: {degree: 5, range: [-1, 0.5]}\n"
        "sweep: {seed: {start: 3, stop: 11, step: 2}, lr: [0.1, 0.2, 0.3], points: [10, 11, 12],"
        " noise: [0, 0.5]}"
    )
    assert Plan.of(made).hash == Plan.of(Spec.parse(text)).hash


def test_a_range_of_a_thousand_million_seeds_is_not_listed() -> None:
    assert Spec.of(name="a", sweep=[{"seed": range(10**9)}]).grids[0].size == 10**9


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "a", "fit": {"degre": 3}}, "spec: fit.degre: unknown key (did you mean 'degree"),
        ({"name": "a", "fit": {"degree": 2.5}}, "spec: fit.degree: found 2.5; allowed: an integer"),
        ({"name": "a", "sweep": {"seed": range(0)}}, "spec: sweep.seed: found []; allowed: a list"),
        ({"sweep": {"lr": np.array([0.1, -1])}}, "spec: name: found nothing; allowed: 1 to 63"),
        (
            {"name": "a", "sweep": {"lr": [{1}]}},
            "spec: found a set; allowed: mappings, lists, text",
        ),
    ],
)
def test_what_is_wrong_in_keywords_is_said_with_the_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.of(**keys)
    assert caught.value.problems[0].startswith(message)
    assert not caught.value.excerpts


def test_a_source_and_keywords_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="one source or of keywords"):
        Spec.of("job.yaml", name="a")


def test_a_store_may_be_plain_text() -> None:
    assert (
        spec("store: s3://bucket/prefix").store == spec("store: {uri: 's3://bucket/prefix'}").store
    )


def test_a_path_is_a_spec(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(EXAMPLE)
    assert Spec.of(tmp_path / "job.yaml") == Spec.of(str(tmp_path / "job.yaml"))


@pytest.mark.parametrize("given", [3, None, ["name"]])
def test_anything_but_a_spec_is_refused_with_the_forms_of_one(given: Any) -> None:
    with pytest.raises(UsageError, match=r"; allowed: Spec.load\(path\), Spec.parse\(text\) or"):
        Spec.of(given)


@pytest.mark.parametrize("given", ["job.yaml", Path("job.yaml"), {"name": "a"}])
def test_a_spec_is_not_made_by_its_class(given: Any) -> None:
    make: Any = Spec
    with pytest.raises(UsageError, match=r"^Spec\(...\) is not called; allowed: Spec.load\(path\)"):
        make(given)
