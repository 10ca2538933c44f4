"""``polyfit verify``."""

import json
import re
import shutil
from pathlib import Path

from commands import TEXT, Command

from polyfit.run.reader import Run


def test_a_folder_that_is_no_run_ends_with_2(command: Command, tmp_path: Path) -> None:
    ended = command("verify", tmp_path)
    assert (ended.code, ended.err) == (
        2,
        f"polyfit: {tmp_path} holds no run; expected plan.json there, "
        "as in <store>/<name>/<run id>; `polyfit list STORE` lists the runs in a store\n",
    )


def test_verify_says_that_a_run_is_intact(command: Command, small_run: Run) -> None:
    ended = command("verify", small_run.uri)
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(
        r"intact: 20 fits, each once, in 2 shards \([\d.]+ KiB\); 20 completed\n", ended.out
    )


def test_verify_as_json_is_one_object(command: Command, small_run: Run) -> None:
    facts = json.loads(command("verify", small_run.uri, "--json").out)
    assert (facts["intact"], facts["fits"], facts["problems"]) == (True, 20, [])


def test_a_damaged_run_ends_with_3_and_names_the_shard(
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(small_run.uri, tmp_path / "copy")
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
    command: Command, small_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(small_run.uri, tmp_path / "copy")
    next((tmp_path / "copy" / "shards").iterdir()).unlink()
    ended = command("verify", tmp_path / "copy", "--json")
    facts = json.loads(ended.out)
    assert (ended.code, facts["intact"], len(facts["problems"])) == (3, False, 1)


def test_of_many_problems_the_first_are_shown_and_the_rest_counted(
    command: Command, tmp_path: Path, small_spec: Path
) -> None:
    small_spec.write_text(TEXT.replace("shard: 10", "shard: 1").replace("count: 10", "count: 15"))
    assert command("run", small_spec).code == 0
    (folder,) = (tmp_path / "runs" / "small").iterdir()
    shutil.rmtree(folder / "shards")
    ended = command("verify", folder)
    assert ended.err.splitlines()[0].endswith(": 30 problems")
    assert ended.err.splitlines()[-1] == "polyfit: ... and 10 more"
