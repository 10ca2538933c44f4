"""What a run has taken, over all of its attempts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from hypothesis import given
from hypothesis import strategies as st

import polyfit
from polyfit.errors import FailedShards, StoreError
from polyfit.run.last_attempt import last_log
from polyfit.run.ledger import Ledger
from polyfit.run.run_receipt import MAX_HOSTS, RunReceipt, stored_receipt
from polyfit.run.state import read_state
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec
from polyfit.store.folder import FolderStore
from polyfit.work import storing, worker
from polyfit.work.usage import Held, Stopwatch, Usage

TEXT = "name: small\nshard: 10\nfit: {steps: 12, points: 40}\nsweep: {seed: {count: 30}}\n"
seconds = st.floats(0, 1e6)


def attempt(cores: float = 2.0, hosts: int = 1, **more: Any) -> dict[str, Any]:
    """As an attempt notes it: two stages of 4 and 6 s, 100 fits."""
    usage = Usage(Held(cores, 0.0, seconds=8.0, starting_s=1.0))
    usage.add("host0 17", {"fitting": 5.0, "compiling": 0.5, "storing": 9.0}, 1_000)
    usage.hosts |= {f"host{number}" for number in range(hosts)}
    rest = {"seconds": 10.0, "fits": 100, "fits_reused": 0, "retries": {"store": 1}}
    stages = [[0.0, "starting"], [4.0, "fitting"]]
    return {"stages": stages, "usage": {**usage.facts(), **rest, **more}}


def test_the_attempts_add_up() -> None:
    receipt = RunReceipt.of([attempt(), attempt(fits=50), {"attempt": "lost"}], complete=True)
    assert (receipt.attempts, receipt.attempts_unknown) == (3, 1)
    assert receipt.seconds == 20
    assert receipt.stages == {"starting": 8, "fitting": 12}
    assert receipt.core_seconds == {"starting": 4, "compiling": 2, "fitting": 20, "other": 6}
    assert receipt.overhead == pytest.approx(1 - 20 / 32)
    assert (receipt.fits, receipt.fits_per_s) == (150, 7.5)
    assert receipt.fits_per_core_s == pytest.approx(150 / 32)
    assert receipt.retries == {"store": 2}
    assert receipt.bytes == 2_000


@given(seconds, seconds, seconds, seconds, st.floats(0.1, 64))
def test_what_workers_held_is_divided_without_a_rest(
    held_s: float, starting_s: float, fitting_s: float, compiling_s: float, cores: float
) -> None:
    used = starting_s + fitting_s + compiling_s
    usage = Usage(Held(cores, 0.5, max(held_s, used), starting_s), fitting_s, compiling_s)
    facts = usage.facts()
    whole = max(held_s, used)
    assert sum(facts["core_seconds"].values()) == pytest.approx(whole * cores, abs=0.003)
    assert sum(facts["gpu_seconds"].values()) == pytest.approx(whole * 0.5, abs=0.003)


def test_hosts_are_bounded_and_no_attempt_is_no_division_by_zero() -> None:
    assert len(RunReceipt.of([attempt(hosts=500)], complete=False).hosts) == MAX_HOSTS
    empty = RunReceipt.of([], complete=False)
    assert (empty.fits_per_s, empty.fits_per_core_s, empty.overhead) == (None, None, None)
    assert json.loads(empty.to_json()) == asdict(empty)


def test_a_note_of_another_version_is_an_attempt_of_which_nothing_is_known() -> None:
    others: list[Any] = [[], {}, {"seconds": 1.0}, {"seconds": "x"}, 5, None]
    notes = [{"stages": [[0.0, "fitting"]], "usage": usage} for usage in others]
    receipt = RunReceipt.of([attempt(), {"usage": {}}, *notes], complete=True)
    assert (receipt.attempts, receipt.attempts_unknown, receipt.fits) == (8, 7, 100)
    assert RunReceipt.of([{**attempt(), "stages": []}], complete=False).stages == {}


def test_a_stopwatch_adds_what_has_one_name() -> None:
    times = iter([0.0, 2.0, 5.0, 6.0])
    watch = Stopwatch(lambda: next(times))
    with watch.running("fitting"):
        pass
    with pytest.raises(ZeroDivisionError), watch.running("fitting"):
        raise ZeroDivisionError
    assert watch.seconds == {"fitting": 3.0}


def test_a_run_of_two_attempts_has_a_receipt_beside_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    run_shard = storing.run_shard
    lines: list[str] = []

    def broken(plan: Any, number: int, *rest: Any) -> Any:
        if number == 1:
            raise ValueError("planted")
        return run_shard(plan, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "run_shard", broken)
        with pytest.raises(FailedShards):
            polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    first = polyfit.Run.open("small", store=tmp_path)
    before = stored_receipt(first.address.open())
    assert before is not None
    assert (before.complete, before.attempts, before.fits) == (False, 1, 20)
    assert before.retries == {"error": 2}
    run = polyfit.execute(
        Spec.parse(TEXT), store=tmp_path, executor="inline", retry_failed=True,
        on_message=lines.append,
    )  # fmt: skip
    receipt = run.receipt()
    assert receipt == stored_receipt(run.address.open())
    assert (receipt.complete, receipt.attempts, receipt.fits) == (True, 2, 30)
    assert run.manifest is not None
    assert receipt.bytes == sum(one.bytes for one in run.manifest.receipts)
    assert receipt.core_seconds["fitting"] > 0
    assert f"{receipt.bytes:,} bytes; 2 attempts" in lines[-1]
    assert run.verify().problems == []
    shown = command("status", run.uri)
    assert "\ncores      " in shown.out
    assert "\nretries    2 error\n" in shown.out
    assert json.loads(command("status", run.uri, "--json").out)["receipt"] == asdict(receipt)
    assert command("report", run.uri, "--out", "report.html").code == 0
    assert "<dt>retries</dt><dd>2 error</dd>" in Path("report.html").read_text()


ALTERED: dict[str, Any] = {
    "hosts": 5, "seconds": float("nan"), "bytes": float("inf"), "overhead": float("-inf"),
    "fits": 10**400, "attempts": True, "stages": {"fitting": "1"}, "retries": {"store": -1},
    "core_seconds": [], "complete": None,
}  # fmt: skip


def test_a_receipt_that_cannot_be_read_disturbs_nothing(tmp_path: Path, command: Command) -> None:
    run = polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    path = Path(run.uri) / "receipt.json"
    whole = json.loads(path.read_text())
    texts = ["", "{", "[]", "{}", '{"fits": 1}', "[" * 200_000, '{"a":' * 200_000, "\ud800"]
    texts += [json.dumps({**whole, name: value}) for name, value in ALTERED.items()]
    for text in texts:
        path.write_text(text, errors="surrogatepass")
        shown = command("status", run.uri)
        assert (shown.code, shown.err.count("\n")) == (0, 1), text[:100]
        assert shown.err.startswith("warning: receipt.json cannot be read: "), text[:100]
    facts = json.loads(command("status", run.uri, "--json").out)
    assert (facts["receipt"], facts["exit_code"]) == (None, 0)
    assert command("verify", run.uri).code == 0
    again = polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    assert len(again.to_arrow()) == 30
    path.unlink()
    path.mkdir()
    shown = command("status", run.uri)
    assert (shown.code, "receipt.json is a folder" in shown.err) == (0, True)
    path.rmdir()
    path.write_text(json.dumps({**whole, "of a later version": [1]}))
    shown = command("status", run.uri)
    assert ("\ncores " in shown.out, shown.err) == (True, "")


DAMAGED: list[dict[str, Any]] = [
    {"usage": {}},
    {"usage": 5},
    {"stages": [[0, "a"], ["x", "b"]]},
    {"stages": {"a": 1}},
    {"usage": attempt()["usage"] | {"seconds": float("nan")}},
    {"usage": attempt()["usage"] | {"core_seconds": {"fitting": "long"}}},
    {"usage": attempt()["usage"] | {"hosts": [None]}},
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_note_counts_as_unknown(damage: dict[str, Any]) -> None:
    receipt = RunReceipt.of([attempt() | damage, attempt()], complete=True)
    assert receipt == RunReceipt.of([{}, attempt()], complete=True)
    assert (receipt.attempts, receipt.attempts_unknown, receipt.fits) == (2, 1, 100)
    assert RunReceipt.of([attempt() | {"of a later version": 1}], complete=True).fits == 100


def test_a_run_with_damaged_notes_is_sealed_with_receipt_and_log(
    tmp_path: Path, command: Command
) -> None:
    plan = Plan.of(Spec.parse(TEXT))
    ledger = Ledger(FolderStore(f"{tmp_path}/small/{plan.run_id}"), plan)
    names = [f"20260101t00000{number}z-00000000" for number in range(len(DAMAGED) + 2)]
    for name, damage in zip(names, DAMAGED, strict=False):
        path = Path(ledger.store.uri, "attempts", f"{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(attempt() | damage))
    for name, text in zip(names[-2:], ("{", "[" * 200_000), strict=True):
        Path(ledger.store.uri, "attempts", f"{name}.json").write_text(text)
    spec = tmp_path / "small.yaml"
    spec.write_text(TEXT)
    ended = command("run", spec, "--store", tmp_path, "--executor", "inline")
    assert ended.code == 0, ended.err
    receipt = stored_receipt(ledger.store)
    assert receipt is not None
    assert (receipt.complete, receipt.fits) == (True, 30)
    assert (receipt.attempts, receipt.attempts_unknown) == (len(names) + 1, len(names))
    assert "ended with exit code 0" in last_log(ledger)
    assert read_state(ledger.store, plan).stage == "sealed"


def test_no_error_of_the_receipt_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(receipt: RunReceipt) -> str:
        raise KeyError("planted")

    lines: list[str] = []
    monkeypatch.setattr(RunReceipt, "__str__", broken)
    assert polyfit.execute(
        Spec.parse(TEXT), store=tmp_path, executor="inline", on_message=lines.append
    ).complete
    assert "warning: the receipt is not stored: KeyError('planted')" in lines


def test_a_store_that_refuses_the_receipt_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: Any) -> None:
        raise StoreError("refused")

    lines: list[str] = []
    monkeypatch.setattr(Ledger, "note_receipt", refused)
    run = polyfit.execute(
        Spec.parse(TEXT), store=tmp_path, executor="inline", on_message=lines.append
    )
    assert run.complete
    assert "warning: the receipt is not stored: refused" in lines
