"""Random sweeps, as Hypothesis strategies."""

from typing import Any

import yaml
from hypothesis import strategies as st

from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.spec import Spec

__all__ = ["GENERATORS", "VALUES", "entries", "spec_of", "specs"]

# Plain values of each field of which any two may be combined.
VALUES: dict[str, list[Any]] = {
    "degree": [0, 1, 2, 3, 5],
    "points": [6, 10, 100, 2000],
    "basis": ["chebyshev", "legendre", "power"],
    "range": [[-1, 1], ["-pi", "pi"], [0, "2*pi"], [0.5, 0.75]],
    "objective": ["sse", "mse", "huber", "log_cosh"],
    "dtype": ["float32", "float64"],
    "target": ["sin(x)", "x**3", "exp(-x)", "1"],
    "noise": [0, 0.1, 0.5, 1e-6],
    "noise_seed": [0, 1, 7, 2**64 - 1],
    "steps": [1, 100, 2000],
    "stop": ["none", {"gradient": 1e-6}, {"loss_change": 1e-3}, {"gradient": 1e-3}],
    "optimizer": ["gd", "adam", {"momentum": {"beta": 0.9}}, {"momentum": {"beta": 0.5}}],
    "lr": ["auto", 1e-6, 0.01, 1],
    "seed": [0, 1, 5, 2**32 - 1],
}
GENERATORS: dict[str, Any] = {
    "degree": {"count": 3},
    "points": {"start": 10, "stop": 40, "step": 10},
    "noise": {"linspace": [0, 1, 5]},
    "noise_seed": {"count": 4, "start": 2**64 - 4},
    "steps": {"logspace": [0, 3, 4]},
    "lr": {"logspace": [-3, -1, 3]},
    "seed": {"count": 5, "start": 9, "step": -2},
}


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec as plain values: some fields fixed, some swept, some zipped."""
    names = draw(st.permutations(CANONICAL_ORDER))
    swept = names[: draw(st.integers(0, 6))]
    zipped = swept[: draw(st.sampled_from([0, 0, 2, 3, 4]))] if len(swept) >= 4 else []
    sweep: dict[str, Any] = {}
    for name in swept[len(zipped) :]:
        lists = st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=3, unique_by=str)
        generator = [st.just(GENERATORS[name])] if name in GENERATORS else []
        sweep[name] = draw(st.one_of(lists, *generator))
    if zipped:
        groups = [zipped[:2], zipped[2:]] if len(zipped) == 4 else [zipped]
        sweep["zip"] = [draw(entries(group)) for group in groups]
    fixed = names[len(swept) :][: draw(st.integers(0, 4))]
    fit = {name: draw(st.sampled_from(VALUES[name])) for name in fixed}
    record = draw(st.sampled_from(["none", {"every": 10, "of": ["loss", "coefficients"]}]))
    return {"name": "test", "fit": fit, "sweep": sweep, "record": record}


def entries(names: list[str]) -> st.SearchStrategy[dict[str, list[Any]]]:
    """A zip entry: rows of values of these fields, each row once."""
    row = st.tuples(*(st.sampled_from(VALUES[name]) for name in names))
    rows = st.lists(row, min_size=1, max_size=3, unique_by=str)
    return rows.map(lambda rows: {n: [r[i] for r in rows] for i, n in enumerate(names)})


def spec_of(source: dict[str, Any]) -> Spec:
    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Spec.parse(yaml.dump(source, Dumper=NoAliases, sort_keys=False))
