"""An HTTP proxy in front of an S3 server that damages requests and answers on purpose.

Everything else it passes on byte for byte, the Host header too, because clients sign it. A function
chooses the fault of each request: a table in a test of one fault, a seeded chance in ``chaos``.
"""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from limits import HANG_S

__all__ = ["FAULTS", "Chance", "Proxy", "Request", "proxied"]

HOST: Final = "127.0.0.1"
DELAY_S: Final = (0.1, 1.0)
OUTAGE_S: Final = 6.0
CODES: Final = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "outage": (503, "ServiceUnavailable"),
    "409": (409, "ConditionalRequestConflict"),
}
FAULTS: Final = (
    *("answer lost", "delayed", "request cut off", "answer cut off", "500", "503", "409"),
    *("stalled", "wrong byte there", "wrong byte back", "outage"),
)
"""``answer lost``: it took effect, and nobody says so. ``stalled``: it takes effect after its
client has given it up. ``outage``: all requests of the next seconds are refused."""

_HOP: Final = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length"))


@dataclass(frozen=True, slots=True)
class Request:
    """What a fault is chosen by."""

    method: str
    path: str
    conditional: bool
    size: int

    def suffers(self, fault: str) -> bool:
        """Whether the fault makes sense for it."""
        if fault == "409":
            return self.conditional
        if fault in ("request cut off", "wrong byte there"):
            return self.method == "PUT" and self.size > 1
        if fault in ("answer cut off", "wrong byte back"):
            return self.method == "GET"
        return True


class Chance:
    """Faults by a seeded chance, until ``budget`` of them have happened, so that a run ends."""

    def __init__(self, seed: int, share: float, budget: int) -> None:
        self._rng, self._share, self._left = random.Random(seed), share, budget

    def __call__(self, request: Request) -> str | None:
        fault = self._rng.choice(FAULTS)
        strikes = self._rng.random() < self._share
        if not strikes or not self._left or not request.suffers(fault):
            return None
        self._left -= 1
        return fault


@dataclass(eq=False)
class Proxy:
    """A running proxy; ``counts`` holds the faults so far, ``created`` the shards written.

    Of the requests that stalled, ``late`` have been passed on; while ``release`` is not set, none.
    """

    url: str
    upstream: str
    choose: Callable[[Request], str | None]
    counts: Counter[str] = field(default_factory=Counter)
    created: set[str] = field(default_factory=set)
    out_until: float = 0.0
    release: threading.Event = field(default_factory=threading.Event)
    late: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.release.set()

    def fault(self, request: Request) -> str | None:
        """The fault of a request, counted; None for most."""
        with self.lock:
            if time.monotonic() < self.out_until:
                return "outage"
            fault = self.choose(request)
            if fault is not None:
                self.counts[fault] += 1
            if fault == "outage":
                self.out_until = time.monotonic() + OUTAGE_S
            return fault

    def forward(
        self, request: Request, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the server: status, headers, body."""
        connection = self._sent(request, headers, body)
        try:
            answer = connection.getresponse()
            found = answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()
        if request.method == "PUT" and "/shards/" in request.path and found[0] == 200:
            self.created.add(request.path)
        return found

    def cut_off(self, request: Request, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send the server half of a request."""
        connection = self._sent(request, headers, body[: len(body) // 2])
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _sent(
        self, request: Request, headers: list[tuple[str, str]], body: bytes
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.upstream, timeout=HANG_S)
        connection.putrequest(
            request.method, request.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body)
        return connection


class _Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _await_hang_up(self) -> None:
        """Wait until the client has given up, and then until ``release`` is set."""
        self.connection.settimeout(HANG_S)
        with suppress(OSError):
            self.connection.recv(1, socket.MSG_PEEK)
        self.server.proxy.release.wait(HANG_S)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = [
            (name, value)
            for name, value in self.headers.items()
            if name.lower() not in ("expect", "connection")
        ]
        conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        request = Request(self.command, self.path, conditional, len(body))
        fault = self.server.proxy.fault(request)
        if fault in CODES:
            self._refuse(*CODES[fault])
            return
        if fault == "request cut off":
            self.server.proxy.cut_off(request, headers, body)
            self._hang_up()
            return
        if fault == "delayed":
            time.sleep(random.uniform(*DELAY_S))
        if fault == "stalled":
            self._await_hang_up()
        if fault == "wrong byte there":
            body = flipped(body)
        status, answer_headers, data = self.server.proxy.forward(request, headers, body)
        if fault == "stalled":
            self.server.proxy.late += 1
        if fault in ("answer lost", "stalled"):
            self._hang_up()
            return
        if fault == "wrong byte back" and data:
            data = flipped(data)
        self._answer(status, answer_headers, data, cut=fault == "answer cut off")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _refuse(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>planted by the proxy</Message></Error>"
        self._answer(status, [("Content-Type", "application/xml")], text.encode())

    def _answer(
        self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        size = str(len(data))
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
            elif self.command == "HEAD" and name.lower() == "content-length":
                size = value
        self.send_header("Content-Length", size)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: Any) -> None:
        """Write no log: the faults are counted."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: Proxy

    def handle_error(self, *arguments: Any) -> None:
        """Say nothing: a client that was killed breaks its connection."""


def flipped(data: bytes) -> bytes:
    """The same bytes with one random bit changed."""
    at = random.randrange(len(data) * 8)
    wrong = bytearray(data)
    wrong[at // 8] ^= 1 << at % 8
    return bytes(wrong)


@contextmanager
def proxied(endpoint_url: str, choose: Callable[[Request], str | None]) -> Iterator[Proxy]:
    """A proxy in front of the server at ``endpoint_url``, on a free port of 127.0.0.1."""
    with _Server((HOST, 0), _Handler) as server:
        port = server.server_address[1]
        server.proxy = Proxy(f"http://{HOST}:{port}", urlsplit(endpoint_url).netloc, choose)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.proxy.release.set()
            server.shutdown()
            thread.join()
