"""Real servers for the tests and the benchmark: five kinds of S3, and Ray clusters.

Each is a context manager that chooses free ports on 127.0.0.1, waits until the server answers a
request with credentials, and ends all of its processes by pid, so that any number of them can run
beside each other and beside the developer's own.
"""

import getpass
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy"))  # scripts, not a package

from limits import HANG_S  # noqa: E402
from local_s3 import Birth, LocalS3, free_port  # noqa: E402

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "Birth",
    "RayHead",
    "S3Server",
    "descendants",
    "isolate",
    "juicefs_s3",
    "moto_cloud",
    "moto_key",
    "moto_s3",
    "ray_head",
    "ray_node",
    "rclone_s3",
    "seaweedfs",
    "swift_s3",
]

T = TypeVar("T")

HOST = "127.0.0.1"
REQUEST_S = 180.0
"""For one answer of a server that may be swamped; whoever asks asks again."""

ATTEMPTS = 3
"""Starts before giving up: a port can be taken between our look and the server's bind."""

RAY_END_S = 30.0
OBJECT_STORE_BYTES = 256 * 2**20
"""Of shared memory per cluster. Ray would reserve 30% of the machine's memory for each."""

FOREIGN = ("AWS_", "RAY_", "RCLONE_")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

MARK = "POLYFIT_TEST_CLUSTER"
"""Set for a cluster's processes, and inherited by theirs: they are known again by its value."""


def isolate(environ: MutableMapping[str, str]) -> None:
    """Remove what the developer has set for S3, Ray and proxies; nothing may leave the machine."""
    for name in list(environ):
        if name.startswith(FOREIGN) or name.lower() in PROXIES:
            del environ[name]
    environ["AWS_EC2_METADATA_DISABLED"] = "true"
    environ["RAY_USAGE_STATS_ENABLED"] = "0"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server, and what a process needs to reach it.

    ``env`` holds AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3, AWS_DEFAULT_REGION.
    ``bucket`` exists.
    """

    env: Mapping[str, str] = field(repr=False)
    bucket: str
    honours_conditions: bool

    @property
    def endpoint_url(self) -> str:
        return self.env["AWS_ENDPOINT_URL_S3"]

    def client(self) -> "S3Client":
        """A new client with this server's keys, whatever the environment says."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
            config=botocore.config.Config(
                connect_timeout=REQUEST_S, read_timeout=REQUEST_S, retries={"total_max_attempts": 2}
            ),
        )

    def fresh_uri(self) -> str:
        """A prefix in the bucket that nobody else uses: ``s3://bucket/<random>``."""
        return f"s3://{self.bucket}/{secrets.token_hex(6)}"

    def fresh_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def seaweedfs(folder: Path, bucket: str = "polyfit") -> Iterator[S3Server]:
    """The S3 server of `make serve-s3`, on its own folder."""
    local = LocalS3(folder, bucket)
    local.start()
    try:
        yield S3Server(local.env, bucket, honours_conditions=True)
    finally:
        local.stop()


@contextmanager
def rclone_s3(folder: Path, bucket: str = "polyfit") -> Iterator[S3Server]:
    """``rclone serve s3``: a server that ignores If-None-Match and If-Match, and overwrites."""
    (folder / "data" / bucket).mkdir(parents=True, exist_ok=True)
    env = _fresh_keys()
    for _ in range(ATTEMPTS):
        port = free_port()
        env["AWS_ENDPOINT_URL_S3"] = f"http://{HOST}:{port}"
        server = S3Server(env, bucket, honours_conditions=False)
        process = _spawn_rclone(folder, port, env)
        try:
            if _wait_for(partial(_lists, server), process):
                yield server
                return
        finally:
            _end_child(process)
    raise RuntimeError(f"rclone does not start: {_tail(folder / 'log')}")


def _spawn_rclone(folder: Path, port: int, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    key = f"{env['AWS_ACCESS_KEY_ID']},{env['AWS_SECRET_ACCESS_KEY']}"
    return _spawn(
        [_tool("rclone"), "serve", "s3", "--addr", f"{HOST}:{port}", str(folder / "data")],
        # The key as a CSV field: in the environment, since arguments are for all to see.
        {"HOME": str(folder), "RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{key}"'},
        folder / "log",
    )


def _spawn(command: list[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@contextmanager
def juicefs_s3(folder: Path, bucket: str = "polyfit") -> Iterator[S3Server]:
    """``juicefs gateway`` as it comes: no ETag of what is read, no conditions, no metadata."""
    meta, data = f"sqlite3://{folder}/meta.db", folder / "data"
    made = subprocess.run(
        [_tool("juicefs"), "format", meta, "polyfit", "--bucket", f"{data}/"],
        env={"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"JuiceFS makes no volume: {made.stderr}")
    env = _fresh_keys()
    for _ in range(ATTEMPTS):
        port = free_port()
        env["AWS_ENDPOINT_URL_S3"] = f"http://{HOST}:{port}"
        server = S3Server(env, bucket, honours_conditions=False)
        process = _spawn_juicefs(folder, meta, port, env)
        try:
            if _wait_for(partial(_makes_bucket, server), process):
                yield server
                return
        finally:
            _end_child(process)
    raise RuntimeError(f"JuiceFS does not start: {_tail(folder / 'log')}")


def _spawn_juicefs(
    folder: Path, meta: str, port: int, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return _spawn(
        [
            *(_tool("juicefs"), "--no-agent", "gateway", meta, f"{HOST}:{port}", "--no-banner"),
            *("--multi-buckets", "--no-usage-report", "--no-bgjob", "--backup-meta=0"),
            *(f"--metrics={HOST}:{free_port()}", f"--cache-dir={folder / 'cache'}"),
            f"--log={folder / 'gateway.log'}",
        ],
        {
            "HOME": str(folder),
            "MINIO_ROOT_USER": env["AWS_ACCESS_KEY_ID"],
            "MINIO_ROOT_PASSWORD": env["AWS_SECRET_ACCESS_KEY"],
        },
        folder / "log",
    )


def _fresh_keys() -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "key" + secrets.token_hex(8),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _makes_bucket(server: S3Server) -> bool:
    """Whether the server answers; its bucket is there then."""
    try:
        server.client().create_bucket(Bucket=server.bucket)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return True


SWIFT = ("account", "container", "object", "proxy")
"""OpenStack Swift's servers: three that keep things, and the one that speaks S3."""

SWIFT_RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(("account", "container", "object"), sys.argv[2:], strict=True):
    builder = RingBuilder(1, 1, 0)
    device = {"id": 0, "region": 1, "zone": 1, "weight": 1, "device": "disk", "meta": ""}
    place = {"ip": "127.0.0.1", "port": int(port)}
    builder.add_dev(device | place | {f"replication_{key}": place[key] for key in place})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


@contextmanager
def swift_s3(folder: Path, bucket: str = "polyfit") -> Iterator[S3Server]:
    """OpenStack Swift with one disk: If-None-Match is honoured, If-Match answered with 501.

    Its objects' metadata lie in extended attributes: ``folder`` is on a file system that has them.
    """
    env = _fresh_keys() | {"AWS_ACCESS_KEY_ID": "polyfit:tests"}
    (folder / "devices" / "disk").mkdir(parents=True)
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_reserved_port()) for name in SWIFT}
        env["AWS_ENDPOINT_URL_S3"] = f"http://{HOST}:{ports['proxy']}"
        server = S3Server(env, bucket, honours_conditions=True)
        _configure_swift(folder, ports, env["AWS_SECRET_ACCESS_KEY"])
        processes = [
            _spawn([_tool(f"swift-{name}-server"), str(folder / f"{name}.conf"), "-v"],
                   {"HOME": str(folder), "PATH": os.defpath}, folder / f"{name}.log")
            for name in SWIFT
        ]  # fmt: skip
        try:
            if _wait_for(partial(_makes_bucket, server), *processes):
                yield server
                return
        finally:
            for process in processes:
                _end_child(process)
    raise RuntimeError(f"Swift does not start: {[_tail(folder / f'{name}.log') for name in SWIFT]}")


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that is found taken by all but those who share it, as Swift's servers do: two of them
    that chose the same would each get a part of the requests, and neither would say so."""
    port = free_port()
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((HOST, port))
        yield port


def _configure_swift(folder: Path, ports: Mapping[str, int], secret: str) -> None:
    places = [str(ports[name]) for name in SWIFT[:3]]
    subprocess.run([sys.executable, "-c", SWIFT_RINGS, str(folder), *places], check=True)
    common = (
        f"bind_ip = {HOST}\nworkers = 0\nswift_dir = {folder}\nuser = {getpass.getuser()}\n"
        # A busy machine is no failure. What would then be done later, nobody here would do.
        "conn_timeout = 60\nnode_timeout = 60\ncontainer_update_timeout = 60\n"
    )
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    for name in SWIFT[:3]:
        (folder / f"{name}.conf").write_text(
            f"[DEFAULT]\nbind_port = {ports[name]}\n{common}"
            f"devices = {folder / 'devices'}\nmount_check = false\ndisable_fallocate = true\n"
            f"[pipeline:main]\npipeline = {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\n"
        )
    (folder / "proxy.conf").touch(0o600)
    (folder / "proxy.conf").write_text(
        f"[DEFAULT]\nbind_port = {ports['proxy']}\n{common}"
        "[pipeline:main]\npipeline = catch_errors s3api tempauth proxy-server\n"
        "[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
        "[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1\n"
        f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_polyfit_tests = {secret} .admin\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        "conn_timeout = 60\nnode_timeout = 60\n"
    )


@contextmanager
def moto_cloud(folder: Path, prepare: Callable[[Callable[..., Any]], T]) -> Iterator[tuple[str, T]]:
    """``moto_server``: a cloud in memory that asks who may do what. It honours conditions of S3.

    ``prepare`` makes what shall be there, by clients of one who may do anything: it is given
    ``client(service)``, as of boto3. From then on nobody enters without a key. Yields the endpoint
    and what ``prepare`` returned.
    """
    for _ in range(ATTEMPTS):
        place = f"{HOST}:{free_port()}"
        process = _spawn_moto(folder, place)
        try:
            if _wait_for(partial(_moto_answers, place), process):
                session = boto3.Session("nobody", "nobody", region_name=MOTO_REGION)
                prepared = prepare(partial(session.client, endpoint_url=f"http://{place}"))
                if _moto(place, "POST", "/moto-api/reset-auth", "0") != 200:
                    raise RuntimeError("moto does not ask for keys")
                yield f"http://{place}", prepared
                return
        finally:
            _end_child(process)
    raise RuntimeError(f"moto does not start: {_tail(folder / 'log')}")


@contextmanager
def moto_s3(folder: Path, bucket: str = "polyfit") -> Iterator[S3Server]:
    """A bucket at moto, and a key with ``MOTO_RIGHTS``: it may not delete, as none of ours must."""

    def prepare(client: Callable[..., Any]) -> dict[str, str]:
        client("s3").create_bucket(Bucket=bucket)
        rights = {"Effect": "Allow", "Action": MOTO_RIGHTS, "Resource": "*"}
        return moto_key(client, "polyfit", {"Version": "2012-10-17", "Statement": [rights]})

    with moto_cloud(folder, prepare) as (endpoint_url, key):
        env = {**key, "AWS_ENDPOINT_URL_S3": endpoint_url}
        yield S3Server(env, bucket, honours_conditions=True)


def moto_key(client: Callable[..., Any], name: str, policy: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a new user who may do what the policy says."""
    iam = client("iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_DEFAULT_REGION": MOTO_REGION,
    }


MOTO_REGION = "us-east-1"
MOTO_RIGHTS = ("s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:CreateBucket")


def _spawn_moto(folder: Path, place: str) -> subprocess.Popen[bytes]:
    host, _, port = place.partition(":")
    return _spawn(
        [_tool("moto_server"), "--host", host, "--port", port],
        {"HOME": str(folder), "PATH": os.defpath},
        folder / "log",
    )


def _moto_answers(place: str) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return _moto(place, "GET", "/moto-api/data.json") == 200
    return False


def _moto(place: str, method: str, path: str, body: str | None = None) -> int:
    """Status of a request to moto itself."""
    connection = http.client.HTTPConnection(place, timeout=REQUEST_S)
    try:
        connection.request(method, path, body, {"Content-Type": "text/plain"})
        return connection.getresponse().status
    finally:
        connection.close()


def _lists(server: S3Server) -> bool:
    try:
        server.client().head_bucket(Bucket=server.bucket)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class RayHead:
    """A running one-node Ray cluster with token authentication.

    ``env`` is what a client's process needs: RAY_ADDRESS (for drivers), RAY_API_SERVER_ADDRESS
    (for ``ray job``, which prefers it), RAY_AUTH_MODE and RAY_AUTH_TOKEN. The token is the one in
    our environment, if any: a process reads it once and keeps it, whatever cluster it joins.
    Ray listens on the machine's own address even so: it is the token that keeps others out.
    """

    address: str
    dashboard_url: str
    env: Mapping[str, str] = field(repr=False)
    process: Birth
    folder: Path

    @property
    def token(self) -> str:
        return self.env["RAY_AUTH_TOKEN"]

    def get(self, path: str, token: str | None = None) -> int:
        """Status of a GET to the dashboard with the cluster's token, another, or none (``""``)."""
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection = http.client.HTTPConnection(
            urlsplit(self.dashboard_url).netloc, timeout=REQUEST_S
        )
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


@contextmanager
def ray_head(
    num_cpus: int = 2,
    num_gpus: int = 2,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    dashboard: bool = True,
) -> Iterator[RayHead]:
    """``ray start --head`` with logical GPUs; ``env`` is added to its processes' environment.

    Credentials for a store belong in ``env``: they are the node's, and never travel with a job.
    ``python`` runs it. Only a cluster with a dashboard takes jobs.
    """
    # Short, because a Unix socket's path has at most 107 bytes and Ray's own part is long.
    folder = Path(tempfile.mkdtemp(prefix="pf", dir="/tmp"))
    try:
        for _ in range(ATTEMPTS):
            head, process = _spawn_ray(folder, num_cpus, num_gpus, env or {}, python, dashboard)
            try:
                if _wait_for(partial(_serves if dashboard else _gcs_answers, head), process):
                    yield head
                    return
            finally:
                _end_ray(head, process)
        raise RuntimeError(f"Ray does not start: {_tail(folder / 'log')}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_node(
    head: RayHead, address: str, num_cpus: int = 1, env: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Another node on this machine, at an ``address`` of its own such as 127.0.0.2; ``env`` as for
    the head.

    It runs our Python, and its home is this folder: it finds polyfit. Its processes end with it,
    and with the cluster.
    """
    command = [
        *(_tool("ray"), "start", "--block", "--disable-usage-stats"),
        *(f"--address={head.address}", f"--node-ip-address={address}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={num_cpus}"),
        *("--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"),
    ]
    said = head.folder / f"node-{address}.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            command,
            env=_node_env(head.folder, head.env, env or {}),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        if not _wait_for(lambda: b"Ray runtime started" in said.read_bytes(), process):
            raise RuntimeError(f"the node does not start: {_tail(said)}")
        yield
    finally:
        _end_child(process, RAY_END_S)


def _spawn_ray(
    folder: Path, num_cpus: int, num_gpus: int, env: Mapping[str, str], python: str, dashboard: bool
) -> tuple[RayHead, subprocess.Popen[bytes]]:
    port, dashboard_port, client_port, agent_port = (free_port() for _ in range(4))
    client_env = {
        "RAY_ADDRESS": f"{HOST}:{port}",
        "RAY_API_SERVER_ADDRESS": f"http://{HOST}:{dashboard_port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
    }
    command = [
        *(
            python,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
        ),
        *(f"--node-ip-address={HOST}", f"--port={port}", f"--temp-dir={folder}"),
        *(f"--include-dashboard={dashboard}", f"--dashboard-host={HOST}"),
        *(f"--dashboard-port={dashboard_port}", f"--ray-client-server-port={client_port}"),
        # Two of Ray's defaults are the same for every cluster on a machine: these two kinds.
        *(f"--dashboard-agent-listen-port={agent_port}", "--min-worker-port=0"),
        "--max-worker-port=0",
        *(f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}"),
        f"--object-store-memory={OBJECT_STORE_BYTES}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=_node_env(folder, client_env, env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    born = Birth.of(process.pid) or Birth(process.pid, -1)
    url = client_env["RAY_API_SERVER_ADDRESS"]
    return RayHead(client_env["RAY_ADDRESS"], url, client_env, born, folder), process


def _node_env(
    folder: Path, client_env: Mapping[str, str], env: Mapping[str, str]
) -> dict[str, str]:
    """The cluster's processes find our commands first, and nothing of the developer's."""
    node = dict(os.environ)
    isolate(node)
    node |= {name: client_env[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    node |= {"PATH": f"{Path(sys.executable).parent}:{node.get('PATH', os.defpath)}"}
    node |= {"HOME": str(folder), MARK: folder.name}
    # On SIGTERM a node first gives its jobs time to go elsewhere: 30 s, and there is no elsewhere.
    node |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    return node | dict(env)


def _serves(head: RayHead) -> bool:
    """Whether the job server answers (it asks the GCS for the jobs), and then the GCS itself."""
    with suppress(OSError, http.client.HTTPException):
        return head.get("/api/jobs/") == 200 and _gcs_answers(head)
    return False


def _gcs_answers(head: RayHead) -> bool:
    check = [_tool("ray"), "health-check", f"--address={head.address}"]
    env = dict(os.environ) | dict(head.env)
    return subprocess.run(check, env=env, capture_output=True, check=False).returncode == 0


def _end_ray(head: RayHead, process: subprocess.Popen[bytes]) -> None:
    """End the cluster in its own way, then by id whatever of it is still there."""
    _end_child(process, RAY_END_S)
    deadline = time.monotonic() + 5
    while (left := _processes_of(head)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for straggler in left:
        straggler.signal(signal.SIGKILL)
    for straggler in left:
        if not straggler.ends_within(HANG_S):
            raise RuntimeError(f"process {straggler.pid} of the Ray cluster does not end")


def _processes_of(head: RayHead) -> list[Birth]:
    """Every live process of the cluster, its drivers included.

    Workers overwrite their environment with their title, and lose the mark, but stay in the
    session; drivers get a session of their own, and keep the mark.
    """
    mark = f"{MARK}={head.folder.name}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text(errors="replace")
            session = int(stat.rpartition(")")[2].split()[3])
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
            if marked or session == head.process.pid:
                found.append(Birth.of(int(folder.name)))
    return [process for process in found if process]


def _tool(name: str) -> str:
    """A command of this interpreter's environment."""
    return str(Path(sys.executable).with_name(name))


def _wait_for(answers: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; False when it dies before, or does not in time."""
    deadline = time.monotonic() + HANG_S
    while all(one.poll() is None for one in processes) and time.monotonic() < deadline:
        if answers():
            return True
        time.sleep(0.1)
    return False


def _end_child(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> None:
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "no output"


def descendants(pid: int) -> list[Birth]:
    """The live processes that ``pid`` started, and those that they did."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text(errors="replace")
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        offspring = children.get(left.pop(), [])
        left += offspring
        found += [Birth.of(child) for child in offspring]
    return [process for process in found if process]
