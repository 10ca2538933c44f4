"""`make image-check`: the image built without a container engine, and a job run in it.

Buildah carries out `deploy/Dockerfile` (`--isolation chroot`: no daemon, no container). Its base,
`python:...-slim`, comes from a registry of images; here it is a Debian of the same name made by
debootstrap, whose own Python has the same minor release. Bubblewrap then starts Ray in the image's
files as deploy/ does (uid 1000, a token), with a root that is read-only and without a network, and
the entrypoint of deploy/rayjob goes there by `ray job submit`, with a folder for a store. One fit
by machine code shows that the image allows it.

Takes ten minutes, and ten gigabytes of /var/tmp until it ends; more where torch comes with CUDA.
pip's settings on this machine (`pip config list`) hold in the build too: an index or a certificate
of one's own. Files and folders that they name are mounted there.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployed import ROOT, commands, text

BASE, IMAGE = "localhost/polyfit-base", "localhost/polyfit-check"
PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "bwrap": "bubblewrap"}
USER = 1000
JOB = """
[ "$(id -u)" = {user} ]
if touch /opt/polyfit/x 2>/dev/null; then echo "the root can be written" >&2; exit 1; fi
{cmd} > /dev/null
ray start --head --num-cpus=2 --node-ip-address=127.0.0.1 --disable-usage-stats
ray job submit --address http://127.0.0.1:8265 -- {entrypoint}
polyfit verify "$(echo /tmp/results/*/*)"
(cat /opt/polyfit/jobs/sine.yaml; echo "engine: compiled") > /tmp/compiled.yaml
polyfit run /tmp/compiled.yaml --store /tmp/compiled
"""


def main() -> None:
    """Build the image, then run a job in it."""
    if missing := [package for name, package in PACKAGES.items() if shutil.which(name) is None]:
        sys.exit(f"needs packages of Debian: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        sys.exit("an image's files belong to root: sudo make image-check")
    with workshop() as (folder, storage):
        make_base(storage, folder)
        build(storage, folder)
        run_job(storage)
    print("\nThe image was built, and a job ran in it as uid 1000 on a read-only root.")


def call(*words: str | Path, **env: str) -> None:
    """Run a command; end this program if it fails."""
    print("+", shlex.join(map(str, words)), flush=True)
    if status := subprocess.run(words, env=os.environ | env, check=False).returncode:
        sys.exit(f"{words[0]}: exit status {status}")


def answer(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def workshop() -> Iterator[tuple[Path, list[str]]]:
    """A folder, and the buildah command with its storage there; both are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="polyfit-image", dir="/var/tmp") as folder:
        storage = ["buildah", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"]
        try:
            yield Path(folder), storage
        finally:
            for kind in ("rm", "rmi"):
                subprocess.run([*storage, kind, "--all"], stdout=subprocess.DEVNULL, check=False)


def make_base(storage: list[str], folder: Path) -> None:
    """Debian with its Python where the real base has one: `python` and `pip`, free to install."""
    (release,) = re.findall(r"^FROM python:\S+-slim-(\w+)$", text("Dockerfile"), re.MULTILINE)
    root = folder / "base"
    wanted = "--include=ca-certificates,python-is-python3,python3-pip"
    call("debootstrap", "--variant=minbase", wanted, release, root)
    for mark in root.glob("usr/lib/python3.*/EXTERNALLY-MANAGED"):
        mark.unlink()
    (folder / "Base").write_text("FROM scratch\nCOPY base /\n", encoding="utf-8")
    call(*storage, "bud", "--quiet", "-f", folder / "Base", "-t", BASE, folder)
    shutil.rmtree(root)


def build(storage: list[str], folder: Path) -> None:
    """Build the Dockerfile, unchanged, on that base."""
    mounts = pip_mounts(folder / "pip.conf")
    volumes = [word for inside, here in mounts.items() for word in ("-v", f"{here}:{inside}:ro")]
    build = ["bud", "--isolation", "chroot", "--layers=false", "--from", BASE, *volumes]
    call(*storage, *build, "-f", ROOT / "deploy/Dockerfile", "-t", IMAGE, ROOT)


def pip_mounts(conf: Path) -> dict[str, str]:
    """Write this machine's settings of pip to ``conf``; what to mount in the build, by target."""
    listed = answer(sys.executable, "-m", "pip", "config", "list")
    found = re.findall(r"^(?:global|install|:env:)\.(\S+)='(.*)'$", listed, re.MULTILINE)
    settings = dict(reversed(found))  # the environment is listed first, and comes first
    lines = [f"{name} = {value}" for name, value in settings.items()]
    conf.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
    words = " ".join(settings.values()).split()
    # An index on disk links to packages beside it.
    indexes = [str(Path(word[7:]).parent) for word in words if word.startswith("file:///")]
    files = [word for word in words if word.startswith("/")]
    present = [path for path in {*indexes, *files} if Path(path).exists()]
    return {"/etc/pip.conf": str(conf)} | {path: path for path in sorted(present)}


def run_job(storage: list[str]) -> None:
    """The job of deploy/rayjob in the image's files."""
    container = answer(*storage, "from", IMAGE).strip()
    root = answer(*storage, "mount", container).strip()
    config: dict[str, Any] = json.loads(answer(*storage, "inspect", container))["OCIv1"]["config"]
    if config["User"] != f"{USER}:{USER}":
        sys.exit(f"the image's user is {config['User']}, not {USER}:{USER}")
    entrypoint = ["python", "-m", "polyfit", *commands()["rayjob"]]
    entrypoint[entrypoint.index("--store") + 1] = "/tmp/results"
    job = JOB.format(user=USER, cmd=shlex.join(config["Cmd"]), entrypoint=shlex.join(entrypoint))
    env = [setting.split("=", 1) for setting in config["Env"]]
    env += [["RAY_AUTH_MODE", "token"], ["RAY_AUTH_TOKEN", secrets.token_hex(32)]]
    call(
        *("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-net"),
        *("--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--tmpfs", "/dev/shm", "--perms", "1777", "--tmpfs", "/tmp"),
        *("--clearenv", *(word for pair in env for word in ("--setenv", *pair))),
        *("--chdir", config["WorkingDir"], "setpriv", f"--reuid={USER}", f"--regid={USER}"),
        *("--clear-groups", "--inh-caps=-all", "--no-new-privs", "bash", "-euc", job),
    )


if __name__ == "__main__":
    main()
