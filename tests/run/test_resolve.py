"""Which run a folder, a name, an id or a spec names."""

import json
import shutil
from pathlib import Path

import pytest

import polyfit
from polyfit.errors import RunNotFound, SpecError, UsageError
from polyfit.run.keys import MANIFEST, STATUS
from polyfit.run.reader import Run
from polyfit.run.resolve import earlier_complete, find_run
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress

TEXT = "name: small\nfit: {steps: 3, points: 9}\nsweep: {seed: {count: 2}}\n"
IDS = {"small": ["fc4a16e81236", "fc4b00000000", "116e1662aaad"], "other": ["fc4a99999999"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the runs of "small" were last written in the order of ``IDS``."""
    spec = Spec.parse(TEXT)
    store = tmp_path_factory.mktemp("store") / "runs"
    run = polyfit.execute(spec, store=store, executor="inline")
    for name, ids in IDS.items():
        for day, run_id in enumerate(ids):
            folder = store / name / run_id
            shutil.copytree(run.uri, folder)
            status = json.loads((folder / STATUS).read_text())
            (folder / STATUS).write_text(
                json.dumps({**status, "updated_at": f"2026-01-0{day + 1}T00:00:00Z"})
            )
    shutil.rmtree(run.uri)
    return store


@pytest.fixture
def store(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same; its runs are found from here without its name."""
    monkeypatch.chdir(made.parent)
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("small", "small/116e1662aaad"),
        ("small@-0", "small/116e1662aaad"),
        ("small@-1", "small/fc4b00000000"),
        ("small@-2", "small/fc4a16e81236"),
        ("other", "other/fc4a99999999"),
        ("116e", "small/116e1662aaad"),
        ("fc4b00000000", "small/fc4b00000000"),
        ("small/fc4a", "small/fc4a16e81236"),
        ("small/1", "small/116e1662aaad"),
        ("runs/small/116e1662aaad", "small/116e1662aaad"),
        ("./runs/small/116e1662aaad/", "small/116e1662aaad"),
    ],
)
def test_a_run_is_found(store: Path, text: str, found: str) -> None:
    assert find_run(text).uri == str(store / found)
    assert Run.open(text).uri == str(store / found)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("none", r"there is no run 'none' in .*/runs; there are other \(1 run\), small \(3 runs\)"),
        ("small@-3", r"small@-3: .*/small has 3 runs: 116e1662aaad, fc4a16e81236, fc4b00000000"),
        (
            "fc4a",
            r"'fc4a' is the beginning of 2 runs in .*: other/fc4a99999999, small/fc4a16e81236",
        ),
        ("fc4", r"there is no run 'fc4' in .*; of an id at least 4 characters are needed"),
        ("small@1", r"'small@1': a run before the latest of small is small@-1"),
        ("small/fc", r"'small/fc' is the beginning of 2 runs in"),
        ("small/0", r"there is no run 'small/0'"),
        ("runs", r"runs holds no run; expected plan\.json"),
        ("small.yaml", r"small\.yaml: .*No such file"),
    ],
)
def test_what_is_missing_or_ambiguous_is_said_with_what_there_is(
    store: Path, text: str, error: str
) -> None:
    with pytest.raises((RunNotFound, UsageError), match=error):
        Run.open(text)


def test_the_environment_or_the_caller_names_another_store(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunNotFound, match="no run is there; --store names another store"):
        find_run("small")
    assert find_run("other", store).uri == str(store / "other/fc4a99999999")
    monkeypatch.setenv("POLYFIT_STORE", str(store))
    assert find_run("other").uri == str(store / "other/fc4a99999999")


def test_a_spec_names_its_run_and_that_it_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(TEXT)
    with pytest.raises(RunNotFound, match=r"my\.yaml: this spec, as it stands, has not been run"):
        find_run("my.yaml")
    run = polyfit.execute("my.yaml", executor="inline")
    assert (find_run("my.yaml").uri, find_run(Path("my.yaml")).uri) == (run.uri, run.uri)
    Path("my.yaml").write_text("name: [")
    with pytest.raises(SpecError, match=r"my\.yaml:1"):
        find_run("my.yaml")


def test_rows_are_reused_of_a_run_by_its_name(tmp_path: Path) -> None:
    messages: list[str] = []
    first = polyfit.execute(Spec.parse(TEXT), store=tmp_path, executor="inline")
    polyfit.execute(
        Spec.parse(TEXT.replace("2", "3")),
        store=tmp_path,
        executor="inline",
        reuse=f"small/{first.plan.run_id[:4]}",
        on_message=messages.append,
    )
    assert f"reused 2 fits of {first.uri}, fitted 1" in messages


def test_a_night_that_was_made_again_takes_the_place_of_the_one_that_was_wrong(
    made: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    for run_id, written, complete in (
        ("nightly-2026-03-01", "2026-03-09", True),  # made up for, after all others
        ("nightly-2026-03-02", "2026-03-02", True),  # wrong, and
        ("nightly-2026-03-02-b", "2026-03-03T12", True),  # made again
        ("nightly-2026-03-02-c", "2026-03-04", False),
        ("nightly-2026-03-03-b", "2026-03-03T10", True),
        ("nightly-2026-03-03", "2026-03-03T11", True),
        ("by-hand", "2026-03-02", True),
        ("fast-2026-03-02", "2026-03-03T13", True),
    ):
        shutil.copytree(made / "small/fc4a16e81236", folder / run_id)
        status = json.loads((folder / run_id / STATUS).read_text())
        (folder / run_id / STATUS).write_text(json.dumps({**status, "updated_at": written}))
        if not complete:
            (folder / run_id / MANIFEST).unlink()

    def before(run_id: str) -> list[str]:
        found = earlier_complete(StoreAddress.of(folder / run_id))
        return [one.uri.rpartition("nightly-2026-03-")[2] for one in found]

    assert before("nightly-2026-03-04") == ["03", "03-b", "02-b", "02", "01"]
    assert before("nightly-2026-03-03") == before("nightly-2026-03-03-b") == ["02-b", "02", "01"]
    assert before("nightly-2026-03-02-b") == ["01"]
    assert before("nightly-2026-03-01") == before("fast-2026-03-02") == []
