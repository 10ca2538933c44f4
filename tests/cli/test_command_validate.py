"""``polyfit validate``, also on the jobs of this repository."""

import re
from pathlib import Path

import pytest
from commands import Command

ROOT = Path(__file__).resolve().parents[2]


JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_every_job_validates(command: Command, job: Path) -> None:
    ended = command("validate", job)
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(rf"{job}: [\d,]+ fits?\n", ended.out)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_every_job_says_at_its_top_what_it_is(job: Path) -> None:
    first = job.read_text().splitlines()[0]
    assert re.fullmatch(r"# \S.*", first)


def test_there_are_jobs() -> None:
    assert {"sine", "sweep"} <= {job.stem for job in JOBS}


def test_validate_reports_the_problems_of_all_files(
    command: Command, small_spec: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nfit: {degree: -1, steps: x}\n")
    (tmp_path / "two.yaml").write_text("name: two\nfit: {lrr: 1}\n")
    ended = command("validate", "one.yaml", small_spec, "none.yaml", "two.yaml")
    assert (ended.code, ended.out) == (2, f"{small_spec}: 20 fits\n")
    lines = ended.err.splitlines()
    for start in (
        "one.yaml:2: fit.degree",
        "one.yaml:2: fit.steps",
        "two.yaml:2: fit",
        "none.yaml",
    ):
        assert len([line for line in lines if line.startswith(f"polyfit: {start}")]) == 1
