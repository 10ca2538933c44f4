"""A small S3 server that gives the answers a test chooses, and keeps the requests.

For answers that no real server can be made to give: refusals, redirects, pages of HTML.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

__all__ = ["Answer", "Asked", "OddS3", "odd_s3", "refusal"]

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; Content-Length is added."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(eq=False)
class OddS3:
    """A running server; ``asked`` holds its requests so far."""

    url: str
    answer: Callable[[Asked], Answer]
    asked: list[Asked] = field(default_factory=list)


def refusal(status: int, code: str, sentence: str, more: str = "", **headers: str) -> Answer:
    """An error as S3 words it; ``more`` is XML beside code and message."""
    body = f"<Error><Code>{code}</Code><Message>{sentence}</Message>{more}</Error>"
    typed = {"Content-Type": "application/xml", **headers}
    return Answer(status, typed, f'<?xml version="1.0"?>{body}'.encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.server.odd.asked.append(asked)
        answer = self.server.odd.answer(asked)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, *arguments: Any) -> None:
        """Write no log: the requests are kept."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    odd: OddS3


@contextmanager
def odd_s3(answer: Callable[[Asked], Answer]) -> Iterator[OddS3]:
    """A server on a free port of 127.0.0.1 that answers each request with ``answer`` of it."""
    with _Server((HOST, 0), _Handler) as server:
        server.odd = OddS3(f"http://{HOST}:{server.server_address[1]}", answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.odd
        finally:
            server.shutdown()
            thread.join()
