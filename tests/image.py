"""`make image-check`: the image built without a container engine, and a job run in it.

Buildah carries out `deploy/Dockerfile` (`--isolation chroot`: no daemon, no container). Its base,
`python:...-slim`, comes from a registry of images; here it is a Debian of the same name made by
debootstrap, whose own Python has the same minor release. Bubblewrap then runs containers of it as
deploy/ does: uid 1000, a root that is read-only, no network, a folder for a store. First those of
deploy/pod, with polyfit as process 1: its exit codes as they are seen from outside, SIGTERM, and a
night. Then Ray is started there, and the entrypoint of deploy/rayjob submitted. One fit by machine
code shows that the image allows it.

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
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from deployed import ROOT, commands, documents, text
from limits import HANG_S, wait_for

BASE, IMAGE = "localhost/polyfit-base", "localhost/polyfit-check"
PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "bwrap": "bubblewrap"}
USER = 1000
JOB = """
[ "$(id -u)" = {user} ]
if touch /opt/polyfit/x 2>/dev/null; then echo "the root can be written" >&2; exit 1; fi
{cmd} > /dev/null
ray start --head --num-cpus=2 --node-ip-address=127.0.0.1 --disable-usage-stats
rm -r /store/sine
ray job submit --address http://127.0.0.1:8265 -- {entrypoint}
polyfit verify "$(echo /store/sine/*)"
(cat /opt/polyfit/jobs/sine.yaml; echo "engine: compiled") > /tmp/compiled.yaml
polyfit run /tmp/compiled.yaml --store /tmp/compiled
"""
LONG = """
name: long
shard: 200
fit: {steps: 2000000}
record: none
sweep: {seed: {count: 12000}}
resources: {actors: {max: 2}}
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
        image = Image.of(storage, folder / "store")
        check_pod(image)
        check_ray(image)
    print("\nThe image was built. As uid 1000 on a read-only root it ran as a pod of deploy/pod,")
    print("with polyfit as process 1 and its exit codes, and as the head of a Ray cluster.")


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


@dataclass(frozen=True)
class Image:
    """The image's files below ``root``; its containers see the folder ``store`` as /store."""

    root: str
    config: dict[str, Any]
    store: Path

    @classmethod
    def of(cls, storage: list[str], store: Path) -> "Image":
        """A container of the image, mounted."""
        container = answer(*storage, "from", IMAGE).strip()
        root = answer(*storage, "mount", container).strip()
        config = json.loads(answer(*storage, "inspect", container))["OCIv1"]["config"]
        if config["User"] != f"{USER}:{USER}":
            sys.exit(f"the image's user is {config['User']}, not {USER}:{USER}")
        for folder in (Path(root, "store"), store):  # the first is where the second is mounted
            folder.mkdir()
        os.chown(store, USER, USER)
        return cls(root, config, store)

    def command(self, *words: str, **env: str) -> list[str]:
        """Bubblewrap with these words as process 1."""
        settings = [*(it.split("=", 1) for it in self.config["Env"]), *env.items()]
        return [
            *("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-net"),
            *("--as-pid-1", "--ro-bind", self.root, "/"),
            *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"),
            *("--perms", "1777", "--tmpfs", "/tmp", "--bind", str(self.store), "/store"),
            *("--clearenv", *(word for pair in settings for word in ("--setenv", *pair))),
            *("--chdir", self.config["WorkingDir"], "setpriv", f"--reuid={USER}"),
            *(f"--regid={USER}", "--clear-groups", "--inh-caps=-all"),
            *("--no-new-privs", *words),
        ]

    def ends(self, status: int, *words: str, **env: str) -> None:
        """Run a container to its end; end this program unless it has this exit code."""
        print("+", shlex.join(words), flush=True)
        found = subprocess.run(self.command(*words, **env), check=False).returncode
        if found != status:
            sys.exit(f"exit status {found}, not {status}")


def check_pod(image: Image) -> None:
    """The container of deploy/pod: its exit codes, SIGTERM, and a night."""
    (job,) = documents(text("pod/base/job.yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    polyfit = container["command"]

    def args(spec: str) -> list[str]:
        given: list[str] = list(container["args"])
        given[0], given[given.index("--store") + 1] = spec, "/store"
        return given

    (image.store / "wrong.yaml").write_text("name: wrong\nfits: {}\n", encoding="utf-8")
    (image.store / "long.yaml").write_text(LONG, encoding="utf-8")
    image.ends(2, *polyfit, *args("/store/wrong.yaml"))
    image.ends(0, *polyfit, *args("/opt/polyfit/jobs/sine.yaml"))
    long = [*polyfit, *args("/store/long.yaml"), "--executor", "ray"]
    stored = sigterm(image, long)
    image.ends(0, *long)
    print(f"SIGTERM left {stored} shards in the store; the same command did the others.")

    (patches,) = documents(text("pod/components/nightly/kustomization.yaml"))
    *_, change = yaml.safe_load(patches["patches"][0]["patch"])
    name = f"polyfit-nightly-{int(time.time()) // 60 - 24 * 60}"
    night = time.strftime("%Y-%m-%d", time.gmtime(int(name[-8:]) * 60))
    image.ends(0, *change["value"], *args("/opt/polyfit/jobs/sine.yaml"), JOB_NAME=name)
    if not (image.store / "sine" / f"nightly-{night}" / "manifest.json").exists():
        sys.exit(f"the run of {name} is not nightly-{night}")


def sigterm(image: Image, words: list[str]) -> int:
    """End a container in the middle of its run, as Kubernetes does; the shards that it stored."""
    print("+", shlex.join(words), "# and SIGTERM", flush=True)
    ours, theirs = os.pipe()
    command = image.command(*words)
    command[1:1] = ["--info-fd", str(theirs)]
    with subprocess.Popen(command, pass_fds=[theirs], text=True) as process:
        os.close(theirs)
        with open(ours, encoding="utf-8") as info:
            first = json.load(info)["child-pid"]
        wait_for(lambda: shards(image) > 2, "three stored shards", process)
        os.kill(first, signal.SIGTERM)
        status = process.wait(HANG_S)
    if status != 143 or [*image.store.glob("long/*/manifest.json")]:
        sys.exit(f"exit status {status} after SIGTERM, not 143 before the end")
    return shards(image)


def shards(image: Image) -> int:
    """How many shards of the long run are in the store."""
    return len([*image.store.glob("long/*/shards/*.parquet")])


def check_ray(image: Image) -> None:
    """A head in the image's files, and the entrypoint of deploy/rayjob there."""
    entrypoint = ["polyfit", *commands()["rayjob"]]
    entrypoint[entrypoint.index("--store") + 1] = "/store"
    entrypoint[entrypoint.index("run") + 1] = "/opt/polyfit/jobs/sine.yaml"
    entrypoint[entrypoint.index("resources.actors.min=8")] = "resources.actors.min=1"
    words = {"user": USER, "cmd": shlex.join(image.config["Cmd"])}
    job = JOB.format(**words, entrypoint=shlex.join(entrypoint))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    image.ends(0, "bash", "-euc", job, **token)


if __name__ == "__main__":
    main()
