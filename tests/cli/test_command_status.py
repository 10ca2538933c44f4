"""``polyfit status``: how far a run is; and ``verify`` of one that is running."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from polyfit.run.holder import Holder
from polyfit.run.keys import lease_key
from polyfit.run.ledger import Ledger
from polyfit.run.reader import Run
from polyfit.store.folder import FolderStore


@pytest.fixture
def unfinished(small_run: Run, tmp_path: Path) -> Ledger:
    """One of two shards is stored; its driver ended."""
    shutil.copytree(small_run.uri, tmp_path / "copy")
    (tmp_path / "copy" / "manifest.json").unlink()
    next((tmp_path / "copy" / "shards").iterdir()).unlink()
    ledger = Ledger(FolderStore(str(tmp_path / "copy")), small_run.plan)
    ledger.note_status("one", 1, 0, "ended", "fitting", "2026-01-01T00:00:00Z", 10, 2.0)
    return ledger


def hold(ledger: Ledger) -> None:
    """This process becomes its driver."""
    holder = replace(Holder.here("one"), epoch=2)
    ledger.store.put(lease_key(2), holder.to_json())
    ledger.note_status("one", 1, 0, "running", "fitting", "2026-01-01T00:00:00Z", 10, 2.0)


def test_a_complete_run_ends_with_0(command: Command, small_run: Run) -> None:
    ended = command("status", small_run.uri)
    assert (ended.code, ended.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines["state"] == "complete"
    assert lines["shards"] == "2 of 2 shards stored"
    assert lines["fits"] == "20 of 20 fits"


def test_a_run_that_is_driven_ends_with_4_and_is_not_verified(
    command: Command, unfinished: Ledger
) -> None:
    hold(unfinished)
    ended = command("status", "copy")
    assert ended.code == 4
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert lines["state"] == "running: fitting"
    assert lines["shards"] == "1 of 2 shards stored"
    assert lines["rate"] == "2 fits a second, about 5 s left"
    ended = command("verify", "copy")
    assert (ended.code, ended.out) == (4, "")
    (line,) = ended.err.splitlines()
    assert "copy is running now, 1 of 2 shards are stored: verify it when it is complete" in line


@pytest.mark.parametrize(
    ("failed", "noted", "state", "code"),
    [
        (1, "ended", "failed", 3),
        (1, "running", "failed", 3),
        (0, "ended", "stopped", 7),
        (0, "running", "stale", 7),
    ],
)
def test_without_a_driver_it_ends_with_3_or_7(
    command: Command, unfinished: Ledger, failed: int, noted: str, state: str, code: int
) -> None:
    unfinished.note_status("one", 1, failed, noted, "fitting", "then")
    ended = command("status", "copy", "--json")
    facts = json.loads(ended.out)
    assert (ended.code, facts["exit_code"], facts["state"]) == (code, code, state)
    assert facts["fits_done"] is None
    assert "no driver is at work on it" in facts["driver"]


def test_what_a_driver_that_died_wrote_last_has_its_time(
    command: Command, unfinished: Ledger
) -> None:
    for noted, state in (("running", "stale"), ("ended", "stopped")):
        unfinished.note_status("one", 1, 0, noted, "fitting", "then")
        lines = dict(line.split(maxsplit=1) for line in command("status", "copy").out.splitlines())
        written = json.loads(command("status", "copy", "--json").out)["updated_at"]
        more = f" when its driver last wrote, {written}; there may be more"
        assert lines["state"] == state
        assert lines["shards"] == "1 of 2 shards stored" + (more if state == "stale" else "")


@pytest.mark.parametrize(
    "written", [b"[1", b"[" * 100_000, b'{"done":NaN}', b'{"fits_per_s":1e999}', b'{"stage":[1]}']
)
def test_a_run_whose_driver_has_not_begun_says_so(
    command: Command, unfinished: Ledger, written: bytes
) -> None:
    folder = Path(unfinished.store.uri)
    for name in ("lease", "attempts", "shards"):
        shutil.rmtree(folder / name)
    (folder / "status.json").write_bytes(written)
    ended = command("status", "copy")
    assert (ended.code, "not started" in ended.out) == (7, True)
    assert "? of 2 shards stored" in ended.out


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_watched_run_shows_each_change_until_its_end(
    command: Command, unfinished: Ledger, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    hold(unfinished)
    turns: list[float] = []

    def pause(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == 2:
            unfinished.note_status("one", 2, 0, "running", "sealing", "then", 20, 4.0)
        if len(turns) == 3:
            ended: Any = replace(Holder.here("one"), epoch=2, released=True)
            unfinished.store.put(lease_key(2), ended.to_json())

    monkeypatch.setattr(time, "sleep", pause)
    ended = command("status", "copy", "--watch", *form)
    assert (ended.code, len(turns)) == (7, 3)
    lines = ended.out.splitlines()
    if form:
        assert [json.loads(line)["stage"] for line in lines] == ["fitting", "sealing", "sealing"]
        return
    assert lines[0] == "fitting, 1 of 2 shards stored, 2 fits a second, about 5 s left"
    assert lines[1] == "sealing, 2 of 2 shards stored, 4 fits a second, about 0 s left"
    assert lines[3].split() == ["state", "stale"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_watching_and_says_that_the_run_goes_on(
    command: Command,
    unfinished: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    hold(unfinished)
    before = signal.getsignal(number)

    ended: list[object] = []

    def end(code: int) -> None:
        ended.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(time, "sleep", lambda seconds: signal.raise_signal(number))
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(os, "write", lambda _, text: ended.append(text))
    command("status", "copy", "--watch")
    assert ended[1] == code
    assert str(ended[0]).endswith("; the run itself goes on\\n'")
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("arguments", [("status", "RUN"), ("list",)])
def test_asking_imports_no_reader_of_rows(small_run: Run, arguments: tuple[str, ...]) -> None:
    words = ["polyfit", *(small_run.uri if word == "RUN" else word for word in arguments)]
    code = (
        f"import sys; sys.argv = {words!r}\nfrom polyfit.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'torch', 'ray', 'pyarrow', 'polars', 'pandas'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
