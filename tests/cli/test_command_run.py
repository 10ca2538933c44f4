"""``polyfit run`` with one spec: exit codes, stdout and messages."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import TEXT, Command
from local_s3 import free_port
from servers import S3Server

from polyfit.run.reader import Run
from polyfit.store import s3_client
from polyfit.work import driver

ROOT = Path(__file__).resolve().parents[2]


def test_a_bad_spec_ends_with_2_and_says_where(command: Command, small_spec: Path) -> None:
    small_spec.write_text(TEXT.replace("steps: 12", "steps: -1"))
    ended = command("run", small_spec)
    assert (ended.code, ended.out) == (2, "")
    assert f"{small_spec}:3: fit.steps: " in ended.err
    assert "Traceback" not in ended.err


def test_a_missing_file_ends_with_2_and_names_it(command: Command) -> None:
    ended = command("run", "none.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert "none.yaml" in ended.err
    assert "Traceback" not in ended.err


def test_a_run_id_of_another_plan_ends_with_2(command: Command, small_spec: Path) -> None:
    assert command("run", small_spec, "--run-id", "mine").code == 0
    small_spec.write_text(TEXT.replace("steps: 12", "steps: 13"))
    ended = command("run", small_spec, "--run-id", "mine")
    assert (ended.code, ended.out) == (2, "")
    assert "belongs to plan" in ended.err
    assert "--run-id" in ended.err


def test_an_unreachable_store_ends_with_5(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = f"http://127.0.0.1:{free_port()}"
    ended = command("run", small_spec, "--store", "s3://bucket/x", "--endpoint-url", endpoint)
    assert (ended.code, ended.out) == (5, "")
    _, error = ended.err.splitlines()
    assert error.startswith(f"polyfit: bucket 'bucket' at {endpoint}: cannot be reached")


def test_refused_keys_end_with_5(
    command: Command, small_spec: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    ended = command("run", small_spec, "--store", seaweed.fresh_uri())
    assert (ended.code, ended.out) == (5, "")
    assert "refuses this secret key" in ended.err
    assert "wrong-secret" not in ended.err


def test_a_store_that_cannot_be_written_ends_with_5(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    ended = command("run", small_spec, "--store", small_spec / "runs")
    assert (ended.code, ended.out) == (5, "")
    assert "Not a directory" in ended.err


def test_inside_a_ray_job_a_store_is_required(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    ended = command("run", small_spec)
    assert (ended.code, ended.out) == (2, "")
    assert "a Ray job needs a store that outlives it" in ended.err
    assert not (tmp_path / "runs").exists()


def test_run_as_json_puts_one_object_on_stdout_and_all_else_on_stderr(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    ended = command("run", small_spec, "--json")
    assert ended.code == 0
    facts = json.loads(ended.out)
    assert facts["run"] == f"{tmp_path}/runs/small/{facts['plan_hash'][:12]}"
    assert {name: facts[name] for name in ("name", "fits", "shards", "statuses")} == {
        "name": "small",
        "fits": 20,
        "shards": 2,
        "statuses": {"completed": 20},
    }
    assert [(group["degree"], group["fits"]) for group in facts["groups"]] == [(1, 10), (3, 10)]
    assert "small: 20 of 20 fits, 2 of 2 shards stored" in ended.err


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_spec_from_standard_input_is_stored_byte_for_byte(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    text = {"yaml": "name: a\t# by pipe\nfit: {steps: 1}\n", "json": '{\n\t"name": "a"\n}'}[form]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    ended = command("run", "-", "--run-id", "piped")
    assert ended.code == 0
    assert (tmp_path / "runs" / "a" / "piped" / "spec.yaml").read_bytes() == text.encode()


def test_what_a_library_prints_during_a_run_goes_to_stderr(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = driver.execute

    def chatty(*args: Any, **options: Any) -> Run:
        print("a library has something to say")
        return execute(*args, **options)

    monkeypatch.setattr(driver, "execute", chatty)
    ended = command("run", small_spec, "--json")
    assert json.loads(ended.out)["fits"] == 20
    assert "a library has something to say" in ended.err


def test_a_run_with_no_kernel_in_the_cache_imports_neither_pandas_nor_sympy(
    tmp_path: Path,
) -> None:
    """Half a second each. torch and pyarrow do so where a call is another than ours."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: a\nfit: {degree: 1, points: 20, steps: 10, lr: 0.001}\nsweep:\n"
        "  objective: [sse, mse, huber, log_cosh, l1]\n  optimizer: [gd, adam]\n"
        "  dtype: [float32, float64]"
    )
    words = ["polyfit", "run", str(spec), "--store", str(tmp_path / "runs")]
    code = (
        f"import sys; sys.argv = {words!r}\nfrom polyfit.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('torch' in sys.modules, sorted({'pandas', 'sympy'} & {*sys.modules}))"
    )
    env = {**os.environ, "POLYFIT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "True []"


def test_the_first_line_of_a_run_has_time_address_and_attempt(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    ended = command("run", small_spec)
    (attempt,) = (path.stem for path in tmp_path.rglob("attempts/*.json"))
    (folder,) = (tmp_path / "runs" / "small").iterdir()
    lines = ended.err.splitlines()
    assert lines[0].split(" ", 1)[1] == (
        f"small: {folder}: attempt {attempt}, in this process: the work is smaller than starting "
        "Ray (--executor ray starts it)"
    )
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ small: ", line) for line in lines)


def test_run_shows_a_group_per_line_and_where_the_results_are(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    ended = command("run", small_spec)
    lines = ended.out.splitlines()
    assert len([line for line in lines if "10 completed" in line]) == 2
    assert lines[-2] == "20 fits: 20 completed"
    assert re.fullmatch(rf"results: {tmp_path}/runs/small/[0-9a-f]{{12}}", lines[-1])


def test_a_finished_run_is_a_no_op_with_the_same_answer(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    first = command("run", small_spec)

    def state() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*") if p.is_file()}

    before = state()
    second = command("run", small_spec)
    assert (second.code, second.out) == (0, first.out)
    assert "is complete already: nothing is left to fit" in second.err
    assert state() == before


NUMBER = r"-?\d+(\.\d+)?(e-?\d+)?"


def test_the_single_fit_is_shown_as_in_the_tutorial(command: Command) -> None:
    ended = command("run", ROOT / "jobs" / "sine.yaml")
    lines = ended.out.splitlines()
    updates = [line.split() for line in lines[:20]]
    assert [words[0] for words in updates] == [str(u) for u in range(99, 2000, 100)]
    assert all(re.fullmatch(NUMBER, loss) for _, loss in updates)
    assert re.fullmatch(
        rf"Result: y = {NUMBER} \+ {NUMBER} x \+ {NUMBER} x\^2 \+ {NUMBER} x\^3", lines[20]
    )
    assert lines[21] == "1 fit: 1 completed"


def test_the_single_fit_shows_the_numbers_of_its_row(command: Command, tmp_path: Path) -> None:
    ended = command("run", ROOT / "jobs" / "sine.yaml")
    (folder,) = (tmp_path / "runs" / "sine").iterdir()
    row = Run.open(str(folder)).row(0)
    shown = [float(line.split()[1]) for line in ended.out.splitlines()[:20]]
    assert shown == row["loss_history"]
    a, b, c, d = row["coefficients"]
    assert f"Result: y = {a} + {b} x + {c} x^2 + {d} x^3\n" in ended.out


@pytest.mark.parametrize(("basis", "letter"), [("chebyshev", "T"), ("legendre", "P")])
def test_a_fit_without_powers_of_x_is_shown_in_its_own_basis(
    command: Command, small_spec: Path, basis: str, letter: str
) -> None:
    small_spec.write_text(
        "name: far\nfit: {range: [1.0e+6, 1000001], target: x - 1000000.5, degree: 1, "
        f"basis: {basis}, steps: 10}}\nrecord: none\n"
    )
    ended = command("run", small_spec)
    assert re.match(
        rf"Result: y = {NUMBER} {letter}0\(t\) \+ {NUMBER} {letter}1\(t\), "
        r"t = \(x - 1000000\.5\) / 0\.5\n",
        ended.out,
    )


def test_a_fit_that_diverged_has_no_result(command: Command, small_spec: Path) -> None:
    small_spec.write_text("name: no\nfit: {lr: 1.0e+30, steps: 50, degree: 1}\nrecord: none\n")
    ended = command("run", small_spec)
    assert ended.code == 0
    assert ended.out.startswith("No result: the fit diverged after 10 updates\n")
    uri = ended.out.splitlines()[-1].removeprefix("results: ")
    assert "y = ?" in command("show", uri, 0).out
    assert "1 fit: 1 diverged" in ended.out
