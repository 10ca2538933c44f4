"""What an S3 store answers, in words.

A failed call becomes one line: what is wrong, the call with its key, the answer's status, code and
sentence, where it points to, and what to try.
"""

import html
import re
import shlex
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from polyfit.errors import StoreError
from polyfit.store.aws import session

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["DIGEST", "NotS3", "attend", "code_of", "told"]

DIGEST: Final = "sha256"
"""The name in an object's metadata under which the digest of its bytes stands. Not one of S3's own
checksums, which some servers refuse."""

REGION: Final = "x-amz-bucket-region"
MAX_SENTENCE: Final = 500  # characters
MAX_PAGE: Final = 4_096  # bytes looked at of a web page

_RIGHTS: Final = "a run needs s3:PutObject, s3:GetObject and s3:ListBucket there"
_ENDPOINT: Final = (
    "check the endpoint (endpoint_url, --endpoint-url, AWS_ENDPOINT_URL_S3) and the proxies "
    "(HTTPS_PROXY, HTTP_PROXY, NO_PROXY)"
)
_RENEW: Final = "renew the keys and the token that belongs to them"
_DENIED: Final = ("the store does not allow this with these keys", _RIGHTS)
_NO_BUCKET: Final = ("there is no such bucket", "correct its name or create it")
_EXPIRED: Final = ("the session token of these keys is no longer good", _RENEW)
_NOT_S3: Final = ("what answers there does not do what S3 does", _ENDPOINT)

_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "InvalidAccessKeyId": (
        "the store does not know this access key",
        "check AWS_ACCESS_KEY_ID, or the profile, and whether the key belongs to this endpoint",
    ),
    "SignatureDoesNotMatch": (
        "the store refuses this secret key",
        "check AWS_SECRET_ACCESS_KEY, or the profile; a proxy that changes the Host header or the "
        "path has the same effect",
    ),
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "401": _DENIED,
    "403": _DENIED,
    "NoSuchBucket": _NO_BUCKET,
    "404": _NO_BUCKET,
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": ("the clocks of this machine and of the store differ", "set the clock"),
    "405": _NOT_S3,
    "MethodNotAllowed": _NOT_S3,
    "511": ("the network asks for a login before it lets anything through", "log in there first"),
}
"""What is wrong and what to try, by the code of the answer."""

_ELSEWHERE: Final = frozenset(
    (
        "PermanentRedirect",
        "TemporaryRedirect",
        "Redirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    )
)
"""Codes of answers that name another region or endpoint; any of them may stand beside a 400."""

_FULL: Final = re.compile(
    r"no space left|not enough (free |disk )?space|disk (is )?full|storage ?full"
    r"|insufficient ?storage|(disk|bucket|storage) ?quota|^QuotaExceeded",
    re.IGNORECASE,
)
"""Words of a full disk or a used-up quota, which some servers answer with a 500."""

_KNOWN: Final = frozenset(("etag", "last-modified", "x-amz-request-id"))
"""Headers of which every S3 server sends one at least with an object."""

_PASSING: Final = frozenset(("RequestTimeout", "IncompleteBody", "BadDigest", "InvalidDigest"))
"""Codes that pass by waiting though their status is that of a bad request."""


class NotS3(Exception):
    """Something else answered: a page of HTML, or none; ``status`` is the HTTP status."""

    def __init__(self, status: int, html: bool, start: str) -> None:
        super().__init__(start)
        self.status, self.html = status, html


def attend(client: "S3Client") -> None:
    """Have ``client`` raise NotS3 for such answers, and give up a redirect without a region."""
    events = client.meta.events
    # With stars it comes before botocore's own, which makes a 500 of a 200 that it cannot read.
    events.register_first("before-parse.*.*", _refuse_stranger)
    events.register("needs-retry.s3.HeadBucket", _refuse_redirect)


def _refuse_stranger(response_dict: dict[str, Any], operation_model: Any, **_: Any) -> None:
    status, headers, body = (response_dict[name] for name in ("status_code", "headers", "body"))
    named = {name.lower() for name in headers}
    ours = f"x-amz-meta-{DIGEST}" in named
    if ours or not (200 <= status < 300 or 400 <= status < 500) or _passes(status, ""):
        return  # a redirect says where to, and what passes is asked again
    says_so = "html" in headers.get("content-type", "") and headers.get("content-length") != "0"
    of_object = status < 300 and operation_model.name in ("GetObject", "HeadObject")
    strange = of_object and not _KNOWN & named
    if not isinstance(body, bytes):  # an object's bytes, not yet read
        body = body.read(MAX_PAGE) if says_so or strange else b""
    start = body[:MAX_PAGE].lstrip()
    bare = status < 300 and operation_model.name == "HeadObject"  # no body tells what it would be
    if start.lower().startswith((b"<!doctype html", b"<html")) or (
        says_so and (start or bare) and not start.startswith(b"<?xml")
    ):
        raise NotS3(status, True, _title(start.decode(errors="replace")))
    listed = status < 300 and isinstance(response_dict["body"], bytes)
    if strange or (listed and start[:1] not in (b"", b"<")):
        raise NotS3(status, False, _line(start.decode(errors="replace"), 80))


def _refuse_redirect(response: Any, **_: Any) -> None:
    """botocore asks HEAD for a bucket's region where it is redirected, that HEAD's own redirect
    included, without an end."""
    import botocore.exceptions as aws

    if response is None or not 300 <= response[0].status_code < 400:
        return
    if REGION not in response[0].headers:
        raise aws.ClientError(response[1], "HeadBucket")


def _title(page: str) -> str:
    """The title of a web page, or its first words."""
    found = re.search(r"<title[^>]*>(.*?)</title", page, re.IGNORECASE | re.DOTALL)
    text = found[1] if found else re.sub(r"<(script|style).*?</\1\s*>|<[^>]*>", " ", page)
    return _line(html.unescape(text), 80)


def code_of(error: Exception) -> str:
    """The code of a refusal; empty where there is none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def told(error: Exception, where: str, asked: str) -> Exception:
    """The failure of a call as a StoreError; a bug stays itself.

    Args:
        error: what the call raised.
        where: bucket and endpoint, for the message.
        asked: the call and the key.
    """
    import botocore.exceptions as aws

    cause = _line(str(error))
    if isinstance(error, NotS3):
        what = "a web page of HTML" if error.html else "something else"
        answer = f"{_status(error.status)}{_quoted(cause)}"
        return StoreError(f"{where}: {what} answers there, not S3 ({asked}: {answer}); {_ENDPOINT}")
    if isinstance(error, aws.ClientError):
        own = asked.split()[0] == error.operation_name  # else one for the keys that it needs
        call = asked if own else f"{error.operation_name} for {asked}"
        return _refusal(error.response, where, call, own)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return StoreError(
            f"{where}: no credentials on this machine ({socket.gethostname()}); "
            "boto3 looks in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, in ~/.aws, and asks for an instance's or a pod's role"
        )
    if isinstance(error, aws.SSOError | aws.TokenRetrievalError | aws.LoginError):
        return StoreError(f"{where}: {_signed_out(error)}")
    if isinstance(error, aws.SSLError) and "certificate verify failed" in cause.lower():
        advice = "AWS_CA_BUNDLE names a file of the authorities to trust"
        return StoreError(f"{where}: its certificate is not trusted ({asked}: {cause}); {advice}")
    if isinstance(error, aws.SSLError) and "wrong version number" in cause.lower():
        advice = "an endpoint without TLS begins with http://"
        return StoreError(f"{where}: no TLS is spoken there ({asked}: {cause}); {advice}")
    if isinstance(error, aws.SSLError) and "no such file" in cause.lower():
        advice = "the file that AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or ca_bundle names is not there"
        return StoreError(f"{where}: {advice} ({asked}: {cause})")
    if isinstance(error, aws.CredentialRetrievalError | aws.MetadataRetrievalError):
        return StoreError(f"{where}: no credentials ({asked}: {cause})", transient=True)
    reaching = (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError)
    if isinstance(error, (*reaching, aws.FlexibleChecksumError)):
        advice = f"; {_ENDPOINT}" if type(error) is aws.HTTPClientError else ""
        return StoreError(f"{where}: cannot be reached ({asked}: {cause}){advice}", transient=True)
    if isinstance(error, aws.BotoCoreError):
        return StoreError(f"{where}: {cause} ({asked})")
    return error


def _refusal(response: Mapping[str, Any], where: str, asked: str, own: bool) -> StoreError:
    stated, facts = response.get("Error", {}), response.get("ResponseMetadata", {})
    status, code = int(facts.get("HTTPStatusCode", 0)), str(stated.get("Code", ""))
    headers = facts.get("HTTPHeaders", {})
    full = bool(_FULL.search(f"{code} {stated.get('Message')}")) or status == 507
    transient = _passes(status, code) and not full
    if 300 <= status < 400 or code in _ELSEWHERE:
        what, advice = _elsewhere(
            headers.get(REGION) or stated.get("Region"),
            headers.get("location") or stated.get("Endpoint"),
            where,
        )
    elif full:
        what, advice = "the store is full", "make room there, or choose another store"
    elif transient:
        what, advice = "the store fails", ""
    elif not own:
        what, advice = "the keys for it are refused", ""
    else:
        what, advice = _REFUSALS.get(code, ("the store refuses this", ""))
    named = _status(status) if code in ("", str(status)) else f"{status or ''} {code}".strip()
    sentence = _line(str(stated.get("Message") or ""))
    if sentence == _phrase(status):
        sentence = ""
    if advice == _RIGHTS and "kms:" in sentence:
        advice = "sse: aws:kms needs kms:GenerateDataKey and kms:Decrypt of its key"
    page = ", a web page of HTML" if "html" in headers.get("content-type", "") else ""
    tail = f"; {advice}" if advice else ""
    text = f"{where}: {what} ({asked}: {named}{page}{_quoted(sentence)}){tail}"
    return StoreError(text, transient=transient)


def _passes(status: int, code: str) -> bool:
    """Whether a refused call may well work a moment later."""
    return (
        code in _PASSING
        or status in (0, 408, 409, 425, 429)
        or (status >= 500 and status not in (501, 511))
    )


def _elsewhere(region: str | None, url: str | None, where: str) -> tuple[str, str]:
    """What to say of an answer that points to another place, and what to try."""
    if region:
        region = _line(region, 80)
        return f"the bucket is in region {region}", f"set AWS_DEFAULT_REGION={region}"
    try:
        parts = urlsplit(_line(url or ""))
    except ValueError:
        parts = urlsplit("")
    host = parts.netloc.rpartition("@")[2]
    origin = f"{parts.scheme}://{host}" if host else ""
    to = origin + parts.path
    advice = f"if you trust it, set endpoint_url to {origin}"
    return (
        f"the store redirects to {to}" if to else "the store redirects, and does not say where to",
        advice if origin and origin not in where else _ENDPOINT,
    )


def _signed_out(error: Exception) -> str:
    import botocore.exceptions as aws

    login = "aws login" if isinstance(error, aws.LoginError) else "aws sso login"
    profile = _signing_in()
    return (
        f"the SSO session of profile {profile!r} is missing or has expired on this machine "
        f"({socket.gethostname()}: {_line(str(error))}); "
        f"`{login} --profile {shlex.quote(profile)}` starts one"
    )


def _signing_in() -> str:
    """The profile that signs in: the present one, or the one whose role it takes on."""
    here = session()
    name, profiles = here.profile or "default", here.full_config.get("profiles", {})
    for _ in profiles:
        facts = profiles.get(name, {})
        if any(key.startswith(("sso_", "login_")) for key in facts):
            break
        name = facts.get("source_profile", name)
    return str(name)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _status(status: int) -> str:
    return f"{status} {_phrase(status)}".strip()


def _quoted(text: str) -> str:
    return f': "{text}"' if text else ""


def _line(text: str, limit: int = MAX_SENTENCE) -> str:
    """What a store says, as one printable line of limited length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[:limit] + " ..."
