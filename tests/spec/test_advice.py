"""Warnings for what is surely not meant."""

import pytest
from specs import spec

from polyfit.spec.advice import advice
from polyfit.spec.sweep import Sweep


def lines(text: str) -> list[str]:
    found = spec(text)
    return advice(found, Sweep.of(found))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "sweep: {degree: [1, 2], noise_seed: {count: 20}}",
            "job.yaml:2: sweep.noise_seed: noise is 0, so all noise seeds give the same data",
        ),
        (
            "fit: {noise: 0.1}\nsweep: {seed: {count: 100}}",
            "job.yaml:3: sweep.seed: all seeds have the same noise, because seed is of the "
            "start values; sweep noise_seed, or state it in fit if one noise is meant",
        ),
        (
            "sweep: {noise: [0, 0.2], seed: {count: 100}}",
            "job.yaml:2: sweep.seed: all seeds have the same noise, because seed is of the "
            "start values; sweep noise_seed, or state it in fit if one noise is meant",
        ),
        (
            "sweep: {noise: [0.1, 0], noise_seed: {count: 5}}\nexclude: [noise > 0]",
            "job.yaml:2: sweep.noise_seed: noise is 0, so all noise seeds give the same data",
        ),
        (
            "sweep: [{degree: [1, 2]}, {degree: [3]}]\nexclude: [degree == 3, degree > 3]",
            "job.yaml:3: exclude[1]: degree > 3: this holds for no combination",
        ),
        (
            "fit: {lr: 0.1}\nsweep: {degree: [2, 3]}",
            "job.yaml:2: fit.lr: all 2 fits will diverge: lr is 232 times the stability limit or "
            "more; lr: auto is half of it",
        ),
        (
            "fit: {optimizer: adam}\nsweep: {lr: {logspace: [0.001, 0.1, 3]}}",
            "job.yaml:3: sweep.lr: 1.002 to 1.259; its ends are exponents of 10: did you mean "
            "{logspace: [-3, -1, 3]}?",
        ),
        (
            "sweep: {noise: {logspace: [0.1, 0.01, 3]}}",
            "job.yaml:2: sweep.noise: 1.259 to 1.023; its ends are exponents of 10: did you mean "
            "{logspace: [-1, -2, 3]}?",
        ),
        (
            "fit: {objective: mse}\nsweep: {lr: [1.0e-4, 5.0e-4], seed: {count: 5}}",
            "job.yaml:3: sweep.lr: all 10 fits will end far from the optimum: lr is 0.00058 of the "
            "stability limit or less, which takes ~21,000 updates or more; lr: auto is half of the "
            "limit",
        ),
    ],
)
def test_what_is_surely_not_meant_is_said_with_its_place(text: str, line: str) -> None:
    assert lines(text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "sweep: {seed: {count: 100}}",
        "fit: {noise: 0.1, noise_seed: 3}\nsweep: {seed: {count: 100}}",
        "fit: {noise: 0.1}\nsweep: {seed: {count: 5}}\nexclude: [seed > 0]",
        "fit: {noise: 0.1}\nsweep: {seed: {count: 9}, noise_seed: {count: 9}}",
        "sweep: {noise: [0, 0.1], noise_seed: {count: 20}}",
        "fit: {noise: 0.1}",
        "sweep: {lr: [{of_limit: 0.9}, {of_limit: 1.1}]}",  # across the limit, on purpose
        "sweep: {lr: [1.0e-9, 0.0001]}",  # some are slow
        "fit: {lr: 1.0e-9, steps: 100}",  # a look at the first updates
        "fit: {lr: 0.1}\nsweep: {optimizer: [gd, adam]}",
        "sweep: {noise: {logspace: [0.5, 1, 3]}}",
        "sweep: {noise: {logspace: [0, 1, 3]}}",
        "fit: {objective: l1, lr: 1}",
    ],
)
def test_what_may_be_meant_is_not_warned_of(text: str) -> None:
    assert lines(text) == []
