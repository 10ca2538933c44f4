"""Nightly runs: ``--date``, ``--since``, and the last complete run as a measure."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from leases import elsewhere
from servers import S3Server

from polyfit.errors import StoreError
from polyfit.run.lease import Lease
from polyfit.run.reader import Run
from polyfit.spec import plan
from polyfit.spec.plan import ENGINE
from polyfit.store import s3
from polyfit.store.address import StoreAddress
from polyfit.store.s3_client import make_client
from polyfit.work import driver, fitting, storing

NIGHTLY = """\
name: nightly
run_id: night-{date}
shard: 5
fit: {steps: 12, points: 40}
sweep: {degree: [1, 3], seed: {count: 10}}
"""
GROWN = NIGHTLY.replace("count: 10", "count: 15")


def night(day: int) -> str:
    return f"2026-03-{day:02d}"


@pytest.fixture
def nightly(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.yaml"
    path.write_text(NIGHTLY)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, s3_keys: object) -> Counter[str]:
    """How many requests of each kind were sent to S3."""
    counted: Counter[str] = Counter()
    clients: dict[str | None, Any] = {}

    def note(model: Any, **_: Any) -> None:
        counted[model.name] += 1

    def counting(uri: str, endpoint_url: str | None, region: str | None) -> Any:
        if endpoint_url not in clients:
            clients[endpoint_url] = make_client(uri, endpoint_url, region)
            clients[endpoint_url].meta.events.register("before-call.s3.*", note)
        return clients[endpoint_url]

    monkeypatch.setattr(s3, "make_client", counting)
    return counted


def test_a_fortnight_of_nights(
    command: Command,
    nightly: Path,
    seaweed: S3Server,
    asked: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On time, twice, missed, overlapping, failed half-way, broken off, with a spec that grew."""
    store = seaweed.fresh_uri()
    compute = fitting.compute
    fitted: list[int] = []
    broken: dict[int, type[BaseException]] = {}  # what happens to a shard, by its number

    def counting(plan: Any, shard: Any, *rest: Any) -> Any:
        if shard.number in broken:
            raise broken[shard.number]("planted")
        fitted.append(shard.number)
        return compute(plan, shard, *rest)

    def run(day: int, *options: object, since: int | None = None) -> Any:
        fitted.clear()
        asked.clear()
        first = ("--since", night(since)) if since else ()
        return command(
            "run", nightly, "--store", store, "--date", night(day), *first, *options,
            "--executor", "inline",
        )  # fmt: skip

    def address(day: int) -> StoreAddress:
        return StoreAddress.of(store).under(f"nightly/night-{night(day)}")

    monkeypatch.setattr(storing, "compute", counting)
    # 1, on time.
    assert run(1).code == 0
    assert sorted(fitted) == [0, 1, 2, 3]
    # 2, on time and twice: the second time nothing is fitted.
    assert run(2).code == 0
    again = run(2, since=2)
    assert (again.code, fitted, asked["ListObjectsV2"]) == (0, [], 1)
    assert asked.keys() == {"ListObjectsV2", "GetObject"}
    # 3, missed; 4 makes up for it, the older one first.
    made_up = run(4, since=1)
    assert (made_up.code, len(fitted)) == (0, 8)
    assert made_up.out.index(night(3)) < made_up.out.index(night(4))
    assert "4 nightly runs: 2 complete already, 2 run\n" in made_up.err
    # 5, while another driver is at work on it.
    other = Lease(address(5).open(), elsewhere("other"))
    other.acquire()
    held = run(5, "--wait", 0, since=4)
    assert (held.code, fitted) == (4, [])
    assert f"nightly {night(5)}: {address(5).uri} is held by attempt other" in held.err
    *_, counted, reason = held.err.splitlines()
    assert counted.endswith(f"1 complete already, 1 failed: nightly {night(5)}")
    assert reason.startswith(
        f"nightly {night(5)} failed with exit code 4: {address(5).uri} is held"
    )
    other.release()
    # 6 fails half-way; 5 is made up for all the same.
    broken[1] = ValueError
    failed = run(5, since=5)
    assert failed.code == 3
    assert "1 of 4 shards failed, the others are stored" in failed.err
    broken.clear()
    assert run(6, since=5).code == 3, "told every night until somebody looks at it"
    assert sorted(fitted) == [0, 1, 2, 3], "of the sixth; in the fifth what failed is left alone"
    mended = run(6, "--retry-failed", since=5)
    assert (mended.code, fitted) == (0, [1])
    # 7 breaks off half-way; the next night goes on with it.
    broken[2] = KeyboardInterrupt
    assert run(7).code == 130
    broken.clear()
    before = list(fitted)
    assert run(8, since=7).code == 0
    assert sorted(before + fitted) == sorted([0, 1, 2, 3] * 2)
    # The spec grows: what is complete stays as it is, and new nights are the grown ones.
    nightly.write_text(GROWN)
    grown = run(10, since=1)
    assert (grown.code, len(fitted)) == (0, 2 * 6)
    assert grown.err.count("is complete already, by another state of its spec") == 8
    for day in range(11, 15):
        assert run(day).code == 0
    # All of it once more.
    last = run(14, since=1)
    assert (last.code, fitted) == (0, [])
    assert asked == {"ListObjectsV2": 14, "GetObject": 14}
    assert last.err.endswith("14 nightly runs: 14 complete already\n")
    # Each night's rows are there, once.
    for day in range(1, 15):
        found = Run.at(address(day))
        assert found.verify().problems == []
        assert len(found.to_arrow(columns=["fit"])) == len(found) == (20 if day <= 8 else 30)


def test_a_night_of_another_state_of_the_spec_or_another_version(
    command: Command, nightly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete one is complete; one that is not says what differs."""

    def run(day: int) -> Any:
        return command("run", nightly, "--date", night(day), "--json")

    assert run(1).code == 0
    with monkeypatch.context() as broken:
        broken.setattr(storing, "compute", lambda *_: 1 / 0)
        assert run(2).code == 3
    changed = NIGHTLY.replace("steps: 12", "steps: 13")
    for text, engine in ((changed, ENGINE), (NIGHTLY, ENGINE + 1)):
        nightly.write_text(text)
        monkeypatch.setattr(plan, "ENGINE", engine)
        complete, begun = run(1), run(2)
        assert (complete.code, json.loads(complete.out)["complete_already"]) == (0, True)
        assert "is complete already, by another state of its spec or another" in complete.err
        assert begun.code == 2
        assert "belongs to plan" in begun.err
        assert ("this spec makes plan" in begun.err) == (engine == ENGINE)
    assert f"which another version made (ENGINE {ENGINE}, row schema" in begun.err
    assert f"; here: ENGINE {ENGINE + 1}, row schema" in begun.err
    assert "finish it with that version, or choose another --run-id" in begun.err


def test_a_night_of_the_past_goes_on_with_the_spec_that_it_was_begun_with(
    command: Command, nightly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each night after it is as the spec stands, and the exit code is 0."""
    compute = fitting.compute
    with monkeypatch.context() as broken:  # half-way, under settings of its own
        broken.setattr(
            storing, "compute", lambda *given: compute(*given) if given[1].number else 1 / 0
        )
        begun = command("run", nightly, "--date", night(2), "--set", "fit.steps=9")
        assert begun.code == 3
    nightly.write_text(GROWN)
    folder = Path(f"runs/nightly/night-{night(2)}")
    refused = command("run", nightly, "--date", night(2))
    assert refused.code == 2
    assert f"`polyfit status {folder.absolute()} --spec > begun.yaml` writes" in refused.err
    last = command("run", nightly, "--since", night(2), "--date", night(2))
    assert (last.code, last.err.count("this spec makes plan")) == (2, 1), "--date is as it stands"

    made_up = command("run", nightly, "--since", night(1), "--date", night(3), "--retry-failed")
    assert made_up.code == 0, made_up.err
    assert made_up.err.count("goes on with the spec that it was begun with") == 1
    assert made_up.err.endswith("3 nightly runs: 3 run\n")
    runs = [Run.open(f"nightly/night-{night(day)}") for day in (1, 2, 3)]
    assert [len(run) for run in runs] == [30, 20, 30]
    assert runs[1].row(0)["steps"] == 9
    assert all(run.verify().problems == [] for run in runs)
    again = command("run", nightly, "--since", night(1), "--date", night(3))
    assert again.err.endswith("3 nightly runs: 3 complete already\n")


@pytest.mark.parametrize("damage", ["no spec", "no YAML", "another plan"])
def test_a_night_that_cannot_go_on_with_its_own_spec_says_why(
    command: Command, nightly: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(storing, "compute", lambda *_: 1 / 0)
        assert command("run", nightly, "--date", night(2)).code == 3
    nightly.write_text(GROWN)
    stored = Path(f"runs/nightly/night-{night(2)}/spec.yaml")
    match damage:
        case "no spec":
            stored.unlink()
        case "no YAML":
            stored.write_text("name: [")
        case "another plan":
            stored.write_text(NIGHTLY.replace("12", "13"))
    ended = command("run", nightly, "--since", night(2), "--date", night(3))
    assert ended.code == 2
    assert "belongs to plan" in ended.err
    assert f"2 nightly runs: 1 run, 1 failed: nightly {night(2)}\n" in ended.err


def test_the_spec_of_a_run_is_written_as_it_was_begun_with(
    command: Command, nightly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("run", nightly, "--date", night(2)).code == 0
    nightly.write_text(GROWN)
    # Also one that another version of polyfit made, and which status cannot read.
    monkeypatch.setattr(plan, "ENGINE", ENGINE + 1)
    stored = Path(f"runs/nightly/night-{night(2)}")
    for run in (nightly, stored):
        ended = command("status", run, "--date", night(2), "--spec")
        assert (ended.code, ended.out, ended.err) == (0, NIGHTLY, "")
    both = command("status", stored, "--spec", "--json")
    assert (both.code, "--spec excludes" in both.err) == (2, True)
    (stored / "spec.yaml").unlink()
    none = command("status", stored, "--spec")
    assert (none.code, none.out) == (2, "")
    assert f"{stored} holds no spec.yaml, the spec of a run" in none.err


def test_a_store_that_fails_ends_the_nights_and_they_are_counted(
    command: Command, nightly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*given: Any, **options: Any) -> Run:
        raise StoreError("cannot be reached")

    monkeypatch.setattr(driver, "execute", unreachable)
    ended = command("run", nightly, "--since", night(1), "--date", night(5), "--json")
    assert ended.code == 5
    assert [one["exit_code"] for one in json.loads(ended.out)["runs"]] == [5]
    assert ended.err.endswith(
        f"5 nightly runs: 1 failed, 4 not tried: nightly {night(1)}\n"
        f"nightly {night(1)} failed with exit code 5: cannot be reached\n"
    )


def test_nights_have_their_dates_in_json(command: Command, nightly: Path) -> None:
    command("run", nightly, "--date", night(1))
    ended = command("run", nightly, "--since", "1d", "--date", night(2), "--json")
    complete, made_up = json.loads(ended.out)["runs"]
    assert (complete["date"], complete["complete_already"]) == (night(1), True)
    assert made_up["date"] == night(2)
    same = ["name", "date", "run", "endpoint_url", "plan_hash", "fits", "shards", "statuses"]
    assert [list(one)[:8] for one in (complete, made_up)] == [same, same]
    assert all(complete[key] == made_up[key] for key in same if key not in ("date", "run"))


def test_lines_of_json_are_of_their_own_night(command: Command, nightly: Path) -> None:
    command("run", nightly, "--date", night(2))
    options = ("--since", night(1), "--date", night(3), "--log-format", "json")
    ended = command("run", nightly, *options)
    lines = [json.loads(line) for line in ended.err.splitlines()]
    about = {(one.get("run"), one.get("attempt")) for one in lines}
    assert len(about) == 3, "two nights that are run, and what is of neither"
    of_none = [one["message"] for one in lines if "run" not in one and "attempt" not in one]
    assert [text.endswith("is complete already") for text in of_none[:-1]] == [True]
    assert of_none[-1].startswith("3 nightly runs: 1 complete already, 2 run")


def test_an_empty_since_is_no_date(command: Command, nightly: Path) -> None:
    ended = command("run", nightly, "--since", "")
    assert (ended.code, "--since ''; allowed: a day" in ended.err) == (2, True)


def test_a_spec_without_a_date_has_no_nights(command: Command, small_spec: Path) -> None:
    ended = command("run", small_spec, "--since", night(1))
    assert ended.code == 2
    assert "all its nights would be one run; --since needs {date}" in ended.err


def test_the_runs_of_a_date_are_listed(command: Command, nightly: Path) -> None:
    for day in (1, 2):
        command("run", nightly, "--date", night(day))
    (listed,) = json.loads(command("list", "--date", night(2), "--json").out)["runs"]
    assert (listed["run_id"], listed["changed"]) == (f"night-{night(2)}", [])
    assert listed["core_seconds"] > 0
    assert json.loads(command("list", "--date", night(3), "--json").out)["runs"] == []


def test_commands_find_the_run_of_a_date(command: Command, nightly: Path) -> None:
    for day in (1, 2):
        command("run", nightly, "--date", night(day), "--store", "runs/{date}")
    for name in (nightly, "nightly/night-{date}", "runs/{date}/nightly/night-{date}"):
        found = command("status", name, "--date", night(1), "--store", "runs/{date}", "--json")
        assert json.loads(found.out)["run"].endswith(f"/runs/{night(1)}/nightly/night-{night(1)}")
    listed = command("list", "runs/{date}", "--date", night(2), "--json")
    assert [one["run_id"] for one in json.loads(listed.out)["runs"]] == [f"night-{night(2)}"]
    missing = command("verify", nightly, "--date", night(3), "--store", "runs/{date}")
    assert (missing.code, night(3) in missing.err) == (2, True)
    planned = command("plan", nightly, "--date", night(3), "--json")
    assert json.loads(planned.out)["run_id"] == f"night-{night(3)}"


def test_a_store_with_a_date_needs_a_command_that_knows_it() -> None:
    with pytest.raises(Exception, match=r"holds \{date\}, which nothing replaces here"):
        StoreAddress.of("s3://bucket/{date}")


def test_a_night_is_compared_with_the_last_complete_night_before_it(
    command: Command, nightly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(day: int, code: int = 0) -> None:
        ended = command("run", nightly, "--run-id", "nightly-{date}", "--date", night(day))
        assert ended.code == code

    def compare(day: int, *options: str) -> Any:
        return command("compare", "@last", nightly, "--run-id", "nightly-{date}", "--date",
                       night(day), "--max-regression", "5%", *options)  # fmt: skip

    def before(ended: Any) -> str | None:
        found = json.loads(ended.out)["before"]
        return found and str(found["run"]).rpartition("nightly-")[2]

    assert command("run", nightly, "--run-id", "by-hand").code == 0  # no night
    run(2)
    with monkeypatch.context() as broken:  # not complete, and counts for nothing
        broken.setattr(storing, "compute", lambda *_: 1 / 0)
        run(3, code=3)
    empty = compare(3, "--quiet")
    assert (empty.code, empty.out) == (7, "")
    assert "is not complete: no fit of nightly/nightly-2026-03-03 is stored yet" in empty.err
    nightly.write_text(NIGHTLY.replace("12", "2"))
    run(4)
    worse = compare(4, "--json", "--quiet")
    assert (worse.code, before(worse), json.loads(worse.out)["worse"]) == (8, night(2), 2)
    # The first is made last: it is compared with none, and the fourth still with the second.
    run(1)
    first = compare(1, "--json")
    assert (first.code, before(first)) == (0, None)
    assert "has no earlier complete run: nothing to compare" in first.err
    assert before(compare(4, "--json")) == night(2)
    # The fifth is as the fourth.
    run(5)
    quiet = compare(5, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    # What this version cannot read is left out, and that is said.
    for day in (4, 2):
        Path(f"runs/nightly/nightly-{night(day)}/plan.json").write_text("{}")
    older = compare(5, "--json")
    assert before(older) == night(1)
    assert f"nightly-{night(4)} and 1 before it cannot be read by this version" in older.err
    # Without a night before it, one that is not complete is no success.
    Path(f"runs/nightly/nightly-{night(1)}/manifest.json").unlink()
    part = compare(1)
    assert (part.code, "is not complete, and has no earlier complete run" in part.err) == (7, True)


def test_commands_find_the_run_of_a_spec_by_its_run_id(command: Command, nightly: Path) -> None:
    named = ("--run-id", "mine-{date}", "--date", night(1))
    assert command("run", nightly, *named).code == 0
    for words in (
        ("status", nightly),
        ("results", nightly, "--limit", 1),
        ("show", nightly, "best"),
        ("report", nightly, "--vs", f"mine-{night(1)}", "--out", "page.html"),
        ("plot", nightly, "--kind", "loss", "--out", "loss.svg"),
        ("verify", nightly),
        ("compare", f"mine-{night(1)}", nightly),
    ):
        ended = command(*words, *named)
        assert ended.code == 0, ended.err
    refused = command("status", f"mine-{night(1)}", *named)
    assert refused.code == 2
    assert "--run-id is of the run of a spec, and 'mine-2026-03-01' is no spec" in refused.err
