"""All that is wrong in a spec is reported at once."""

import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from specs import defects

from polyfit.errors import Exit, SpecError
from polyfit.spec import defects as defects_module
from polyfit.spec import excerpt
from polyfit.spec.defects import MAX_DEFECTS, MAX_EXCERPTS
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.spec import Spec

JSON = """\
{
\t"name": "test",
\t"fit": {"degree": 3, "degre": 4, "lr": "fast"},
\t"sweep": {"seed": {"count": 3}, "seed": [1]}
}
"""


def test_defects_of_json_are_reported_with_line_and_key() -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse(JSON, "job.json")
    first, second, third = caught.value.problems
    assert re.match(r"job\.json:3: fit\.degre: unknown key", first)
    assert re.match(r"job\.json:3: fit\.lr: found 'fast'", second)
    assert third == "job.json:4: duplicate key 'seed', first on line 4"


DEFECTS = """\
name: Bad Name
fitt: {}
fit:
  target: sin(x) + foo
  range: [1, -1]
  points: 2.5
  degre: 3
  lr: fast
  noise: -0.5
  seed: 4294967296
sweep:
  degree: [1, 3, 1]
  seed: {count: 0}
  basis: [power, sine]
  steps: 100
  colour: [red]
  zip:
    - {objective: [sse, mse], optimizer: [gd]}
    - {degree: [1, 2], dtype: [float32, float64]}
    - {noise: [0.1]}
record: {evry: 10, of: [loss, time]}
engine: fast
shard: 0
store: {uri: s3://KEY:SECRET@bucket/x, endpoint: null}
resources:
  gpus_per_actor: many
  cpus_per_actor: 0
  actors: {min: 0, max: none}
limits: {fits: -1, hours: 3, bytes: 1.5}
"""


GOLDEN = """\
job.yaml:1: name: found 'Bad Name'; allowed: 1 to 63 of a-z, 0-9 and -, not beginning with -
job.yaml:2: fitt: unknown key (did you mean 'fit'?); allowed: name, fit, sweep, exclude, record, engine, shard, run_id, store, resources, limits, on_failure
job.yaml:4: fit.target: 'foo' in 'sin(x) + foo' is an unknown name (column 10); allowed: numbers, x, pi, e, + - * / **, parentheses and the functions sin cos tan asin acos atan sinh cosh tanh exp log sqrt abs sign
job.yaml:5: fit.range: found [1, -1]; allowed: low < high with a finite width, here 1.0 and -1.0
job.yaml:6: fit.points: found 2.5; allowed: an integer from 1 to 1,000,000
job.yaml:7: fit.degre: unknown key (did you mean 'degree'?); allowed: degree, points, basis, range, objective, dtype, target, noise, noise_seed, steps, stop, optimizer, lr, seed
job.yaml:8: fit.lr: found 'fast'; allowed: auto, a number above 0, or {of_limit: share} with a share above 0
job.yaml:9: fit.noise: found -0.5; allowed: a number from 0 (a standard deviation)
job.yaml:10: fit.seed: found 4294967296; allowed: an integer from 0 to 2^32 - 1 (torch keeps 32 bits)
job.yaml:12: sweep.degree[2]: found 1; allowed: each value once; it equals item 0
job.yaml:13: sweep.seed: found {'count': 0}; allowed: at least one value; {count: n, start: a, step: d}, {start: a, stop: b, step: d} without b, {linspace: [a, b, n]}, {logspace: [a, b, n]} from 10^a to 10^b, {uniform: [a, b, n], seed: s}, {log_uniform: [a, b, n], seed: s}
job.yaml:14: sweep.basis[1]: found 'sine'; allowed: chebyshev | legendre | power
job.yaml:15: sweep.steps: found 100; allowed: a list with at least one value, or a generator; did you mean [100]?
job.yaml:16: sweep.colour: unknown key; allowed: degree, points, basis, range, objective, dtype, target, noise, noise_seed, steps, stop, optimizer, lr, seed, zip
job.yaml:18: sweep.zip[0]: found 2 values of objective, 1 values of optimizer; allowed: the same number of each
job.yaml:19: sweep.zip[1].degree: found the field a second time (sweep.degree); allowed: once
job.yaml:20: sweep.zip[2]: found {'noise': [0.1]}; allowed: a mapping of two fields or more
job.yaml:21: record.evry: unknown key (did you mean 'every'?); allowed: every, at, of
job.yaml:21: record.of: found ['loss', 'time']; allowed: a list out of loss, coefficients, gradient_norm, each once
job.yaml:22: engine: found 'fast'; allowed: auto | eager | compiled | affine
job.yaml:23: shard: found 0; allowed: auto or an integer from 1 to 1,000,000,000
job.yaml:24: store.endpoint: unknown key (did you mean 'endpoint_url'?); allowed: uri, endpoint_url, sse, kms_key_id, storage_class
job.yaml:24: store.uri: found 's3://***@bucket/x'; allowed: a folder or s3://bucket/prefix, without credentials
job.yaml:26: resources.gpus_per_actor: found 'many'; allowed: auto, 0, a share from 0.0001 such as 0.5, or 1 to 1,000,000 whole GPUs
job.yaml:27: resources.cpus_per_actor: found 0; allowed: a number from 0.0001 to 1,000,000
job.yaml:28: resources.actors.max: found 'none'; allowed: auto or an integer from 1
job.yaml:28: resources.actors.min: found 0; allowed: an integer from 1
job.yaml:29: limits.bytes: found 1.5; allowed: an integer from 1, or null
job.yaml:29: limits.fits: found -1; allowed: an integer from 1, or null
job.yaml:29: limits.hours: unknown key (did you mean 'core_hours'?); allowed: fits, core_hours, bytes
"""  # noqa: E501


def test_all_defects_are_reported_at_once_each_with_line_key_found_and_allowed() -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse(DEFECTS, "job.yaml")
    assert str(caught.value) == GOLDEN.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit: {dtyp: float32}", "fit.dtyp: unknown key (did you mean 'dtype'?); allowed: degree"),
        ("recrd: none", "recrd: unknown key (did you mean 'record'?); allowed: name, fit, sweep"),
        ("sweep: {zap: []}", "sweep.zap: unknown key (did you mean 'zip'?); allowed: degree"),
        (
            "resources: {actors: {mn: 1}}",
            "resources.actors.mn: unknown key (did you mean 'min'?); allowed: min, max",
        ),
        ("limits: {fitz: 1}", "limits.fitz: unknown key (did you mean 'fits'?); allowed: fits"),
        ("store: {url: x, uri: y}", "store.url: unknown key (did you mean 'uri'?); allowed: uri"),
        ("store: {}", "store.uri: found nothing; allowed: a folder or s3://bucket/prefix"),
        ("qqq: 1", "qqq: unknown key; allowed: name"),
        ("fit: 3", "fit: found 3; allowed: a mapping of fields"),
        ("sweep: [seed]", "sweep[0]: found 'seed'; allowed: a mapping of fields to lists"),
        (
            "sweep: {zip: {seed: [1]}}",
            "sweep.zip: found {'seed': [1]}; allowed: a list of mappings",
        ),
        ("sweep: {seed: 3}", "sweep.seed: found 3; allowed: a list with at least one value"),
        ("sweep: {seed: []}", "sweep.seed: found []; allowed: a list with at least one value"),
        (
            "sweep: {seed: [1, 1]}",
            "sweep.seed[1]: found 1; allowed: each value once; it equals item 0",
        ),
        (
            "sweep: {seed: [1, 2], zip: [{seed: [1, 2], degree: [1, 2]}]}",
            "sweep.zip[0].seed: found the field a second time (sweep.seed); allowed: once",
        ),
        (
            "sweep: {zip: [{seed: [1], lr: [1]}, {lr: [1], degree: [1]}]}",
            "sweep.zip[1].lr: found the field a second time (sweep.zip[0].lr); allowed: once",
        ),
        (
            "sweep: {zip: [{seed: [1, 2], degree: [1, 2, 3]}]}",
            "sweep.zip[0]: found 2 values of seed, 3 values of degree; allowed: the same number",
        ),
        (
            "sweep: {zip: [{seed: [1, 2, 1], degree: [1, 2, 1]}]}",
            "sweep.zip[0].seed[2]: found row 0 again; allowed: each row once",
        ),
        (
            "fit: {objective: l1}",
            "fit.objective: found objective l1 with lr auto and optimizer gd; "
            "allowed: a number for lr: l1 has no stability limit",
        ),
        (
            "fit: {optimizer: adam, objective: l1, lr: auto}",
            "fit.lr: found lr auto with objective l1 and optimizer adam "
            "(fit.objective on line 2, fit.optimizer on line 2); "
            "allowed: a number for lr: l1 has no automatic rate",
        ),
        (
            "fit: {optimizer: adam, lr: {of_limit: 0.5}}",
            "fit.lr: found lr of_limit with optimizer adam (fit.optimizer on line 2); "
            "allowed: auto or a number for lr: adam has no stability limit",
        ),
        (
            "sweep: {optimizer: [gd, adam], lr: [{of_limit: 0.5}]}",
            "sweep.lr[0]: found lr of_limit with optimizer adam (sweep.optimizer[1] on line 2); "
            "allowed: auto or a number for lr: adam has no stability limit; or pair them under "
            "sweep.zip: here every value meets every other",
        ),
        (
            "fit: {optimizer: newton, objective: l1, lr: 1}",
            "fit.optimizer: found optimizer newton with objective l1 (fit.objective on line 2); "
            "allowed: another optimizer: l1 has no Hessian",
        ),
        (
            "fit: {lr: 0.1}\nsweep:\n  objective: [sse, l1]\n  optimizer: [gd, newton]",
            "sweep.optimizer[1]: found optimizer newton with objective l1 "
            "(sweep.objective[1] on line 4); allowed: another optimizer: l1 has no Hessian; "
            "or pair them under sweep.zip",
        ),
        (
            "fit: {lr: 0.1, objective: l1}\nsweep: {seed: {count: 3}, optimizer: [gd, newton]}",
            "sweep.optimizer[1]: found optimizer newton with objective l1 "
            "(fit.objective on line 2); allowed: another optimizer: l1 has no Hessian",
        ),
        (
            "sweep: {zip: [{objective: [l1, l1], lr: [1, 1], optimizer: [gd, newton]}]}",
            "sweep.zip[0].optimizer[1]: found optimizer newton with objective l1 "
            "(sweep.zip[0].objective[1] on line 2); allowed: another optimizer: l1 has no Hessian",
        ),
        (
            "fit: {degree: 5}\nsweep: {points: [2000, 3, 4]}",
            "sweep.points[1]: found 3 points at degree 5 (fit.degree on line 2); "
            "allowed: at least degree + 1 = 6 points",
        ),
        (
            "fit: {points: 5}\nsweep: {degree: {count: 9}}",
            "fit.points: found 5 points at degree 5 (sweep.degree on line 3); "
            "allowed: at least degree + 1 = 6 points",
        ),
        (
            "fit: {points: 3}",
            "fit.points: found 3 points at degree 3; allowed: at least degree + 1 = 4 points",
        ),
        (
            "fit: {points: 5}\nsweep: {degree: [3, 4, 5]}",
            "fit.points: found 5 points at degree 5 (sweep.degree[2] on line 3); "
            "allowed: at least degree + 1 = 6 points",
        ),
        (
            "sweep: []",
            "sweep: found []; allowed: a mapping of fields to lists or generators, and zip",
        ),
        (
            "sweep: [{}, 3]",
            "sweep[1]: found 3; allowed: a mapping of fields to lists or generators",
        ),
        ("sweep: [{seed: [1]}, {sed: [1]}]", "sweep[1].sed: unknown key (did you mean 'seed'?)"),
        (
            "sweep: [{degree: [1, 40]}, {degree: [2]}]",
            "sweep[0].degree[1]: found 40; allowed: an integer from 0 to 30",
        ),
        (
            "sweep: [{degree: [1, 2]}, {degree: [12]}, {degree: {start: 2, stop: 9}}]",
            "sweep[2]: found fits that sweep[0] has too, such as its fit 1; allowed: each fit once",
        ),
        (
            "sweep:\n- {seed: {count: 4000000}}\n- {seed: {start: 9, stop: 4000000, step: 7}}",
            "sweep[1]: found fits that sweep[0] has too, such as its fit 0; allowed: each fit once",
        ),
        (
            "sweep: [{zip: [{seed: [1, 2], lr: [1]}]}]",
            "sweep[0].zip[0]: found 2 values of seed, 1 values of lr; allowed: the same number",
        ),
        (
            "sweep: [{points: [3]}, {points: [9]}]",
            "sweep[0].points[0]: found 3 points at degree 3; allowed: at least degree + 1 = 4",
        ),
        ("exclude: degree > 3", "exclude: found 'degree > 3'; allowed: a list of up to 100"),
        ("exclude: [3]", "exclude[0]: found 3; allowed: a condition of at most 1,000 characters"),
        (
            "exclude: ['1 < 2']",
            "exclude[0]: found '1 < 2'; allowed: a condition that names a field",
        ),
        ("exclude: ['lr.x']", "exclude[0]: found 'lr.x'; allowed: a condition on degree, points"),
        (
            "exclude: [basis > 3]",
            "exclude[0]: found 'basis > 3'; allowed: a condition on degree, points",
        ),
        ("exclude: ['degree']", "exclude[0]: found 'degree'; allowed: a condition on degree"),
        ("exclude: ['degree == 3']", "exclude: found the only fit; allowed: conditions that leave"),
        (
            "sweep: {seed: {count: 1000000000}}\nexclude: ['seed < 2000000000']",
            "exclude: found conditions that exclude all 1,000,000,000 fits; allowed: conditions",
        ),
        (
            "sweep: {seed: {count: 1000000000}}\nexclude: ['seed - 1 == 0']",
            "exclude[0]: found 'seed - 1 == 0'; allowed: of seed, which has 1,000,000,000 values",
        ),
        (
            "sweep: {seed: {count: 2000}, steps: {count: 999, start: 1}}\n"
            "exclude: ['seed == steps']",
            "exclude[0]: found 'seed == steps'; allowed: a condition on axes with at most",
        ),
        (
            "sweep: {lr: {of_limit: [0.5, 0]}}",
            "sweep.lr[1]: found {'of_limit': 0}; allowed: auto, a number above 0, or {of_limit",
        ),
        (
            "sweep: {lr: {of_limit: {linspace: [0, 1, 3]}}}",
            "sweep.lr: found {'of_limit': {'linspace': [0, 1, 3]}}; allowed: a share above 0; the",
        ),
        (
            "sweep: {noise: {uniform: [1, 0, 3]}}",
            "sweep.noise: found {'uniform': [1, 0, 3]}; allowed: a < b, the ends of uniform",
        ),
        (
            "sweep: {degree: {uniform: [1, 5, 6]}}",
            "sweep.degree: found {'uniform': [1, 5, 6]}; allowed: at most the 5 integers from 1",
        ),
        ("store: 's3://'", "store.uri: found 's3://'; allowed: a folder or s3://bucket/prefix"),
        ("record: {every: 0}", "record.every: found 0; allowed: an integer from 1"),
        ("record: {every: }", "record.every: found null; allowed: an integer from 1"),
        ("record: {every: 1, at: [1]}", "record: found {'every': 1, 'at': [1]}; allowed: auto, {e"),
        ("record: {}", "record: found {}; allowed: auto, {every: n, of: [...]}"),
        ("record: {at: [2, 1]}", "record.at: found [2, 1]; allowed: a rising list"),
        (
            "record: {at: [2000]}",
            "record.at: found 2000; allowed: updates from 0 to steps - 1 = 1999",
        ),
        (
            "record: {every: 1, of: [loss, loss]}",
            "record.of: found ['loss', 'loss']; allowed: each",
        ),
        (
            "fit: {steps: 1000000}\nrecord: {every: 1}",
            "record.every: found 1,000,000 records of a fit of 1,000,000 steps; "
            "allowed: at most 10,000, so every: 100 or more",
        ),
        (
            "shard: 1000000001",
            "shard: found 1000000001; allowed: auto or an integer from 1 to 1,000",
        ),
        ("shard: true", "shard: found true; allowed: auto or an integer"),
        ("limits: {fits: 1.0}", "limits.fits: found 1.0; allowed: an integer from 1, or null"),
        (
            "resources: {gpus_per_actor: 0.00001}",
            "resources.gpus_per_actor: found 1e-05; allowed: auto, 0, a share from 0.0001 such as "
            "0.5, or 1 to 1,000,000 whole GPUs",
        ),
        (
            "resources: {gpus_per_actor: 1.0e+15}",
            "resources.gpus_per_actor: found 1000000000000000.0; ",
        ),
        (
            "resources: {gpus_per_actor: 1000001}",
            "resources.gpus_per_actor: found 1000001; allowed",
        ),
        (
            "resources: {cpus_per_actor: 1.0e+30}",
            "resources.cpus_per_actor: found 1e+30; allowed: ",
        ),
        (
            "resources: {cpus_per_actor: 0.00001}",
            "resources.cpus_per_actor: found 1e-05; allowed: a number from 0.0001 to 1,000,000",
        ),
        (
            "resources: {actors: {min: 3, max: 2}}",
            "resources.actors.max: found 2; allowed: auto or at least min, 3",
        ),
        ("store: {uri: ''}", "store.uri: found ''; allowed: a folder or s3://bucket/prefix"),
        ("store: {uri: 's3://'}", "store.uri: found 's3://'; allowed: a folder or s3://"),
        (
            "store: {uri: 's3://b', sse: kms}",
            "store.sse: found 'kms' (did you mean 'aws:kms'?); allowed: AES256",
        ),
        (
            "store: {uri: 's3://b', kms_key_id: k}",
            "store.kms_key_id: found 'k'; allowed: only with sse: aws:kms[:dsse]",
        ),
        (
            "store: {uri: 's3://b', sse: AES256, kms_key_id: k}",
            "store.kms_key_id: found 'k'; allowed: only with sse: aws:kms[:dsse]",
        ),
        (
            "store: {uri: 's3://b', sse: aws:kms, kms_key_id: a key}",
            "store.kms_key_id: found 'a key'; allowed: a key's id, ARN or alias",
        ),
        (
            "store: {uri: 's3://b', storage_class: DEEP_ARCHIVE}",
            "store.storage_class: found 'DEEP_ARCHIVE'; allowed: STANDARD | STANDARD_IA |",
        ),
        (
            "store: {uri: runs, sse: AES256}",
            "store.sse: found 'AES256'; allowed: only with uri: s3://bucket/prefix",
        ),
        (
            "store: {uri: runs, storage_class: STANDARD_IA}",
            "store.storage_class: found 'STANDARD_IA'; allowed: only with uri: s3://bucket/prefix",
        ),
        ("store: {uri: 'http://h/b'}", "store.uri: found 'http://h/b'; allowed: a folder or s3://"),
        (
            "store: {uri: a, endpoint_url: localhost}",
            "store.endpoint_url: found 'localhost'; allowed: an http:// or https:// URL",
        ),
        (
            "fit: {target: x + foo}",
            "fit.target: 'foo' in 'x + foo' is an unknown name (column 5); allowed: numbers, x",
        ),
        (
            "fit: {target: 'sin(x, x)'}",
            "fit.target: 'sin' in 'sin(x, x)' has 2 arguments (column 1)",
        ),
        ("fit: {range: [0, x]}", "fit.range: 'x' depends on x; allowed: a constant"),
        ("fit: {range: [1, 0]}", "fit.range: found [1, 0]; allowed: low < high"),
    ],
)
def test_a_defect_is_reported_with_line_key_found_and_allowed(text: str, message: str) -> None:
    (found,) = defects(text)
    last = 1 + len(text.splitlines())
    assert found.startswith(tuple(f"job.yaml:{line}: {message}" for line in range(2, last + 1)))


NEAR_MISSES = [
    # what is written, what the message says of it
    ("fit: {objective: hubber}", "found 'hubber' (did you mean 'huber'?); allowed: sse"),
    ("fit: {optimizer: sgd}", "found 'sgd' (did you mean 'gd'?); allowed: gd"),
    ("fit: {dtype: double}", "found 'double' (did you mean 'float64'?); allowed"),
    ("fit: {basis: Chebyshev}", "found 'Chebyshev' (did you mean 'chebyshev'?); allowed"),
    ("fit: {lr: atuo}", "found 'atuo' (did you mean 'auto'?); allowed: auto, a number"),
    ("fit: {learning_rate: 1}", "unknown key (did you mean 'lr'?); allowed: degree"),
    ("fit: {loss: mse}", "unknown key (did you mean 'objective'?); allowed: degree"),
    (
        "fit: {steps: 1e3}",
        "found 1000.0; allowed: an integer from 1 to 1,000,000,000; did you mean 1",
    ),
    (
        "sweep: {steps: [10, 1e3]}",
        "found 1000.0; allowed: an integer from 1 to 1,000,000,000; did you",
    ),
    ("sweep: {seed: 10}", "did you mean {count: 10}, which is 0 to 9, or [10]?"),
    ("sweep: {seed: 1e1}", "did you mean {count: 10}, which is 0 to 9, or [10]?"),
    ("sweep: {seed: {count: 1e3}}", "did you mean 1000?"),
    ("sweep: {noise: {linspace: [0, 1, 1e1]}}", "did you mean 10 for 10.0?"),
    ("sweep: {degree: 5}", "a generator; did you mean [5]?"),
    ("sweep: {degree: 1..5}", "did you mean {start: 1, stop: 6}, which ends with 5?"),
    ("sweep: {degree: 1-5}", "did you mean {start: 1, stop: 6}, which ends with 5?"),
    ("sweep: {basis: power}", "a generator; did you mean [power]?"),
    (
        "sweep: {range: [-1, 1]}",
        "found [-1, 1]; allowed: a list of ranges; did you mean [[-1, 1]]?",
    ),
    ("sweep: {points: {logspace: [10, 1000, 3]}}", "did you mean {logspace: [1, 3, 3]}?"),
    ("sweep: {lr: {logspace: [1, 1000, 4]}}", "did you mean {logspace: [0, 3, 4]}?"),
    ("fit: {target: exp(-x^2)}", "'^' at column 7 is no part of a formula"),
    ("fit: {target: (x + 1) % 3}", "'%' at column 9 is no part of a formula"),
    ("fit: {target: x^2}", "; did you mean ** for ^?"),
    ("fit: {target: sin x}", "; did you mean sin(x)?"),
    ("fit: {target: 2x + 1}", "; did you mean 2*x?"),
    ("fit: {target: ln(x)}", "; did you mean log?"),
    ("degree: 3", "unknown key (did you mean 'fit.degree'?); allowed: name"),
    ("engine: compild", "found 'compild' (did you mean 'compiled'?); allowed: auto"),
    ("on_failure: abort", "found 'abort' (did you mean 'stop'?); allowed: continue"),
    ("record: {every: 1, of: [loss, gradient]}", "(did you mean 'gradient_norm'?)"),
    ("sweep: {basis: [power, legender]}", "found 'legender' (did you mean 'legendre'?)"),
    ("sweep: {seed: {start: 1, end: 5}}", "did you mean 'stop' for 'end'?"),
    ("sweep: {seed: {num: 5}}", "did you mean 'count' for 'num'?"),
    ("sweep: {lr: {geomspace: [1, 2, 3]}}", "did you mean 'logspace' for 'geomspace'?"),
    ("exclude: [degree = 3]", "did you mean == for =?"),
    ("exclude: [degre > 3]", "'degre' is an unknown name (did you mean 'degree'?)"),
    ("exclude: [basis == power]", "did you mean 'power' in quotes?"),
    ("exclude: [\"lr == 'auto'\"]", "did you mean lr == None?"),
    ("exclude: [\"stop in ['none']\"]", "did you mean stop == None?"),
]


@pytest.mark.parametrize(("text", "message"), NEAR_MISSES)
def test_a_near_miss_is_told_what_was_probably_meant(text: str, message: str) -> None:
    (found,) = defects(text)
    assert message in found


@pytest.mark.parametrize(
    "text",
    [
        "sweep: {degree: 5..1}", "sweep: {degree: many}", "sweep: {degree: true}",
        "sweep: {seed: []}",
        "fit: {steps: 1.5}", "sweep: {degree: 99}", "sweep: {points: {logspace: [1, 3, 4]}}",
        "sweep: {points: {logspace: [1, 3, 1]}}",
    ],
)  # fmt: skip
def test_where_nothing_is_near_nothing_is_suggested(text: str) -> None:
    assert "did you mean" not in "".join(defects(text))


def test_a_duplicate_key_or_an_alias_hides_no_other_defect() -> None:
    assert [line[:24] for line in defects("fit: {lr: fast}\nfit: {}\nsweep: *a\nshard: 0")] == [
        "job.yaml:2: fit.lr: foun",
        "job.yaml:3: duplicate ke",
        "job.yaml:4: an alias (*a",
        "job.yaml:5: shard: found",
    ]


def excerpts(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        Spec.parse(text, "job.yaml")
    return caught.value.report().splitlines()[1:]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("name: a\nfit: {degree: -1}", ["    2 | fit: {degree: -1}", "      |               ^"]),
        ("name: a\nfit:\n  degre: 3", ["    3 |   degre: 3", "      |   ^"]),
        (
            "name: a\nfit: {target: sin(x) + foo(x)}",
            ["    2 | fit: {target: sin(x) + foo(x)}", "      |                        ^"],
        ),
        (
            "name: a\nsweep:\n  target: [sin(x), '  2 + x^2']",
            ["    3 |   target: [sin(x), '  2 + x^2']", "      |                            ^"],
        ),
        (
            "name: a\nsweep: {range: [[0, 1], [-pi, 2*y]]}",
            [
                "    2 | sweep: {range: [[0, 1], [-pi, 2*y]]}",
                "      |                                 ^",
            ],
        ),
        (  # the text is not that of the line
            'name: a\nfit: {target: "s\\x69n(y)"}',
            ['    2 | fit: {target: "s\\x69n(y)"}', "      |               ^"],
        ),
        ('{"name": 3}', ['    1 | {"name": 3}', "      |          ^"]),
        ("name: a\nfit: [", ["    2 | fit: [", "      |       ^"]),
        ("name: a\nfit: {dtype: \t\x85 x}", []),
        ("name: a\nstore: {uri: 's3://KEY:SECRET@b'}", []),
    ],
)
def test_a_caret_shows_the_column(text: str, shown: list[str]) -> None:
    assert excerpts(text) == shown or not shown


def test_a_long_line_is_shown_around_the_column_and_of_many_defects_the_first_ten() -> None:
    line, caret = excerpts(f"{{name: a, {' ' * 5000}shard: 0{' ' * 5000}}}")
    assert len(line) < 100
    assert line[caret.index("^")] == "0"
    many = excerpts("name: a\n" + "".join(f"x{i}: 1\n" for i in range(15)))
    assert sum(one.endswith("^") for one in many) == MAX_EXCERPTS


def test_a_defect_of_the_yaml_is_reported_with_file_and_line() -> None:
    found = defects("fit: {degree: 3}\nfit: {degree: 4}\nsweep: &a {}\nlimits: *a")
    assert found == [
        "job.yaml:3: duplicate key 'fit', first on line 2",
        "job.yaml:5: an alias (*a); allowed: the value written out",
    ]


def test_a_spec_error_is_a_usage_error_that_travels_between_processes() -> None:
    error = SpecError(["one", "two"])
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, str(again), again.exit_code) == (["one", "two"], "one\ntwo", Exit.USAGE)


KEYS = st.sampled_from(
    [
        *CANONICAL_ORDER,
        *("name", "fit", "sweep", "record", "engine", "shard", "store", "resources", "limits"),
        *("zip", "every", "at", "of", "uri", "endpoint_url", "actors", "min", "max", "fits"),
        *("bytes", "core_hours", "gpus_per_actor", "cpus_per_actor", "count", "start", "stop"),
        *("step", "linspace", "logspace", "momentum", "beta", "of_limit", "gradient"),
    ]
)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.sampled_from([2**32, 2**63, 2**64, 10**20, 10**399, -(10**399), 1e308, -1e308, 0.5, 1e-6]),
    st.floats(),
    st.sampled_from(["auto", "none", "gd", "adam", "l1", "x", "pi", "a", "s3://b", "http://[::1"]),
    st.text(max_size=5),
)


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = KEYS | st.text(max_size=3)
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)


PLAIN = st.recursive(LEAVES, grown, max_leaves=10)


SHAPED = st.fixed_dictionaries(
    {"name": st.just("test")},
    optional={
        "fit": st.dictionaries(st.sampled_from(CANONICAL_ORDER), PLAIN, max_size=3),
        "sweep": st.dictionaries(st.sampled_from([*CANONICAL_ORDER, "zip"]), PLAIN, max_size=3),
        "record": PLAIN,
        "engine": LEAVES,
        "shard": LEAVES,
        "store": PLAIN,
        "resources": st.dictionaries(
            st.sampled_from(["gpus_per_actor", "cpus_per_actor", "actors"]), PLAIN, max_size=3
        ),
        "limits": st.dictionaries(
            st.sampled_from(["fits", "core_hours", "bytes"]), LEAVES, max_size=3
        ),
    },
)


@pytest.mark.slow
@given(st.one_of(SHAPED, st.dictionaries(KEYS | st.text(max_size=3), PLAIN, max_size=5)))
@settings(max_examples=400, deadline=None)
def test_any_mapping_is_a_spec_or_a_spec_error(source: dict[str, Any]) -> None:
    text = json.dumps(source, ensure_ascii=False)
    for word, yamls in (("NaN", ".nan"), ("Infinity", ".inf")):
        text = text.replace(word, yamls)
    try:
        name, lines = Spec.parse(text.encode("utf-8", "surrogatepass"), "job.yaml").name, ["none"]
    except SpecError as error:
        name, lines = None, error.problems
    assert name == source.get("name") if name else lines
    assert name or all(re.match(r"job\.yaml:\d+: ", line) for line in lines)


def test_the_cost_of_a_defect_does_not_grow_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is looked through for the defects that are shown, and for no other."""
    looks = []

    def line_of(text: str, line: int) -> str:
        looks.append(line)
        return excerpt.line_of(text, line)

    monkeypatch.setattr(defects_module, "line_of", line_of)
    formulas = ", ".join(f"y{number}" for number in range(10 * MAX_DEFECTS))
    found = defects(f"sweep: {{target: [{formulas}]}}")
    assert len(found) == MAX_DEFECTS + 1
    assert len(looks) == MAX_DEFECTS
