"""URIs of stores in their normal form, or what is wrong with one and what to write instead.

The same rules hold in a spec, on the command line and in Python. No store is opened here.
"""

import posixpath
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

__all__ = [
    "DATE",
    "SECRET_NAME",
    "AddressError",
    "expand_variables",
    "is_s3",
    "mask_credentials",
    "normalize_endpoint",
    "normalize_uri",
    "variables",
]

DATE: Final = "{date}"
"""What stands in a store or a run id for the date of a run."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)(.*)")
_VARIABLE: Final = re.compile(
    r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^${}]*))?\}|\$(?P<bare>[A-Za-z_]\w*)|\$\{",
    re.ASCII,
)
_PLACEHOLDER: Final = re.compile(r"\{+\s*[A-Za-z_]\w*\s*([:!.\[][^{}]*)?\}+", re.ASCII)
_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_ACCESS_POINT: Final = re.compile(
    r"arn:[^:/]+:s3[^:/]*:[^:/]*:[^:/]*:(outpost[:/][^:/]+[:/])?accesspoint[:/][^:/]+"
)
SECRET_NAME: Final = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|(^|_)(PASS|PAT|JWT|CREDENTIALS?)(_|$)|_PWD(_|$)"
    r"|TOKEN(_|$)|(ACCESS|API|PRIVATE)_?KEY(_|$)|(?<!KMS)(?<!PUBLIC)(^|_)KEY$",
    re.IGNORECASE,
)
"""Is found in the names of variables that hold secrets."""

_HOSTS: Final = (
    ".cloudflarestorage.com",
    ".digitaloceanspaces.com",
    ".linodeobjects.com",
    ".your-objectstorage.com",
    "storage.googleapis.com",
)
"""Ends of host names that may have a bucket before them, and do not begin with ``s3``."""


class AddressError(ValueError):
    """What is wrong with an address; ``advice`` says what to write instead, or is empty."""

    def __init__(self, defect: str, correction: str = "") -> None:
        super().__init__(defect)
        self.advice = f"; write {correction}" if correction else ""


def normalize_uri(uri: str) -> str:
    """A folder or ``s3://bucket/prefix`` in its normal form.

    Raises:
        AddressError: it is neither.
    """
    if not uri.strip():
        raise AddressError("is empty")
    if not uri.isprintable():
        raise AddressError("is no store")
    if variable := _VARIABLE.search(uri):
        raise AddressError(f"holds {variable[0]}, which nothing replaces here", "its value")
    for placeholder in _PLACEHOLDER.finditer(uri):
        if placeholder[0] != DATE:
            raise AddressError(f"holds {placeholder[0]}, which nothing replaces", DATE)
    if uri.startswith(("//", ":")):  # the scheme is missing
        raise AddressError("is no store")
    found = _SCHEME.fullmatch(uri.strip())
    scheme, slashes, rest = found.groups() if found else ("", "", "")
    match scheme.lower():
        case "s3" if slashes in ("/", "//"):
            return _normalize_s3(rest.strip())
        case "s3" if slashes:
            raise AddressError("is no bucket")
        case "s3" | "s3a" | "s3n":
            raise AddressError("is no store", f"s3://{rest}")
        case "arn":
            raise AddressError("is no store", f"s3://{uri.removeprefix('arn:aws:s3:::')}")
        case "file" if slashes:
            raise AddressError("is no store", f"/{rest}")
        case "http" | "https" if slashes:
            raise AddressError("is no store", "s3://bucket/prefix, and the server as endpoint")
    if scheme and slashes:
        raise AddressError("is no store")
    if uri.lower().startswith("s3//"):
        raise AddressError("is no store", f"s3://{uri[4:].lstrip('/')}")
    if uri != uri.strip():
        raise AddressError("begins or ends with a blank", uri.strip())
    return uri


def _normalize_s3(rest: str) -> str:
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket:
        raise AddressError("holds credentials; boto3's own chain finds them")
    if DATE in bucket:
        raise AddressError(f"holds {DATE} in its bucket", f"it after it, as s3://bucket/{DATE}")
    if not bucket or re.search(r"[?#]", rest):
        raise AddressError("is no bucket")
    if re.fullmatch(r"[^:]+:\d+", bucket):
        raise AddressError("names a server", f"s3://bucket/prefix, and http://{bucket} as endpoint")
    if plain := re.fullmatch(r"arn:[^:]+:s3:::(.+)", rest):
        raise AddressError("is no bucket", f"s3://{plain[1]}")
    if not (_ACCESS_POINT.match(rest) if bucket.startswith("arn:") else _BUCKET.fullmatch(bucket)):
        raise AddressError("is no bucket")
    parts = [part for part in prefix.split("/") if part not in ("", ".")]
    if ".." in parts:  # for some servers the folder above, for others part of the key
        resolved = posixpath.normpath("/".join(parts))
        correction = "" if resolved.startswith("..") else _normalize_s3(f"{bucket}/{resolved}")
        raise AddressError("has '..' in its prefix", correction)
    return "/".join(("s3:/", bucket, *parts))


def is_s3(uri: str) -> bool:
    """Whether ``uri``, in its normal form, is a bucket's and no folder."""
    return uri.startswith("s3://")


def normalize_endpoint(url: str, uri: str | None = None) -> str:
    """The normal form of the endpoint for ``uri``, which is in its normal form.

    Raises:
        AddressError: it is no http:// or https:// URL, holds credentials or ``uri``'s bucket, or
            ``uri`` is a folder.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        usable = False
    if usable and "@" in parts.netloc:
        raise AddressError("holds credentials; boto3's own chain finds them")
    if not usable or not url.isprintable() or re.search(r"[?#\s{}]", url):
        raise AddressError("is no endpoint")
    path = parts.path.rstrip("/")
    if uri is not None and not is_s3(uri):
        raise AddressError("is of no use to a folder", f"s3://{uri.strip('/')} for a bucket")
    bucket = uri.split("/")[2] if uri else ""
    server = parts.netloc.removeprefix(f"{bucket}.")
    if bucket and path.split("/")[-1] == bucket:
        correction = f"{parts.scheme}://{parts.netloc}{path.removesuffix(f'/{bucket}')}"
        raise AddressError(f"holds the bucket {bucket!r}", correction)
    if server != parts.netloc and (server.startswith(("s3.", "s3-")) or server.endswith(_HOSTS)):
        raise AddressError(f"holds the bucket {bucket!r}", f"{parts.scheme}://{server}{path}")
    return f"{parts.scheme}://{parts.netloc}{path}"


def expand_variables(text: str, environment: Mapping[str, str]) -> str:
    """``text`` with the values of its ``${NAME}`` and ``${NAME:-default}``.

    Raises:
        AddressError: a variable is not set, may be a credential, or is written in another form.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if name is None:
            raise AddressError(
                f"{found[0]} is not replaced", f"${{{found['bare']}}}" if found["bare"] else ""
            )
        if SECRET_NAME.search(name):
            raise AddressError(f"${{{name}}} would put a credential into an address")
        text = environment.get(name) or default
        if not text:
            raise AddressError(f"the environment has no {name}, or an empty one")
        return text

    return _VARIABLE.sub(value, text)


def variables(text: str) -> set[str]:
    """The names of the variables that ``expand_variables`` would ask for."""
    return {found["name"] for found in _VARIABLE.finditer(text) if found["name"]}


def mask_credentials(text: str) -> str:
    """``text`` without what may be credentials: what is before the last ``@`` of each word."""
    return re.sub(r"\S+", _mask_word, text)


def _mask_word(word: re.Match[str]) -> str:
    head, at, tail = word[0].rpartition("@")
    begin = re.search(r":/*|//", head)
    return f"{head[: begin.end()]}***@{tail}" if at and begin else word[0]
