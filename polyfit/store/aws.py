"""What AWS's environment variables and files say, where botocore has no public function for it."""

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
    """A new session of the profile that the environment names."""
    import botocore.session

    return botocore.session.get_session()


def split_bucket(uri: str) -> tuple[str, str]:
    """Bucket, or ARN of an access point, and prefix of ``s3://bucket/prefix``."""
    match = _BUCKET.fullmatch(uri.removeprefix("s3://"))
    assert match, uri
    return match[1], match[2]


def configured_endpoint(session: "Session") -> str | None:
    """The endpoint that an S3 client of this session would use; None if it is Amazon's.

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
        text = f"the profile names the services section {section!r}, which does not exist"
        raise InvalidConfigError(error_msg=text)
    service = services.get("s3", {})
    endpoint = service.get("endpoint_url") if isinstance(service, dict) else None
    return endpoint or profile.get("endpoint_url")


def runs_program_for_keys(session: "Session") -> bool:
    """Whether any profile gets its keys from a program (``credential_process``)."""
    profiles = session.full_config.get("profiles", {})
    return any("credential_process" in profile for profile in profiles.values())


def unless_configured(session: "Session", defaults: dict[str, Any]) -> dict[str, Any]:
    """Those of ``defaults``, options of botocore's Config, that neither the environment nor the
    profile sets; the options under ``s3`` are looked at one by one."""
    profile = session.get_scoped_config()
    section = session.get_config_variable("s3") or {}
    unset = {
        name: value
        for name, value in defaults.items()
        if name not in profile and not os.environ.get(f"AWS_{name.upper()}")
    }
    unset["s3"] = {name: v for name, v in defaults.get("s3", {}).items() if name not in section}
    return unset
