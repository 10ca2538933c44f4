"""The frozen plan: shards, hash, JSON, limits, projections."""

import dataclasses
import hashlib
import json
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import spec_of, specs

from polyfit.errors import LimitExceeded, PlanMismatch, SpecError
from polyfit.spec.cost import nominal_seconds
from polyfit.spec.fields import FIELDS
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import Plan, dump_json
from polyfit.spec.shards import MAX_SHARDS, SHARD_BYTES, SHARD_FITS, SHARD_SECONDS
from polyfit.spec.spec import Spec


def plan_of(text: str) -> Plan:
    return Plan.of(Spec.parse(f"name: test\n{text}"))


# --- shards ----------------------------------------------------------------------------------


@given(specs(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_shards_partition_the_fits(source: dict[str, Any], shard: int) -> None:
    plan = Plan.of(spec_of({**source, "shard": shard}))
    shards = [plan.shard(number) for number in range(plan.shards)]
    assert [i for s in shards for i in range(s.start, s.stop)] == list(range(plan.fits))
    assert [s.number for s in shards] == list(range(plan.shards))
    assert all(0 < s.fits == s.stop - s.start <= shard for s in shards)


@pytest.mark.parametrize("number", [-1, 4])
def test_a_shard_beyond_the_plan_is_refused(number: int) -> None:
    with pytest.raises(IndexError, match=f"shard {number} of 4"):
        plan_of("sweep: {seed: {count: 10}}\nshard: 3").shard(number)


@given(specs(), st.integers(1, 5), st.data())
@settings(max_examples=40, deadline=None)
def test_costly_shards_go_first_and_every_shard_goes_once(
    source: dict[str, Any], shard: int, data: st.DataObject
) -> None:
    plan = Plan.of(spec_of({**source, "shard": shard}))
    numbers = data.draw(st.lists(st.integers(0, plan.shards - 1), unique=True, max_size=20))

    def cost(number: int) -> float:
        fit = plan.sweep.fit(plan.shard(number).start)
        return nominal_seconds(
            fit.degree, fit.points, fit.objective, fit.optimizer, fit.steps, engine=plan.engine
        )

    assert plan.costly_first(numbers).tolist() == sorted(numbers, key=lambda n: -cost(n))


def test_a_million_shards_are_put_in_order() -> None:
    plan = plan_of("fit: {steps: 1}\nsweep: {degree: [1, 3], seed: {count: 500000}}\nshard: 1")
    half = np.arange(500_000)
    expected = np.concatenate([half + 500_000, half])
    np.testing.assert_array_equal(plan.costly_first(range(plan.shards)), expected)


@given(
    degree=st.integers(0, 30),
    points=st.sampled_from([31, 2000, 100_000]),
    steps=st.sampled_from([10, 2000, 1_000_000]),
    objective=st.sampled_from(["sse", "huber"]),
    record=st.sampled_from(["none", "{every: 100}", "{every: 100, of: [loss, coefficients]}"]),
    seeds=st.sampled_from([1, 100, 4_095, 4_096, 100_000, 4_000_000]),
)
@settings(max_examples=100, deadline=None)
def test_an_automatic_shard_is_the_largest_power_of_two_within_time_bytes_and_spread(
    degree: int, points: int, steps: int, objective: str, record: str, seeds: int
) -> None:
    fit = f"fit: {{degree: {degree}, points: {points}, steps: {steps}, objective: {objective}}}"
    if steps == 1_000_000:
        record = record.replace("100", "10000")
    text = f"{fit}\nsweep: {{seed: {{count: {seeds}}}}}\nrecord: {record}"
    try:
        plan = plan_of(text)
    except LimitExceeded:
        return
    one = plan.sweep.fit(0)
    seconds = nominal_seconds(degree, points, objective, one.optimizer, steps, engine=plan.engine)
    size = plan.projected_bytes / plan.fits

    def within(n: int) -> bool:
        spread = seeds < 4_096 or -(-seeds // n) >= 16
        return n * seconds < SHARD_SECONDS and n * size < SHARD_BYTES and n <= SHARD_FITS and spread

    n = plan.shard_fits
    assert n & (n - 1) == 0
    assert n == 1 or within(n) or -(-seeds // (n // 2)) > MAX_SHARDS
    assert not within(2 * n)


def test_an_automatic_shard_goes_by_the_costliest_fit() -> None:
    cheap = "fit: {steps: 10}\nsweep: {seed: {count: 4000}, degree: [1, 2]}"
    assert plan_of(cheap.replace("[1, 2]", "[1, 30]")).shard_fits <= plan_of(cheap).shard_fits
    dear = "sweep: {points: [100, 1000000], seed: {count: 1000}}\nfit: {objective: huber}"
    alone = "fit: {points: 1000000, objective: huber}\nsweep: {seed: {count: 2000}}"
    assert plan_of(dear).shard_fits == plan_of(alone).shard_fits


def test_an_automatic_shard_does_not_depend_on_the_cluster() -> None:
    text = "sweep: {seed: {count: 100000}}\n"
    asked = text + "resources: {gpus_per_actor: 1, cpus_per_actor: 8, actors: {min: 9, max: 99}}"
    assert plan_of(asked).shard_fits == plan_of(text).shard_fits


def test_a_stated_shard_is_kept() -> None:
    assert plan_of("sweep: {seed: {count: 100}}\nshard: 7").shard_fits == 7


# --- the hash --------------------------------------------------------------------------------


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


# --- JSON ------------------------------------------------------------------------------------


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
def test_what_is_no_plan_is_refused(data: bytes) -> None:
    with pytest.raises(PlanMismatch, match=r"plan\.json is no plan that this version reads"):
        Plan.from_json(data, "plan.json")


@pytest.mark.parametrize(("data", "ours"), [(b"", True), (b' {"fit', True), (b"<html>", False)])
def test_to_remove_it_is_advised_of_what_may_have_been_a_plan(data: bytes, ours: bool) -> None:
    with pytest.raises(PlanMismatch) as caught:
        Plan.from_json(data, "plan.json")
    assert ("remove it" in str(caught.value)) is ours
    assert ("choose another store or --run-id" in str(caught.value)) is not ours


def test_another_version_is_told_apart_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- limits ----------------------------------------------------------------------------------


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


def test_the_largest_plan_is_put_in_order() -> None:
    plan = plan_of("sweep: {seed: {count: 262144}, noise_seed: {count: 1000000}}")
    assert plan.costly_first([0, plan.shards - 1]).tolist() == [0, plan.shards - 1]


@pytest.mark.parametrize(
    ("text", "found", "allowed"),
    [
        ("fit: {objective: huber}", "fit.objective: 'huber'", "sse | mse"),
        ("fit: {optimizer: adam}", "fit.optimizer: 'adam'", "gd | {momentum: ...}"),
        ("sweep: {optimizer: [gd, newton]}", "sweep.optimizer: 'newton'", "gd | {momentum: ...}"),
        ("fit: {stop: {gradient: 0.1}}", "fit.stop: 'gradient=0.1'", "none"),
    ],
)
def test_engine_affine_is_refused_where_the_iteration_is_no_affine_map(
    text: str, found: str, allowed: str
) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(f"{text}\nengine: affine")
    told = f"<spec>:2: {found} with engine affine; allowed: {allowed}, "
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("fits", [1, 1_000_000])
def test_auto_is_compiled(fits: int) -> None:
    assert plan_of(f"sweep: {{seed: {{count: {fits}}}}}").engine == "compiled"


def test_auto_does_not_ask_who_runs_it() -> None:
    text = "sweep: {seed: {count: 1000000}}\n"
    more = "resources: {gpus_per_actor: 1, cpus_per_actor: 4, actors: {max: 9}}\n"
    assert plan_of(text).hash == plan_of(text + more).hash


@pytest.mark.parametrize("engine", ["eager", "compiled", "affine"])
def test_an_engine_that_is_named_is_taken(engine: str) -> None:
    assert plan_of(f"engine: {engine}").engine == engine


# --- projections -----------------------------------------------------------------------------


@given(specs())
@settings(max_examples=40, deadline=None)
def test_the_projected_time_is_that_of_all_fits_and_of_the_shards_batches(
    source: dict[str, Any],
) -> None:
    plan = Plan.of(spec_of(source))
    fits = [plan.sweep.fit(i) for i in range(plan.fits)]
    expected = sum(
        nominal_seconds(f.degree, f.points, f.objective, f.optimizer, f.steps, engine=plan.engine)
        for f in fits
    )
    if plan.engine != "eager":
        assert plan.seconds >= expected
        return
    calls = [f.steps * 1e-4 for f in fits]
    assert plan.seconds >= expected + plan.shards * min(calls)
    if plan.fits > 1:
        once, twice = (
            dataclasses.replace(plan, shard_fits=-(-plan.fits // shards)).seconds
            for shards in (1, 2)
        )
        assert once - (twice - once) == pytest.approx(expected, rel=1e-6)


def test_a_run_of_little_work_needs_no_ray_and_one_of_much_is_shared_by_cores() -> None:
    little, much = (plan_of(f"sweep: {{seed: {{count: {count}}}}}") for count in (1, 10**7))
    assert little.inline
    assert little.wall_seconds(16) == little.wall_seconds(1) > little.seconds
    assert not much.inline
    starts = {much.wall_seconds(n) - much.seconds / n for n in (1, 2, 16)}
    assert max(starts) - min(starts) < 1e-6
    assert much.wall_seconds(10**6) == much.wall_seconds(much.shards)


def test_every_kind_of_fit_is_compiled_apart() -> None:
    """Some seconds for a hundred kinds, and more for those of a high degree."""
    one, many, high = (
        plan_of(f"fit: {{steps: 1}}\nsweep: {{{sweep}}}").seconds
        for sweep in (
            "degree: [3]",
            "degree: [3, 4], objective: [sse, mse, huber], optimizer: [gd, adam]",
            "degree: [29, 30], objective: [sse, mse, huber], optimizer: [gd, adam]",
        )
    )
    assert one < many < high


def test_the_projected_bytes_grow_with_what_is_recorded() -> None:
    texts = ["none", "{every: 100}", "{every: 10}", "{every: 10, of: [loss, coefficients]}"]
    sizes = [plan_of(f"record: {text}").projected_bytes for text in texts]
    assert sizes == sorted(set(sizes))


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
