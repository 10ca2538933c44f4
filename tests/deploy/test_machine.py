"""Nights on one machine: cron's line, run as cron would, and systemd's units by its own judge."""

import datetime as dt
import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from deployed import crontab_lines, text
from limits import HANG_S, wait_for
from manifest_rules import cron_errors
from scripts import executable

from polyfit.errors import Exit
from polyfit.work.signals import DRAIN_S


@pytest.fixture
def crontab_command() -> str:
    """As cron hands it to the shell."""
    line = crontab_lines()[1][0]
    return line.split(maxsplit=5)[5].replace(r"\%", "%")


@dataclass(frozen=True)
class Machine:
    """A checkout with a polyfit that writes its arguments, a folder of logs, and cron's command."""

    opt: Path
    logs: Path
    command: str

    def install(self) -> None:
        self.logs.mkdir()
        self.polyfit('printf "%s\\n" "$@"')
        executable(self.opt / "deploy/machine/nightly.sh", text("machine/nightly.sh"))
        for name in ("polyfit.service", "polyfit.timer", "polyfit-failed@.service"):
            (self.opt / "deploy/machine" / name).write_text(text(f"machine/{name}"))

    def polyfit(self, body: str) -> None:
        executable(self.opt / ".venv/bin/polyfit", f"#!/bin/sh\n{body}\n")


def start(machine: Machine, *arguments: str) -> "subprocess.Popen[str]":
    """The crontab's line with more arguments, as cron starts it."""
    return subprocess.Popen(
        ["/bin/sh", "-c", f"exec {shlex.join([*shlex.split(machine.command), *arguments])}"],
        env={"PATH": "/usr/bin:/bin", "POLYFIT_LOGS": str(machine.logs), "POLYFIT_RETRY_S": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def night(machine: Machine, *arguments: str) -> tuple[int, str]:
    """Exit status, and what cron would mail."""
    with start(machine, *arguments) as process:
        mail, _ = process.communicate(timeout=HANG_S)
    return process.returncode, mail


@pytest.fixture
def machine(crontab_command: str, tmp_path: Path) -> Machine:
    opt = tmp_path / "opt"
    machine = Machine(opt, tmp_path / "log", crontab_command.replace("/opt/polyfit", str(opt)))
    machine.install()
    return machine


def utc_date() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def test_each_line_of_the_crontab_has_five_valid_fields() -> None:
    lines = crontab_lines()[1]

    assert [cron_errors(line.split(maxsplit=5)[:5]) for line in lines] == [[]] * len(lines)


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
    day = log.stem[:10]
    assert ended == (0, "")
    assert day in {before, after}
    named = ["run", "--run-id", "nightly-{date}", "--date", day]
    given = shlex.split(machine.command.partition("nightly.sh")[2])
    assert log.read_text() == "\n".join([*named, *given, ""])


@pytest.mark.parametrize("date", [["--date", "2026-03-12"], ["--date=2026-03-12"]])
def test_a_date_that_is_given_is_the_nights(date: list[str], machine: Machine) -> None:
    assert night(machine, *date) == (0, "")

    (log,) = machine.logs.glob("2026-03-12-sweep-*.log")
    assert log.read_text().endswith("\n".join([*date, ""]))


def test_a_failed_night_mails_the_errors_of_this_start_and_the_command_that_repeats_it(
    machine: Machine,
) -> None:
    machine.polyfit("echo 'polyfit: an earlier start' >&2; exit 2")
    given = ["--set", "fit.target=exp(x) + 1"]
    night(machine, *given)
    failed = "1 of 9 shards failed, the others are stored; --retry-failed tries them again"
    machine.polyfit(f"echo 'polyfit: {failed}' >&2; seq 1 100; exit 3")

    status, mail = night(machine, *given)

    said, error, _, again = mail.splitlines()
    assert (status, error) == (3, f"polyfit: {failed}")
    assert said.endswith("ended with exit code 3")
    machine.polyfit('printf "%s\\n" "$@"')
    repeated = night(replace(machine, command=again.partition(": ")[2]))
    assert repeated == (0, "")
    (log,) = machine.logs.glob("*.log")
    ended = [*given, "--date", log.stem[:10], "--retry-failed", ""]
    assert log.read_text().endswith("\n".join(ended))


@pytest.mark.parametrize(
    ("said", "given", "offered"),
    [
        ("1 of 9 shards failed; --retry-failed tries them again", ["--retry-failed"], 1),
        ("it was complete, and is damaged: remove that object", [], 0),
    ],
)
def test_trying_failed_shards_again_is_offered_where_it_helps_and_once(
    said: str, given: list[str], offered: int, machine: Machine
) -> None:
    machine.polyfit(f"echo 'polyfit: {said}' >&2; exit 3")

    status, mail = night(machine, *given)

    assert (status, mail.splitlines()[1]) == (3, f"polyfit: {said}")
    assert mail.splitlines()[-1].count("--retry-failed") == offered


def test_a_night_that_was_killed_is_told_so_and_was_tried_again(machine: Machine) -> None:
    machine.polyfit("echo at work; kill -KILL $$")

    status, mail = night(machine)

    said, head, *lines = mail.splitlines()[:-2]
    assert status == 137
    assert said.endswith("exit code 137: it was killed, as for want of memory (journalctl -k)")
    assert (head, lines) == ("the last lines of its log:", logged(machine).splitlines())
    assert logged(machine).count("at work") == 3


def test_a_night_that_was_killed_after_its_seal_went_well(machine: Machine) -> None:
    """The next start finds it complete."""
    machine.polyfit("[ -e sealed ] && exit 0; touch sealed; kill -KILL $$")

    assert night(machine) == (0, "")


def test_a_night_that_ended_by_a_bug_mails_its_last_lines(machine: Machine) -> None:
    machine.polyfit("seq 1 100; exit 1")

    _, mail = night(machine)

    assert mail.splitlines()[2:-2] == [str(i) for i in range(81, 101)]


@pytest.mark.parametrize(("code", "starts"), [(5, 3), (6, 3), (2, 1), (3, 1), (143, 1)])
def test_what_may_pass_is_tried_twice_more(code: int, starts: int, machine: Machine) -> None:
    machine.polyfit(f"echo started; exit {code}")

    assert night(machine)[0] == code
    (log,) = machine.logs.glob("*.log")
    assert log.read_text().count("started") == starts


def test_a_night_that_is_stopped_stops_polyfit_and_waits_for_its_end(machine: Machine) -> None:
    machine.polyfit("trap 'echo stored; exit 143' TERM; echo at work; while :; do sleep 0.1; done")
    with start(machine) as process:
        wait_for(lambda: "at work" in logged(machine), "polyfit's start", process)
        process.terminate()
        process.communicate(timeout=HANG_S)

    assert process.returncode == 143
    assert logged(machine) == "at work\nstored\n"


def logged(machine: Machine) -> str:
    return "".join(log.read_text() for log in machine.logs.glob("*.log"))


def test_a_night_at_work_keeps_out_the_next_one_of_the_same_command_alone(
    machine: Machine,
) -> None:
    machine.polyfit("echo at work; while [ ! -e done ]; do sleep 0.1; done")
    with start(machine, "--date", "2026-03-11") as first:
        wait_for(lambda: "at work" in logged(machine), "polyfit's start", first)
        machine.polyfit("echo started")
        same = night(machine, "--date", "2026-03-12", "--since=2026-03-01")
        other = night(machine, "--store", "s3://elsewhere")
        (machine.opt / "done").touch()
        first.communicate(timeout=HANG_S)

    assert same[0] == 75
    assert "2026-03-12 was not started: an earlier start of the same command" in same[1]
    assert other == (0, "")
    assert first.returncode == 0


def test_a_missing_folder_of_logs_is_told_and_nothing_is_run(machine: Machine) -> None:
    machine.logs.rmdir()

    status, mail = night(machine)

    assert status == 2
    assert mail.startswith(f"polyfit: nothing was run: {machine.logs} is no folder")
    assert mail.count("\n") == 1


def test_nightly_sh_says_how_it_is_used(machine: Machine) -> None:
    status, said = night(replace(machine, command=f"{machine.opt}/deploy/machine/nightly.sh"))

    assert status == 2
    assert "nightly.sh SPEC... OPTIONS" in said


def test_the_crontab_removes_old_logs_and_nothing_else(tmp_path: Path) -> None:
    (command,) = (line.split(maxsplit=5)[5] for line in crontab_lines()[1][1:])
    old = time.time() - 92 * 24 * 60 * 60
    for name in ("old.log", "old.lock", "new.log"):
        (tmp_path / name).touch()
        if name.startswith("old"):
            os.utime(tmp_path / name, (old, old))
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("/var/log/polyfit", str(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout + done.stderr == ""  # else it would be mailed
    assert {it.name for it in tmp_path.iterdir()} == {"old.lock", "new.log"}


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


DROP_IN = re.search(r"^```text\n(\[Service\]\n.*?)^```$", text("README.md"), re.M | re.S)


def complaints_of_ones_own(machine: Machine, *changes: tuple[str, str]) -> str:
    """What systemd says of the units with the page's drop-in, changed."""
    assert DROP_IN is not None
    drop_in = DROP_IN[1].replace("/opt/polyfit", str(machine.opt))
    for old, new in changes:
        assert old in drop_in
        drop_in = drop_in.replace(old, new)
    folder = machine.opt / "deploy/machine/polyfit.service.d"
    folder.mkdir()
    (folder / "override.conf").write_text(drop_in)
    return complaints(machine)


def test_systemd_has_nothing_to_say_of_a_command_of_ones_own(machine: Machine) -> None:
    assert complaints_of_ones_own(machine) == ""
    assert DROP_IN is not None
    assert re.findall("%+", DROP_IN[1]) == ["%%"]  # one, as systemd reads it


@pytest.mark.parametrize("replaced", [True, False])
def test_a_command_of_ones_own_is_the_first_once_the_examples_is_taken_away(
    replaced: bool, machine: Machine
) -> None:
    """systemd looks for the program of the first command alone."""
    missing = [(f"{machine.opt}/.venv/bin/polyfit run", "/missing run")]
    kept = [] if replaced else [("ExecStart=\n", "")]

    assert ("/missing" in complaints_of_ones_own(machine, *missing, *kept)) == replaced


def test_the_timer_makes_up_for_a_night_and_a_failed_one_is_told() -> None:
    timer, service = text("machine/polyfit.timer"), text("machine/polyfit.service")

    assert "Persistent=true" in timer.splitlines()
    assert "OnFailure=polyfit-failed@%n.service" in service.splitlines()
    # Ray's processes are polyfit's to end: its actors store their shards first.
    assert "KillMode=mixed" in service.splitlines()
    assert f"SuccessExitStatus={Exit.DRAINED}" in service.splitlines()
    (final,) = re.findall(r"^RestartPreventExitStatus=(.*)$", service, re.MULTILINE)
    assert {int(it) for it in final.split()} == {
        *(Exit.INTERNAL, Exit.USAGE, Exit.FAILED_SHARDS, Exit.HELD, Exit.DRAINED),
        *(Exit.UNFINISHED, Exit.WORSE),
    }
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", service, re.MULTILINE)
    assert int(stop_s) >= DRAIN_S + 20


def test_cron_and_the_timer_run_the_same_at_the_same_time() -> None:
    line = crontab_lines()[1][0]
    minute, hour, *_, command = line.split(maxsplit=5)
    (start,) = re.findall(
        r"^ExecStart=\S+ run (.*) --run-id", text("machine/polyfit.service"), re.M
    )

    assert command.endswith(start)
    assert f" {int(hour):02}:{minute}:00 UTC" in text("machine/polyfit.timer")
