"""Nights on one machine: cron's line, run as cron would."""

import datetime as dt
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from deployed import crontab_lines, text
from limits import HANG_S
from manifest_rules import cron_errors
from scripts import executable


@pytest.fixture
def crontab_command() -> str:
    """As cron hands it to the shell."""
    (line,) = crontab_lines()[1]
    return line.split(maxsplit=5)[5].replace(r"\%", "%")


@pytest.fixture
def nightly(crontab_command: str, tmp_path: Path) -> Callable[[], int]:
    """Runs crontab's command in folders made for it, with a polyfit that writes its arguments."""
    executable(tmp_path / "opt/.venv/bin/polyfit", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "log").mkdir()
    command = crontab_command.replace("/opt/polyfit", str(tmp_path / "opt"))
    command = command.replace("/var/log/polyfit", str(tmp_path / "log"))

    def run() -> int:
        shell = crontab_lines()[0]["SHELL"]
        return subprocess.run([shell, "-c", command], timeout=HANG_S, check=False).returncode

    return run


def utc_date() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def test_the_crontab_line_has_five_valid_fields() -> None:
    (line,) = crontab_lines()[1]

    assert cron_errors(line.split(maxsplit=5)[:5]) == []


@pytest.mark.parametrize("when", ["4 * * *", "60 4 * * *", "7 4 0 * *", "9-5 4 * * *", "a 4 * * *"])
def test_a_fault_in_the_five_fields_is_refused(when: str) -> None:
    assert cron_errors(when.split()) != []


@pytest.mark.parametrize("when", ["*/5 4,16 1-7 * 0-7/2", "17 4 * * 7"])
def test_lists_ranges_and_steps_are_valid_fields(when: str) -> None:
    assert cron_errors(when.split()) == []


def test_no_percent_sign_ends_the_crontab_command() -> None:
    assert re.findall(r"(?<!\\)%", text("machine/crontab").split("\n17 ")[1]) == []


def test_the_crontab_run_is_named_by_its_date_and_logged(
    nightly: Callable[[], int], tmp_path: Path
) -> None:
    before, status, after = utc_date(), nightly(), utc_date()

    (log,) = (tmp_path / "log").glob("*.log")
    assert status == 0
    assert log.stem in {before, after}
    run = ["run", "jobs/sweep.yaml", "--store", "s3://polyfit-results/nightly"]
    assert "\n".join([*run, "--run-id", f"nightly-{log.stem}"]) in log.read_text()


def test_a_night_at_work_keeps_the_next_one_out(nightly: Callable[[], int], tmp_path: Path) -> None:
    lock = tmp_path / "log" / "lock"
    with subprocess.Popen(
        ["flock", str(lock), "sh", "-c", "echo locked; read -r _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        status = nightly()
        holder.communicate("\n", timeout=HANG_S)

    (log,) = (tmp_path / "log").glob("*.log")
    assert status != 0
    assert "failed to get lock" in log.read_text()
