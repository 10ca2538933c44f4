"""Plans: the hash, JSON, limits."""

import hashlib
import json
import random
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import plan_of
from sweeps import spec_of, specs

from polyfit.errors import LimitExceeded, PlanMismatch
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import Plan, dump_json
from polyfit.spec.shards import MAX_SHARDS
from polyfit.spec.spec import Spec


def test_a_plan_is_of_whatever_a_spec_is_read_from() -> None:
    assert Plan.of({"name": "a", "fit": {"degree": 4}}) == plan_of("fit: {degree: 4}")


def shuffled(value: Any, order: random.Random) -> Any:
    """The same mapping with its keys in another order, at every depth."""
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(specs(), st.randoms(use_true_random=False), st.sampled_from([True, False, None]))
@settings(max_examples=60, deadline=None)
def test_the_hash_does_not_depend_on_layout(
    source: dict[str, Any], order: random.Random, flow: bool | None
) -> None:
    """Key order, block or flow style, comments and blank lines are nothing to it."""
    plan = Plan.of(spec_of(source))
    dumper = yaml.SafeDumper
    dumped = yaml.dump(
        json.loads(json.dumps(shuffled(source, order))),
        Dumper=dumper,
        sort_keys=False,
        default_flow_style=flow,
        width=40,
    )
    text = "# a comment\n\n" + dumped.replace("\n", "  # another\n\n")
    assert Plan.of(Spec.parse(text)).hash == plan.hash


@given(specs())
@settings(max_examples=40, deadline=None)
def test_the_hash_does_not_depend_on_stated_defaults(source: dict[str, Any]) -> None:
    swept = set(source["sweep"]) | {n for entry in source["sweep"].get("zip", ()) for n in entry}
    defaults = {n: FIELDS[n].write(FIELDS[n].default) for n in CANONICAL_ORDER if n not in swept}
    stated = {
        **source,
        "fit": {**defaults, **source["fit"]},
        "engine": "auto",
        "shard": "auto",
        "resources": {"gpus_per_actor": "auto", "cpus_per_actor": 1},
        "limits": {"fits": None, "core_hours": None, "bytes": None},
    }
    assert Plan.of(spec_of(stated)).hash == Plan.of(spec_of(source)).hash


BASE = "fit: {noise: 0.5}\nsweep: {seed: {count: 100}}\nrecord: {every: 10, of: [loss]}\nshard: 8\n"


@pytest.mark.parametrize(
    "same",
    [
        BASE + "store: {uri: s3://bucket/prefix, endpoint_url: 'http://localhost:1'}",
        BASE + "resources: {gpus_per_actor: 1, cpus_per_actor: 4, actors: {min: 2, max: 5}}",
        BASE + "limits: {fits: 1000, core_hours: 10, bytes: 1000000000}",
        BASE + "engine: auto",
        BASE + "engine: compiled",
        BASE.replace("0.5", "5e-1"),
        BASE.replace("{noise: 0.5}", "{noise: 0.5, target: ' sin( (x) )'}"),
        BASE.replace("{noise: 0.5}", "{noise: 0.5, range: [-pi, pi]}"),
        BASE.replace("{noise: 0.5}", "{noise: 0.5, noise_seed: -0, steps: 02000}"),
        BASE.replace("{noise: 0.5}", "{noise: 0.5, seed: 77}"),  # the sweep has its own seeds
        BASE.replace("{count: 100}", "{start: 0, stop: 100}"),
        BASE.replace("{count: 100}", "{count: 100, start: 0, step: 1}"),
    ],
)
def test_the_hash_covers_only_what_decides_the_rows(same: str) -> None:
    assert plan_of(same).hash == plan_of(BASE).hash


def test_the_hash_does_not_depend_on_the_name() -> None:
    assert Plan.of(Spec.parse("name: a")).hash == Plan.of(Spec.parse("name: b")).hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{count: 3}", "{count: 3, start: 0}"),
        ("{count: 3}", "{start: 0, stop: 3}"),
        ("{count: 3, step: 1}", "{count: 3, step: 1.0}"),
        ("{linspace: [0, 1, 5]}", "{linspace: [0.0, 1.0, 5]}"),
    ],
)
def test_the_hash_does_not_depend_on_how_a_generator_is_written(one: str, other: str) -> None:
    assert plan_of(f"sweep: {{noise: {one}}}").hash == plan_of(f"sweep: {{noise: {other}}}").hash


OTHERS = {
    "degree": "4",
    "points": "1999",
    "basis": "legendre",
    "range": "[-1, 1]",
    "objective": "mse",
    "dtype": "float64",
    "target": "cos(x)",
    "noise": "0.25",
    "noise_seed": "1",
    "steps": "1999",
    "stop": "{gradient: 1e-6}",
    "optimizer": "adam",
    "lr": "0.1",
    "seed": "1",
}


@pytest.mark.parametrize("name", CANONICAL_ORDER)
def test_the_hash_covers_every_field_of_the_fit(name: str) -> None:
    assert plan_of(f"fit: {{{name}: {OTHERS[name]}}}").hash != plan_of("").hash


@pytest.mark.parametrize("name", CANONICAL_ORDER)
def test_the_hash_covers_every_axis(name: str) -> None:
    default = json.dumps(FIELDS[name].write(FIELDS[name].default) or "none")
    if name in ("noise", "noise_seed", "seed"):
        default = "0"
    one, other = (
        plan_of(f"shard: 1\nsweep: {{{name}: [{a}, {b}]}}").hash
        for a, b in ((default, OTHERS[name]), (OTHERS[name], default))
    )
    assert len({one, other, plan_of("shard: 1").hash}) == 3


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("every: 10", "every: 20"),
        BASE.replace("every: 10", "at: [9]"),
        BASE.replace("[loss]", "[loss, coefficients]"),
        BASE.replace("{every: 10, of: [loss]}", "none"),
        BASE.replace("shard: 8", "shard: 16"),
        BASE.replace("count: 100", "count: 101"),
        BASE.replace("count: 100", "count: 100, start: 1"),
        BASE.replace("{seed: {count: 100}}", "{zip: [{seed: [1, 2], degree: [1, 2]}]}"),
    ],
)
def test_the_hash_covers_record_shard_and_sweep(other: str) -> None:
    assert plan_of(other).hash != plan_of(BASE).hash


@pytest.mark.parametrize("change", [{"engine": "eager"}, {"torch": "9.9"}, {"shard_fits": 9}])
def test_the_hash_covers_engine_torch_and_shard_size(change: dict[str, Any]) -> None:
    plan = plan_of(BASE)
    fields = {n: getattr(plan, n) for n in ("sweep", "record", "engine", "shard_fits", "torch")}
    assert Plan(**{**fields, **change}).hash != plan.hash


@pytest.mark.parametrize("number", ["ENGINE", "SCHEMA"])
def test_the_hash_covers_the_versions_of_engine_and_rows(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan_of(BASE).hash
    monkeypatch.setattr(f"polyfit.spec.plan.{number}", 10**6)
    assert plan_of(BASE).hash != before


def test_the_order_of_what_is_recorded_is_nothing_to_the_hash() -> None:
    one, other = (
        plan_of(f"record: {{every: 10, of: {of}}}").hash
        for of in ("[loss, gradient_norm]", "[gradient_norm, loss]")
    )
    assert one == other


def test_the_run_id_is_the_beginning_of_the_hash() -> None:
    plan = plan_of("")
    assert (len(plan.hash), plan.run_id) == (64, plan.hash[:12])


@given(specs())
@settings(max_examples=60, deadline=None)
def test_a_plan_survives_json(source: dict[str, Any]) -> None:
    plan = Plan.of(spec_of(source))
    again = Plan.from_json(plan.to_json(), "plan.json")
    assert (again, again.hash, again.to_json()) == (plan, plan.hash, plan.to_json())


def test_a_plan_is_strict_json_that_sums_itself_up() -> None:
    plan = plan_of(BASE)
    source = json.loads(plan.to_json(), parse_constant=lambda name: pytest.fail(name))
    found = {name: source[name] for name in ("hash", "fits", "shards", "shard", "engine")}
    assert found == {"hash": plan.hash, "fits": 100, "shards": 13, "shard": 8, "engine": "compiled"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shard", 9),
        ("shard", float("nan")),
        ("shard", "eight"),
        ("engine", "eager"),
        ("torch", "9.9"),
        ("record", "none"),
        ("sweep", [{"seed": {"count": 101, "start": 0, "step": 1}}]),
        ("sweep", [{}]),
        ("fit", {}),
        ("fit", {"degree": "three"}),
        ("hash", "0" * 64),
        ("hash", 5),
        ("hash", None),
    ],
)
def test_a_tampered_plan_is_refused(key: str, value: Any) -> None:
    source = json.loads(plan_of(BASE).to_json())
    with pytest.raises(PlanMismatch, match=r"^plan\.json "):
        Plan.from_json(json.dumps({**source, key: value}).encode(), "plan.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"5", b"{", b"\xff", b"[" * 100_000, b'{"fit": 1, "sweep": 2}'],
    ids=lambda data: repr(data[:8]),
)
def test_anything_but_a_plan_is_refused(data: bytes) -> None:
    with pytest.raises(PlanMismatch, match=r"plan\.json is no plan that this version reads"):
        Plan.from_json(data, "plan.json")


@pytest.mark.parametrize(("data", "ours"), [(b"", True), (b' {"fit', True), (b"<html>", False)])
def test_removing_is_advised_only_where_a_plan_may_have_been(data: bytes, ours: bool) -> None:
    with pytest.raises(PlanMismatch) as caught:
        Plan.from_json(data, "plan.json")
    assert ("remove it" in str(caught.value)) is ours
    assert ("choose another store or --run-id" in str(caught.value)) is not ours


def test_another_version_is_recognised_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    data = plan_of(BASE).to_json()
    monkeypatch.setattr("polyfit.spec.plan.ENGINE", 99)
    with pytest.raises(PlanMismatch, match=r"ENGINE 99, .* there: ENGINE \d+, .*use one version"):
        Plan.from_json(data, "plan.json")


REALS = [
    "noise: {count: 3, step: 0.1}",
    "lr: {logspace: [-3, 0, 4]}",
    "zip: [{noise: {linspace: [0, 1, 3]}, degree: [1, 2, 3]}]",
]


@pytest.mark.parametrize("sweep", REALS)
def test_a_plan_whose_generators_made_other_numbers_is_refused(sweep: str) -> None:
    source = json.loads(plan_of(f"sweep: {{{sweep}}}").to_json())
    summary = ("hash", "fits", "shards", "projected_bytes", "projected_core_seconds")
    # As the first versions froze it, which did not say how they counted.
    decided = {k: v for k, v in source.items() if k not in (*summary, "GENERATORS")}
    stated = hashlib.sha256(dump_json(decided)).hexdigest()
    with pytest.raises(PlanMismatch, match=r"generators 2; there: ENGINE \d+, row schema \d+\)"):
        Plan.from_json(dump_json({**decided, "hash": stated}), "plan.json")


@pytest.mark.parametrize("sweep", ["noise: [0, 0.1]", "seed: {count: 3}", "degree: {count: 3}"])
def test_a_plan_without_generators_of_reals_does_not_depend_on_how_they_count(sweep: str) -> None:
    plan = plan_of(f"sweep: {{{sweep}}}")
    assert b"GENERATORS" not in plan.to_json()
    assert Plan.from_json(plan.to_json(), "plan.json") == plan


def test_a_plan_is_kept_to_its_torch_but_for_the_patch() -> None:
    plan = plan_of("")
    plan.check_torch(f"{plan.torch}.99+cpu")
    with pytest.raises(PlanMismatch, match=r"made for torch .*, this worker has 1\.0\.0"):
        plan.check_torch("1.0.0")


def test_limits_refuse_with_both_numbers() -> None:
    limits = "limits: {fits: 1000000, core_hours: 0.001, bytes: 1000}"
    text = f"sweep: {{seed: {{count: 1000001}}}}\n{limits}"
    with pytest.raises(LimitExceeded) as caught:
        plan_of(text)
    fits, hours, size = str(caught.value).splitlines()
    assert fits == "<spec>:3: limits.fits: the plan has 1,000,001; allowed: 1,000,000"
    assert hours.startswith("<spec>:3: limits.core_hours: the plan has ")
    assert hours.endswith(" nominal; allowed: 0.001")
    assert size.startswith("<spec>:3: limits.bytes: the plan has ")
    assert size.endswith(" projected; allowed: 1,000")


def test_a_plan_at_its_limit_is_allowed() -> None:
    assert plan_of("sweep: {seed: {count: 1000}}\nlimits: {fits: 1000}").fits == 1000


def test_more_than_a_million_shards_are_refused() -> None:
    assert plan_of("sweep: {seed: {count: 1000000}}\nshard: 1").shards == MAX_SHARDS
    with pytest.raises(LimitExceeded, match="1,000,001 shards; allowed: at most 1,000,000") as it:
        plan_of("sweep: {seed: {count: 2000001}}\nshard: 2")
    assert "so shard: 3 or more" in str(it.value)


def test_more_fits_than_an_index_can_count_are_refused() -> None:
    seeds = "sweep: {seed: {count: 4294967296}, noise_seed: {count: 2147483648}}\n"
    with pytest.raises(LimitExceeded, match="9,223,372,036,854,775,808 fits; allowed: at most"):
        plan_of(seeds)


def test_a_plan_is_made_without_torch_and_ray() -> None:
    code = (
        "import sys\n"
        "from polyfit.spec.plan import Plan\n"
        "from polyfit.spec.spec import Spec\n"
        "plan = Plan.of(Spec.parse('name: test'))\n"
        "plan.costly_first([0]), plan.to_json()\n"
        "loaded = {'torch', 'ray', 'pyarrow', 'pandas', 'boto3'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
