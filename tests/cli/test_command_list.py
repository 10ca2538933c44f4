"""``polyfit list``: the runs in a store."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import TEXT, Command
from places import use
from servers import S3Server

from polyfit.run import listing
from polyfit.run.reader import Run


def of_csv(text: str) -> list[dict[str, Any]]:
    return [
        {name: value or None for name, value in row.items()}
        | {"fits": int(row["fits"]), "bytes": int(row["bytes"])}
        | {"core_seconds": float(row["core_seconds"])}
        | {"attempts_unknown": int(row["attempts_unknown"])}
        | {"changed": row["changed"].split() or None}
        for row in csv.DictReader(io.StringIO(text))
    ]


def test_runs_are_listed_by_name_and_date_with_what_their_specs_changed(
    command: Command, small_spec: Path, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(seaweed, monkeypatch)
    monkeypatch.setattr(listing, "MAX_FOLDERS", 6)  # a run is not searched
    for store in ("our runs", seaweed.fresh_uri()):
        monkeypatch.setenv("POLYFIT_STORE", store)
        for text in (
            TEXT,
            TEXT.replace("count: 10", "count: 9"),
            TEXT.replace("small", "other") + "record: none\n",
        ):
            small_spec.write_text(text)
            assert command("run", small_spec).code == 0
        listed = json.loads(command("list", "--json").out)["runs"]
        assert [(run["name"], run["fits"], run["state"]) for run in listed] == [
            ("other", 20, "complete"),
            ("small", 20, "complete"),
            ("small", 18, "complete"),
        ] or [run["fits"] for run in listed] == [20, 18, 20]  # within one second
        assert [run["changed"] for run in listed] == [None, None, ["seed"]]
        again = [Run.open(run["run"], run["endpoint_url"]) for run in listed]
        assert [run.plan.run_id for run in again] == [run["run_id"] for run in listed]
        sealed = [manifest for run in again if (manifest := run.manifest)]
        assert [sum(one.bytes for one in it.receipts) for it in sealed] == [
            run["bytes"] for run in listed
        ]
        of_name = json.loads(command("list", f"{store}/small", "--json").out)["runs"]
        assert of_name == listed[1:]
        if store.startswith("s3:"):
            assert of_csv(command("list", "--csv").out) == listed
        ended = command("list")
        total = sum(run["core_seconds"] for run in listed)
        assert ended.err.startswith(f"3 runs, {float(f'{total:.3g}'):g} core-seconds in ")
        assert [line.split()[:2] for line in ended.out.splitlines()[3:-1]] == [
            [run["name"], run["run_id"]] for run in listed
        ]


def test_runs_that_are_not_complete_or_of_another_version_are_listed_as_such(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "small" / "broken"
    shutil.copytree(small_run.uri, folder)
    (folder / "manifest.json").unlink()
    older = folder.with_name("older")
    shutil.copytree(small_run.uri, older)
    plan = (older / "plan.json").read_text()
    (older / "plan.json").write_text(plan.replace(small_run.plan.hash, "0" * 64))
    (folder.parent / "empty").mkdir()
    lines = [line.split() for line in command("list").out.splitlines()[3:]]
    assert lines[0] == ["small", "older", "-", "made", "by", "another", "version", *"----"]
    assert lines[1][1] == "broken"
    assert (lines[1][3:6], lines[1][7:]) == (["stopped", "20", "-"], ["-"])


def test_attempts_that_left_no_note_are_told_with_what_the_others_took(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    """Those of a driver that has died, which renewed no receipt, and of drivers before it. A
    receipt that is damaged is read from the notes."""
    for run_id, state, unnoted in (
        ("whole", "complete", 0), ("killed", "running", 2), ("never", "running", 1),
        ("damaged", "complete", 0),
    ):  # fmt: skip
        folder = tmp_path / "runs" / "small" / run_id
        shutil.copytree(small_run.uri, folder)
        if state == "running":
            (folder / "manifest.json").unlink()
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"state": state}))
        if run_id == "never":
            (folder / "receipt.json").unlink()
            next(folder.glob("attempts/*.json")).unlink()
        if run_id == "damaged":
            (folder / "receipt.json").write_bytes(b"[")
        for number in range(unnoted):
            name = f"29990101t00000{number}z-00000000"
            (folder / "attempts" / f"{name}.json").write_text(json.dumps({"attempt": name}))
    listed = json.loads(command("list", "--json").out)["runs"]
    runs = {one["run_id"]: (one["core_seconds"], one["attempts_unknown"]) for one in listed}
    taken = runs["whole"][0]
    whole = (taken, 0)
    assert runs == {"whole": whole, "killed": (taken, 2), "never": (None, 1), "damaged": whole}
    told = f"4 runs, {float(f'{3 * taken:.3g}'):g} core-seconds, "
    assert command("list").err.startswith(f"{told}not counted: 3 attempts without a note in ")


def test_a_store_without_runs_is_empty(command: Command, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    ended = command("list", tmp_path / "none")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"0 runs in {tmp_path}/none\n"
    assert command("list", "none", "--csv").out.startswith("run,endpoint_url,name,")
    assert command("list").err == f"0 runs in {tmp_path}/runs\n"


def test_a_place_that_is_no_store_is_refused(
    command: Command, small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_run.uri.rsplit("/", 2)[0]
    monkeypatch.setenv("POLYFIT_STORE", store)
    for text, said in (
        ("nowhere/at/all", "there is no folder "),
        ("small", f"the runs called small: polyfit list {store}/small"),
        (small_run.uri, f"is a run: polyfit status {small_run.uri} shows it"),
    ):
        ended = command("list", text)
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err


def test_too_many_folders_to_search_end_with_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_FOLDERS", 2)
    for name in "abc":
        (tmp_path / name).mkdir()
    ended = command("list", tmp_path)
    assert (ended.code, "in 2 folders and there are more" in ended.err) == (2, True)
