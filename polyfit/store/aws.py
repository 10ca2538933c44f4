"""What boto3's environment and files say, as far as boto3 does not tell it of a session."""

import os
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = [
    "configured_endpoint",
    "runs_program_for_keys",
    "session",
    "split_bucket",
    "unless_configured",
]

_BUCKET: Final = re.compile(
    r"(arn:[^:/]+:s3[^:/]*:[^:/]*:[^:/]*:(?:outpost[:/][^:/]+[:/])?accesspoint[:/][^:/]+|[^/]+)/?(.*)"
)


def session() -> "Session":
    """A new session of the surrounding profile."""
    import botocore.session

    return botocore.session.get_session()


def split_bucket(uri: str) -> tuple[str, str]:
    """Bucket, or ARN of an access point, and prefix of ``s3://bucket/prefix``."""
    match = _BUCKET.fullmatch(uri.removeprefix("s3://"))
    assert match, uri
    return match[1], match[2]


def configured_endpoint(session: "Session") -> str | None:
    """The endpoint of S3 that a client of this session would have; None where it is Amazon's.

    Raises:
        botocore.exceptions.BotoCoreError: the configuration contradicts itself.
    """
    from botocore.exceptions import InvalidConfigError

    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return os.environ[name]
    profile = session.get_scoped_config()
    section = profile.get("services")
    services: Any = session.full_config.get("services", {}).get(section, {})
    if section and not services:
        text = f"the profile names the services section {section!r}, which is not there"
        raise InvalidConfigError(error_msg=text)
    service = services.get("s3", {})
    endpoint = service.get("endpoint_url") if isinstance(service, dict) else None
    return endpoint or profile.get("endpoint_url")


def runs_program_for_keys(session: "Session") -> bool:
    """Whether a profile names a program that gives keys."""
    profiles = session.full_config.get("profiles", {})
    return any("credential_process" in profile for profile in profiles.values())


def unless_configured(session: "Session", defaults: dict[str, Any]) -> dict[str, Any]:
    """Those of ``defaults``, options of botocore's Config, that neither environment nor profile
    sets; those under ``s3`` one by one."""
    profile = session.get_scoped_config()
    section = session.get_config_variable("s3") or {}
    left = {
        name: value
        for name, value in defaults.items()
        if name not in profile and not os.environ.get(f"AWS_{name.upper()}")
    }
    left["s3"] = {name: v for name, v in defaults.get("s3", {}).items() if name not in section}
    return left
