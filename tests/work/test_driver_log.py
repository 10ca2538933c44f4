"""The log of a driver, as it is kept in the run."""

from pathlib import Path
from typing import Any

import pytest
from commands import Command

import polyfit
from polyfit.errors import Exit, FailedShards, StoreError
from polyfit.run.keys import log_key
from polyfit.run.last_attempt import last_log
from polyfit.run.ledger import Ledger
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.folder import FolderStore
from polyfit.work import driver_log, storing
from polyfit.work.driver_log import DriverLog
from polyfit.work.progress import Message

TEXT = "name: small\nshard: 10\nfit: {steps: 12, points: 40}\nsweep: {seed: {count: 20}}\n"


def ledger(folder: Path) -> Ledger:
    plan = Plan.of(Spec.parse(TEXT))
    return Ledger(FolderStore(f"{folder}/small/{plan.run_id}"), plan)


def test_a_message_says_which_run_and_attempt_and_which_shard_it_is_about() -> None:
    passed: list[str] = []
    log = DriverLog("small/id", "attempt", passed.append)
    log.message(Message("shard 3: lost", level="warning", shard=3))
    log.message("warning: of two words")
    first, second = map(Message.of, passed)
    assert first.facts == {"run": "small/id", "attempt": "attempt", "shard": 3}
    assert (first, first.level, second.level) == ("shard 3: lost", "warning", "warning")


def test_an_attempt_that_fails_leaves_its_log_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    compute = storing.run_shard

    def broken(plan: Any, number: int, *rest: Any) -> Any:
        if number == 1:
            raise ValueError("planted")
        return compute(plan, number, *rest)

    monkeypatch.setattr("polyfit.work.worker.run_shard", broken)
    with pytest.raises(FailedShards):
        polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    log = last_log(ledger(tmp_path))
    assert log.count("warning shard 1: ValueError: planted; trying again\n") == 2
    assert log.count("warning shard 1: ValueError: planted; failed\n") == 1
    assert "error   1 of 2 shards failed, the others are stored" in log
    assert log.endswith("ended with exit code 3: shards failed, or rows are damaged\n")
    shown = command("status", "small", "--store", tmp_path, "--log")
    assert (shown.code, shown.out.endswith(log)) == (3, True)


def test_of_a_defect_the_log_has_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Ledger, "seal", broken)
    with pytest.raises(ZeroDivisionError):
        polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    log = last_log(ledger(tmp_path))
    assert "Traceback (most recent call last)" in log
    assert log.endswith("ZeroDivisionError: planted\n" + log.splitlines()[-1] + "\n")
    assert "ended with exit code 1" in log.splitlines()[-1]


def test_a_log_is_bounded_and_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log, there = DriverLog("small/id", "attempt", lambda line: None), ledger(tmp_path)
    for number in range(20_000):
        log.message(f"line {number}")
        log.message("€" * 10)
    log.message("x" * 1_000_000)
    log.message("x" + "€" * 1_000_000)
    log.end(Exit.COMPLETE, None)
    log.store(there)
    data = there.store.get(log_key("attempt"))
    most = driver_log.FIRST_BYTES + driver_log.LAST_BYTES + 100
    assert driver_log.FIRST_BYTES < len(data) <= most
    text = data.decode()
    assert "line 0\n" in text
    assert "line 19999\n" in text
    assert " entries left out ...\n" in text


def test_a_log_that_is_stored_already_is_not_stored_again(tmp_path: Path) -> None:
    log, there = DriverLog("small/id", "attempt", lambda line: None), ledger(tmp_path)
    log.message("one")
    log.store(there)
    path = tmp_path / "small" / there.plan.run_id / "attempts" / "attempt.log"
    path.unlink()
    log.store(there)
    assert not path.exists()


def test_a_store_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: Any) -> None:
        raise StoreError("refused")

    monkeypatch.setattr(Ledger, "note_log", refused)
    assert polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline").complete


def test_an_attempt_that_is_interrupted_at_its_first_status_notes_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_log = Ledger.note_log

    def interrupted(*given: Any) -> None:
        monkeypatch.setattr(Ledger, "note_log", note_log)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "note_log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    (attempt,) = ledger(tmp_path).attempts()
    assert attempt["exit_code"] == 130
