"""``polyfit plan``."""

import json
import re
from pathlib import Path

from commands import Command, process

ROOT = Path(__file__).resolve().parents[2]


def test_plan_as_json_is_one_object(command: Command, small_spec: Path) -> None:
    ended = command("plan", small_spec, "--json")
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


def test_plan_says_in_words_what_it_says_in_json(command: Command, small_spec: Path) -> None:
    facts = json.loads(command("plan", small_spec, "--json").out)
    text, _, table = command("plan", small_spec).out.partition("\n\n")
    lines = dict(line.split(None, 1) for line in text.splitlines())
    assert lines["fits"] == "20"
    assert lines["axes"] == "degree 2 x seed 10"
    assert lines["shards"] == "2 of 10 fits"
    assert lines["engine"] == facts["engine"]
    work, time = (facts[f"projected_{name}seconds"] for name in ("core_", ""))
    assert lines["work"] == f"{work:.3g} s on one core, nominal"
    assert lines["time"] == f"about {time:.2g} s here, in one process"
    for kind in facts["prediction"]["kinds"]:
        predicted = f" {kind['lr_limit']:.3g} .* {kind['predicted'].split()[0]} .*{kind['updates']}"
        assert re.search(rf"^ +{kind['fields']['degree']} +10 .*{predicted}", table, re.MULTILINE)


def test_plan_says_what_diverges_and_what_would_help(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: edge\nfit: {basis: power, steps: 1000, points: 200}\n"
        "sweep: {degree: [1, 3], lr: [{of_limit: 0.5}, {of_limit: 1.1}], seed: {count: 50}}\n"
    )
    ended = command("plan", path)
    assert (ended.code, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.partition("\n\n")[2].splitlines()]
    assert " ".join(lines[0]) == "degree lr fits lr limit lr share condition predicted remedy"
    assert [" ".join(line[7:]) for line in lines[2:6]] == [
        "converges in ~9 updates",
        "diverges lr: auto (~9)",
        "not within 1,000 (needs ~1,600) basis: chebyshev (~22)",
        "diverges basis: chebyshev, lr: auto (~22)",
    ]
    assert ended.out.splitlines()[-1] == (
        "in all     100 diverge; 50 do not come near the optimum in their steps but in ~1,600 "
        "updates; 50 converge in ~9 updates"
    )
    facts = json.loads(command("plan", path, "--json").out)["prediction"]
    assert facts["fits"] == {"diverges": 100, "converges": 50, "not within its steps": 50}
    assert [kind["lr_share"] for kind in facts["kinds"]] == [0.5, 1.1, 0.5, 1.1]


def test_at_the_limit_table_totals_and_json_say_the_same(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: edge\nfit: {degree: 5, points: 200, steps: 500}\n"
        "sweep: {lr: {of_limit: [0.9, 0.9999, 1, 1.0001, 1.01]}, seed: {count: 10}}\n"
    )
    *table, last = command("plan", path).out.partition("\n\n")[2].splitlines()
    assert [" ".join(line.split()[2:4] + line.split()[5:]) for line in table[2:-1]] == [
        "10 0.00432 7.64 converges in ~35 updates",
        "10 0.00432 7.64 not within 500 (needs ~39,000) lr: auto (~49)",
        "10 0.00432 7.64 at the limit, never settles lr: auto (~49)",
        "10 0.00432 7.64 grows, but not tenfold within 500 lr: auto (~49)",
        "10 0.00432 7.64 diverges lr: auto (~49)",
    ]
    assert [line.split()[4] for line in table[2:-1]] == ["0.9", "0.9999", "1", "1.0001", "1.01"]
    assert last == (
        "in all     10 diverge; 10 grow, but not tenfold within their steps; 10 are at the limit "
        "and never settle; 10 do not come near the optimum in their steps but in ~39,000 updates; "
        "10 converge in ~35 updates"
    )
    facts = json.loads(command("plan", path, "--json").out)["prediction"]
    assert facts["fits"] == {
        **{"converges": 10, "not within its steps": 10, "at the limit": 10},
        **{"grows": 10, "diverges": 10},
    }
    counted = [kind["predicted"] for kind in facts["kinds"] if kind["updates"] is not None]
    assert counted == ["converges", "not within its steps"]


def test_newtons_method_has_a_time_where_it_would_help_and_an_end_where_it_is_asked(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: a\nfit: {degree: 12, steps: 30}\nsweep: {seed: {count: 100000}}\n")
    (kind,) = command("plan", path).out.partition("\n\n")[2].splitlines()[2:3]

    assert re.search(r"  optimizer: newton \(1 to 20; ~[1-9]\d* s\)$", kind)
    asked = command("plan", path, "--set", "fit.optimizer=newton").out.splitlines()[-1]
    assert "100,000 end by themselves (newton), nearly all within 30 updates" in asked


def test_plan_shows_what_deserves_a_look_and_counts_the_rest(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        "name: many\nfit: {points: 50, steps: 100}\n"
        "sweep: {degree: {start: 0, stop: 31}, optimizer: [gd, adam]}\n"
    )
    out = command("plan", path).out
    assert out.count(" not within 100 ") + out.count(" converges in ") == 20
    assert "\n and 11 kinds of fits that are no worse than these\n" in out
    assert "not looked at" not in out
    assert "31 are not predicted (adam, l1)" in out

    path.write_text(path.read_text().replace("stop: 31", "stop: 21"))
    out = command("plan", path).out
    assert out.count(" not within 100 ") + out.count(" converges in ") == 21
    assert "no worse than these" not in out


def test_kinds_that_a_condition_on_seeds_splits_are_one_line(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "split.yaml").write_text(
        "name: split\nfit: {steps: 50}\nsweep: {degree: [1, 2], seed: {count: 30}}\n"
        "exclude: [degree == 2 and seed > 9, degree == 1 and 3 < seed < 7]\n"
    )
    kinds = json.loads(command("plan", "split.yaml", "--json").out)["prediction"]["kinds"]
    assert [(kind["fields"], kind["fits"]) for kind in kinds] == [
        ({"degree": 1}, 27),
        ({"degree": 2}, 10),
    ]


def test_plan_says_how_many_fits_another_run_has(command: Command, tmp_path: Path) -> None:
    text = "name: r\nshard: 5\nfit: {steps: 9, points: 20}\nsweep: {seed: {count: 10}}\n"
    first, more, other = (tmp_path / f"{name}.yaml" for name in ("first", "more", "other"))
    first.write_text(text)
    more.write_text(text.replace("10", "16"))
    other.write_text(text + "engine: eager\n")
    assert command("run", first, "--store", tmp_path / "runs").code == 0
    (run,) = (tmp_path / "runs" / "r").iterdir()
    out = command("plan", more, "--reuse", run).out
    assert f"\nreuse      10 of 16 fits are stored in {run}\n" in out
    assert command("plan", more, "--reuse", "r", "--store", tmp_path / "runs").out == out
    next((run / "shards").iterdir()).unlink()
    facts = json.loads(command("plan", more, "--reuse", run, "--json").out)["reusable"]
    assert facts == {"uri": str(run), "fits": 5, "exact": True, "obstacle": None}
    assert f"nothing of {run}: its engine is compiled" in command("plan", other, "--reuse", run).out
    more.write_text(text.replace("points: 20", "points: 30"))
    said = f"nothing of {run}: no fit is in both: points is 20 there and 30 here"
    assert said in command("plan", more, "--reuse", run).out
    missing = command("plan", more, "--reuse", tmp_path / "nowhere")
    assert missing.code != 0
    assert "nowhere" in missing.err


def test_plan_writes_nothing(command: Command, small_spec: Path, tmp_path: Path) -> None:
    command("plan", small_spec)
    assert list(tmp_path.iterdir()) == [small_spec]


def test_planning_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['polyfit', 'plan', sys.argv[1]]\n"
        "from polyfit.cli.app import cli, main\n"
        "try: main()\n"
        "finally: print({'torch', 'ray', 'pyarrow', 'boto3'} & set(sys.modules))"
    )
    ended = process(ROOT / "jobs" / "sine.yaml", program=("-c", script))
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "set()")
