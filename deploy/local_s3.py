#!/usr/bin/env python3
"""A private S3 server for one checkout: SeaweedFS's ``weed mini``, known by its folder.

    python deploy/local_s3.py start --folder .local/s3     # up and answering, or reused
    . .local/s3/env                                        # keys and endpoint for this shell
    python deploy/local_s3.py stop --folder .local/s3

Everything is kept in the folder, so that two checkouts never meet:

    env          keys (random, made once) and endpoint, as shell lines; mode 0600
    data/        the objects
    ports.json   the ports used last; used again where they are free, so that ``env`` stays true
    server.pid   the server's own line of ``/proc/<pid>/stat``: its pid and the tick of its birth
    log          what the server said since its last start
    lock         held by whoever starts or stops the server

The server listens on 127.0.0.1 only. Its S3 port asks for the keys, SeaweedFS's inner ports do
not: good for one's own machine, not for one shared with strangers. Needs Linux, for ``/proc``.
"""

import argparse
import fcntl
import glob
import http.client
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Birth", "LocalS3", "ServerError", "free_port", "is_free", "main"]

HOST = "127.0.0.1"
REGION = "us-east-1"
SERVICES = ("master", "volume", "filer", "s3", "admin")

GRPC_OFFSET = 10_000
"""A service's gRPC port is its HTTP port plus this; ``weed`` counts on it in places."""

HTTP_PORTS = range(20_000, 22_700)
"""Above the ports of Ray's workers (10002 to 19999), and with the gRPC ports below those that Linux
gives to outgoing connections (from 32768)."""

READY_S = 300.0
"""For a server to answer after its start: one to two seconds on an idle machine, far more on a busy
one, and no end where it hangs."""

PATIENCE_S = 15.0
"""For a server that has been up before; it may be busy rather than hung."""

REQUEST_S = 5.0
STOP_S = 10.0

ATTEMPTS = 4
"""Starts before giving up: a port can be taken between our look and the server's bind."""

LAUNCH = ("/bin/sh", "-c", '"$@" &', "sh")
"""Runs a command in the background and leaves it to init: no zombie for a caller that stays."""

INTRODUCE = ("/bin/sh", "-c", 'cat "/proc/$$/stat" > "$0" && exec "$@"')
"""Writes the pid file from inside the process: never a server that its pid file does not know."""

ENV_FILE = """\
# For a shell to source. The keys open this folder's server and nothing else.
unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_REGION
unset AWS_ENDPOINT_URL AWS_IGNORE_CONFIGURED_ENDPOINT_URLS
unset AWS_USE_FIPS_ENDPOINT AWS_USE_DUALSTACK_ENDPOINT
export AWS_ACCESS_KEY_ID={access}
export AWS_SECRET_ACCESS_KEY={secret}
export AWS_ENDPOINT_URL_S3=http://{host}:{port}
export AWS_DEFAULT_REGION={region}
no_proxy="${{no_proxy:-${{NO_PROXY:-}}}}"
export no_proxy="{host},localhost${{no_proxy:+,$no_proxy}}"
export NO_PROXY="$no_proxy"
"""


class ServerError(Exception):
    """Something for the user to act on, in one line."""


@dataclass(frozen=True, slots=True)
class Birth:
    """A process for certain: a pid is given out again, a pid with its start tick is not."""

    pid: int
    tick: int

    @classmethod
    def parse(cls, stat: str) -> "Birth":
        """Read a line of ``/proc/<pid>/stat``, where the command's name may hold anything."""
        head, _, tail = stat.rpartition(")")
        return cls(int(head.split(maxsplit=1)[0]), int(tail.split()[19]))

    @classmethod
    def of(cls, pid: int) -> "Birth | None":
        """The process that has this pid now.

        A zombie is none, once its last thread is gone: until then it holds its ports and locks.
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        ended = fields[0] in "ZX" and int(fields[17]) <= 1
        return None if ended else cls.parse(stat)

    def alive(self) -> bool:
        return Birth.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process, or to none."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end of the process; False if it is still there after that time."""
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.alive()


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, on whatever address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_port(*offsets: int) -> int:
    """A free port for which port + offset is free as well, for every offset."""
    for port in random.SystemRandom().sample(HTTP_PORTS, len(HTTP_PORTS)):
        if all(is_free(port + offset) for offset in (0, *offsets)):
            return port
    raise ServerError(f"no free port from {HTTP_PORTS.start} to {HTTP_PORTS.stop - 1}")


def choose_ports() -> dict[str, int]:
    """One port per service, all different."""
    while True:
        ports = {service: free_port(GRPC_OFFSET) for service in SERVICES}
        if len(set(ports.values())) == len(SERVICES):
            return ports


def find_weed() -> str:
    """The server's binary: of this interpreter's environment, else of the PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("weed")
    if not found:
        raise ServerError("`weed` (SeaweedFS) is missing: `make serve-s3` installs it in .venv")
    return found


class LocalS3:
    """The server of one folder. The folder is the state: any two objects for it are alike."""

    def __init__(self, folder: Path | str, bucket: str = "polyfit") -> None:
        self.folder = Path(folder).resolve()
        self.bucket = bucket
        self.data = self.folder / "data"
        self.env_file = self.folder / "env"
        self.log_file = self.folder / "log"
        self.pid_file = self.folder / "server.pid"
        self.ports_file = self.folder / "ports.json"

    @property
    def env(self) -> dict[str, str]:
        """What the env file exports of AWS: the two keys, the endpoint, the region."""
        try:
            text = self.env_file.read_text()
        except FileNotFoundError:
            raise ServerError(f"no server has been started in {self.folder}") from None
        return dict(re.findall(r"^export (AWS_\w+)=(\S+)$", text, re.MULTILINE))

    @property
    def endpoint_url(self) -> str:
        return self.env["AWS_ENDPOINT_URL_S3"]

    @property
    def pid(self) -> int | None:
        """The server's pid while it lives, answering or not."""
        server = self._server()
        return server.pid if server else None

    def start(self) -> bool:
        """Bring the server up on the folder's data, and wait until it answers.

        A server that lives without answering is replaced, and so is one whose folder has moved.
        Returns False where the server was up.
        """
        with self._locked():
            server = self._server()
            if server and self._was_told(server) and self._wait(server, self._patience_s()):
                return False
            self._end(server)
            self._launch()
            return True

    def stop(self) -> bool:
        """End the server: SIGTERM, after ten seconds SIGKILL. False where none was running."""
        if not self.folder.is_dir():
            return False
        with self._locked():
            server = self._server()
            self._end(server)
            return server is not None

    def answers(self) -> bool:
        """Whether an object can be written and read with the keys."""
        try:
            return self._round_trip()
        except (OSError, http.client.HTTPException, KeyError):
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: whoever comes second waits, and finds what the first has done."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _server(self) -> Birth | None:
        """This folder's live server.

        It works in the folder, and the kernel follows a folder that moves: a pid file in a copy of
        the checkout does not lead to the original's server.
        """
        try:
            born = Birth.parse(self.pid_file.read_text(errors="replace"))
        except (OSError, ValueError, IndexError):
            return None
        try:
            workplace = os.stat(f"/proc/{born.pid}/cwd")
        except OSError:
            born.ends_within(STOP_S)  # killed a moment ago: it has no folder any more, but ports
            return None
        here = os.path.samestat(workplace, self.folder.stat())
        gone = workplace.st_nlink == 0
        return born if born.alive() and (here or gone) else None

    def _was_told(self, server: Birth) -> bool:
        """Whether the path that the server was started with is still the folder's."""
        try:
            told = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"HOME=" + os.fsencode(self.folder) in told

    def _patience_s(self) -> float:
        """Seconds to give a live server: its start may have been broken off a moment ago."""
        age = time.time() - self.pid_file.stat().st_mtime
        return min(max(READY_S - age, PATIENCE_S), READY_S)

    def _launch(self) -> None:
        """Start with the ports used last, then with others; a server that dies had a port taken."""
        weed = find_weed()
        self.data.mkdir(mode=0o700, exist_ok=True)
        for attempt in range(ATTEMPTS):
            ports = (None if attempt else self._last_ports()) or choose_ports()
            self._write(self.ports_file, json.dumps(ports))
            self._write_env(ports["s3"])
            server = self._spawn(weed, ports)
            if server and self._wait(server, READY_S):
                return
            hung = server and server.alive()
            self._end(server)
            if hung:
                break
        raise ServerError(f"the S3 server does not start: {self._last_words()} ({self.log_file})")

    def _spawn(self, weed: str, ports: dict[str, int]) -> Birth | None:
        """Start ``weed`` detached from this process and its terminal."""
        self.pid_file.unlink(missing_ok=True)
        # weed keeps a copy of its options beside the data and would take up those of an older us.
        (self.data / "mini.options").unlink(missing_ok=True)
        command = [*LAUNCH, *INTRODUCE, str(self.pid_file), weed, *weed_options(ports)]
        with self.log_file.open("wb") as log:
            subprocess.run(
                command,
                check=True,
                cwd=self.folder,
                env=self._server_env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._introduced()

    def _server_env(self) -> dict[str, str]:
        """Nothing of the caller's: weed reads WEED_*, S3_* and proxies, and ~/.seaweedfs."""
        keys = {name: self.env[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        return {"HOME": str(self.folder), "PATH": os.defpath, **keys}

    def _introduced(self) -> Birth | None:
        """The process that was started just now, once it has written its pid file."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError, IndexError):
                return Birth.parse(self.pid_file.read_text(errors="replace"))
            time.sleep(0.01)
        return None

    def _wait(self, server: Birth, seconds: float) -> bool:
        """Wait until the server answers; False when it dies before, or the time is over."""
        deadline = time.monotonic() + seconds
        while server.alive():
            if self.answers():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return False

    def _end(self, server: Birth | None) -> None:
        """End the server, if there is one, and take away what it leaves behind."""
        if server:
            server.signal(signal.SIGTERM)
            if not server.ends_within(STOP_S):
                server.signal(signal.SIGKILL)
            if not server.ends_within(READY_S):
                raise ServerError(f"the S3 server (pid {server.pid}) does not end")
        self.pid_file.unlink(missing_ok=True)
        for port in self._ports().values():
            remove_sockets(port)
            remove_sockets(port + GRPC_OFFSET)

    def _ports(self) -> dict[str, int]:
        """The ports used last; none if there are none for every service."""
        try:
            ports = json.loads(self.ports_file.read_text())
            return {service: int(ports[service]) for service in SERVICES}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _last_ports(self) -> dict[str, int] | None:
        ports = self._ports()
        free = all(is_free(port) and is_free(port + GRPC_OFFSET) for port in ports.values())
        return ports if ports and free else None

    def _write_env(self, port: int) -> None:
        """The env file for this port, with the keys that it had."""
        known = self.env if self.env_file.exists() else {}
        text = ENV_FILE.format(
            access=known.get("AWS_ACCESS_KEY_ID", "local" + secrets.token_hex(8)),
            secret=known.get("AWS_SECRET_ACCESS_KEY", secrets.token_hex(20)),
            host=HOST,
            port=port,
            region=REGION,
        )
        self._write(self.env_file, text)

    def _write(self, path: Path, text: str) -> None:
        """Write a file that only its owner may read, whole or not at all."""
        half = path.with_name(path.name + ".new")
        half.unlink(missing_ok=True)
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        half.replace(path)

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no output")

    def _round_trip(self) -> bool:
        """Make sure of the bucket; write, read and remove a small object in it."""
        key, body = f"/{self.bucket}/.probe-{secrets.token_hex(4)}", secrets.token_bytes(16)
        made, _ = self._request("PUT", f"/{self.bucket}")
        if made not in (200, 409):
            return False
        written, _ = self._request("PUT", key, body)
        read = self._request("GET", key)
        self._request("DELETE", key)
        return written == 200 and read == (200, body)

    def _request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One signed request: status and body.

        botocore signs, but its client is left out: that one would obey the profiles, proxies and
        endpoints of whoever calls us.
        """
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        env = self.env
        request = AWSRequest(method, env["AWS_ENDPOINT_URL_S3"] + path, data=body)
        keys = Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
        S3SigV4Auth(keys, "s3", REGION).add_auth(request)
        address = urlsplit(env["AWS_ENDPOINT_URL_S3"]).netloc
        connection = http.client.HTTPConnection(address, timeout=REQUEST_S)
        try:
            connection.request(method, path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def weed_options(ports: dict[str, int]) -> list[str]:
    """Everything on 127.0.0.1, on these ports; no telemetry, and no service that S3 can do without.

    ``-dir`` is relative to the working folder, because a comma in a path would make two of it.
    """
    return [
        "-logtostderr=true",
        "mini",
        "-dir=data",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.preStopSeconds=0",
        # A volume is a file that grows, and every bucket has its own: by default a disk with
        # 50 GB free has room for 50 buckets, empty or not.
        "-volume.max=1000",
        *(f"-{service}.port={port}" for service, port in ports.items()),
        *(f"-{service}.port.grpc={port + GRPC_OFFSET}" for service, port in ports.items()),
    ]


def remove_sockets(port: int) -> None:
    """Remove the Unix sockets that a killed server leaves in /tmp; theirs who listen stay."""
    if is_free(port):
        for path in glob.glob(f"/tmp/seaweedfs-*-{port}.sock"):
            with suppress(OSError):
                os.unlink(path)


def describe(server: LocalS3) -> tuple[str, int]:
    """The server's state in a line, and the exit code that says the same."""
    if server.pid is None:
        return f"no S3 server is running in {server.folder}", 1
    if not server.answers():
        return f"the S3 server (pid {server.pid}) does not answer; `start` replaces it", 1
    return f"S3 server at {server.endpoint_url}, bucket {server.bucket} (pid {server.pid})", 0


def run(command: str, server: LocalS3) -> int:
    """Carry out one command; returns the exit code."""
    if command == "env":
        server.endpoint_url  # noqa: B018 (says in one line that there is none)
        print(server.env_file.read_text(), end="")
        return 0
    if command == "stop":
        print("S3 server stopped" if server.stop() else "no S3 server was running")
        return 0
    if command == "start":
        server.start()
    line, code = describe(server)
    print(line)
    return code


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="After `start`, `. FOLDER/env` gives a shell the keys and the endpoint.",
    )
    parser.add_argument("command", choices=("start", "stop", "status", "env"))
    parser.add_argument("--folder", type=Path, default=".local/s3", help="default: %(default)s")
    parser.add_argument("--bucket", default="polyfit", help="made if missing; default: %(default)s")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        return run(arguments.command, LocalS3(arguments.folder, arguments.bucket))
    except ImportError as error:
        print(f"local_s3: {error}: `make serve-s3` installs it in .venv", file=sys.stderr)
    except (ServerError, OSError, subprocess.CalledProcessError) as error:
        print(f"local_s3: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
