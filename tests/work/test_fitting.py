"""The rows of a shard: the same bits by all engines, in halves where memory runs out."""

import dataclasses
import weakref
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from engines import rows_of

from polyfit.engine import batch_data
from polyfit.engine.batch import BatchInputs
from polyfit.engine.fit import fit_batch
from polyfit.numerics.formula import FUNCTIONS
from polyfit.numerics.grid import Grid
from polyfit.numerics.observations import target_values
from polyfit.spec.plan import Plan, Shard
from polyfit.spec.spec import Spec
from polyfit.work import fitting

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ranges", ["[[-pi, pi]]", "[[-pi, pi], [-2, 1], [0, 3]]"])
def test_compiled_rows_have_all_bits_of_eager_ones(dtype: str, ranges: str) -> None:
    """For gd on a squared objective; what is judged on the points too."""
    text = (
        f"fit: {{steps: 20, points: 51, dtype: {dtype}}}\n"
        f"sweep: {{basis: [power, chebyshev], range: {ranges}, seed: {{count: 70}}}}"
    )
    eager, compiled = rows_of(text), rows_of(text, "compiled")
    assert eager.num_rows == 140 * ranges.count("], [") + 140
    for name in eager.column_names:
        assert compiled[name].equals(eager[name]), name


def test_a_batch_that_memory_cannot_hold_is_halved_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = Plan.of(Spec.parse("name: test\nfit: {steps: 20}\nsweep: {seed: {count: 21}}"))
    shard = Shard(0, 0, plan.fits)
    whole = fitting.compute(plan, shard, CPU)
    sizes: list[int] = []

    released: list[weakref.ref[torch.Tensor]] = []

    def small_memory(inputs: BatchInputs, *rest: Any) -> Any:
        sizes.append(len(inputs.lr_B))
        assert all(
            one() is None for one in released
        )  # else there would be no more room than before
        if sizes[-1] > 6:
            large = torch.zeros(sizes[-1])
            released.append(weakref.ref(large))
            raise torch.OutOfMemoryError
        return fit_batch(inputs, *rest)

    monkeypatch.setattr(fitting, "fit_batch", small_memory)
    assert fitting.compute(plan, shard, CPU).equals(whole)
    assert sizes == [21, 10, 5, 5, 11, 5, 6]


def test_memory_that_cannot_hold_one_fit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fitting, "fit_batch", no_memory)
    plan = Plan.of(Spec.parse("name: test\nfit: {steps: 20}\nsweep: {seed: {count: 3}}"))
    with pytest.raises(torch.OutOfMemoryError):
        fitting.compute(plan, Shard(0, 0, 3), CPU)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_targets_do_not_depend_on_their_neighbours(name: str) -> None:
    """2001 points leave a rest in every vector loop."""
    low = np.linspace(-3.0, 0.5, 40)
    many = target_values(f"{name}(x)", Grid(low, low + 1.7, 2001, 3, "power"))
    for place in (0, 7, 39):
        grid = Grid(float(low[place]), float(low[place] + 1.7), 2001, 3, "power")
        np.testing.assert_array_equal(many[place], target_values(f"{name}(x)", grid))


@pytest.mark.parametrize(
    "target",
    [
        "sin(x)",
        "2 / 3 - cos(1.7 * x) / 3 * sin(0.1)",
        "sqrt(abs(x)) + x / (x - 1)",  # infinite at a point of some ranges
        "sin(1e6 * x * x)",  # beyond the sine's limit on some ranges
        "exp(-x**2) + tanh(x) ** 3",
    ],
)
def test_compiled_data_have_the_bits_of_numpys(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_data, "MIN_COMPILED_ADDITIONS", 0)
    ranges = [[-1 - k / 7, k / 5] for k in range(16)]
    spec = Spec.parse(f"name: test\nfit: {{target: {target}, points: 29, steps: 2}}\n"
                      f"sweep: {{range: {ranges}}}")  # fmt: skip
    eager, compiled = (
        fitting.compute(dataclasses.replace(Plan.of(spec), engine=engine), Shard(0, 0, 16), CPU)
        for engine in ("eager", "compiled")
    )
    for name in ("optimum_loss", "coefficients", "power_coefficients", "status"):
        assert compiled[name].to_pylist() == eager[name].to_pylist(), name
    assert pc.is_null(eager["optimum_loss"]).to_pylist().count(False) >= 8


def test_grids_and_conditions_change_no_bit_of_a_fit() -> None:
    whole = rows_of(
        "fit: {steps: 20, points: 51}\n"
        "sweep: {degree: [1, 3, 5], lr: {of_limit: [0.1, 0.5]}, seed: {count: 40}}"
    )
    text = (
        "fit: {steps: 20, points: 51}\n"
        "sweep:\n"
        "- {degree: [3, 5], lr: {of_limit: [0.1, 0.5]}, seed: {count: 40}}\n"
        "- {degree: [1], lr: {of_limit: {linspace: [0.1, 0.5, 2]}}, seed: {count: 40}}\n"
        "exclude: ['seed in [3, 7] and degree == 3', 'seed >= 30']\n"
    )
    kept = rows_of(text).drop_columns("fit")
    degree, seed = whole["degree"].to_numpy(), whole["seed"].to_numpy()
    left = (seed < 30) & ~(np.isin(seed, [3, 7]) & (degree == 3))
    order = np.concatenate(
        [np.flatnonzero(left & (degree > 1)), np.flatnonzero(left & (degree == 1))]
    )
    assert kept.equals(whole.drop_columns("fit").take(order))
