"""Credentials in a text that is about to leave this machine."""

import os
import re
from contextlib import suppress
from typing import Final

from polyfit.store.aws import session

__all__ = ["credentials_here", "find_credential"]

_SECRET_NAME: Final = re.compile(
    r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|ACCESS_KEY|API_KEY|PRIVATE_KEY|CREDENTIALS)(_|$)",
    re.IGNORECASE,
)
_PROFILE_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_MIN_CHARS: Final = 8
"""Of a value that is looked for: a shorter one stands in many texts by chance."""

_FORMS: Final = {
    "an AWS access key id": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a secret AWS key": re.compile(r"aws_?(?:secret|session)_?\w*\s*[=:]\s*\S", re.IGNORECASE),
    "a user and a password in a URL": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
    "a signed URL": re.compile(r"X-Amz-(?:Signature|Credential|Security-Token)=", re.IGNORECASE),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}


def credentials_here() -> dict[str, str]:
    """The credentials in the environment and in the AWS profiles of this machine: value -> name."""
    import botocore.exceptions

    found = {
        value: name
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _MIN_CHARS
    }
    with suppress(botocore.exceptions.BotoCoreError):  # files that cannot be read have none
        for profile, section in session().full_config.get("profiles", {}).items():
            for key in _PROFILE_KEYS:
                if len(value := str(section.get(key) or "")) >= _MIN_CHARS:
                    found.setdefault(value, f"{key} of the profile {profile}")
    return found


def find_credential(text: str, known: dict[str, str]) -> tuple[str, int] | None:
    """What credential ``text`` holds, in words, and the line where it begins, from 1.

    Args:
        text: what is looked through.
        known: as ``credentials_here`` returns them.

    Returns:
        None if no known one is in it, and nothing that has the form of one.
    """
    places = [(f"the value of {name}", text.find(value)) for value, name in known.items()]
    matches = ((what, form.search(text)) for what, form in _FORMS.items())
    places += [(what, found.start()) for what, found in matches if found]
    for what, at in places:
        if at >= 0:
            return what, text.count("\n", 0, at) + 1
    return None
