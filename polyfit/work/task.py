"""Tasks, their results, and what an executor does with them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from polyfit.errors import PolyfitError
from polyfit.run.manifest import Receipt
from polyfit.store.address import StoreAddress
from polyfit.work.progress import Progress
from polyfit.work.usage import Held

__all__ = ["Executor", "Job", "Task", "TaskResult"]


@dataclass(frozen=True, slots=True)
class Job:
    """What every task of a run needs; small, and without credentials.

    Attributes:
        run: the run's folder.
        attempt: the attempt's name in the store.
        reuse: the folder of another run whose rows may be taken.
        read_again: whether each shard is read once more before its receipt counts.
    """

    run: StoreAddress
    attempt: str
    reuse: StoreAddress | None = None
    read_again: bool = False

    @property
    def label(self) -> str:
        """The run for people: its name and its id."""
        return "/".join(self.run.uri.split("/")[-2:])


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to ``compute`` and store, or to ``inspect`` where it is stored."""

    kind: Literal["compute", "inspect"]
    shard: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task's receipt, or why there is none.

    Attributes:
        task: what was to be done.
        receipt: the shard's, if the task succeeded.
        cause: why it failed.
        lost: the worker died; the task need not be the cause.
        preempted: the worker's node was taken back, as spot markets do.
        fatal: an error that every other task would meet too.
        reused: how many of the shard's fits were taken from another run.
        refused: by cause, a line on why other rows of that run were not taken.
        worker: which process did it, as host and process id.
        seconds: how long it took.
        times: of that, how long on what.
    """

    task: Task
    receipt: Receipt | None = None
    cause: str | None = None
    lost: bool = False
    preempted: bool = False
    fatal: PolyfitError | None = None
    reused: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    worker: str = ""
    seconds: float = 0.0
    times: dict[str, float] = field(default_factory=dict)

    @property
    def failure(self) -> str:
        """What kind of failure it is, in a word or two."""
        if self.fatal is not None:
            return "store"
        if self.lost:
            return "node taken back" if self.preempted else "worker lost"
        return "error"


class Executor(Protocol):
    """Runs tasks somewhere. What to do about a failure is not its business."""

    def describe(self) -> str:
        """Where the tasks run, in one line."""

    def run(self, todo: deque[Task]) -> Iterator[TaskResult | None]:
        """Take tasks from the left of ``todo`` until it is empty; yield one result per task.

        Tasks that the caller adds before it takes the next result are run too. Yields None at
        least every second while there is no result, so that the caller can look around, and stop.
        """

    def stage(self) -> str | None:
        """What it is doing in a few words, None while tasks run; called by another thread."""

    def actors(self) -> tuple[int, int] | None:
        """How many are ready and how many were started, None without actors; like ``stage``."""

    def export(self, progress: Progress) -> None:
        """Report how far the run is to whoever watches the workers; like ``stage``."""

    def held(self) -> Held:
        """What the workers have held until now."""

    def close(self) -> None:
        """Release the workers; a cluster that was joined stays up."""
