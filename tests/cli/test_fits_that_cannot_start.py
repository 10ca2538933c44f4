"""Fits that cannot start are a warning, or an error with ``--strict``, in three commands."""

import json
from pathlib import Path

import pytest
from commands import Command

NOT_FINITE = """\
name: hole
fit: {target: log(x), points: 20, steps: 10}
sweep: {range: [[-1, 1], [1, 2]], seed: {count: 3}}
"""


HOLE = (
    "hole.yaml:2: fit.target: target log(x) is not finite on range [-1, 1]: first nan at x = -1, "
    "in all at 10 of 20 points: 3 of 6 fits cannot start\n"
)


@pytest.mark.parametrize("name", ["validate", "plan", "run"])
def test_fits_that_cannot_start_are_a_warning_before_anything_is_fitted(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "hole.yaml").write_text(NOT_FINITE)
    ended = command(name, "hole.yaml")
    warning = ended.err.split("Z hole: ")[2] if name == "run" else ended.err
    assert (ended.code, warning[: len("warning: " + HOLE)]) == (0, "warning: " + HOLE)
    if name == "run":
        assert "6 fits: 3 completed, 3 diverged" in ended.out


@pytest.mark.parametrize("name", ["validate", "plan", "run"])
def test_with_strict_fits_that_cannot_start_are_an_error(
    command: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "hole.yaml").write_text(NOT_FINITE)
    ended = command(name, "--strict", "hole.yaml")
    assert (ended.code, ended.out, ended.err) == (2, "", f"polyfit: {HOLE}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hole.yaml"]
    (tmp_path / "hole.yaml").write_text(NOT_FINITE.replace("log", "sin"))
    ended = command(name, "--strict", "hole.yaml")
    assert (ended.code, "cannot start" in ended.err) == (0, False)


def test_plan_as_json_holds_the_fits_that_cannot_start(command: Command, tmp_path: Path) -> None:
    (tmp_path / "hole.yaml").write_text(NOT_FINITE)
    found = json.loads(command("plan", "hole.yaml", "--json").out)["cannot_start"]
    (cause,) = found.pop("causes")
    assert found == {"fits": 3, "unchecked": 0}
    assert cause["fits"] == 3
    assert cause["cause"] in HOLE
