"""Credentials in a text that is about to leave this machine."""

import os
import re
from contextlib import suppress
from typing import Final
from urllib.parse import unquote

from polyfit.store.aws import session
from polyfit.store.uri import SECRET_NAME

__all__ = ["credentials_here", "find_credential"]

_PROFILE_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_MIN_CHARS: Final = 4
_MIN_CHARS_WITHIN: Final = 8
"""Of a value that is looked for within a text: a shorter one stands in many by chance."""

_PIECE_CHARS: Final = 16
_RANDOM: Final = re.compile(r"(?![/~.])(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/=_.-]{17,}")
"""A value of which a piece is looked for: no path, and no text of words."""

_FORMS: Final = {
    "an AWS access key id": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a secret AWS key": re.compile(
        r"aws_?(?:secret|session)_?\w*[\"']?\s*[=:]\s*\S", re.IGNORECASE
    ),
    "a user and a password in a URL": re.compile(r"://[^/\s:@]+:[^/\s@]+@"),
    "a signed URL": re.compile(
        r"X-Amz-(?:Signature|Credential|Security-Token)[\"']?\s*[=:]", re.IGNORECASE
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}


def credentials_here() -> dict[str, str]:
    """The credentials in the environment and in the AWS profiles of this machine: value -> name."""
    import botocore.exceptions

    found = {
        value: name
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= _MIN_CHARS
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
        None if no known one is in it, as it is or percent-encoded, no piece of one, and nothing
        that has the form of one.
    """
    for form in dict.fromkeys((text, unquote(text))):
        places = [(f"the value of {name}", _found(form, value)) for value, name in known.items()]
        matches = ((what, pattern.search(form)) for what, pattern in _FORMS.items())
        places += [(what, found.start()) for what, found in matches if found]
        for what, at in places:
            if at >= 0:
                return what, form.count("\n", 0, at) + 1
    return None


def _found(text: str, value: str) -> int:
    """Where ``text`` holds ``value`` or a piece of it; it may be a short one; -1 if nowhere."""
    if len(value) < _MIN_CHARS_WITHIN:
        return 0 if text == value else -1
    at = text.find(value)
    if at >= 0 or not _RANDOM.fullmatch(value):
        return at
    pieces = (value[n : n + _PIECE_CHARS] for n in range(len(value) - _PIECE_CHARS + 1))
    return max(text.find(piece) for piece in pieces if re.search(r"[0-9]", piece))
