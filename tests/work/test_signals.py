"""Ctrl-C and SIGTERM from the first line of ours on: an exit code, one line, no traceback.

Processes are halted at the import of a module, which is a known point of their start, and get
their signal there.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from limits import HANG_S, wait_for
from servers import ROOT

import polyfit
from polyfit.spec.spec import Spec

SIGNALS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "ended by SIGTERM")}
AGAIN = "run the same command to start again"
RESUME = "run the same command to resume"

TEXT = """\
name: small
shard: 10
engine: eager
fit: {steps: 12, points: 40}
sweep: {seed: {count: 30}}
"""

HALTING = """\
import os, sys, time

class Losing:
    def __del__(self):
        os.kill(os.getpid(), int(os.environ["LOST"]))
        for _ in range(1000):
            time.sleep(0)

class Halting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["HALT_AT"]:
            sys.meta_path.remove(self)
            open(os.environ["HALTED"], "x").close()
            if "LOST" in os.environ:
                Losing()
            until = time.monotonic() + float(os.environ["HALT_S"])
            while time.monotonic() < until:  # a signal just before a long sleep would not end it
                time.sleep(0.05)

sys.meta_path.insert(0, Halting())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts ``polyfit`` with these arguments; returns when it is about to import ``module``."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HALTING)

    def begin(
        module: str, *arguments: object, default: Any = signal.SIG_DFL, **env: str
    ) -> "subprocess.Popen[str]":
        halted, path = tmp_path / "halted", f"{tmp_path / 'site'}:{ROOT}"
        own = {"PYTHONPATH": path, "HALT_AT": module, "HALTED": str(halted), "HALT_S": str(HANG_S)}
        process = subprocess.Popen(
            [sys.executable, "-m", "polyfit", *map(str, arguments)],
            env={**os.environ, **own, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(met, default),
        )
        wait_for(halted.exists, f"it imports {module}", process)
        halted.unlink()
        return process

    return begin


def met(default: Any) -> None:
    """What becomes of signals that nothing answers, whatever the shell that runs the tests does."""
    for number in SIGNALS:
        signal.signal(number, default)


def ended(process: "subprocess.Popen[str]") -> tuple[int | None, list[str]]:
    """Exit code, and the lines on stderr, without what a run tells of its progress."""
    out, err = process.communicate(timeout=HANG_S)
    assert out == ""
    return process.returncode, [line for line in err.splitlines() if "Z small: " not in line]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("click", ("--help",)),
        ("yaml", ("validate", "small.yaml")),
        ("numpy", ("plan", "small.yaml")),
        ("click", ("run", "small.yaml")),
        ("pydantic", ("run", "small.yaml")),
        ("polyfit.work.driver", ("run", "small.yaml")),
        ("pyarrow", ("results", "RUN")),
        ("polyfit.run.ledger", ("show", "RUN", 0)),
        ("pyarrow.parquet", ("verify", "RUN")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_while_a_command_starts_a_signal_ends_it_at_once(
    start: Start, spec: Path, module: str, arguments: tuple[object, ...], number: signal.Signals
) -> None:
    store = spec.parent / "runs"
    named = {"small.yaml": spec, "RUN": store}
    process = start(module, *(named.get(str(word), word) for word in arguments))
    process.send_signal(number)
    code, what = SIGNALS[number]
    assert ended(process) == (code, [f"polyfit: {what}; {AGAIN}"])
    assert not store.exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(
    start: Start, spec: Path, number: signal.Signals
) -> None:
    """As Ctrl-C is by what a script starts with ``&``."""
    process = start("yaml", "validate", spec, default=signal.SIG_IGN, HALT_S="1")
    process.send_signal(number)
    assert process.communicate(timeout=HANG_S) == (f"{spec}: 30 fits\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("lost", [False, True], ids=["raised", "lost once"])
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("executor", "module"), [("inline", "torch"), ("ray", "ray")])
def test_a_run_that_has_begun_is_noted_and_released(
    start: Start, spec: Path, executor: str, module: str, number: signal.Signals, lost: bool
) -> None:
    """``lost``: the signal comes in a destructor, whose exceptions Python only prints."""
    store = spec.parent / "runs"
    arguments = ("run", spec, "--store", store, "--executor", executor)
    process = start(module, *arguments, **({"LOST": str(int(number))} if lost else {}))
    if not lost:
        process.send_signal(number)
    code, what = SIGNALS[number]
    found, lines = ended(process)
    assert (found, [line for line in lines if line]) == (code, [f"polyfit: {what}; {RESUME}"])
    (attempt,) = store.glob("small/*/attempts/*.json")
    assert json.loads(attempt.read_bytes())["exit_code"] == code
    (lease,) = store.glob("small/*/lease/*.json")
    assert json.loads(lease.read_bytes())["released"] is True
    run = polyfit.execute(Spec.parse(TEXT), store=str(store), executor="inline")
    assert run.verify().problems == []
