"""``--log-format json``: every message on stderr is one line of JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from polyfit.work import storing


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_message_is_a_line_of_json(
    command: Command, small_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(storing, "compute", broken)
    failed = command("run", small_spec, "--run-id", "mine", "--log-format", "json")
    assert failed.code == 3
    found = lines(failed.err)
    assert {one["run"] for one in found} == {"small/mine"}
    assert len({one["attempt"] for one in found}) == 1
    assert {one["level"] for one in found} == {"info", "warning", "error"}
    assert {one["shard"] for one in found if "shard" in one} == {0, 1}
    assert found[-1]["level"] == "error"
    assert found[-1]["message"].startswith("2 of 2 shards failed")
    assert all(one["time"].endswith("Z") for one in found)


def test_a_bad_spec_is_a_line_of_json_and_the_next_command_writes_text(
    command: Command, small_spec: Path
) -> None:
    small_spec.write_text("name: small\nfit: {degree: -1}\n")
    (line,) = lines(command("run", small_spec, "--log-format", "json").err)
    assert (line["level"], "fit.degree: found -1" in line["message"]) == ("error", True)
    assert command("run", small_spec).err.startswith("polyfit: ")


def test_with_debug_an_error_has_its_traceback_in_its_line(
    command: Command, small_spec: Path
) -> None:
    small_spec.write_text("name: small\nfit: {degree: -1}\n")
    (line,) = lines(command("--debug", "run", small_spec, "--log-format", "json").err)
    assert line["traceback"].startswith("Traceback (most recent call last)")
