"""``polyfit show``: what is shown is what is stored, and a changed row ends with 3."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from shards import TWELVE_FITS, rewrite_shard, scaled, shard_path, stored_run, with_word

from polyfit.run.keys import MANIFEST, shard_key
from polyfit.run.reader import Run
from polyfit.show.curve import curve
from polyfit.show.equation import equation_lines, equations

FITS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """12 fits in three shards; not to be changed."""
    return stored_run(TWELVE_FITS, tmp_path_factory.mktemp("store"))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A copy of the run, to be damaged."""
    shutil.copytree(run.uri, tmp_path / "copy")
    return Run.open(str(tmp_path / "copy"))


Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show(command: Command) -> Show:
    """``polyfit show`` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        ended = command("show", *arguments)
        return ended.code, ended.out, ended.err

    return run


def test_a_fit_is_shown_with_its_row_its_equations_and_its_curve(run: Run, show: Show) -> None:
    code, out, err = show(run.uri, 2)
    assert (code, err) == (0, "")
    row = run.row(2)
    lines = dict(re.findall(r"^(\S+) +(.*)$", out, re.MULTILINE))
    for name, value in row.items():
        if not isinstance(value, list):
            assert lines[name] == ("-" if value is None else str(value))
    assert lines["shard"] == f"{shard_key(run.plan, 0)}: fits 0 to 4"
    assert f"engine eager, torch {run.stored(2).footer['torch']}, with the bits of any CPU" in out
    assert "\n".join(equation_lines(row)) in out
    assert "\n".join(curve(row)) in out
    assert "recomputed" not in out


def test_the_best_and_the_worst_fit_are_shown_by_these_words(run: Run, show: Show) -> None:
    losses = run.to_polars(["fit", "loss"]).sort("loss", nulls_last=True)["fit"]
    assert show(run.uri, "best") == show(run.uri, losses[0])
    assert show(run.uri, "worst") == show(run.uri, run.extremes(worst=True)["fit"][0])
    code, _, err = show(run.uri, "good")
    assert (code, "allowed: a number from 0, best, or worst" in err) == (2, True)


def test_a_history_is_shown_by_its_first_and_last_values(run: Run, show: Show) -> None:
    _, out, _ = show(run.uri, 0)
    values = [f"{value:.6g}" for value in run.row(0)["loss_history"]]
    shown = [f"{update}: {values[update // 4]}" for update in (3, 7, 11, 31, 35, 39)]
    first, last = ", ".join(shown[:3]), ", ".join(shown[3:])
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


def test_unknown_powers_of_x_are_reported(tmp_path: Path, show: Show) -> None:
    text = "name: far\nfit: {range: [1.0e+6, 1000001], target: x - 1000000.5, degree: 1, steps: 9}"
    _, out, _ = show(stored_run(text, tmp_path).uri, 0)
    assert "in powers of x: unknown" in out
    assert "t = (x - 1000000.5) / 0.5" in out


def test_recompute_says_that_the_bits_are_the_same(run: Run, show: Show) -> None:
    code, out, err = show(run.uri, 5, "--recompute")
    assert (code, err) == (0, "")
    assert out.endswith("recomputed: the same bits as stored\n")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_changed_row_ends_with_3_and_names_its_columns(
    copy: Run, show: Show, options: list[str]
) -> None:
    row = copy.row(2)
    rewrite_shard(copy, 0, scaled("loss", 1 + 1e-15))
    rewrite_shard(copy, 0, scaled("coefficients", 2.0))
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


def test_another_torch_is_named_with_the_difference(copy: Run, show: Show) -> None:
    rewrite_shard(copy, 0, scaled("loss", 2.0), torch="0.0.1")
    code, _, err = show(copy.uri, 0, "--recompute")
    assert code == 3
    assert "(the shard was made with torch 0.0.1, recomputed with " in err


def test_another_kind_of_cpu_is_no_error(copy: Run, show: Show) -> None:
    rewrite_shard(copy, 0, scaled("loss", 1.5), cpu="abacus WOOD")
    code, out, err = show(copy.uri, 0, "--recompute")
    assert (code, err) == (0, "")
    assert "(abacus WOOD): the loss differs by 0.33 of its value, " in out
    assert out.endswith("beyond the tolerance 0.001\n")


def test_a_changed_field_is_an_error_on_any_cpu(copy: Run, show: Show) -> None:
    rewrite_shard(copy, 0, with_word("target", "cos(x)"), cpu="abacus WOOD")
    code, _, err = show(copy.uri, 0, "--recompute")
    assert code == 3
    assert "polyfit: target: cos(x) stored, sin(x) recomputed" in err


def strictly(text: str) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


@pytest.mark.parametrize("fit", [0, 1, 8])
def test_json_is_one_strict_object(run: Run, show: Show, fit: int) -> None:
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


def test_json_has_the_recomputed_row_beside_the_stored_one(run: Run, show: Show) -> None:
    found = strictly(show(run.uri, 3, "--json", "--recompute")[1])["recomputed"]
    assert (found["same_bits"], found["differing"], found["within"]) == (True, [], True)
    assert found["row"] == run.row(3)


def test_json_is_strict_even_for_a_damaged_row(copy: Run, show: Show) -> None:
    rewrite_shard(copy, 0, scaled("loss", float("nan")), cpu="abacus WOOD")
    code, out, _ = show(copy.uri, 0, "--json", "--recompute")
    facts = strictly(out)
    assert (code, facts["row"]["loss"], facts["recomputed"]["loss_off"]) == (0, None, None)


@pytest.mark.parametrize("fit", [-1, FITS, 10**30])
def test_an_index_out_of_range_ends_with_2_and_the_range(run: Run, show: Show, fit: int) -> None:
    message = f"polyfit: fit {fit}; this run has fits 0 to 11\n"
    assert show(run.uri, fit) == (2, "", message)


@pytest.mark.parametrize("arguments", [("x",), ("1.5",), (), (0, 1), (0, "--nonsense")], ids=str)
def test_a_wrong_index_ends_with_2(run: Run, show: Show, arguments: tuple[object, ...]) -> None:
    code, out, err = show(run.uri, *arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_a_folder_that_is_no_run_ends_with_2(tmp_path: Path, show: Show) -> None:
    code, out, err = show(tmp_path / "none", 0)
    assert (code, out) == (2, "")
    assert err.startswith(f"polyfit: {tmp_path}/none holds no run; expected plan.json there")


def test_a_fit_that_is_not_stored_yet_ends_with_3(copy: Run, show: Show) -> None:
    (Path(copy.uri) / MANIFEST).unlink()
    shard_path(copy, 1).unlink()
    assert show(copy.uri, 6) == (
        3,
        "",
        f"polyfit: {copy.uri}/{shard_key(copy.plan, 1)} (fits 5 to 9) is not stored yet; "
        "run the same spec again: it resumes\n",
    )
    assert show(copy.uri, 4)[0] == 0


def test_a_missing_shard_of_a_complete_run_ends_with_3(copy: Run, show: Show) -> None:
    shard_path(copy, 1).unlink()
    code, out, err = show(copy.uri, 6)
    assert (code, out) == (3, "")
    assert f"{shard_key(copy.plan, 1)} is missing; run the same spec again" in err


def test_a_shard_that_cannot_be_read_ends_with_3(copy: Run, show: Show) -> None:
    shard_path(copy, 1).write_bytes(b"PAR1")
    code, out, err = show(copy.uri, 6)
    assert (code, out) == (3, "")
    assert "cannot be read" in err
    assert "Traceback" not in err


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
