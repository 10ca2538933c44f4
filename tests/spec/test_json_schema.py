"""The JSON Schema of specs."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from specs import EXAMPLE
from sweeps import specs

from polyfit.spec.document import Document
from polyfit.spec.json_schema import spec_schema

JOBS = Path(__file__).resolve().parents[2] / "jobs"
VALIDATOR = jsonschema.Draft202012Validator(spec_schema())


def value_of(text: str) -> Any:
    return Document.read(f"name: a\n{text}".encode()).value


def test_the_schema_is_one_and_the_file_beside_the_jobs_is_current() -> None:
    jsonschema.Draft202012Validator.check_schema(spec_schema())
    written = json.loads((JOBS / "spec.schema.json").read_text())
    assert written == spec_schema(), "write it anew: polyfit schema > jobs/spec.schema.json"


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_names_the_schema_and_is_valid_by_it(path: Path) -> None:
    assert "# yaml-language-server: $schema=spec.schema.json\n" in path.read_text()
    VALIDATOR.validate(Document.read(path.read_bytes()).value)


@given(specs())
@settings(max_examples=100, deadline=None)
def test_good_specs_are_valid(source: dict[str, Any]) -> None:
    VALIDATOR.validate(source)


GOOD = [
    "sweep: [{degree: [1]}, {degree: [2], zip: [{lr: [auto, 1], seed: {count: 2}}]}]",
    "sweep: {lr: {of_limit: [0.5, 1]}, noise: {uniform: [0, 1, 5], seed: 3}}",
    "sweep: {lr: {of_limit: {linspace: [0.1, 1, 4]}}, seed: {log_uniform: [1, 9, 3]}}",
    "exclude: [degree > 3]\nrecord: none\nstore: s3://bucket/prefix",
    "store: {uri: '${STORE:-runs}', storage_class: '${CLASS}'}",
    "fit: {optimizer: {momentum: {beta: 0.5}}, stop: {gradient: 1e-3}, target: 2, range: [0, pi]}",
]


@pytest.mark.parametrize("text", ["", *GOOD])
def test_each_form_is_valid(text: str) -> None:
    VALIDATOR.validate(value_of(text))
    VALIDATOR.validate(Document.read(EXAMPLE.encode()).value)


WRONG = [
    "fitt: {}", "fit: 3", "fit: {degre: 3}", "fit: {degree: 31}", "fit: {degree: 2.5}",
    "fit: {basis: powr}", "fit: {lr: fast}", "fit: {lr: 0}", "fit: {noise: -1}",
    "fit: {range: [1]}",
    "fit: {optimizer: {momentum: {beta: 1}}}", "fit: {stop: {gradient: 0}}", "fit: {target: true}",
    "sweep: []", "sweep: [3]", "sweep: {degree: 3}", "sweep: {degree: []}", "sweep: {sed: [1]}",
    "sweep: {degree: [1, 1]}", "sweep: {basis: {count: 3}}", "sweep: {seed: {count: 0}}",
    "sweep: {seed: {count: 3, stop: 5}}", "sweep: {lr: {linspace: [0, 1]}}",
    "sweep: {zip: {lr: [1]}}", "sweep: {zip: [{lr: [1]}]}", "sweep: {lr: {uniform: [0, 1, 0]}}",
    "record: {every: 0}", "record: {every: null}", "record: {every: 1, at: [1]}",
    "record: nothing", "record: {of: [loss]}",
    "engine: fast", "shard: 0", "exclude: degree > 3", "exclude: [3]", "store: 3",
    "store: {endpoint_url: x}", "store: {uri: x, sse: kms}", "resources: {cpus_per_actor: 0}",
    "resources: {actors: {min: 0}}", "limits: {fits: -1}", "limits: {hours: 3}", "on_failure: no",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_unknown_keys_wrong_types_and_bad_values_are_invalid(text: str) -> None:
    assert not VALIDATOR.is_valid(value_of(text))


@pytest.mark.parametrize("value", [None, 3, [], {}, {"name": "A"}, {"name": 3}])
def test_a_spec_is_a_mapping_with_a_name(value: Any) -> None:
    assert not VALIDATOR.is_valid(value)
