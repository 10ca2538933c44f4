"""How far a run is, and what is said of it, as its listeners receive them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["QUIET_AFTER_S", "Listener", "Message", "OnMessage", "Progress"]

QUIET_AFTER_S: Final = 10.0
"""Seconds without news after which ``status.json`` is written again, and a log gets a line."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, and what it is doing.

    Attributes:
        shards: how many the plan has.
        shards_done: how many of them are stored.
        fits: how many the plan has.
        fits_done: how many of them are stored.
        failed: shards that have failed and are not tried again.
        retried: how often this attempt has put a task back to try it again.
        fits_reused: fits that this attempt took from another run.
        diverged: fits with that status, among the shards computed or inspected so far.
        signal: the number of the signal that asked the run to end, None if none did.
        stage: what the run is doing, in a few words.
        quiet_s: seconds since the last event: a shard was stored, or the stage changed.
        actors: how many are ready, and how many were started; None without actors.
        fits_per_s: stored per second of late, None before the first fit.
        left_s: seconds until all fits are stored, None while that cannot be told.
    """

    shards: int
    shards_done: int
    fits: int
    fits_done: int
    failed: int
    retried: int = 0
    fits_reused: int = 0
    diverged: int = 0
    signal: int | None = None
    stage: str = ""
    quiet_s: float = 0.0
    actors: tuple[int, int] | None = None
    fits_per_s: float | None = None
    left_s: float | None = None


class Message(str):
    """One line for the user, as text. A log in JSON has more of it.

    Attributes:
        text: the line without what a display has put before it.
        level: "info", "warning" or "error".
        facts: the run, the attempt and the shard that it is about, as far as they are known.
    """

    text: str
    level: str
    facts: dict[str, Any]

    def __new__(
        cls, text: str, *, shown: str | None = None, level: str = "info", **facts: Any
    ) -> "Message":
        message = super().__new__(cls, text if shown is None else shown)
        message.text, message.level, message.facts = text, level, facts
        return message

    @classmethod
    def of(cls, line: str) -> "Message":
        """``line`` as a message; one that begins with "warning:" is one."""
        if isinstance(line, Message):
            return line
        return cls(line, level="warning" if line.startswith("warning: ") else "info")

    def about(self, facts: Mapping[str, Any]) -> "Message":
        """The same message, with more facts."""
        return Message(self.text, shown=str(self), level=self.level, **{**facts, **self.facts})

    def with_head(self, head: str) -> "Message":
        """The same message, shown with ``head`` before it."""
        return Message(self.text, shown=head + self, level=self.level, **self.facts)


Listener = Callable[[Progress], None]
"""Receives progress; called by one thread at a time, but not always the same."""

OnMessage = Callable[[str], None]
"""Receives one line for the user, which is a ``Message`` where more is known of it."""
