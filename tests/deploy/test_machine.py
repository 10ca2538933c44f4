"""Nights on one machine: cron's line, run as cron would, and systemd's units by its own judge."""

import datetime as dt
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deployed import crontab_lines, text
from limits import HANG_S
from manifest_rules import cron_errors
from scripts import executable

from polyfit.work.signals import DRAIN_S


@pytest.fixture
def crontab_command() -> str:
    """As cron hands it to the shell."""
    (line,) = crontab_lines()[1]
    return line.split(maxsplit=5)[5].replace(r"\%", "%")


class Machine:
    """A checkout with a polyfit that writes its arguments, and a folder of logs."""

    def __init__(self, folder: Path, command: str) -> None:
        self.opt, self.logs = folder / "opt", folder / "log"
        self.logs.mkdir()
        self.polyfit('printf "%s\\n" "$@"')
        executable(self.opt / "deploy/machine/nightly.sh", text("machine/nightly.sh"))
        for name in ("polyfit.service", "polyfit.timer", "polyfit-failed@.service"):
            (self.opt / "deploy/machine" / name).write_text(text(f"machine/{name}"))
        self.command = command.replace("/opt/polyfit", str(self.opt))

    def polyfit(self, body: str) -> None:
        executable(self.opt / ".venv/bin/polyfit", f"#!/bin/sh\n{body}\n")


def night(machine: Machine) -> tuple[int, str]:
    """Exit status, and what cron would mail."""
    done = subprocess.run(
        ["/bin/sh", "-c", machine.command],
        env={"PATH": "/usr/bin:/bin", "POLYFIT_LOGS": str(machine.logs)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def machine(crontab_command: str, tmp_path: Path) -> Machine:
    return Machine(tmp_path, crontab_command)


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


def test_a_night_that_went_well_is_logged_under_its_date_and_mails_nothing(
    machine: Machine,
) -> None:
    before, ended, after = utc_date(), night(machine), utc_date()

    (log,) = machine.logs.glob("*.log")
    assert ended == (0, "")
    assert log.stem in {before, after}
    run = ["run", "jobs/sweep.yaml", "--store", "s3://polyfit-results/nightly"]
    named = ["--run-id", "nightly-{date}", "--date", log.stem]
    assert log.read_text() == "\n".join([*run, *named, ""])


def test_a_night_that_failed_mails_its_exit_code_and_its_last_lines(machine: Machine) -> None:
    machine.polyfit("seq 1 100; echo 'polyfit: the store refuses' >&2; exit 5")

    status, mail = night(machine)

    assert status == 5
    assert "ended with exit code 5" in mail
    assert mail.endswith("99\n100\npolyfit: the store refuses\n")
    assert len(mail.splitlines()) == 21
    machine.polyfit("exit 2")
    assert len(night(machine)[1].splitlines()) == 1  # of this start alone


def test_a_night_at_work_keeps_the_next_one_out(machine: Machine) -> None:
    lock = machine.logs / "lock"
    with subprocess.Popen(
        ["flock", str(lock), "sh", "-c", "echo locked; read -r _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        status, mail = night(machine)
        holder.communicate("\n", timeout=HANG_S)

    assert status == 75
    assert "an earlier night is still at work" in mail


# systemd ------------------------------------------------------------------------------------------


def complaints(machine: Machine) -> str:
    """What systemd says of the units, whose program is the stand-in."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install -y systemd")
    folder = machine.opt / "deploy/machine"
    service = folder / "polyfit.service"
    service.write_text(service.read_text().replace("/opt/polyfit", str(machine.opt)))
    units = ("polyfit.timer", "polyfit.service", "polyfit-failed@.service")
    failed = (folder / units[2]).rename(folder / "polyfit-failed@polyfit.service.service")
    told = subprocess.run(
        ["systemd-analyze", "verify", *(folder / unit for unit in units[:2]), failed],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout + told.stderr


def test_systemd_has_nothing_to_say_of_the_units(machine: Machine) -> None:
    assert complaints(machine) == ""


@pytest.mark.parametrize(
    ("unit", "right", "wrong"),
    [
        ("polyfit.timer", "04:17:00", "24:17:00"),
        ("polyfit.timer", "Persistent=", "Persistant="),
        ("polyfit.service", "KillMode=mixed", "KillMode=mix"),
        ("polyfit.service", "ExecStart=/opt", "ExecStart=/optt"),
    ],
)
def test_systemd_complains_of_a_fault(machine: Machine, unit: str, right: str, wrong: str) -> None:
    path = machine.opt / "deploy/machine" / unit
    path.write_text(path.read_text().replace(right, wrong))

    assert unit in complaints(machine)


def test_the_timer_makes_up_for_a_night_and_a_failed_one_is_told() -> None:
    timer, service = text("machine/polyfit.timer"), text("machine/polyfit.service")

    assert "Persistent=true" in timer.splitlines()
    assert "OnFailure=polyfit-failed@%n.service" in service.splitlines()
    # Ray's processes are polyfit's to end: its actors store their shards first.
    assert "KillMode=mixed" in service.splitlines()
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", service, re.MULTILINE)
    assert int(stop_s) >= DRAIN_S + 20


def test_cron_and_the_timer_run_the_same_at_the_same_time() -> None:
    (line,) = crontab_lines()[1]
    minute, hour, *_, command = line.split(maxsplit=5)
    (start,) = re.findall(
        r"^ExecStart=\S+ run (.*) --run-id", text("machine/polyfit.service"), re.M
    )

    assert command.endswith(start)
    assert f" {int(hour):02}:{minute}:00 UTC" in text("machine/polyfit.timer")
