"""A failed call to S3 as a StoreError of one line.

It says what is wrong, the call with its key, the answer's status, code and sentence, where the
answer points to, and what to try.
"""

import re
import shlex
import socket
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from polyfit.errors import StoreError
from polyfit.store.aws import session
from polyfit.store.s3_answers import REGION, NotS3, is_transient, one_line

__all__ = ["as_store_error", "code_of"]

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

_TLS_ERRORS: Final = {
    "certificate verify failed": (
        "its certificate is not trusted",
        "; AWS_CA_BUNDLE names a file of the authorities to trust",
    ),
    "wrong version number": (
        "no TLS is spoken there",
        "; an endpoint without TLS begins with http://",
    ),
    "no such file": (
        "the file that AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or ca_bundle names is not there",
        "",
    ),
}
"""What is wrong and what to try, by words of the error."""


def code_of(error: Exception) -> str:
    """The code of a refusal; empty where there is none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def as_store_error(error: Exception, where: str, call: str) -> Exception:
    """The failure of a call as a StoreError; a defect of ours is returned as it is.

    Args:
        error: what the call raised.
        where: bucket and endpoint, for the message.
        call: its name and the key.
    """
    import botocore.exceptions as aws

    cause = one_line(str(error))
    if isinstance(error, NotS3):
        what = "a web page of HTML" if error.html else "something else"
        answer = f"{_status_text(error.status)}{_quoted(cause)}"
        return StoreError(f"{where}: {what} answers there, not S3 ({call}: {answer}); {_ENDPOINT}")
    if isinstance(error, aws.ClientError):
        return _refusal(error.response, where, call, error.operation_name)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return StoreError(
            f"{where}: no credentials on this machine ({socket.gethostname()}); "
            "boto3 looks in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, in ~/.aws, and asks for an instance's or a pod's role"
        )
    if isinstance(error, aws.SSOError | aws.TokenRetrievalError | aws.LoginError):
        return StoreError(f"{where}: {_signed_out(error)}")
    if isinstance(error, aws.SSLError):
        for words, (what, advice) in _TLS_ERRORS.items():
            if words in cause.lower():
                return StoreError(f"{where}: {what} ({call}: {cause}){advice}")
    if isinstance(error, aws.CredentialRetrievalError | aws.MetadataRetrievalError):
        return StoreError(f"{where}: no credentials ({call}: {cause})", transient=True)
    unreachable = (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError)
    if isinstance(error, (*unreachable, aws.FlexibleChecksumError)):
        advice = f"; {_ENDPOINT}" if type(error) is aws.HTTPClientError else ""
        return StoreError(f"{where}: cannot be reached ({call}: {cause}){advice}", transient=True)
    if isinstance(error, aws.BotoCoreError):
        return StoreError(f"{where}: {cause} ({call})")
    return error


def _refusal(response: Mapping[str, Any], where: str, call: str, operation: str) -> StoreError:
    """What an answer with an error says. ``operation`` is the request that it answers: ``call``
    itself, or one that boto3 sends first to get credentials."""
    stated, facts = response.get("Error", {}), response.get("ResponseMetadata", {})
    status, code = int(facts.get("HTTPStatusCode", 0)), str(stated.get("Code", ""))
    headers = facts.get("HTTPHeaders", {})
    for_credentials = call.split()[0] != operation
    full = bool(_FULL.search(f"{code} {stated.get('Message')}")) or status == 507
    transient = is_transient(status, code) and not full
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
    elif for_credentials:
        what, advice = "the keys for it are refused", ""
    else:
        what, advice = _REFUSALS.get(code, ("the store refuses this", ""))
    sentence = one_line(str(stated.get("Message") or ""))
    if sentence == _phrase(status):
        sentence = ""
    if advice == _RIGHTS and "kms:" in sentence:
        advice = "sse: aws:kms needs kms:GenerateDataKey and kms:Decrypt of its key"
    answer = _status_text(status)
    if code not in ("", str(status)):
        answer = f"{status or ''} {code}".strip()
    if "html" in headers.get("content-type", ""):
        answer += ", a web page of HTML"
    asked = f"{operation} for {call}" if for_credentials else call
    text = f"{where}: {what} ({asked}: {answer}{_quoted(sentence)})"
    return StoreError(f"{text}; {advice}" if advice else text, transient=transient)


def _elsewhere(region: str | None, url: str | None, where: str) -> tuple[str, str]:
    """What to say of an answer that points to another place, and what to try."""
    if region:
        region = one_line(region, 80)
        return f"the bucket is in region {region}", f"set AWS_DEFAULT_REGION={region}"
    try:
        parts = urlsplit(one_line(url or ""))
    except ValueError:
        parts = urlsplit("")
    host = parts.netloc.rpartition("@")[2]
    origin = f"{parts.scheme}://{host}" if host else ""
    target = origin + parts.path
    what = f"to {target}" if target else "and does not say where to"
    new = origin and origin not in where
    advice = f"if you trust it, set endpoint_url to {origin}" if new else _ENDPOINT
    return f"the store redirects{'' if target else ','} {what}", advice


def _signed_out(error: Exception) -> str:
    import botocore.exceptions as aws

    login = "aws login" if isinstance(error, aws.LoginError) else "aws sso login"
    profile = _sign_in_profile()
    return (
        f"the SSO session of profile {profile!r} is missing or has expired on this machine "
        f"({socket.gethostname()}: {one_line(str(error))}); "
        f"`{login} --profile {shlex.quote(profile)}` starts one"
    )


def _sign_in_profile() -> str:
    """The profile that signs in: the present one, or one that it takes its credentials from."""
    here = session()
    name, profiles = here.profile or "default", here.full_config.get("profiles", {})
    for _ in profiles:  # at most as often as there are profiles: they may name each other
        settings = profiles.get(name, {})
        if any(key.startswith(("sso_", "login_")) for key in settings):
            break
        name = settings.get("source_profile", name)
    return str(name)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _status_text(status: int) -> str:
    return f"{status} {_phrase(status)}".strip()


def _quoted(text: str) -> str:
    return f': "{text}"' if text else ""
