"""The address of a Ray cluster: which one to join, and its forms.

That this process is the entrypoint of a Ray job, and which, shows in an environment variable that
Ray sets for its own use; tests submit jobs.
"""

import json
import os
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from polyfit.errors import UsageError
from polyfit.store.uri import mask_credentials

__all__ = ["HostPort", "inside_ray_job", "job_facts", "job_server_url", "named_cluster"]

_HOST_PORT: Final = re.compile(r"(ray://)?(?:\[([^\[\]/,\s]+)\]|([^\[\]:/,\s]+)):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and a port; ``client`` if it is that of a Ray client server (``ray://``)."""

    host: str
    port: int
    client: bool

    @classmethod
    def of(cls, address: str) -> "HostPort | None":
        """What ``address`` says, None if it has another form."""
        match = _HOST_PORT.fullmatch(address)
        if match is None or not 0 < int(match[4]) < 65536:
            return None
        return cls(match[2] or match[3], int(match[4]), match[1] is not None)

    @property
    def target(self) -> str:
        """As gRPC writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_JOB: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # the name is what Ray calls it


def inside_ray_job() -> bool:
    """Whether this process is the entrypoint of a Ray job."""
    return _JOB in os.environ


def job_facts() -> dict[str, str]:
    """What is noted of the Ray job whose entrypoint this process is; empty if of none.

    Its submission id, and the ``nonce`` of its submission: a job of another cluster may have the
    same id.
    """
    try:
        metadata = json.loads(os.environ[_JOB])["metadata"]
        nonce = {"nonce": str(metadata["nonce"])} if "nonce" in metadata else {}
        return {"job": str(metadata["job_submission_id"]), **nonce}
    except (KeyError, ValueError, TypeError):
        return {}


def job_server_url(address: str | None) -> str:
    """Where jobs are submitted: the given URL, RAY_API_SERVER_ADDRESS, or RAY_ADDRESS if it is one.

    Raises:
        UsageError: none is named, or it is no URL.
    """
    variables = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    named = {"--address": address} | {name: os.environ.get(name) for name in variables}
    if not address and not str(named["RAY_ADDRESS"]).startswith(("http://", "https://")):
        del named["RAY_ADDRESS"]  # a cluster's own, which takes no jobs
    name, url = next(((name, url) for name, url in named.items() if url), ("--address", ""))
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        found = repr(mask_credentials(url)) if url else "is missing"
        raise UsageError(
            f"{name} {found}; allowed: http://HOST:PORT or https://HOST:PORT without credentials, "
            "where the port of a cluster's job server is 8265 if not set otherwise"
        )
    return url.strip().rstrip("/")


def named_cluster(address: str | None) -> str | None:
    """The cluster to join: the given one, RAY_ADDRESS, or that of the surrounding job.

    Raises:
        UsageError: it does not have the form of an address.
    """
    for name, given in (("address", address), ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS"))):
        if named := (given or "").strip():
            if named not in ("auto", "local") and HostPort.of(named) is None:
                raise UsageError(
                    f"{name} {named!r}; allowed: HOST:PORT ([HOST]:PORT for IPv6), where the port "
                    "of a cluster is 6379 if not set otherwise, ray://HOST:PORT, auto or local; an "
                    "http:// address is a dashboard's, for `ray job submit`"
                )
            return named
    return "auto" if inside_ray_job() else None
