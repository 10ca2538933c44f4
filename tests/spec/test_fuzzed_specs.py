"""Changed and generated specs are specs or errors of their user."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile import FUZZ, checked
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfit.errors import UsageError
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

pytestmark = pytest.mark.slow

HUGE = 10**30


def check_taken(data: str | bytes, settings: Sequence[str] = ()) -> None:
    """Anything is a spec or a user's error; a plan that is made can be read again."""
    try:
        plan = Plan.of(Spec.parse(data, "job.yaml", settings))
    except UsageError as error:
        checked(str(error))
    else:
        assert plan.fits >= 1
        assert Plan.from_json(plan.to_json(), "plan.json").hash == plan.hash


WHOLE = """\
name: whole
fit: {target: exp(x), points: 40, basis: legendre, stop: {gradient: 1e-6}, noise: 0.5}
sweep:
  degree: {start: 1, stop: 9, step: 2}
  range: [[-pi, pi], [0, 2*pi]]
  lr: {logspace: [-3, -1, 3]}
  noise_seed: {count: 5, start: 7}
  zip: [{optimizer: [gd, {momentum: {beta: 0.5}}], objective: [sse, huber]}]
exclude: ["degree > 5 and lr < 0.01", "noise_seed in [7, 9]"]
record: {at: [0, 10], of: [loss, coefficients]}
engine: eager
shard: 100
store: {uri: s3://bucket/prefix, endpoint_url: 'http://localhost:9000'}
resources: {gpus_per_actor: 0.5, cpus_per_actor: 1, actors: {min: 1, max: 4}}
limits: {fits: 100000, core_hours: 10, bytes: 1000000000}
on_failure: stop
"""


GRIDS = """\
name: grids
sweep:
- {degree: [1, 3], lr: {of_limit: {linspace: [0.1, 1, 3]}}, seed: {count: 4}}
- {degree: [5], noise: {uniform: [0, 1, 3], seed: 4}, steps: {log_uniform: [1, 1000, 3]}}
exclude: [not seed < 2 and degree == 1]
store: s3://bucket/prefix
"""


JOBS = [WHOLE, GRIDS, *(path.read_text() for path in sorted(Path("jobs").glob("*.yaml")))]


SCRAPS = [
    *("", " ", "\n", "\t", ":", ": ", "- ", "? ", ",", "[", "]", "{", "}", "|", ">", "'", '"'),
    *("#", "&a ", "*a", "!!python/none ", "!t ", "<<", "---\n", "...\n", "%YAML 1.2\n", "\\"),
    *("\0", "\r", "\x1b", "\x85", "\u2028", "\ufeff", "\ud800", "\U0001f600", '"\\U00110000"'),
    *("null", "~", "true", "auto", "none", ".inf", "-.inf", ".nan", "0", "-1", "1e400", "1e-400"),
    *("4294967296", "18446744073709551616", "1" * 30, "9" * 399, "9" * 5000, "0x" + "f" * 99),
    *("[]", "{}", "[[]]", "{count: 3}", f"{{count: {HUGE}}}", "{count: 4294967296}"),
    *("{start: 1, stop: 5}", "{linspace: [1, 9, 5]}", f"{{linspace: [0, 1, {HUGE}]}}"),
    *("{logspace: [0, 400, 3]}", "{of_limit: 0.5}", "{momentum: {beta: 1}}", "{gradient: 1}"),
    *("gd", "adam", "newton", "l1", "mse", "power", "affine", "compiled", "float64", "zip"),
    *("{uniform: [1, 9, 3]}", "{of_limit: [0.5, 1]}", "{log_uniform: [0, 1, 2], seed: -1}"),
    *("exclude", "[seed < 3]", "seed == 3", "degree > points", "lr == None", "basis = 'power'"),
    *("sin(x)", "9**9**9", "x.real", "'x'", "../x", "s3://k:s@b", "http://[::1", "a/b"),
    *CANONICAL_ORDER,
]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """A job of the repository with a few places changed."""
    text = draw(st.sampled_from(JOBS))
    for _ in range(draw(st.integers(1, 4))):
        scrap = draw(st.one_of(st.sampled_from(SCRAPS), st.text(max_size=3)))
        lines = text.splitlines(keepends=True) or [""]
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["word", "word", "word", "character", "line", "copy", "cut"])):
            case "word":
                words = list(re.finditer(r"[^\s\[\]{},:]+|[\[{].*?[\]}]", text))
                if words:
                    word = words[draw(st.integers(0, len(words) - 1))]
                    text = text[: word.start()] + scrap + text[word.end() :]
            case "character":
                start = draw(st.integers(0, len(text)))
                stop = start + draw(st.integers(0, 2))
                text = text[:start] + scrap + text[stop:]
            case "line":
                text = "".join([*lines[:line], *lines[line + 1 :]])
            case "copy":
                other = draw(st.integers(0, len(lines)))
                text = "".join([*lines[:other], lines[line], *lines[other:]])
            case "cut":
                text = text[: draw(st.integers(0, len(text)))]
    return text


@given(mutants())
@settings(FUZZ, max_examples=500)
def test_a_changed_job_is_a_spec_or_a_users_error(text: str) -> None:
    check_taken(text)


NUMBERS = st.one_of(
    st.integers(-2, 40),
    st.floats(0.001, 2),
    st.sampled_from([100_000, 10**6, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1, HUGE]),
    st.sampled_from([10**308, 10**399, 1e-300, 1e308, -1e308, 5e-324, 0.0, -0.0]),
    st.floats(),
)


GENERATORS: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"count": NUMBERS}, optional={"start": NUMBERS, "step": NUMBERS}),
    st.fixed_dictionaries({"start": NUMBERS, "stop": NUMBERS}, optional={"step": NUMBERS}),
    st.fixed_dictionaries({"linspace": st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list)}),
    st.fixed_dictionaries({"logspace": st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list)}),
    *(
        st.fixed_dictionaries(
            {kind: st.tuples(NUMBERS, NUMBERS, st.integers(-1, 50) | NUMBERS).map(list)},
            optional={"seed": NUMBERS},
        )
        for kind in ("uniform", "log_uniform")
    ),
)


CONDITIONS = st.builds(
    "{} {} {}".format,
    st.sampled_from([*CANONICAL_ORDER, "range_low", "degree + seed", "not lr", "noise * 2"]),
    st.sampled_from(["<", "==", ">=", "!=", "in", "=", "and", "/"]),
    st.one_of(NUMBERS, st.sampled_from(["'power'", "[0, 3]", "None", "points", "1 < 2"])),
)


WORDS: dict[str, list[Any]] = {
    "degree": [0, 3, 30],
    "points": [31, 100, 1_000_000],
    "basis": ["chebyshev", "legendre", "power"],
    "range": [[-1, 1], ["-pi", "pi"], [0, "2*pi"], [-1e308, 1e308], [0, 5e-324]],
    "objective": ["sse", "mse", "huber", "log_cosh", "l1"],
    "dtype": ["float32", "float64"],
    "target": ["sin(x)", "1", 2, 0.5, "x**9**9", "1/0", "0x10"],
    "noise": [0, 0.5, 1e308],
    "noise_seed": [0, 2**64 - 1],
    "steps": [1, 2000, 10**9],
    "stop": ["none", None, {"gradient": 1e-6}, {"loss_change": 1e-9}],
    "optimizer": ["gd", "adam", "newton", "momentum", {"momentum": {"beta": 0.5}}],
    "lr": ["auto", 1e-6, {"of_limit": 0.9}, 5e-324],
    "seed": [0, 2**32 - 1],
}


def field(name: str) -> st.SearchStrategy[Any]:
    likely = st.sampled_from(WORDS[name])
    return st.one_of(likely, likely, likely, NUMBERS, st.text(max_size=3))


def axis(name: str) -> st.SearchStrategy[Any]:
    listed = st.lists(st.sampled_from(WORDS[name]), min_size=1, max_size=4, unique_by=repr)
    numeric = isinstance(WORDS[name][0], int) or name == "lr"
    return st.one_of(listed, listed, GENERATORS if numeric else listed, st.lists(field(name)))


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """Some fields by themselves, some in a zip."""
    names = draw(st.lists(st.sampled_from(CANONICAL_ORDER), max_size=6, unique=True))
    apart = draw(st.integers(0, len(names)))
    sweep = {name: draw(axis(name)) for name in names[:apart]}
    if len(names) - apart >= 2:
        sweep["zip"] = [{name: draw(axis(name)) for name in names[apart:]}]
    return sweep


RECORDS = st.one_of(
    st.just("none"),
    st.fixed_dictionaries(
        {"every": NUMBERS}, optional={"of": st.just(["loss", "coefficients", "gradient_norm"])}
    ),
    st.fixed_dictionaries({"at": st.lists(st.integers(0, 2000), max_size=5).map(sorted)}),
)


SPECS = st.fixed_dictionaries(
    {
        "name": st.just("test"),
        "sweep": st.one_of(sweeps(), sweeps(), st.lists(sweeps(), max_size=3)),
    },
    optional={
        "exclude": st.lists(CONDITIONS, max_size=2),
        "fit": st.fixed_dictionaries({}, optional={name: field(name) for name in WORDS}),
        "record": RECORDS,
        "engine": st.sampled_from(["auto", "eager", "compiled", "affine"]),
        "shard": st.one_of(st.just("auto"), NUMBERS),
        "limits": st.fixed_dictionaries(
            {}, optional={"fits": NUMBERS, "core_hours": NUMBERS, "bytes": NUMBERS}
        ),
    },
)


def yaml_of(value: Any) -> str:
    words = {"NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}
    return re.sub("-?Infinity|NaN", lambda found: words[found[0]], json.dumps(value))


@given(SPECS)
@settings(FUZZ, max_examples=300)
def test_a_generated_spec_is_a_spec_or_a_users_error(source: dict[str, Any]) -> None:
    check_taken(yaml_of(source))


KEYS = st.one_of(
    st.sampled_from(
        ["name", "sweep", "exclude", "exclude[0]", "sweep[0]", "sweep.zip[0]", "store"]
    ),
    st.sampled_from(["store.uri", "record.every", "limits.fits", "resources.actors.max", "shard"]),
    st.builds(
        "{}.{}".format,
        st.sampled_from(["fit", "sweep", "sweep[1]", "sweep.zip[0]", "fit.lr", "sweep[0].zip[0]"]),
        st.sampled_from(CANONICAL_ORDER),
    ),
    st.text(max_size=5),
)
VALUES = st.one_of(
    st.sampled_from(SCRAPS),
    st.sampled_from(CANONICAL_ORDER).flatmap(lambda name: axis(name) | field(name)).map(yaml_of),
    sweeps().map(yaml_of),
    st.text(max_size=5),
)


@given(st.sampled_from(JOBS), st.lists(st.builds("{}={}".format, KEYS, VALUES), max_size=3))
@settings(FUZZ, max_examples=300)
def test_a_spec_with_settings_is_a_spec_or_a_users_error(text: str, changes: list[str]) -> None:
    check_taken(text, changes)
