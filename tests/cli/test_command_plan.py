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
    lines = dict(line.split(None, 1) for line in command("plan", small_spec).out.splitlines())
    assert lines["fits"] == "20"
    assert lines["axes"] == "degree 2 x seed 10"
    assert lines["shards"] == "2 of 10 fits"
    assert lines["engine"] == facts["engine"]
    work, time = (facts[f"projected_{name}seconds"] for name in ("core_", ""))
    assert lines["work"] == f"{work:.3g} s on one core, nominal"
    assert re.fullmatch(rf"about {time:.2g} s here, on \d+ cores", lines["time"])


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
