"""A message as one line of JSON, for those who collect logs."""

from collections.abc import Mapping
from typing import Any

from polyfit.run.clock import now
from polyfit.show.data import to_json
from polyfit.work.progress import Message

__all__ = ["json_line"]


def json_line(message: Message, about: Mapping[str, Any]) -> str:
    """``time``, ``level``, ``message``, and what is known of ``run``, ``attempt`` and ``shard``;
    ``about`` holds where it is not the message's own."""
    text = message.text.removeprefix("warning: ")
    facts = message.about(about).facts
    return to_json({"time": now(), "level": message.level, **facts, "message": text})
