"""Joining a Ray cluster, or starting one on this machine."""

import os
import resource
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from polyfit.errors import ClusterError
from polyfit.work.cluster_address import named_cluster
from polyfit.work.signals import in_thread

__all__ = ["Connection", "connect", "ending_beside", "full_disk"]

FULL_BYTES: Final = 2**24
"""Free bytes below which a disk is called full."""

ANSWER_S: Final = 1.0
"""Seconds to wait until a cluster on this machine takes a connection, or none is there."""

LOOK_EVERY_S: Final = 1.0
"""Seconds without an answer of Ray's after which it is seen whether the cluster is still there."""

T = TypeVar("T")

_JOIN_HINT: Final = (
    "; its logs are on its machines, in /tmp/ray/session_latest/logs if not set otherwise"
)


@dataclass(frozen=True, slots=True)
class Connection:
    """This process's connection to a Ray cluster.

    Attributes:
        own_cluster: whether ``connect`` started the cluster.
        opened: whether ``connect`` opened the connection; else it was there before.
        session: the folder of this node's logs and sockets, if known.
        gcs: the address of the cluster's control service, if known.
    """

    own_cluster: bool
    opened: bool
    session: str | None = None
    gcs: str | None = None

    def has_ended(self) -> bool:
        """Whether a cluster of our own does not answer any more.

        A signal to the whole process group ends it with us. Ray waits a minute for it to come back
        wherever something is asked of it, and then ends this process.
        """
        if not self.own_cluster or self.gcs is None:
            return False
        host, _, port = self.gcs.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:  # it listens, and is busy
            return False
        return False

    def check(self) -> None:
        """Raise a ClusterError if a cluster of our own has ended."""
        if self.has_ended():
            raise ClusterError("the Ray that this run started has ended")

    def ask(self, question: Callable[[], T]) -> T:
        """What ``question``, which needs the cluster, returns.

        Another thread asks: where a cluster has ended, Ray's calls wait for it a minute and then
        end the process, and no signal is handled meanwhile.

        Raises:
            ClusterError: a cluster of our own has ended.
        """
        answer = in_thread(question)
        while not wait([answer], LOOK_EVERY_S).done:
            self.check()
        return answer.result()

    def close(self) -> None:
        """Leave the cluster; end it if it is our own, which takes a second or two."""
        import ray

        if self.opened and _ends is not None:
            _ends.append(in_thread(ray.shutdown))
        elif self.opened:
            ray.shutdown()


_ends: list[Future[None]] | None = None


@contextmanager
def ending_beside() -> Iterator[None]:
    """Let the body go on while a connection that it closes is closed by another thread.

    The context ends when that is done. The body opens no connection after it has closed one.
    """
    global _ends
    ends = _ends = []
    try:
        yield
    finally:
        _ends = None
        for end in ends:
            end.result()


def connect(
    address: str | None, run: str = "a program's", metrics_port: int | None = None
) -> Connection:
    """Join the named cluster, or start one on this machine.

    Args:
        address: the cluster; RAY_ADDRESS or the surrounding job's if None.
        run: what the driver works for, for Ray's dashboard.
        metrics_port: where Prometheus finds the metrics of a Ray of our own; any port if None.

    Raises:
        ClusterError: it cannot be joined, or does not start.
        UsageError: the address does not have the form of one.
    """
    named = named_cluster(address)
    if named is None:
        _use_private_token()
        _check_ray_folder()
    else:
        from polyfit.work.head_check import check_head

        check_head(named)
    ray = in_thread(lambda: import_module("ray")).result()
    if ray.is_initialized():
        return Connection(own_cluster=False, opened=False)
    try:
        context = ray.init(job_config=_job_config(run), **_options(named, metrics_port))
    except BaseException as error:
        ray.shutdown()  # ends what has been started so far
        if not isinstance(error, Exception):
            raise
        # Ray raises many classes here, Exception itself among them.
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        hint = _JOIN_HINT if named else _start_hint()
        where = f"the Ray cluster at {named}" if named else "a Ray cluster on this machine"
        raise ClusterError(f"{where} cannot be used: {reason}{hint}") from error
    info = getattr(context, "address_info", {})
    session, gcs = info.get("session_dir"), info.get("gcs_address")
    return Connection(named is None, opened=True, session=session, gcs=gcs)


def _job_config(run: str) -> Any:
    """What Ray's dashboard says of this driver; a job's own metadata go before it."""
    from ray.job_config import JobConfig

    return JobConfig(metadata={"job_name": f"polyfit {run}"})


def _options(named: str | None, metrics_port: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": False}
    if named:
        return {**options, "address": named}
    # The port's name has an underscore, and stands in Ray's guide to metrics.
    port = {} if metrics_port is None else {"_metrics_export_port": metrics_port}
    return {**options, "address": "local", "include_dashboard": False, **port}


def _use_private_token() -> None:
    """Give a Ray of our own a token of its own.

    Ray would make one too, but leave it in the home folder, where it silently turns
    authentication on for every ``ray start`` that follows. Ray reads the mode when it is
    imported; in a program that has imported it before, its own default holds.
    """
    if "ray" not in sys.modules and not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _check_ray_folder() -> None:
    """Each of Ray's processes reads a relative folder differently, and they wait for each other.

    Raises:
        ClusterError: Ray's temporary folder is relative.
    """
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if not (folder := os.environ.get(name)):
            continue
        if not Path(folder).is_absolute():
            raise ClusterError(
                f"no Ray starts with {name}={folder}: its logs and sockets would be in "
                f"{_ray_folder()}, a relative path; an absolute one is needed"
            )
        return


def _ray_folder() -> Path:
    """Ray's temporary folder on this machine, for a Ray that is started here."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")


def _start_hint() -> str:
    """What to look at where no Ray starts on this machine."""
    folder = _ray_folder()
    sessions = folder.glob("session_2*")  # Ray's link to the latest one may be an old one
    latest = max(sessions, key=lambda session: session.name, default=folder)
    hint = f"; Ray's logs are in {latest / 'logs'}"
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        hint += f"; this process may use {limit / 1e9:.1f} GB of address space (ulimit -v)"
    full = full_disk(folder)
    return f"{hint}; {full}" if full else hint


def full_disk(folder: Path) -> str:
    """A few words if the disk of Ray's folder on this machine is full; empty if it is not."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < FULL_BYTES:
            return f"the disk of Ray's temporary folder {folder} is full"
    return ""
