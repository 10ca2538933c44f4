"""The address of a Ray cluster: which one to join, and its forms.

That this process is the entrypoint of a Ray job shows in an environment variable that Ray sets for
its own use; a test submits a job.
"""

import os
import re
from dataclasses import dataclass
from typing import Final

from polyfit.errors import UsageError

__all__ = ["HostPort", "inside_ray_job", "named_cluster"]

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


def inside_ray_job() -> bool:
    """Whether this process is the entrypoint of a Ray job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # the name is what Ray calls it


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
