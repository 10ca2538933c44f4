"""What an attempt has done so far: receipts, stored shards, failed shards, reused fits."""

from collections import Counter
from dataclasses import dataclass, field

from polyfit.run.manifest import Receipts
from polyfit.spec.plan import Plan
from polyfit.work.progress import Progress
from polyfit.work.task import TaskResult

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counts of one attempt. Its size does not grow with the number of fits.

    Attributes:
        receipts: of all shards that were computed or inspected.
        failed: the numbers of shards that are not tried again.
        damaged: those of them that are stored and cannot be read; they are not counted as stored.
        fits_computed: fits of the shards that this attempt stored, reused ones included.
        fits_reused: how many of those were taken from another run.
        diverged: fits with that status, in the shards with a receipt.
        retries: how often a task was put back to be tried again, by its cause.
    """

    plan: Plan
    receipts: Receipts = field(init=False)
    failed: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    fits_computed: int = 0
    fits_reused: int = 0
    diverged: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    _stored: bytearray = field(init=False)  # 1 for each shard that is
    _shards_stored: int = 0
    _fits_stored: int = 0

    def __post_init__(self) -> None:
        self.receipts = Receipts(self.plan.shards)
        self._stored = bytearray(self.plan.shards)

    def note_stored(self, number: int) -> None:
        """Shard ``number`` is stored; noted once."""
        if not self._stored[number]:
            self._stored[number] = 1
            self._shards_stored += 1
            self._fits_stored += self.plan.shard(number).fits

    def note_failed(self, number: int) -> None:
        """Shard ``number`` is not tried again."""
        self.failed.add(number)
        if self._stored[number]:
            self.damaged.add(number)
            self._stored[number] = 0
            self._shards_stored -= 1
            self._fits_stored -= self.plan.shard(number).fits

    def add(self, result: TaskResult) -> bool:
        """Count a result with a receipt; False if the shard has one already."""
        number = result.task.shard
        if result.receipt is None or number in self.receipts:
            return False
        self.receipts.add(result.receipt)
        self.diverged += result.receipt.statuses.get("diverged", 0)
        if result.task.kind == "compute":
            self.fits_computed += self.plan.shard(number).fits
            self.fits_reused += result.reused
        self.note_stored(number)
        return True

    @property
    def all_computed(self) -> bool:
        """Whether every shard is stored, with or without a receipt, or has failed."""
        return self._shards_stored + len(self.failed) >= self.plan.shards

    @property
    def all_settled(self) -> bool:
        """Whether every shard has a receipt or has failed."""
        failed = sum(number not in self.receipts for number in self.failed)
        return len(self.receipts) + failed >= self.plan.shards

    def progress(self) -> Progress:
        """The counts as listeners receive them."""
        return Progress(
            self.plan.shards,
            self._shards_stored,
            self.plan.fits,
            self._fits_stored,
            len(self.failed),
            self.retries.total(),
            self.fits_reused,
            self.diverged,
        )
