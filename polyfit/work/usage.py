"""What an attempt takes: cores and GPUs over time, and how much of that the fitting is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Held", "Stopwatch", "Usage"]


class Stopwatch:
    """How long a task spends on what, in seconds by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """While the body runs, time is spent on ``name``."""
        begun = self._clock()
        try:
            yield
        finally:
            self.add(name, self._clock() - begun)

    def add(self, name: str, seconds: float) -> None:
        """So much more was spent on ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass(frozen=True, slots=True)
class Held:
    """What the workers of an executor have held.

    Attributes:
        cores, gpus: of one worker.
        seconds: all workers together, from their beginning to their end.
        starting_s: of that, until they were ready.
    """

    cores: float = 1.0
    gpus: float = 0.0
    seconds: float = 0.0
    starting_s: float = 0.0


@dataclass(slots=True)
class Usage:
    """Adds up one attempt."""

    held: Held = field(default_factory=Held)
    fitting_s: float = 0.0
    compiling_s: float = 0.0
    bytes: int = 0
    hosts: set[str] = field(default_factory=set)

    def add(self, worker: str, times: dict[str, float], num_bytes: int) -> None:
        """A shard was stored."""
        self.hosts.add(worker.rpartition(" ")[0])
        self.fitting_s += times.get("fitting", 0.0)
        self.compiling_s += times.get("compiling", 0.0)
        self.bytes += num_bytes

    def facts(self) -> dict[str, Any]:
        """As it is noted with the attempt. What is neither of the first three is ``other``: rows
        that are stored or read, waiting, and work that was lost."""
        held = self.held
        seconds = {
            "starting": held.starting_s,
            "compiling": self.compiling_s,
            "fitting": self.fitting_s,
        }
        seconds["other"] = max(0.0, held.seconds - sum(seconds.values()))
        return {
            "core_seconds": {name: round(s * held.cores, 3) for name, s in seconds.items()},
            "gpu_seconds": {name: round(s * held.gpus, 3) for name, s in seconds.items()},
            "bytes": self.bytes,
            "hosts": sorted(self.hosts),
        }
