"""A recomputed fit has the bits of its stored row; a changed row is found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import TWELVE_FITS, stored_run

from polyfit.errors import PlanMismatch
from polyfit.run.reader import Run
from polyfit.run.stored_fit import StoredFit
from polyfit.work.recompute import recompute

FITS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 fits in three shards; not to be changed."""
    return stored_run(TWELVE_FITS, tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("fit", range(FITS))
def test_a_recomputed_fit_has_the_same_bits(run: Run, fit: int) -> None:
    again = recompute(run, run.stored(fit))
    assert (again.row, again.differing, again.damaged) == (run.row(fit), [], [])
    assert (again.within, again.loss_off, again.coefficients_off) == (True, 0.0, 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ["eager", "compiled", "affine"])
def test_every_engine_recomputes_the_same_bits(tmp_path: Path, engine: str, dtype: str) -> None:
    text = (
        f"name: e\nengine: {engine}\nshard: 30\nfit: {{steps: 35, points: 50, dtype: {dtype}}}\n"
        "sweep: {range: [[-1, 1], [0, 2]], seed: {count: 20}}\nrecord: {every: 10}\n"
    )
    run = stored_run(text, tmp_path)
    assert [recompute(run, run.stored(fit)).differing for fit in (0, 7, 29, 39)] == [[]] * 4


def changed(run: Run, fit: int, **columns: Any) -> StoredFit:
    """A stored fit with other numbers in its row."""
    stored = run.stored(fit)
    return StoredFit(fit, {**stored.row, **columns}, stored.shard, stored.key, stored.footer)


@pytest.mark.parametrize(
    ("column", "value"),
    [("loss", 1.0), ("loss", None), ("status", "converged"), ("seed", 1)],
)
def test_a_changed_column_is_named(run: Run, column: str, value: object) -> None:
    run = Run.open(run.uri)
    again = recompute(run, changed(run, 0, **{column: value}))
    assert again.differing == again.damaged == [column]


def test_the_sign_of_zero_is_seen(run: Run) -> None:
    assert run.row(2)["range_low"] == 0.0
    assert recompute(run, changed(run, 2, range_low=-0.0)).damaged == ["range_low"]


def test_the_last_bit_of_a_list_is_seen(run: Run) -> None:
    values = list(run.row(0)["coefficients"])
    values[2] = float(np.nextafter(np.float32(values[2]), np.float32(9)))
    assert recompute(run, changed(run, 0, coefficients=values)).damaged == ["coefficients"]


def test_missing_and_foreign_columns_are_named(run: Run) -> None:
    stored = run.stored(0)
    row = {name: value for name, value in stored.row.items() if name != "stop"} | {"more": 1}
    again = recompute(run, StoredFit(0, row, stored.shard, stored.key, stored.footer))
    assert again.damaged == ["stop", "more"]


def elsewhere(run: Run, fit: int, **columns: Any) -> StoredFit:
    """The same, from a shard that was made on another kind of CPU."""
    stored = changed(run, fit, **columns)
    footer = {**stored.footer, "cpu": "abacus WOOD"}
    return StoredFit(fit, stored.row, stored.shard, stored.key, footer)


@pytest.mark.parametrize(("factor", "within"), [(1 + 1e-4, True), (1.01, False)])
@pytest.mark.parametrize("column", ["loss", "coefficients"])
def test_another_kind_of_cpu_has_a_tolerance(
    run: Run, column: str, factor: float, within: bool
) -> None:
    value = run.row(0)[column]
    value = [v * factor for v in value] if isinstance(value, list) else value * factor
    again = recompute(run, elsewhere(run, 0, **{column: value}))
    assert (again.differing, again.damaged, again.within) == ([column], [], within)
    assert (again.there, again.tolerance) == ("abacus WOOD", 0.001)


def test_a_small_coefficient_is_measured_by_the_largest(run: Run) -> None:
    a, *rest = run.row(0)["coefficients"]
    off = 1e-4 * max(abs(v) for v in rest)
    again = recompute(run, elsewhere(run, 0, coefficients=[a + off, *rest]))
    assert again.coefficients_off == pytest.approx(1e-4, rel=0.01)


def test_float64_has_a_tolerance_of_its_own(tmp_path: Path) -> None:
    run = stored_run(
        "name: d\nengine: eager\nfit: {dtype: float64, steps: 9, points: 20}", tmp_path
    )
    loss = run.row(0)["loss"]
    assert recompute(run, elsewhere(run, 0, loss=loss * (1 + 1e-9))).within
    assert not recompute(run, elsewhere(run, 0, loss=loss * (1 + 1e-7))).within


def test_on_another_kind_of_cpu_a_null_differs_from_every_number(run: Run) -> None:
    again = recompute(run, elsewhere(run, 0, loss=None))
    assert (again.loss_off, again.within) == (np.inf, False)


def test_on_another_kind_of_cpu_another_status_is_beyond_the_tolerance(run: Run) -> None:
    again = recompute(run, elsewhere(run, 0, status="converged"))
    assert (again.within, again.damaged) == (False, [])


def test_on_another_kind_of_cpu_a_changed_field_is_damage_but_lr_is_not(run: Run) -> None:
    again = recompute(run, elsewhere(run, 0, seed=5, lr=0.5))
    assert (again.differing, again.damaged) == (["lr", "seed"], ["seed"])


def test_another_device_counts_as_another_kind_of_cpu(run: Run) -> None:
    stored = changed(run, 0, loss=run.row(0)["loss"] * (1 + 1e-5))
    footer = {**stored.footer, "device": "cuda"}
    again = recompute(run, StoredFit(0, stored.row, stored.shard, stored.key, footer))
    assert (again.there, again.damaged, again.within) == ("cuda", [], True)


def test_another_torch_than_the_plans_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = run.stored(0)
    monkeypatch.setattr("torch.__version__", "1.0.0")
    with pytest.raises(PlanMismatch, match=r"this worker has 1\.0\.0"):
        recompute(run, stored)
