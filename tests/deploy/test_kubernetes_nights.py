"""Nights of deploy/pod and deploy/rayjob: which date, one again, a RayJob from start to end.

The scripts run here, with stand-ins for polyfit, the clock and the API server.
"""

import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import kubectl
import pytest
import yaml
from commands import Command
from deployed import DEPLOY, Document, documents
from limits import HANG_S
from manifests import errors, node_at, pods, put
from overlays import one
from scripts import executable

from polyfit.errors import Exit

pytestmark = pytest.mark.process  # kubectl: conftest.py does not look behind a cache or a class

POLYFIT = """#!/bin/sh
echo "$$ $*"
"""
DATE = """#!/bin/sh
# As date, on a day of the test's.
[ "$*" = +%s ] && { echo "$NOW"; exit; }
exec /bin/date "$@"
"""
NOW = 1_764_260_000  # 2025-11-27 16:13:20 UTC
MINUTE = NOW // 60
MIDNIGHT = (NOW // 86_400 + 1) * 24 * 60  # the next one


@pytest.mark.parametrize(
    ("job_name", "day", "now"),
    [
        (f"polyfit-nightly-{MINUTE}", "2025-11-27", NOW),
        (f"polyfit-nightly-{MINUTE - 20 * 60}", "2025-11-26", NOW),  # late, after midnight
        (
            f"polyfit-nightly-{MIDNIGHT}",
            "2025-11-28",
            MIDNIGHT * 60 - 90,
        ),  # a clock that is late
        ("polyfit-now", "2025-11-27", NOW),
        ("polyfit-08", "2025-11-27", NOW),  # not octal
    ],
)
def test_the_date_of_a_nights_pod_is_the_one_it_was_due(
    job_name: str, day: str, now: int, tmp_path: Path
) -> None:
    status, said, pid = night_of_a_pod(tmp_path, job_name, now)

    # polyfit takes the shell's place, so that it is process 1 and gets SIGTERM.
    named = f"--metrics-port 8080 --run-id nightly-{{date}} --date {day}"
    assert (status, said) == (0, f"{pid} run {named} {' '.join(NIGHTLY_ARGS)}\n")


NIGHTLY_ARGS = ["/opt/polyfit/jobs/sweep.yaml", "--store", "s3://polyfit-results/nightly"]


def night_of_a_pod(folder: Path, job_name: str, now: int, *more: str) -> tuple[int, str, int]:
    """How the nightly container of a Job ended, what it said, and the number of its process."""
    executable(folder / "polyfit", POLYFIT)
    executable(folder / "date", DATE)
    (container,) = pods(one("pod/nightly", "CronJob"))["pod"]["containers"]
    with subprocess.Popen(
        [*container["command"], *container["args"], *more],
        env={"PATH": f"{folder}:/usr/bin:/bin", "JOB_NAME": job_name, "NOW": str(now)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said, _ = process.communicate(timeout=HANG_S)
    return process.returncode, said, process.pid


@pytest.mark.parametrize("number", [MINUTE - 8 * 24 * 60, MINUTE + 20 * 60, 20251112, 99999999])
def test_a_job_that_names_another_night_is_refused_and_made_with_a_date(
    number: int, tmp_path: Path
) -> None:
    name = f"polyfit-nightly-{number}"
    status, said, _ = night_of_a_pod(tmp_path, name, NOW)
    assert (status, said.count("\n")) == (Exit.USAGE, 1)
    assert f"{name} ends in no minute of the last week; add the night to the arguments" in said

    for given in (["--date=2025-10-12"], ["--date", "2025-10-12"]):
        status, said, _ = night_of_a_pod(tmp_path, name, NOW, *given)
        assert (status, said.count("--date")) == (0, 1)
        assert said.endswith(f" {' '.join(given)}\n")


def test_a_pod_and_a_rayjob_find_their_date_in_one_way() -> None:
    """Two files, as each runs in a container of its own; the tests above hold for both."""
    (container,) = pods(one("pod/nightly", "CronJob"))["pod"]["containers"]
    script = (DEPLOY / "rayjob/nightly/nightly.sh").read_text(encoding="utf-8")
    dates = re.compile(r"^now=.*? set -- .*?^esac$", re.DOTALL | re.MULTILINE)
    (of_pod,) = dates.findall(container["command"][2])
    assert dates.findall(script) == [of_pod]


# A night again: the Job of a CronJob is that of the API server's, all else is kubectl's own.
AGAIN = r"""#!/bin/sh
case "$*" in
  "create job --from=cronjob/"*" --dry-run=client -o yaml")
    echo "$4" > "$STATE/name"
    cat "$STATE/job" ;;
  "patch --local "*) exec "$KUBECTL" "$@" ;;
  "create -f -") cat > "$STATE/made" ;;
  *) echo "$*" >> "$STATE/other" ;;
esac
"""


def night_again(folder: Path, *words: str) -> tuple[int, str]:
    executable(folder / "bin" / "kubectl", AGAIN)
    names = {one(it, "CronJob")["metadata"]["name"]: it for it in ("pod/nightly", "rayjob/nightly")}
    cronjob = one(names.get(words[0], "pod/nightly"), "CronJob")
    job = {"apiVersion": "batch/v1", "kind": "Job", **node_at(cronjob, "spec.jobTemplate")}
    (folder / "job").write_text(yaml.safe_dump(put(job, "metadata.name", "x")), encoding="utf-8")
    done = subprocess.run(
        [DEPLOY / "again.sh", *words],
        env={
            **{"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)},
            **{"STATE": str(folder), "KUBECTL": str(kubectl.PROGRAM)},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["pod/nightly", "rayjob/nightly"])
def test_a_night_again_is_a_job_of_its_own_with_more_arguments(name: str, tmp_path: Path) -> None:
    kubectl.require()
    cronjob = one(name, "CronJob")
    more = ["--date=2026-11-12", "--run-id=nightly-{date}-b", "--retry-failed"]
    status, said = night_again(tmp_path, cronjob["metadata"]["name"], *more)

    assert status == 0, said
    job = f"{cronjob['metadata']['name']}-again-2026-11-12"
    assert (tmp_path / "name").read_text().strip() == job
    deleted = f"delete job {job} --ignore-not-found --cascade=foreground\n"
    assert (tmp_path / "other").read_text() == deleted
    (made,) = documents((tmp_path / "made").read_text())
    template = node_at(cronjob, "spec.jobTemplate.spec")
    template["template"]["spec"]["containers"][0]["args"] += [*more, "--since=2026-11-12"]
    assert made["spec"] == template
    assert said.endswith(f" job/{job}\n")


SHOWN = re.findall(r"^deploy/again.sh (.*)$", (DEPLOY / "README.md").read_text("utf-8"), re.M)


@pytest.mark.parametrize("shown", SHOWN)
def test_a_night_again_as_the_page_shows_it(shown: str, tmp_path: Path, command: Command) -> None:
    """What the pod then starts is a run, here of a spec and a store in a folder."""
    kubectl.require()
    status, said = night_again(tmp_path, *shlex.split(shown))
    assert status == 0, said

    (job,) = documents((tmp_path / "made").read_text())
    name, args = (tmp_path / "name").read_text().strip(), pods(job)["pod"]["containers"][0]["args"]
    assert args[:3] == NIGHTLY_ARGS
    status, said, _ = night_of_a_pod(tmp_path, name, int(time.time()), *args[3:])
    assert status == 0
    (tmp_path / "s.yaml").write_text("name: s\nfit: {steps: 9, points: 40}\n", "utf-8")
    given = {NIGHTLY_ARGS[0]: tmp_path / "s.yaml", NIGHTLY_ARGS[2]: tmp_path / "store"}
    words = [given.get(it, it) for it in said.split()[1:]]
    ended = command(*words)
    assert ended.code == Exit.COMPLETE, ended.err
    nights = sorted(it.name for it in (tmp_path / "store" / "s").iterdir())
    named = [it for it in ("nightly-2026-11-12", "nightly-2026-11-12-b") if it in nights]
    assert nights == named or (len(nights) == 8 and "--since=7d" in shown)


@pytest.mark.parametrize(
    "words",
    [
        ("polyfit-nightly", "--date", "2026-11-12"),
        ("polyfit-nightly", 'a"b'),
        ("--date=2026-11-12",),
        (),
    ],
)
def test_a_night_again_that_is_not_understood_removes_and_makes_nothing(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    status, said = night_again(tmp_path, *(words or ("",)))

    assert (status, said != "") == (Exit.USAGE, True)
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "other").exists()


# Stands in for the API server behind kubectl, and leaves to the real one what needs no server. A
# RayJob's states are the lines of $STATE/states, one for each look; the last one stays.
KUBECTL = r"""#!/bin/sh
case $1 in
  patch) exec "$KUBECTL" "$@" ;;
  create)
    [ ! -e "$STATE/refusal" ] || { cat "$STATE/refusal" >&2; exit 1; }
    [ ! -e "$STATE/made" ] || { echo 'Error from server (AlreadyExists): it is there' >&2; exit 1; }
    cp "$3" "$STATE/made"; echo created ;;
  delete) echo "$*" >> "$STATE/deleted"; rm "$STATE/made"; sed -i 1d "$STATE/states" ;;
  get)
    [ -e "$STATE/made" ] || exit 0
    line=$(head -n 1 "$STATE/states")
    [ "$(wc -l < "$STATE/states")" -lt 2 ] || sed -i 1d "$STATE/states"
    case $line in AWAY) exit 1 ;; GONE) rm "$STATE/made" ;; *) printf '%s' "$line" ;; esac ;;
esac
"""
RUNNING = "Running,RUNNING,: "


class Night:
    """One Job of rayjob/nightly, run here: ``states`` are what a look at its RayJob finds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = f"polyfit-ray-nightly-{int(time.time()) // 60}"
        executable(folder / "bin" / "kubectl", KUBECTL)
        template = folder / "rayjob.yaml"
        template.write_text(kubectl.build(DEPLOY / "rayjob/gpu"), encoding="utf-8")
        script = (DEPLOY / "rayjob/nightly/nightly.sh").read_text(encoding="utf-8")
        self.script = folder / "nightly.sh"
        script = script.replace("/tmp/rayjob.yaml", f"{folder}/changed.yaml")
        self.script.write_text(script, encoding="utf-8")
        (container,) = pods(one("rayjob/nightly", "CronJob"))["pod"]["containers"]
        self.args = [it.replace("/template", str(folder)) for it in container["args"]]

    def start(
        self, *states: str, made: bool = False, more: tuple[str, ...] = ()
    ) -> "subprocess.Popen[str]":
        (self.folder / "states").write_text("\n".join([*states, ""]), encoding="utf-8")
        if made:
            (self.folder / "made").touch()
        return subprocess.Popen(
            ["/bin/sh", self.script, *self.args, *more],
            env={
                "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
                "HOME": str(self.folder),
                "JOB_NAME": self.job,
                "JOB_UID": "4b1d",
                "STATE": str(self.folder),
                "KUBECTL": str(kubectl.PROGRAM),
                "POLL_S": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *states: str, made: bool = False, more: tuple[str, ...] = ()) -> tuple[int, str]:
        with self.start(*states, made=made, more=more) as process:
            out, err = process.communicate(timeout=HANG_S)
        return process.returncode, out + err

    def created(self) -> Document:
        (rayjob,) = documents((self.folder / "made").read_text(encoding="utf-8"))
        return rayjob


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_a_nights_rayjob_is_the_built_one_with_its_name_its_date_and_its_owner(
    night: Night,
) -> None:
    status, said = night.run(RUNNING, "Complete,SUCCEEDED,: ")

    assert status == 0, said
    rayjob, template = night.created(), one("rayjob/gpu", "RayJob")
    assert errors(rayjob) == []
    metadata, name = rayjob["metadata"], night.job
    (owner,) = metadata.pop("ownerReferences")
    assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "4b1d"}
    variables = yaml.safe_load(rayjob["spec"].pop("runtimeEnvYAML"))["env_vars"]
    assert re.fullmatch(r"--date \d{4}-\d\d-\d\d", variables["NIGHT"])
    assert metadata.pop("name") == name
    del template["metadata"]["name"]
    assert rayjob == template


def test_a_nights_rayjob_has_the_arguments_of_the_job(night: Night) -> None:
    night.job = "polyfit-ray-nightly-again-2025-10-12"
    more = ("--date=2025-10-12", "--run-id=nightly-{date}-b", "--retry-failed")
    status, said = night.run(RUNNING, "Complete,SUCCEEDED,: ", more=more)

    assert status == 0, said
    variables = yaml.safe_load(night.created()["spec"]["runtimeEnvYAML"])["env_vars"]
    assert variables == {"NIGHT": " ".join(more)}


@pytest.mark.parametrize("more", ['--set=fit.target="x"', "--set=a=$HOME", "a;b", "a\nb", "a'b"])
def test_an_argument_that_a_shell_would_read_otherwise_is_refused(night: Night, more: str) -> None:
    status, said = night.run(RUNNING, more=(more,))

    assert (status, "is not passed on" in said) == (Exit.USAGE, True)
    assert not (night.folder / "made").exists()


def test_a_rayjob_that_would_run_without_its_date_is_refused(night: Night) -> None:
    template = night.folder / "rayjob.yaml"
    template.write_text(template.read_text().replace("$NIGHT", ""))
    status, said = night.run(RUNNING)

    assert (status, "lacks its last word" in said) == (Exit.USAGE, True)
    assert not (night.folder / "made").exists()


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("Failed,FAILED,AppFailed: Job entrypoint command failed with exit code 2, last ...", 2),
        ("Failed,FAILED,AppFailed: Job entrypoint command failed with exit code 143, last", 143),
        ("Failed,,PreRunningDeadlineExceeded: no head", 1),
        ("Failed,RUNNING,DeadlineExceeded: ", 1),
        ("Complete,STOPPED,: Job was stopped", 1),
        ("ValidationFailed,,: spec", 2),
    ],
)
def test_a_night_ends_with_the_runs_own_exit_code(night: Night, end: str, status: int) -> None:
    ended, said = night.run(RUNNING, end)

    assert ended == status
    assert end in said


def test_a_night_follows_the_rayjob_that_a_pod_before_it_made(night: Night) -> None:
    status, said = night.run(RUNNING, RUNNING, "AWAY", "Complete,SUCCEEDED,: ", made=True)

    assert status == 0, said
    assert not (night.folder / "deleted").exists()


def test_a_failed_rayjob_is_made_anew(night: Night) -> None:
    status, said = night.run(
        "Failed,FAILED,AppFailed: x", RUNNING, "Complete,SUCCEEDED,: ", made=True
    )

    assert status == 0, said
    assert "--cascade=foreground" in (night.folder / "deleted").read_text()
    assert night.created()["kind"] == "RayJob"


def test_a_night_whose_rayjob_is_removed_or_refused_fails(night: Night) -> None:
    assert night.run(RUNNING, "GONE", "")[0] == 143

    (night.folder / "refusal").write_text("Error from server (Forbidden): no\n")
    status, said = night.run(RUNNING)
    assert (status, "Forbidden" in said) == (1, True)


def test_sigterm_ends_a_night_that_follows(night: Night) -> None:
    with night.start(RUNNING) as process:
        assert process.stdout is not None
        assert any(line.startswith("night ") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_S) == 143


def test_the_entrypoint_of_a_rayjob_is_a_run_with_and_without_a_night() -> None:
    for name in ("rayjob/cpu", "rayjob/gpu", "rayjob/kueue"):
        line = one(name, "RayJob")["spec"]["entrypoint"]
        words = {
            night: subprocess.run(
                ["/bin/sh", "-c", f'polyfit() {{ printf "%s\\n" "$@"; }}; {line}'],
                env={"NIGHT": night},
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split("\n")
            for night in ("", "--date 2026-11-23 --run-id=nightly-{date}-b")
        }
        plain, dated = words.values()
        assert plain[:3] == ["run", "/opt/polyfit/jobs/sweep.yaml", "--store"]
        assert dated[: len(plain) - 1] == plain[:-1]
        assert dated[len(plain) - 1 : -1] == ["--date", "2026-11-23", "--run-id=nightly-{date}-b"]


def test_the_morning_compares_the_run_that_the_night_made(tmp_path: Path, command: Command) -> None:
    """By the arguments of both, of a spec and a store in a folder."""
    (container,) = pods(one("pod/compare", "CronJob"))["pod"]["containers"]
    (nightly,) = pods(one("pod/nightly", "CronJob"))["pod"]["containers"]
    spec, store = tmp_path / "spec.yaml", tmp_path / "store"
    spec.write_text("name: s\nfit: {steps: 9, points: 40}\nsweep: {seed: {count: 2}}\n", "utf-8")
    given = {nightly["args"][0]: str(spec), nightly["args"][2]: str(store)}
    compare = [given.get(it, it) for it in [*container["command"][1:], *container["args"]]]

    ended = command(*compare)
    assert (ended.code, "has not been run" in ended.err) == (Exit.USAGE, True)
    for date in ("2026-03-01", "2026-03-02"):
        run = ["run", spec, "--store", store, "--run-id", "nightly-{date}", "--date", date]
        assert command(*run).code == Exit.COMPLETE
    ended = command(*compare, "--date", "2026-03-02")
    assert ended.code == Exit.COMPLETE
    assert "2026-03-01" in ended.out
