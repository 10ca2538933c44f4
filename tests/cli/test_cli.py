"""The command: exit codes, what is said, and what stands on stdout."""

import csv
import importlib.metadata
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from limits import HANG_S, wait_for
from local_s3 import free_port
from places import use
from servers import S3Server

import polyfit
from polyfit.cli.app import cli, main
from polyfit.cli.output import write_line
from polyfit.errors import ClusterError, Exit, FailedShards, not_loaded
from polyfit.run import results as results_module
from polyfit.run.results import Run
from polyfit.show.progress import ProgressDisplay
from polyfit.spec.spec import Spec
from polyfit.store import store as store_module
from polyfit.work import driver, heartbeat
from polyfit.work.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
TEXT = """\
name: small
shard: 10
fit: {steps: 12, points: 40}
sweep: {degree: [1, 3], seed: {count: 10}}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """``polyfit`` in this process, with all of its handling of errors, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["polyfit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err)

    return run


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """20 fits in two shards; not to be changed."""
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(TEXT), store=folder, executor="inline")


def process(*arguments: object, program: tuple[str, ...] = ("-m", "polyfit")) -> Ended:
    """``polyfit`` in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


# --- exit codes ------------------------------------------------------------------------------


def test_a_bad_spec_ends_with_2_and_says_where(command: Command, spec: Path) -> None:
    spec.write_text(TEXT.replace("steps: 12", "steps: -1"))
    ended = command("run", spec)
    assert (ended.code, ended.out) == (2, "")
    assert f"{spec}:3: fit.steps: " in ended.err
    assert "Traceback" not in ended.err


def test_a_missing_file_ends_with_2_and_names_it(command: Command) -> None:
    ended = command("run", "none.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert "none.yaml" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--nonsense", "x.yaml"),
        ("nonsense",),
        ("run",),
        ("run", "x.yaml", "--executor", "slurm"),
        ("run", "x.yaml", "--placement-timeout", "nan"),
        ("run", "x.yaml", "--wait", "nan"),
        ("results", "x", "--limit", "0"),
        ("results", "x", "--json", "--csv"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(command: Command, arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err


def test_a_run_id_of_another_plan_ends_with_2(command: Command, spec: Path) -> None:
    assert command("run", spec, "--run-id", "mine").code == 0
    spec.write_text(TEXT.replace("steps: 12", "steps: 13"))
    ended = command("run", spec, "--run-id", "mine")
    assert (ended.code, ended.out) == (2, "")
    assert "belongs to plan" in ended.err
    assert "--run-id" in ended.err


def test_a_folder_that_is_no_run_ends_with_2(command: Command, tmp_path: Path) -> None:
    ended = command("verify", tmp_path)
    assert (ended.code, ended.err) == (
        2,
        f"polyfit: {tmp_path} holds no run; expected plan.json there, "
        "as in <store>/<name>/<run id>\n",
    )


def test_a_condition_that_cannot_be_read_ends_with_2(command: Command, run: Run) -> None:
    ended = command("results", run.uri, "--where", "loss ~ 3")
    assert (ended.code, ended.out) == (2, "")
    assert "--where 'loss ~ 3' cannot be read" in ended.err


def test_an_unreachable_store_ends_with_5(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = f"http://127.0.0.1:{free_port()}"
    ended = command("run", spec, "--store", "s3://bucket/x", "--endpoint-url", endpoint)
    assert (ended.code, ended.out) == (5, "")
    _, error = ended.err.splitlines()
    assert error.startswith(f"polyfit: bucket 'bucket' at {endpoint}: cannot be reached")


def test_refused_keys_end_with_5(
    command: Command, spec: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    ended = command("run", spec, "--store", seaweed.fresh_uri())
    assert (ended.code, ended.out) == (5, "")
    assert "refuses this secret key" in ended.err
    assert "wrong-secret" not in ended.err


def test_a_store_that_cannot_be_written_ends_with_5(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    ended = command("run", spec, "--store", spec / "runs")
    assert (ended.code, ended.out) == (5, "")
    assert "Not a directory" in ended.err


def test_a_damaged_run_ends_with_3_and_names_the_shard(
    command: Command, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.uri, tmp_path / "copy")
    (missing, other) = sorted((tmp_path / "copy" / "shards").iterdir())
    missing.unlink()
    other.write_bytes(b"")
    ended = command("verify", tmp_path / "copy")
    assert (ended.code, ended.out) == (3, "")
    head, first, second = ended.err.splitlines()
    assert head == f"polyfit: {tmp_path}/copy: 2 problems"
    assert first == f"polyfit: shards/{missing.name} (fits 0 to 9): missing; " + (
        "run the same spec again: it fits what is missing"
    )
    assert second.startswith(f"polyfit: shards/{other.name} (fits 10 to 19): 0 bytes")


def test_a_damaged_run_as_json_is_one_object_and_ends_with_3(
    command: Command, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.uri, tmp_path / "copy")
    next((tmp_path / "copy" / "shards").iterdir()).unlink()
    ended = command("verify", tmp_path / "copy", "--json")
    facts = json.loads(ended.out)
    assert (ended.code, facts["intact"], len(facts["problems"])) == (3, False, 1)


def test_of_many_problems_the_first_are_shown_and_the_rest_counted(
    command: Command, tmp_path: Path, spec: Path
) -> None:
    spec.write_text(TEXT.replace("shard: 10", "shard: 1").replace("count: 10", "count: 15"))
    assert command("run", spec).code == 0
    (folder,) = (tmp_path / "runs" / "small").iterdir()
    shutil.rmtree(folder / "shards")
    ended = command("verify", folder)
    assert ended.err.splitlines()[0].endswith(": 30 problems")
    assert ended.err.splitlines()[-1] == "polyfit: ... and 10 more"


@pytest.mark.parametrize(
    ("error", "code"), [(FailedShards("two shards"), 3), (ClusterError("no room"), 6)]
)
def test_what_ends_a_run_ends_the_command_with_its_code(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr(driver, "execute", raising(error))
    ended = command("run", spec)
    assert (ended.code, ended.out, ended.err) == (code, "", f"polyfit: {error}\n")


def raising(error: BaseException) -> Callable[..., None]:
    def raise_it(*args: object, **options: object) -> None:
        raise error

    return raise_it


def test_an_internal_error_ends_with_1_and_says_how_to_see_more(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "execute", raising(ZeroDivisionError("a bug")))
    ended = command("run", spec)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "polyfit: internal error: ZeroDivisionError: a bug (--debug shows where)\n"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_debug_shows_the_traceback_of_an_internal_error(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(driver, "execute", raising(ZeroDivisionError("a bug")))
    ended = command("run", spec, "--debug") if after else command("--debug", "run", spec)
    assert ended.code == 1
    assert "Traceback (most recent call last)" in ended.err
    assert "in raise_it" in ended.err


def test_debug_shows_the_traceback_of_a_users_error_too(command: Command) -> None:
    ended = command("plan", "none.yaml", "--debug")
    assert ended.code == 2
    assert "Traceback" in ended.err


def test_an_interrupt_ends_with_130(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "execute", raising(KeyboardInterrupt()))
    ended = command("run", spec)
    assert (ended.code, ended.out) == (130, "")
    assert "interrupted; the same command goes on from here" in ended.err
    assert "Traceback" not in ended.err


def test_control_c_ends_a_running_process_with_130_and_notes_it(spec: Path, tmp_path: Path) -> None:
    spec.write_text(TEXT.replace("steps: 12", "steps: 5000").replace("count: 10", "count: 5000"))
    arguments = ["-m", "polyfit", "run", str(spec), "--store", str(tmp_path), "--executor"]
    running = subprocess.Popen(
        [sys.executable, *arguments, "inline"], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: list(tmp_path.glob("small/*/status.json")), "its status", running)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=HANG_S)
    assert running.returncode == 130
    assert "goes on from here" in err
    assert "Traceback" not in err
    (attempt,) = tmp_path.glob("small/*/attempts/*.json")
    assert json.loads(attempt.read_bytes())["exit_code"] == 130


@pytest.mark.parametrize(
    "arguments",
    ["results RUN --csv", "results RUN --csv --limit 1", "results RUN --json", "results RUN", "-h"],
)
def test_a_reader_that_has_seen_enough_is_no_error(run: Run, arguments: str) -> None:
    """As in ``polyfit results --csv | head``: ended as by SIGPIPE, without a word."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", *arguments.replace("RUN", run.uri).split()],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "buffered"), [("results RUN --csv", ""), ("results RUN", "1")]
)
def test_output_to_a_full_disk_ends_with_5_and_says_so(
    run: Run, arguments: str, buffered: str
) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", *arguments.replace("RUN", run.uri).split()],
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    told = "polyfit: standard output: No space left on device; the output is incomplete\n"
    assert (ended.returncode, ended.stderr) == (5, told)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_makes_no_spec_wrong(spec: Path) -> None:
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "polyfit", "validate", str(spec)]
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        ended = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 5


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_messages_that_a_full_disk_refuses_end_no_run(spec: Path, tmp_path: Path) -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", "run", spec, "--json", "--store", tmp_path],
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert (ended.returncode, json.loads(ended.stdout)["fits"]) == (0, 20)


def test_who_reads_messages_may_go_and_the_run_goes_on(spec: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", "polyfit", "run", spec, "--json", "--store", tmp_path],
            stdout=subprocess.PIPE,
            stderr=pipe,
            check=False,
        )
    assert (ended.returncode, json.loads(ended.stdout)["fits"]) == (0, 20)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_takes_what_it_is_given(run: Run, closed: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m polyfit results "$1" --csv {closed}', sys.executable, run.uri],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["run {spec} --store {store}", "plan spec.yaml"])
def test_a_working_folder_that_is_gone_ends_with_2_and_one_line(
    spec: Path, tmp_path: Path, arguments: str
) -> None:
    """Intel's numeric library ends a process there, in the midst of a run."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = arguments.format(spec=spec, store=tmp_path).split()
    ended = subprocess.run(
        ["sh", "-c", 'rmdir ../gone; "$0" -m polyfit "$@"', sys.executable, *command],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("polyfit: the working folder is gone (No such file")


MISSING = """\
import sys

missing = sys.argv[1]

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv[:2] = ["polyfit"]
from polyfit.__main__ import program
program()
"""


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("click", "--version"),
        ("numpy", "plan {spec}"),
        ("pyarrow", "results {run}"),
        ("ray", "run {spec} --executor ray --store {store}"),
        ("torch", "run {spec} --store {store}"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_environment(
    package: str, arguments: str, spec: Path, run: Run, tmp_path: Path
) -> None:
    command = arguments.format(spec=spec, run=run.uri, store=tmp_path).split()
    ended = process(package, *command, program=("-c", MISSING))
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == (
        f"polyfit: the package {package!r} is missing in the Python environment {sys.prefix} "
        f"({sys.executable}); install polyfit, with all that it needs, in that environment"
    )
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ImportError("libcudart.so.13: cannot open\n shared object", name="torch"),
            "a package cannot be loaded in the Python environment {here}: "
            "libcudart.so.13: cannot open shared object; install",
        ),
        (
            ModuleNotFoundError(
                "No module named 'polyfit.work.driver'", name="polyfit.work.driver"
            ),
            "polyfit is not whole in the Python environment {here}: No module named",
        ),
        (
            importlib.metadata.PackageNotFoundError("torch"),
            "the package 'torch' is missing in the Python environment {here}; install",
        ),
    ],
)
def test_a_package_that_cannot_be_loaded_is_told_in_one_line(error: ImportError, told: str) -> None:
    here = f"{sys.prefix} ({sys.executable})"
    assert not_loaded(error).startswith(told.format(here=here))
    assert "\n" not in not_loaded(error)


def test_exit_codes_are_those_that_are_promised() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "COMPLETE": 0,
        "INTERNAL": 1,
        "USAGE": 2,
        "FAILED_SHARDS": 3,
        "HELD": 4,
        "STORAGE": 5,
        "CLUSTER": 6,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
        "DRAINED": 143,
    }


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("run", "--help"), ("--version",)])
def test_help_and_version_end_with_0_on_stdout(
    command: Command, arguments: tuple[str, ...]
) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert "polyfit" in ended.out


# --- run -------------------------------------------------------------------------------------


def test_run_as_json_puts_one_object_on_stdout_and_all_else_on_stderr(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    ended = command("run", spec, "--json")
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
def test_a_spec_from_standard_input_is_stored_as_it_came(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    text = {"yaml": "name: a\t# by pipe\nfit: {steps: 1}\n", "json": '{\n\t"name": "a"\n}'}[form]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    ended = command("run", "-", "--run-id", "piped")
    assert ended.code == 0
    assert (tmp_path / "runs" / "a" / "piped" / "spec.yaml").read_bytes() == text.encode()


def test_what_is_printed_while_running_does_not_reach_stdout(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = driver.execute

    def chatty(*args: Any, **options: Any) -> Run:
        print("a library has something to say")
        return execute(*args, **options)

    monkeypatch.setattr(driver, "execute", chatty)
    ended = command("run", spec, "--json")
    assert json.loads(ended.out)["fits"] == 20
    assert "a library has something to say" in ended.err


def test_run_shows_a_group_per_line_and_where_the_results_are(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    ended = command("run", spec)
    lines = ended.out.splitlines()
    assert len([line for line in lines if "10 completed" in line]) == 2
    assert lines[-2] == "20 fits: 20 completed"
    assert re.fullmatch(rf"results: {tmp_path}/runs/small/[0-9a-f]{{12}}", lines[-1])


def test_a_finished_run_is_a_no_op_with_the_same_answer(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    first = command("run", spec)

    def state() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*") if p.is_file()}

    before = state()
    second = command("run", spec)
    assert (second.code, second.out) == (0, first.out)
    assert "is complete already: nothing is left to fit" in second.err
    assert state() == before


def test_of_several_specs_none_is_run_where_one_is_bad(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\nfit: {degree: -1}\n")
    ended = command("run", "none.yaml", spec, "bad.yaml")
    assert ended.code == 2
    assert "none.yaml: No such file" in ended.err
    assert "bad.yaml:2: fit.degree: found -1" in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def others(tmp_path: Path) -> dict[str, Path]:
    """Specs by name; the runs of ``a`` and ``c`` hold another plan's data, and fail with 2."""
    paths = {name: tmp_path / f"{name}.yaml" for name in "abc"}
    for name, path in paths.items():
        path.write_text(TEXT.replace("small", name))
        if name != "b":
            home = tmp_path / "runs" / name / "mine"
            home.mkdir(parents=True)
            (home / "plan.json").write_text('{"hash": "another"}')
    return paths


def test_where_one_spec_fails_the_others_are_run_and_its_code_is_the_commands(
    command: Command, others: dict[str, Path]
) -> None:
    ended = command("run", *others.values(), "--run-id", "mine")
    assert ended.code == 2
    assert re.search(r"20 fits: 20 completed\nresults: \S+/b/mine\n$", ended.out)
    lines = [line for line in ended.err.splitlines() if line.startswith("polyfit: ")]
    assert ["belongs to plan another" in line for line in lines] == [True, True]
    assert [line[:12] for line in lines] == ["polyfit: a: ", "polyfit: c: "]


def test_of_the_codes_of_several_specs_the_first_bad_one_counts(
    command: Command, others: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = driver.execute

    def planted(spec: Spec, **options: Any) -> Run:
        if spec.name == "b":
            raise ZeroDivisionError("a bug")
        return execute(spec, **options)

    monkeypatch.setattr(driver, "execute", planted)
    assert command("run", others["b"], others["a"], "--run-id", "mine").code == 1
    ended = command("run", others["a"], others["b"], "--run-id", "mine")
    assert ended.code == 2
    assert "polyfit: b: internal error: ZeroDivisionError: a bug" in ended.err


def test_as_json_a_spec_that_fails_says_so_in_its_place(
    command: Command, others: dict[str, Path]
) -> None:
    ended = command("run", *others.values(), "--run-id", "mine", "--json")
    failed, finished, _ = json.loads(ended.out)["runs"]
    assert (ended.code, finished["name"], finished["fits"]) == (2, "b", 20)
    assert (failed["name"], failed["exit_code"]) == ("a", 2)
    assert "belongs to plan another" in failed["error"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("task", [0, 1], ids=["before the last shard", "at the last shard"])
def test_a_signal_ends_all_specs(
    command: Command,
    others: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    task: int,
) -> None:
    """Also one that comes when the run at work has nothing left to end."""
    from polyfit.work import storing

    compute, computed = storing.run_shard, list[int]()

    def signalled(*arguments: Any) -> Any:
        computed.append(arguments[1])
        if len(computed) == task + 1:
            os.kill(os.getpid(), number)
        return compute(*arguments)

    monkeypatch.setattr(storing, "run_shard", signalled)
    ended = command("run", others["b"], others["b"], "--run-id", "other", "--store", "here")
    assert (ended.code, len(computed)) == (code, task + 1)
    monkeypatch.setattr(storing, "run_shard", compute)
    assert (
        "here/b/other is complete"
        in command("run", others["b"], others["b"], "--run-id", "other", "--store", "here").err
    )


def test_the_first_line_of_a_run_has_the_time_its_place_and_its_attempt(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    ended = command("run", spec)
    (attempt,) = (path.stem for path in tmp_path.rglob("attempts/*.json"))
    (home,) = (tmp_path / "runs" / "small").iterdir()
    lines = ended.err.splitlines()
    assert lines[0].split(" ", 1)[1] == (
        f"small: {home}: attempt {attempt}, no actors wanted: the work is smaller than starting "
        "Ray (--executor ray)"
    )
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ small: ", line) for line in lines)


class Log:
    """What a run shows on stderr, with a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, terminal: bool = False) -> None:
        self.time, self.stderr = 1000.0, io.StringIO()
        self.stderr.isatty = lambda: terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", self.stderr)
        self.display = ProgressDisplay("small", write_line, lambda: self.time)

    @property
    def lines(self) -> list[str]:
        """Without their times."""
        return [line.split("Z small: ")[1] for line in self.stderr.getvalue().splitlines()]


def test_no_log_is_silent_for_longer_than_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says for how long nothing has come, so that a run that hangs is seen."""
    log = Log(monkeypatch)
    log.display.show_message("begun")
    for second in range(60):
        log.time += 1
        log.display.update(Progress(3, 0, 30, 0, 0, stage="starting Ray", quiet_s=second + 1.0))
    assert len(log.lines) == 7
    assert log.lines[1] == "0 of 30 fits, 0 of 3 shards stored; starting Ray"
    assert log.lines[3] == "0 of 30 fits, 0 of 3 shards stored; starting Ray, nothing new for 25 s"


def test_a_log_tells_at_once_that_all_is_at_rest_and_not_of_every_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.display.show_message("begun")
    for done in range(1, 31):
        log.time += 0.5
        log.display.update(Progress(30, done, 30, done, 0, stage="fitting"))
        log.display.update(Progress(30, done, 30, done, 0, stage="fitting"))
    assert log.lines[1:] == [
        "10 of 30 fits, 10 of 30 shards stored; fitting",
        "20 of 30 fits, 20 of 30 shards stored; fitting",
        "30 of 30 fits, 30 of 30 shards stored",
    ]


def test_lines_on_a_terminal_have_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch, terminal=True)
    log.display.show_message("begun")
    assert log.stderr.getvalue() == "small: begun\n"
    with log.display:
        log.display.update(Progress(3, 0, 30, 0, 0, stage="joining [::1]:6379", quiet_s=12.0))
    assert "joining [::1]:6379, nothing new for 12 s" in log.stderr.getvalue()


def test_who_reads_long_results_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "TICK_S", 0.001)
    log = Log(monkeypatch)
    with log.display.reading_results():
        wait_for(lambda: log.stderr.getvalue(), "a line")
    assert log.lines[0] == "reading the results"


def test_inside_a_ray_job_a_store_is_required(
    command: Command, spec: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    ended = command("run", spec)
    assert (ended.code, ended.out) == (2, "")
    assert "a Ray job needs a store that outlives it" in ended.err
    assert not (tmp_path / "runs").exists()


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
    command: Command, spec: Path, basis: str, letter: str
) -> None:
    spec.write_text(
        "name: far\nfit: {range: [1.0e+6, 1000001], target: x - 1000000.5, degree: 1, "
        f"basis: {basis}, steps: 10}}\nrecord: none\n"
    )
    ended = command("run", spec)
    assert re.match(
        rf"Result: y = {NUMBER} {letter}0\(t\) \+ {NUMBER} {letter}1\(t\), "
        r"t = \(x - 1000000\.5\) / 0\.5\n",
        ended.out,
    )


def test_a_fit_that_diverged_has_no_result(command: Command, spec: Path) -> None:
    spec.write_text("name: no\nfit: {lr: 1.0e+30, steps: 50, degree: 1}\nrecord: none\n")
    ended = command("run", spec)
    assert ended.code == 0
    assert ended.out.startswith("No result: the fit diverged after 10 updates\n")
    uri = ended.out.splitlines()[-1].removeprefix("results: ")
    assert "y = ?" in command("show", uri, 0).out
    assert "1 fit: 1 diverged" in ended.out


# --- validate and plan -----------------------------------------------------------------------


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_every_job_validates(command: Command, job: Path) -> None:
    ended = command("validate", job)
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(rf"{job}: [\d,]+ fits?\n", ended.out)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_every_job_says_at_its_top_what_it_is(job: Path) -> None:
    first = job.read_text().splitlines()[0]
    assert re.fullmatch(r"# \S.*", first)


def test_there_are_jobs() -> None:
    assert {"sine", "sweep"} <= {job.stem for job in JOBS}


def test_validate_tells_the_problems_of_all_files(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nfit: {degree: -1, steps: x}\n")
    (tmp_path / "two.yaml").write_text("name: two\nfit: {lrr: 1}\n")
    ended = command("validate", "one.yaml", spec, "none.yaml", "two.yaml")
    assert (ended.code, ended.out) == (2, f"{spec}: 20 fits\n")
    lines = ended.err.splitlines()
    for start in (
        "one.yaml:2: fit.degree",
        "one.yaml:2: fit.steps",
        "two.yaml:2: fit",
        "none.yaml",
    ):
        assert len([line for line in lines if line.startswith(f"polyfit: {start}")]) == 1


def test_plan_as_json_is_one_object(command: Command, spec: Path) -> None:
    ended = command("plan", spec, "--json")
    facts = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert {name: facts[name] for name in ("name", "fits", "shards", "fits_per_shard")} == {
        "name": "small",
        "fits": 20,
        "shards": 2,
        "fits_per_shard": 10,
    }
    assert facts["axes"] == [
        {"fields": ["degree"], "values": 2},
        {"fields": ["seed"], "values": 10},
    ]
    assert facts["run_id"] == facts["plan_hash"][:12]


def test_plan_says_in_words_what_it_says_in_json(command: Command, spec: Path) -> None:
    facts = json.loads(command("plan", spec, "--json").out)
    lines = dict(line.split(None, 1) for line in command("plan", spec).out.splitlines())
    assert lines["fits"] == "20"
    assert lines["axes"] == "degree 2 x seed 10"
    assert lines["shards"] == "2 of 10 fits"
    assert lines["engine"] == facts["engine"]
    work, time = (facts[f"projected_{name}seconds"] for name in ("core_", ""))
    assert lines["work"] == f"{work:.3g} s on one core, nominal"
    assert re.fullmatch(rf"about {time:.2g} s here, on \d+ cores", lines["time"])


NOT_FINITE = """\
name: hole
fit: {target: log(x), points: 20, steps: 10}
sweep: {range: [[-1, 1], [1, 2]], seed: {count: 3}}
"""
HOLE = (
    "hole.yaml:2: fit.target: target log(x) is not finite on range [-1, 1]: first nan at x = -1, "
    "in all at 10 of 20 points: 3 of 6 fits cannot start\n"
)


@pytest.mark.parametrize("name", ["validate", "plan", "run"])
def test_fits_that_cannot_start_are_told_before_anything_is_fitted(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "hole.yaml").write_text(NOT_FINITE)
    ended = command(name, "hole.yaml")
    told = ended.err.split("Z hole: ")[2] if name == "run" else ended.err
    assert (ended.code, told[: len("warning: " + HOLE)]) == (0, "warning: " + HOLE)
    if name == "run":
        assert "6 fits: 3 completed, 3 diverged" in ended.out


@pytest.mark.parametrize("name", ["validate", "plan", "run"])
def test_where_strict_fits_that_cannot_start_are_an_error(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "hole.yaml").write_text(NOT_FINITE)
    ended = command(name, "--strict", "hole.yaml")
    assert (ended.code, ended.out, ended.err) == (2, "", f"polyfit: {HOLE}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hole.yaml"]
    (tmp_path / "hole.yaml").write_text(NOT_FINITE.replace("log", "sin"))
    ended = command(name, "--strict", "hole.yaml")
    assert (ended.code, "cannot start" in ended.err) == (0, False)


def test_plan_as_json_holds_the_fits_that_cannot_start(command: Command, tmp_path: Path) -> None:
    (tmp_path / "hole.yaml").write_text(NOT_FINITE)
    found = json.loads(command("plan", "hole.yaml", "--json").out)["cannot_start"]
    (cause,) = found.pop("causes")
    assert found == {"fits": 3, "unchecked": 0}
    assert cause["fits"] == 3
    assert cause["cause"] in HOLE


def test_plan_writes_nothing(command: Command, spec: Path, tmp_path: Path) -> None:
    command("plan", spec)
    assert list(tmp_path.iterdir()) == [spec]


# --- results and verify ----------------------------------------------------------------------


def test_verify_says_that_a_run_is_intact(command: Command, run: Run) -> None:
    ended = command("verify", run.uri)
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(
        r"intact: 20 fits, each once, in 2 shards \([\d.]+ KiB\); 20 completed\n", ended.out
    )


def test_verify_as_json_is_one_object(command: Command, run: Run) -> None:
    facts = json.loads(command("verify", run.uri, "--json").out)
    assert (facts["intact"], facts["fits"], facts["problems"]) == (True, 20, [])


def test_results_as_json_are_one_object_with_every_row(command: Command, run: Run) -> None:
    ended = command("results", run.uri, "--json")
    facts = json.loads(ended.out)
    assert (ended.code, ended.err, facts["complete"]) == (0, "", True)
    assert facts["rows"] == run.table().to_pylist()


def test_results_as_csv_have_a_header_and_every_row(command: Command, run: Run) -> None:
    ended = command("results", run.uri, "--csv")
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    wanted = run.table().to_pylist()
    assert (ended.code, ended.err, list(rows[0])) == (0, "", list(wanted[0]))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in wanted]
    assert [json.loads(r["coefficients"]) for r in rows] == [r["coefficients"] for r in wanted]


def test_a_null_is_empty_in_csv(command: Command, run: Run) -> None:
    (row,) = csv.DictReader(io.StringIO(command("results", run.uri, "--csv", "--limit", 1).out))
    assert row["stop"] == ""


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_limit_holds_in_every_form(command: Command, run: Run, form: str) -> None:
    out = command("results", run.uri, form, "--limit", 3).out
    rows = json.loads(out)["rows"] if form == "--json" else list(csv.DictReader(io.StringIO(out)))
    assert [int(row["fit"]) for row in rows] == [0, 1, 2]


def test_where_and_sort_choose_and_order_rows(command: Command, run: Run) -> None:
    arguments = ("--where", "degree == 3 and seed < 3", "--sort", "-seed", "--json")
    rows = json.loads(command("results", run.uri, *arguments).out)["rows"]
    assert [row["fit"] for row in rows] == [12, 11, 10]


def test_a_generated_value_is_found_by_the_number_a_person_would_write(
    command: Command, tmp_path: Path
) -> None:
    for name, noise in (("tenths", "{start: 0, stop: 0.5, step: 0.1}"), ("list", "[0.3, 0.4]")):
        text = f"name: {name}\nfit: {{steps: 10, points: 40}}\nsweep: {{noise: {noise}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    first = json.loads(command("run", "tenths.yaml", "--json").out)
    found = command("results", first["run"], "--where", "noise == 0.3", "--json")
    assert [row["noise"] for row in json.loads(found.out)["rows"]] == [0.3]
    second = json.loads(command("run", "list.yaml", "--reuse", first["run"], "--json").out)
    assert second["fits_reused"] == 2


def test_nothing_found_is_an_empty_list(command: Command, run: Run) -> None:
    ended = command("results", run.uri, "--where", "degree == 2", "--json")
    assert (ended.code, json.loads(ended.out)["rows"]) == (0, [])


def test_nothing_found_is_a_header_in_csv(command: Command, run: Run) -> None:
    ended = command("results", run.uri, "--where", "degree == 2", "--csv")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert ended.out.startswith("fit,degree,")


def test_a_table_shows_what_varies_and_twenty_rows_at_most(
    command: Command, run: Run, spec: Path
) -> None:
    ended = command("results", run.uri, "--limit", 5)
    header = ended.out.split("\n", 2)[1].split()
    assert header[:4] == ["fit", "degree", "seed", "status"]
    assert ended.out.count("completed") == 5


def test_results_of_a_run_that_broke_off_say_so(command: Command, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.uri, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    ended = command("results", tmp_path / "copy")
    (attempt,) = (path.stem for path in (tmp_path / "copy" / "attempts").glob("*.json"))
    assert ended.code == 0
    assert re.fullmatch(
        rf"20 rows of 20\nthis run is not complete: these are the stored rows; no driver is at "
        rf"work on it: attempt {attempt} \(process {os.getpid()} on \S+\) ended with exit code 0\n",
        ended.err,
    )


def test_the_printed_line_opens_the_run_again_wherever_it_is_pasted(
    command: Command, spec: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(seaweed, monkeypatch)
    uri = seaweed.fresh_uri()
    line = command("run", spec, "--store", uri).out.splitlines()[-1]
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    words = shlex.split(line.removeprefix("results: "))
    assert words[0].startswith(f"{uri}/small/")
    assert words[1:] == ["--endpoint-url", seaweed.endpoint_url]
    assert command("verify", *words).code == 0
    facts = json.loads(command("results", *words, "--json", "--limit", 1).out)
    assert polyfit.Run.open(facts["run"], facts["endpoint_url"]).plan.fits == 20


def test_results_of_a_folder_of_runs_lists_them(
    command: Command, spec: Path, tmp_path: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(seaweed, monkeypatch)
    for store in (str(tmp_path / "our runs"), seaweed.fresh_uri()):
        lines = []
        for number in (1, 2):
            spec.write_text(TEXT.replace("small", f"of-{number}"))
            run = command("run", spec, "--store", store, "--run-id", f"run-{number}")
            lines.append(run.out.splitlines()[-1].removeprefix("results: "))
        ended = command("results", store)
        assert ended.code == 0
        assert ended.out.splitlines() == [f"{line}  (20 fits)" for line in lines]
        ended = command("results", f"{store}/of-2/")
        assert ended.out.splitlines() == [f"{lines[1]}  (20 fits)"]
        listed = json.loads(command("results", store, "--json").out)["runs"]
        assert listed == list(_of_csv(command("results", store, "--csv").out))
        assert [run["run"] for run in listed] == [shlex.split(line)[0] for line in lines]
        ended = command("results", store, "--sort", "loss")
        assert (ended.code, "lists the runs in it" in ended.err) == (2, True)
        ended = command("verify", store)
        assert (ended.code, "holds no run" in ended.err) == (2, True)


def _of_csv(text: str) -> Iterator[dict[str, Any]]:
    for row in csv.DictReader(io.StringIO(text)):
        yield row | {
            "endpoint_url": row["endpoint_url"] or None,
            "fits": int(row["fits"]),
            "complete": row["complete"] == "True",
        }


def test_a_run_that_is_not_whole_is_listed_as_such(
    command: Command, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "small" / "broken"
    shutil.copytree(run.uri, folder)
    (folder / "manifest.json").unlink()
    older = folder.with_name("older")
    shutil.copytree(run.uri, older)
    plan = (older / "plan.json").read_text()
    (older / "plan.json").write_text(plan.replace(run.plan.hash, "0" * 64))
    assert command("results", "runs").out.splitlines() == [
        f"{folder}  (20 fits, not complete)",
        f"{older}  (of another version)",
    ]


@pytest.mark.parametrize("folder", ["", "none", "spec.yaml"])
def test_where_no_run_lies_below_none_is_listed(
    command: Command, spec: Path, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    ended = command("results", tmp_path / folder)
    assert (ended.code, ended.out) == (2, "")
    assert "holds no run; expected plan.json there" in ended.err


def test_more_folders_than_are_looked_through_are_told(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "MOST_FOLDERS", 2)
    for name in "abc":
        (tmp_path / name).mkdir()
    ended = command("results", tmp_path)
    assert (ended.code, "in 2 folders and there are more" in ended.err) == (2, True)


# --- one program, two names ------------------------------------------------------------------


def test_the_module_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("polyfit")
    job = ROOT / "jobs" / "sine.yaml"
    as_module = process("plan", job, "--json")
    as_script = process("plan", job, "--json", program=(str(script),))
    assert as_module == as_script
    assert json.loads(as_module.out)["fits"] == 1


def test_the_modules_exit_code_is_the_commands() -> None:
    ended = process("plan", "none.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("polyfit: ")


def test_planning_imports_neither_torch_nor_ray() -> None:
    script = (
        "import sys; sys.argv = ['polyfit', 'plan', sys.argv[1]]\n"
        "from polyfit.cli.app import cli, main\n"
        "try: main()\n"
        "finally: print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    ended = process(ROOT / "jobs" / "sine.yaml", program=("-c", script))
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "[]")


def test_several_specs_give_one_json_object(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"name: {name}\nfit: {{steps: 5, points: 20}}\n")
        paths.append(str(path))
    done = CliRunner().invoke(
        cli, ["run", *paths, "--store", str(tmp_path / "runs"), "--executor", "inline", "--json"]
    )
    assert [run["name"] for run in json.loads(done.stdout)["runs"]] == ["one", "two"]
