"""Whether a Ray head answers at an address: Ray itself would ask for minutes.

The question is one that Ray's own processes ask a head, over gRPC. It is not part of Ray's public
interface; tests ask a real head, another service, and a head with another token.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import grpc

from polyfit.errors import ClusterError
from polyfit.work.cluster_address import HostPort

__all__ = ["check_head"]

HEAD_TIMEOUT_S: Final = 10.0
_QUESTION: Final = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def check_head(address: str) -> None:
    """Check that a Ray head answers at ``address``, and accepts our token.

    Raises:
        ClusterError: nothing answers there, something else does, or it asks for another token.
    """
    place = HostPort.of(address)
    if place is None:
        return
    deadline = time.monotonic() + HEAD_TIMEOUT_S
    try:
        socket.create_connection((place.host, place.port), HEAD_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        raise ClusterError(f"the Ray cluster at {address} cannot be reached: {error}") from None
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("0", "false", ""):
        return  # it answers only those who show a certificate
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    token = _token() if mode in ("", "token") else None
    status = _ask(place.target, token, max(deadline - time.monotonic(), 0.1))
    if status == "UNAUTHENTICATED" and mode in ("", "disabled", "token"):
        wrong = ", and does not accept this one" if token else ""
        raise ClusterError(
            f"the Ray cluster at {address} asks for a token{wrong}: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN to the cluster's"
        )
    # A Ray client server has a port of its own, and does not know the question.
    accepted = {"OK", "UNAUTHENTICATED", "UNIMPLEMENTED" if place.client else "OK"}
    if status not in accepted:
        found = "another service" if status == "UNIMPLEMENTED" else "no Ray"
        raise ClusterError(
            f"{address} is not the address of a Ray cluster: {found} answers there ({status}); "
            "a cluster's own port is 6379 if not set otherwise, 8265 is that of its dashboard"
        )


def _token() -> str | None:
    """The token that Ray will show: from the environment, or from a file."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    with suppress(OSError):
        return Path(os.path.expanduser(path)).read_text().strip() or None
    return None


def _ask(target: str, token: str | None, timeout_s: float) -> str:
    """The gRPC status with which ``target`` answers a question that every Ray head knows."""
    options = [("grpc.enable_http_proxy", 0)]  # as Ray does
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(target, options) as channel:
        ask = channel.unary_unary(_QUESTION)
        try:
            ask(b"", timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
