"""One fit in full: what is shown is what is stored, and a changed row is found."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import polyfit
from polyfit.cli.app import main
from polyfit.errors import DamagedRun, PlanMismatch
from polyfit.run.ledger import MANIFEST, shard_key
from polyfit.run.results import Run, StoredFit
from polyfit.run.rows import FOOTER
from polyfit.show.curve import HEIGHT, WIDTH, curve
from polyfit.show.equation import equations
from polyfit.show.fit import recomputed_text
from polyfit.spec.spec import Spec
from polyfit.work.recompute import recompute

TEXT = """\
name: small
shard: 5
engine: eager
fit: {steps: 40, points: 30, noise: 0.1, noise_seed: 7, degree: 3}
sweep:
  basis: [chebyshev, legendre, power]
  range: [[-1, 1], [0, 2]]
  lr: [auto, 1.0e+30]
record: {every: 4, of: [loss, coefficients, gradient_norm]}
"""
FITS = 12  # every second diverges at once

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 fits in three shards; not to be changed."""
    return made(TEXT, tmp_path_factory.mktemp("store"))


def made(text: str, folder: Path) -> Run:
    return polyfit.execute(Spec.parse(text), store=str(folder), executor="inline")


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The run once more, to be damaged."""
    shutil.copytree(run.uri, tmp_path / "copy")
    return Run.open(str(tmp_path / "copy"))


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """``polyfit show`` in this process: exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["polyfit", "show", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return command


def path(run: Run, number: int) -> Path:
    return Path(run.uri) / shard_key(run.plan, number)


def rewrite(run: Run, number: int, change: Callable[[pa.Table], pa.Table], **said: object) -> None:
    """Other rows in sound Parquet, and a footer that says something else."""
    file = path(run, number)
    rows = pq.read_table(file)
    footer = {**json.loads(rows.schema.metadata[FOOTER]), **said}
    sink = io.BytesIO()
    metadata = {FOOTER: json.dumps(footer).encode()}
    pq.write_table(change(rows).replace_schema_metadata(metadata), sink)
    file.write_bytes(sink.getvalue())


def scaled(name: str, factor: float) -> Callable[[pa.Table], pa.Table]:
    """All numbers of one column times ``factor``, lists or not."""

    def change(rows: pa.Table) -> pa.Table:
        def by(value: Any) -> Any:
            if isinstance(value, list):
                return [by(item) for item in value]
            return None if value is None else value * factor

        field = rows.schema.field(name)
        values = pa.array([by(v) for v in rows[name].to_pylist()], type=field.type)
        return rows.set_column(rows.column_names.index(name), field, values)

    return change


def word(name: str, text: str) -> Callable[[pa.Table], pa.Table]:
    """One word in all rows of a column."""

    def change(rows: pa.Table) -> pa.Table:
        values = pa.array([text] * len(rows)).dictionary_encode()
        field = rows.schema.field(name)
        return rows.set_column(rows.column_names.index(name), field, values.cast(field.type))

    return change


# --- where a fit lies ------------------------------------------------------------------------


@pytest.mark.parametrize("fit", range(FITS))
def test_a_stored_fit_is_its_row_and_its_object(run: Run, fit: int) -> None:
    stored = run.stored(fit)
    assert stored.row == run.row(fit) == run.table().slice(fit, 1).to_pylist()[0]
    assert stored.shard == run.plan.shard(fit // 5)
    assert (Path(run.uri) / stored.key).exists()
    assert stored.footer["fits"] == [stored.shard.start, stored.shard.stop]


def test_a_shard_in_anothers_place_is_told(copy: Run) -> None:
    shutil.copy(path(copy, 0), path(copy, 1))
    with pytest.raises(DamagedRun, match="does not hold fit 6 in its place"):
        copy.stored(6)


def test_a_shard_that_ends_before_the_fit_is_told(copy: Run) -> None:
    rewrite(copy, 0, lambda rows: rows.slice(0, 2))
    with pytest.raises(DamagedRun, match="does not hold fit 3 in its place"):
        copy.stored(3)


def test_a_shard_without_a_footer_is_told(copy: Run) -> None:
    rows = pq.read_table(path(copy, 0)).replace_schema_metadata({})
    pq.write_table(rows, path(copy, 0))
    with pytest.raises(DamagedRun, match="its footer does not name a plan"):
        copy.stored(3)


# --- equations -------------------------------------------------------------------------------

TERM = r"(-?[\d.]+(?:e[-+]?\d+)?)"


def value_of(equation: str, x: Any) -> Any:
    """A shown equation at ``x``, read as a reader would."""
    sum_, _, where = equation.removeprefix("y = ").partition(", ")
    t = x
    if where:
        found = re.fullmatch(rf"t = \(x - {TERM}\) / {TERM}", where)
        assert found is not None
        t = (x - float(found[1])) / float(found[2])
    polynomials: dict[str, Any] = {
        "T": np.polynomial.Chebyshev,
        "P": np.polynomial.Legendre,
        "": np.polynomial.Polynomial,
    }
    total = np.zeros_like(x)
    for term in sum_.split(" + "):
        found = re.fullmatch(rf"{TERM}(?: ([TP])(\d+)\(t\)| x(?:\^(\d+))?)?", term)
        assert found is not None
        degree = int(found[3] or found[4] or (1 if term.endswith("x") else 0))
        total += float(found[1]) * polynomials[found[2] or ""].basis(degree)(t)
    return total


@pytest.mark.parametrize("fit", range(0, FITS, 2))
def test_equations_are_the_rows_polynomial(run: Run, fit: int) -> None:
    row = run.row(fit)
    x = np.linspace(row["range_low"], row["range_high"], 9)
    own, in_x = equations(row)
    assert in_x is not None
    np.testing.assert_allclose(value_of(own, x), run.predict(fit, x), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(value_of(in_x, x), run.predict(fit, x), rtol=1e-5, atol=1e-6)


def test_an_equation_has_the_numbers_of_its_row(run: Run) -> None:
    row = run.row(8)
    a, b, c, d = row["coefficients"]
    assert row["basis"] == "power"
    assert equations(row) == (f"y = {a} + {b} x + {c} x^2 + {d} x^3",) * 2


def test_what_is_not_known_stands_as_such(run: Run) -> None:
    row = {**run.row(0), "coefficients": [1.5, None], "power_coefficients": None}
    assert equations(row) == ("y = 1.5 T0(t) + ? T1(t), t = (x - 0.0) / 1.0", None)


# --- curve -----------------------------------------------------------------------------------


def drawn(lines: list[str]) -> list[str]:
    """The rows of the drawing, without their labels."""
    return [line.partition("|")[2].ljust(WIDTH) for line in lines[:HEIGHT]]


def column_of(cells: list[str], column: int, marks: str) -> list[int]:
    return [line for line in range(HEIGHT) if cells[line][column] in marks]


def row_of(**changes: Any) -> dict[str, Any]:
    """A row that says y = x on [0, 1], and what is to be otherwise."""
    return {
        "status": "completed", "range_low": 0.0, "range_high": 1.0, "points": 200, "degree": 1,
        "basis": "power", "target": "x", "noise": 0.0, "noise_seed": 0,
        "coefficients": [0.0, 1.0], **changes,
    }  # fmt: skip


def test_a_curve_has_its_size_and_its_labels() -> None:
    lines = curve(row_of())
    assert len(drawn(lines)) == HEIGHT
    assert {len(line) for line in drawn(lines)} == {WIDTH}
    assert lines[0].split()[0] == "1"
    assert lines[HEIGHT - 1].split()[0] == "0"
    assert lines[-2].split() == ["0", "1"]
    assert lines[-1].strip() == "o target   * polynomial   # both"
    assert all(line.isascii() for line in lines)


def test_a_fit_that_is_its_target_is_one_line_from_corner_to_corner() -> None:
    cells = drawn(curve(row_of()))
    assert (cells[HEIGHT - 1][0], cells[0][WIDTH - 1]) == ("#", "#")
    assert set("".join(cells)) == {"#", " "}
    for column in range(WIDTH):
        assert HEIGHT - 1 - column * HEIGHT // WIDTH in column_of(cells, column, "#")


def test_target_and_polynomial_are_drawn_apart() -> None:
    cells = drawn(curve(row_of(coefficients=[1.0, -1.0])))
    assert (cells[HEIGHT - 1][0], cells[0][0]) == ("o", "*")
    assert (cells[0][WIDTH - 1], cells[HEIGHT - 1][WIDTH - 1]) == ("o", "*")


def test_a_steep_polynomial_has_no_gaps() -> None:
    cells = drawn(curve(row_of(coefficients=[0.0, 7.0], points=2)))
    assert all(column_of(cells, column, "*#") for column in range(WIDTH))
    assert all(set(line) & {"*", "#"} for line in cells)


def test_noise_is_part_of_the_data() -> None:
    still, loud = (curve(row_of(noise=noise)) for noise in (0.0, 0.3))
    assert loud[-1].strip() == "o target with noise   * polynomial   # both"
    assert "o" not in "".join(drawn(still))
    assert "o" in "".join(drawn(loud))


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "1", "coefficients": [1.0, 0.0]},
        {"target": "0", "coefficients": [0.0, 0.0]},
        {"target": "1.7e308 * sign(x - 0.5)"},
        {"target": "1 / x"},
        {"target": "log(x - 2)"},
        {"target": "5e-324 * x", "coefficients": [0.0, 0.0]},
        {"points": 2},
        {"degree": 0, "coefficients": [0.5], "points": 1},
        {"range_low": 1.0e6, "range_high": 1.0e6 + 1},
        {"range_low": -8.0e307, "range_high": 8.0e307},
    ],
    ids=str,
)
def test_every_curve_can_be_drawn(changes: dict[str, Any]) -> None:
    lines = curve(row_of(**changes))
    assert len(lines) == HEIGHT + 3
    assert {len(line) for line in drawn(lines)} == {WIDTH}


def test_a_fit_that_diverged_has_no_curve(run: Run) -> None:
    assert run.row(3)["status"] == "diverged"
    assert curve(run.row(3)) == ["no curve: the fit diverged"]


@pytest.mark.parametrize("coefficients", [[0.0, None], [0.0]], ids=str)
def test_a_row_without_all_coefficients_has_no_curve(coefficients: list[float | None]) -> None:
    lines = curve(row_of(coefficients=coefficients))
    assert lines == ["no curve: the row does not hold all coefficients"]


# --- computed again --------------------------------------------------------------------------


@pytest.mark.parametrize("fit", range(FITS))
def test_a_fit_computed_again_has_the_same_bits(run: Run, fit: int) -> None:
    again = recompute(run, run.stored(fit))
    assert (again.row, again.differing, again.damaged) == (run.row(fit), [], [])
    assert (again.within, again.loss_off, again.coefficients_off) == (True, 0.0, 0.0)
    assert recomputed_text(again) == "the same bits as stored"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("engine", ["eager", "compiled", "affine"])
def test_every_engine_has_the_same_bits_again(tmp_path: Path, engine: str, dtype: str) -> None:
    text = (
        f"name: e\nengine: {engine}\nshard: 30\nfit: {{steps: 35, points: 50, dtype: {dtype}}}\n"
        "sweep: {range: [[-1, 1], [0, 2]], seed: {count: 20}}\nrecord: {every: 10}\n"
    )
    run = made(text, tmp_path)
    assert [recompute(run, run.stored(fit)).differing for fit in (0, 7, 29, 39)] == [[]] * 4


def changed(run: Run, fit: int, **columns: Any) -> StoredFit:
    """A stored fit, as if other numbers stood in its row."""
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
    assert recomputed_text(again) == f"other bits than stored in {column}"


def test_the_sign_of_zero_is_seen(run: Run) -> None:
    assert run.row(2)["range_low"] == 0.0
    assert recompute(run, changed(run, 2, range_low=-0.0)).damaged == ["range_low"]


def test_the_last_bit_of_a_list_is_seen(run: Run) -> None:
    values = list(run.row(0)["coefficients"])
    values[2] = float(np.nextafter(np.float32(values[2]), np.float32(9)))
    assert recompute(run, changed(run, 0, coefficients=values)).damaged == ["coefficients"]


def test_columns_that_are_missing_or_not_ours_are_named(run: Run) -> None:
    stored = run.stored(0)
    row = {name: value for name, value in stored.row.items() if name != "stop"} | {"more": 1}
    again = recompute(run, StoredFit(0, row, stored.shard, stored.key, stored.footer))
    assert again.damaged == ["stop", "more"]


def elsewhere(run: Run, fit: int, **columns: Any) -> StoredFit:
    """The same, from a shard that another kind of CPU made."""
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
    assert "another kind of CPU or device (abacus WOOD): the loss differs by " in recomputed_text(
        again
    )
    assert recomputed_text(again).endswith(
        f"of the largest: {'within' if within else 'beyond'} the tolerance 0.001"
    )


def test_a_small_coefficient_is_measured_by_the_largest(run: Run) -> None:
    a, *rest = run.row(0)["coefficients"]
    off = 1e-4 * max(abs(v) for v in rest)
    again = recompute(run, elsewhere(run, 0, coefficients=[a + off, *rest]))
    assert again.coefficients_off == pytest.approx(1e-4, rel=0.01)


def test_float64_has_a_tolerance_of_its_own(tmp_path: Path) -> None:
    run = made("name: d\nengine: eager\nfit: {dtype: float64, steps: 9, points: 20}", tmp_path)
    loss = run.row(0)["loss"]
    assert recompute(run, elsewhere(run, 0, loss=loss * (1 + 1e-9))).within
    assert not recompute(run, elsewhere(run, 0, loss=loss * (1 + 1e-7))).within


def test_on_another_kind_of_cpu_a_null_is_no_number(run: Run) -> None:
    again = recompute(run, elsewhere(run, 0, loss=None))
    assert (again.loss_off, again.within) == (np.inf, False)


def test_on_another_kind_of_cpu_another_status_is_told(run: Run) -> None:
    again = recompute(run, elsewhere(run, 0, status="converged"))
    assert (again.within, again.damaged) == (False, [])
    assert recomputed_text(again).endswith("status converged stored, completed recomputed")


def test_on_another_kind_of_cpu_the_fields_are_still_the_plans(run: Run) -> None:
    again = recompute(run, elsewhere(run, 0, seed=5, lr=0.5))
    assert (again.differing, again.damaged) == (["lr", "seed"], ["seed"])


def test_a_shard_of_another_device_is_one_of_another_kind(run: Run) -> None:
    stored = changed(run, 0, loss=run.row(0)["loss"] * (1 + 1e-5))
    footer = {**stored.footer, "device": "cuda"}
    again = recompute(run, StoredFit(0, stored.row, stored.shard, stored.key, footer))
    assert (again.there, again.damaged, again.within) == ("cuda", [], True)


# --- the command -----------------------------------------------------------------------------


def test_a_fit_is_shown_with_its_row_its_equations_and_its_curve(run: Run, show: Show) -> None:
    code, out, err = show(run.uri, 2)
    assert (code, err) == (0, "")
    row = run.row(2)
    lines = dict(re.findall(r"^(\S+) +(.*)$", out, re.MULTILINE))
    for name, value in row.items():
        if not isinstance(value, list):
            assert lines[name] == ("-" if value is None else str(value))
    assert lines["shard"] == f"{shard_key(run.plan, 0)}: fits 0 to 4"
    assert f"engine eager, torch {run.stored(2).footer['torch']}, cpu" in out
    own, in_x = equations(row)
    assert f"\n{own}\n{in_x}\n" in out
    assert "\n".join(curve(row)) in out
    assert "recomputed" not in out


def test_what_was_recorded_is_shown_by_its_ends(run: Run, show: Show) -> None:
    _, out, _ = show(run.uri, 0)
    values = [f"{value:.6g}" for value in run.row(0)["loss_history"]]
    ends = [f"{update}: {values[update // 4]}" for update in (3, 7, 11, 31, 35, 39)]
    first, last = ", ".join(ends[:3]), ", ".join(ends[3:])
    assert f"loss_history          10 recorded; {first}, ..., {last}\n" in out
    assert "gradient_norm_history 10 recorded; 3: " in out
    assert "coefficients_history  10 recorded; 3: [" in out


def test_a_diverged_fit_is_shown_without_a_curve(run: Run, show: Show) -> None:
    code, out, _ = show(run.uri, 1)
    assert code == 0
    assert "no curve: the fit diverged" in out
    assert re.search(r"^status +diverged$", out, re.MULTILINE)
    assert re.search(r"^loss_history +\d+ recorded", out, re.MULTILINE)


def test_the_power_basis_has_one_equation(run: Run, show: Show) -> None:
    _, out, _ = show(run.uri, 8)
    assert len(re.findall("^y = ", out, re.MULTILINE)) == 1


def test_powers_of_x_that_are_not_known_are_told(tmp_path: Path, show: Show) -> None:
    text = "name: far\nfit: {range: [1.0e+6, 1000001], target: x - 1000000.5, degree: 1, steps: 9}"
    _, out, _ = show(made(text, tmp_path).uri, 0)
    assert "in powers of x: not known" in out
    assert "t = (x - 1000000.5) / 0.5" in out


def test_the_command_computes_again(run: Run, show: Show) -> None:
    code, out, err = show(run.uri, 5, "--recompute")
    assert (code, err) == (0, "")
    assert out.endswith("recomputed: the same bits as stored\n")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_changed_row_ends_with_3_and_names_its_columns(
    copy: Run, show: Show, options: list[str]
) -> None:
    row = copy.row(2)
    rewrite(copy, 0, scaled("loss", 1 + 1e-15))
    rewrite(copy, 0, scaled("coefficients", 2.0))
    code, out, err = show(copy.uri, 2, "--recompute", *options)
    assert code == 3
    head, *columns = err.splitlines()
    assert head.startswith(
        f"polyfit: {copy.uri}/{shard_key(copy.plan, 0)}: fit 2 differs from what its plan gives "
        "in loss, coefficients; remove that object"
    )
    assert columns == [
        f"polyfit: loss: {copy.row(2)['loss']} stored, {row['loss']} recomputed",
        "polyfit: coefficients: 4 of 4 differ",
    ]
    if options:
        found = json.loads(out)["recomputed"]
        assert found["same_bits"] is False
        assert found["damaged"] == ["loss", "coefficients"]
    else:
        assert "other bits" in out


def test_a_shard_of_another_torch_is_told_with_the_difference(copy: Run, show: Show) -> None:
    rewrite(copy, 0, scaled("loss", 2.0), torch="0.0.1")
    code, _, err = show(copy.uri, 0, "--recompute")
    assert code == 3
    assert "(the shard was made with torch 0.0.1, recomputed with " in err


def test_another_kind_of_cpu_is_no_error(copy: Run, show: Show) -> None:
    rewrite(copy, 0, scaled("loss", 1.5), cpu="abacus WOOD")
    code, out, err = show(copy.uri, 0, "--recompute")
    assert (code, err) == (0, "")
    assert "(abacus WOOD): the loss differs by 0.33 of its value, " in out
    assert out.endswith("beyond the tolerance 0.001\n")


def test_a_changed_field_is_an_error_on_any_cpu(copy: Run, show: Show) -> None:
    rewrite(copy, 0, word("target", "cos(x)"), cpu="abacus WOOD")
    code, _, err = show(copy.uri, 0, "--recompute")
    assert code == 3
    assert "polyfit: target: cos(x) stored, sin(x) recomputed" in err


def strictly(text: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


@pytest.mark.parametrize("fit", [0, 1, 8])
def test_as_json_a_fit_is_one_strict_object(run: Run, show: Show, fit: int) -> None:
    code, out, err = show(run.uri, fit, "--json")
    stored = run.stored(fit)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert strictly(out) == {
        "run": run.uri,
        "endpoint_url": None,
        "plan_hash": run.plan.hash,
        "fit": fit,
        "shard": {
            "number": stored.shard.number,
            "key": stored.key,
            "fits": [stored.shard.start, stored.shard.stop],
            "footer": stored.footer,
        },
        "row": stored.row,
        "equation": equations(stored.row)[0],
        "equation_in_x": equations(stored.row)[1],
        "recomputed": None,
    }


def test_as_json_what_was_computed_again_stands_beside_it(run: Run, show: Show) -> None:
    found = strictly(show(run.uri, 3, "--json", "--recompute")[1])["recomputed"]
    assert (found["same_bits"], found["differing"], found["within"]) == (True, [], True)
    assert found["row"] == run.row(3)


def test_json_is_strict_even_of_a_damaged_row(copy: Run, show: Show) -> None:
    rewrite(copy, 0, scaled("loss", float("nan")), cpu="abacus WOOD")
    code, out, _ = show(copy.uri, 0, "--json", "--recompute")
    facts = strictly(out)
    assert (code, facts["row"]["loss"], facts["recomputed"]["loss_off"]) == (0, None, None)


@pytest.mark.parametrize("fit", [-1, FITS, 10**30])
def test_a_fit_that_is_not_there_ends_with_2_and_the_range(run: Run, show: Show, fit: int) -> None:
    told = f"polyfit: fit {fit}; this run has fits 0 to 11\n"
    assert show(run.uri, fit) == (2, "", told)


@pytest.mark.parametrize("arguments", [("x",), ("1.5",), (), (0, 1), (0, "--nonsense")], ids=str)
def test_wrong_usage_ends_with_2(run: Run, show: Show, arguments: tuple[object, ...]) -> None:
    code, out, err = show(run.uri, *arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_a_run_that_is_not_there_ends_with_2(tmp_path: Path, show: Show) -> None:
    code, out, err = show(tmp_path / "none", 0)
    assert (code, out) == (2, "")
    assert err.startswith(f"polyfit: {tmp_path}/none holds no run; expected plan.json there")


def test_a_fit_that_is_not_at_rest_yet_is_told(copy: Run, show: Show) -> None:
    (Path(copy.uri) / MANIFEST).unlink()
    path(copy, 1).unlink()
    assert show(copy.uri, 6) == (
        3,
        "",
        f"polyfit: {copy.uri}/{shard_key(copy.plan, 1)} (fits 5 to 9) is not at rest yet; "
        "run the same spec again: it goes on from what is\n",
    )
    assert show(copy.uri, 4)[0] == 0


def test_a_sealed_runs_missing_shard_is_told(copy: Run, show: Show) -> None:
    path(copy, 1).unlink()
    code, out, err = show(copy.uri, 6)
    assert (code, out) == (3, "")
    assert f"{shard_key(copy.plan, 1)} is missing; run the same spec again" in err


def test_a_shard_that_cannot_be_read_is_told(copy: Run, show: Show) -> None:
    path(copy, 1).write_bytes(b"PAR1")
    code, out, err = show(copy.uri, 6)
    assert (code, out) == (3, "")
    assert "cannot be read" in err
    assert "Traceback" not in err


def test_another_torch_than_the_plans_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = run.stored(0)
    monkeypatch.setattr("torch.__version__", "1.0.0")
    with pytest.raises(PlanMismatch, match=r"this worker has 1\.0\.0"):
        recompute(run, stored)


def test_showing_imports_neither_torch_nor_ray(run: Run) -> None:
    script = (
        "import sys; sys.argv = ['polyfit', 'show', sys.argv[1], '0']\n"
        "from polyfit.cli.app import main\n"
        "try: main()\n"
        "finally: print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, run.uri], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"
