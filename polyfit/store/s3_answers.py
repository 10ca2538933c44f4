"""Answers that do not come from S3: a proxy, a login page or a web server answered instead.

boto3 reads such an answer as an empty listing or as an object. Handlers of botocore's public
events find it first.
"""

import html
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["DIGEST", "REGION", "NotS3", "check_answers", "is_transient", "one_line"]

DIGEST: Final = "sha256"
"""The name in an object's metadata for the digest of its bytes. Not one of S3's own checksums,
which some servers refuse."""

REGION: Final = "x-amz-bucket-region"
MAX_LINE: Final = 500  # characters
MAX_PAGE: Final = 4_096  # bytes of a web page that are read
_MAX_TITLE: Final = 80  # characters

_S3_HEADERS: Final = frozenset(("etag", "last-modified", "x-amz-request-id"))
"""Every S3 server sends at least one of these with an object."""

_TRANSIENT_CODES: Final = frozenset(
    ("RequestTimeout", "IncompleteBody", "BadDigest", "InvalidDigest")
)
"""Errors worth a retry, though their HTTP status is that of a bad request."""

_PERMANENT: Final = (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED)


class NotS3(Exception):
    """Something else answered, with a page of HTML or not; ``status`` is the HTTP status."""

    def __init__(self, status: int, html: bool, start: str) -> None:
        super().__init__(start)
        self.status, self.html = status, html


def check_answers(client: "S3Client") -> None:
    """Have ``client`` raise NotS3 for such answers, and give up a redirect without a region."""
    events = client.meta.events
    # The wildcards put it before botocore's own handlers, which turn a 200 that they cannot read
    # into a 500.
    events.register_first("before-parse.*.*", _refuse_foreign_answer)
    events.register("needs-retry.s3.HeadBucket", _refuse_redirect)


def _refuse_foreign_answer(response_dict: dict[str, Any], operation_model: Any, **_: Any) -> None:
    status, headers, body = (response_dict[name] for name in ("status_code", "headers", "body"))
    names = {name.lower() for name in headers}
    written_by_us = f"x-amz-meta-{DIGEST}" in names
    success, refusal = 200 <= status < 300, 400 <= status < 500
    if written_by_us or not (success or refusal) or is_transient(status, ""):
        return  # redirects and transient errors are botocore's to follow and to retry
    claims_html = "html" in headers.get("content-type", "") and headers.get("content-length") != "0"
    is_object = success and operation_model.name in ("GetObject", "HeadObject")
    unlike_s3 = is_object and not _S3_HEADERS & names
    is_stream = not isinstance(body, bytes)  # an object's bytes, which are not read yet
    if is_stream:
        body = body.read(MAX_PAGE) if claims_html or unlike_s3 else b""
    start = body[:MAX_PAGE].lstrip()
    headers_only = success and operation_model.name == "HeadObject"
    if start.lower().startswith((b"<!doctype html", b"<html")) or (
        claims_html and (start or headers_only) and not start.startswith(b"<?xml")
    ):
        raise NotS3(status, True, _title(start.decode(errors="replace")))
    unlike_xml = success and not is_stream and start[:1] not in (b"", b"<")
    if unlike_s3 or unlike_xml:
        raise NotS3(status, False, one_line(start.decode(errors="replace"), _MAX_TITLE))


def _refuse_redirect(response: Any, **_: Any) -> None:
    """End botocore's endless loop: it asks for a bucket's region by a HEAD request wherever it is
    redirected, also where that HEAD request itself is redirected."""
    import botocore.exceptions as aws

    if response is None or not 300 <= response[0].status_code < 400:
        return
    if REGION not in response[0].headers:
        raise aws.ClientError(response[1], "HeadBucket")


def _title(page: str) -> str:
    """The title of a web page, or its first words."""
    found = re.search(r"<title[^>]*>(.*?)</title", page, re.IGNORECASE | re.DOTALL)
    text = found[1] if found else re.sub(r"<(script|style).*?</\1\s*>|<[^>]*>", " ", page)
    return one_line(html.unescape(text), _MAX_TITLE)


def is_transient(status: int, code: str) -> bool:
    """Whether the same request may succeed a moment later."""
    return (
        code in _TRANSIENT_CODES
        or status in (0, 408, 409, 425, 429)
        or (status >= 500 and status not in _PERMANENT)
    )


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """What a server says, as one printable line of at most ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[:limit] + " ..."
