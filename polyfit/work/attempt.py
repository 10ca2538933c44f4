"""One attempt at a run: list what is missing, dispatch it, retry, seal.

Holds shard numbers and receipts, never rows: its memory does not grow with the number of fits.
"""

import random
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from polyfit.errors import ClusterError, Drained, Exit, FailedShards, PolyfitError
from polyfit.run.clock import now
from polyfit.run.ledger import Ledger
from polyfit.run.renewal import LeaseRenewer
from polyfit.run.run_receipt import RunReceipt
from polyfit.spec.plan import Plan
from polyfit.work.driver_log import DriverLog
from polyfit.work.heartbeat import Heartbeat
from polyfit.work.progress import Message
from polyfit.work.retry import STORE_BUDGET_S, RetryPolicy
from polyfit.work.signals import Signals
from polyfit.work.tally import Tally
from polyfit.work.task import Executor, Job, Task, TaskResult
from polyfit.work.timeline import Timeline
from polyfit.work.usage import Usage
from polyfit.work.workplace import Workplace

__all__ = ["Attempt"]

MAX_REPORTED: Final = 20
"""Failures of shards that are reported one by one."""

_STATES: Final = {True: "complete", False: "ended"}


@dataclass(slots=True)
class Attempt:
    """One attempt at a run, by the driver that holds its lease.

    Attributes:
        plan: what is run.
        ledger: the run in its store.
        job: what the tasks need.
        heartbeat: reports progress.
        lease: checked after every result.
        signals: of this process.
        log: takes lines for the user.
        stop_on_failure: whether the first failed shard ends the attempt.
    """

    plan: Plan
    ledger: Ledger
    job: Job
    heartbeat: Heartbeat
    lease: LeaseRenewer
    signals: Signals
    log: DriverLog
    stop_on_failure: bool
    tally: Tally = field(init=False)
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    timeline: Timeline = field(default_factory=Timeline)
    usage: Usage = field(default_factory=Usage)
    stopping: bool = False
    _refused: set[str] = field(default_factory=set)  # causes that have been reported
    _num_reported: int = 0

    def __post_init__(self) -> None:
        self.tally = Tally(self.plan)

    def run(self, workplace: Workplace, retry_failed: bool, facts: dict[str, Any]) -> None:
        """Do what is missing, and seal; ``facts`` are noted with the attempt.

        Raises:
            FailedShards: shards have failed; the others are stored.
            Drained, KeyboardInterrupt: a signal came.
            PolyfitError: see ``execute``.
        """
        if self.job.reuse:
            facts = {**facts, "reuse": {"run": self.job.reuse.uri}}
        self.ledger.note_attempt(self.job.attempt, facts)
        exit_code = Exit.INTERNAL
        failure: Exception | None = None
        try:
            self.heartbeat.write_status(self.ledger, self.lease.check, self.log.store)
            self._run(workplace, retry_failed)
            exit_code = Exit.COMPLETE
        except PolyfitError as error:
            exit_code, failure = error.exit_code, error
            raise
        except SystemExit:  # while Ray starts, Ray's own handler answers SIGTERM
            exit_code = Exit.DRAINED
            raise Drained from None
        except KeyboardInterrupt:
            exit_code = Exit.INTERRUPTED
            raise
        except Exception as error:
            failure = error
            raise
        finally:
            self._note_end(facts, exit_code, failure)
            self.signals.raise_at_once()

    def _run(self, workplace: Workplace, retry_failed: bool) -> None:
        self._set_stage("listing what is stored")
        todo = self.list_tasks(retry_failed)
        if any(task.kind == "compute" for task in todo) or not self.tally.failed:
            self._set_stage(workplace.opening_stage())
            with workplace.open(self.job) as executor:
                self.signals.watch()
                self.signals.defer()
                self.log.message(f"running {executor.describe()}")
                self.timeline.note_stage("fitting")
                self.heartbeat.set_stage(
                    partial(self._stage, executor), executor.actors, executor.export
                )
                try:
                    self._dispatch(executor, todo)
                except ClusterError as error:
                    if self.signals.number is not None:  # sent to all of a process group
                        self.log.message(f"{error}; running shards are lost")
                    self.signals.check()
                    raise
                finally:
                    self.usage.held = executor.held()
                self._report_reused()
                self._set_stage("ending the actors")
        if self.tally.failed:
            raise FailedShards(self._failures())
        self._set_stage("sealing")
        self.ledger.seal(self.tally.receipts)
        self.heartbeat.set_stage("sealed")

    def _set_stage(self, stage: str) -> None:
        self.timeline.note_stage(stage)
        self.heartbeat.set_stage(stage)

    def _note_end(self, facts: dict[str, Any], exit_code: Exit, failure: Exception | None) -> None:
        """Write how the attempt ended; a store that has failed cannot take it."""
        try:
            ended = {**facts, "ended_at": now(), "exit_code": int(exit_code)}
            ended |= self.timeline.facts()
            ended["usage"] = self._usage_facts()
            if self.job.reuse:
                ended["reuse"] = {**facts["reuse"], "fits": self.tally.fits_reused}
            self.ledger.note_attempt(self.job.attempt, ended)
            if exit_code != Exit.HELD:  # the receipt is the new driver's
                self._note_receipt(exit_code == Exit.COMPLETE)
            self.log.end(exit_code, failure)
            self.heartbeat.close()  # which stores the log too, and must not do so later than we
            self.log.store(self.ledger)
            if exit_code != Exit.HELD:  # the status is the new driver's
                self.heartbeat.finish(_STATES[exit_code == Exit.COMPLETE])
        except PolyfitError:
            if exit_code == Exit.COMPLETE:
                raise

    def _usage_facts(self) -> dict[str, Any]:
        return {
            **self.usage.facts(),
            "seconds": round(self.timeline.seconds(), 3),
            "fits": self.tally.fits_computed,
            "fits_reused": self.tally.fits_reused,
            "retries": dict(self.tally.retries),
        }

    def _note_receipt(self, complete: bool) -> None:
        """Write and report what the run has taken. No error of it decides how the run ended."""
        try:
            receipt = RunReceipt.read(self.ledger, complete)
            self.ledger.note_receipt(receipt.to_json())
            line = str(receipt)
        except Exception as error:
            cause = error if isinstance(error, PolyfitError) else repr(error)
            line = f"warning: the receipt is not stored: {cause}"
        self.log.message(line)

    def list_tasks(self, retry_failed: bool) -> deque[Task]:
        """Missing shards, to be computed, the costly ones first; stored ones, to be inspected."""
        done = self.ledger.done()
        for number in done:
            self.tally.note_stored(number)
        self.heartbeat.update(self.tally.progress())
        shards = self.plan.shards
        if done:
            self.log.message(f"{len(done):,} of {shards:,} shards are stored already")
        if not retry_failed:
            self.tally.failed = {n for n in self.ledger.failed_shards() if n < shards} - done
        failed = self.tally.failed
        if failed:
            self.log.message(f"{len(failed):,} shards failed before, skipped (--retry-failed)")
        missing = (n for n in range(shards) if n not in done and n not in failed)
        compute = [Task("compute", int(n)) for n in self.plan.costly_first(missing)]
        return deque([*compute, *(Task("inspect", n) for n in sorted(done))])

    def _dispatch(self, executor: Executor, todo: deque[Task]) -> None:
        """Run the tasks to their ends, or as far as a signal or a failure lets them."""
        for result in executor.run(todo):
            if result is not None:
                self._handle(result, todo)
                self.heartbeat.update(self.tally.progress())
            self.heartbeat.check()
            self.lease.check()
            signalled = self.signals.number is not None
            if signalled or (self.tally.failed and self.stop_on_failure):
                self.stopping = True
                todo.clear()
            if signalled and time.monotonic() > self.signals.deadline:
                break
        if not self.tally.all_settled:
            self.signals.check()

    def _handle(self, result: TaskResult, todo: deque[Task]) -> None:
        """Count a result; put its task back into ``todo`` if it is tried again."""
        self.timeline.note_result(result)
        if result.fatal is not None:
            self._wait_for_store(result.fatal)
            self._try_again(result, todo)
        elif result.receipt is not None:
            self.retries.note_stored()
            if self.tally.add(result):
                if result.task.kind == "compute":
                    self.usage.add(result.worker, result.times, result.receipt.bytes)
                self._report_refused(result)
        elif self.retries.retries_after(result):
            self._try_again(result, todo)
        else:
            number = result.task.shard
            self.tally.note_failed(number)
            self._report_failure(result, "failed")
            self.ledger.note_failure(number, result.task.kind, self.retries.causes[number])

    def _try_again(self, result: TaskResult, todo: deque[Task]) -> None:
        self.tally.retries[result.failure] += 1
        if result.fatal is None:
            self._report_failure(result, "trying again")
        todo.append(result.task)

    def _report_failure(self, result: TaskResult, what: str) -> None:
        """Report a shard that failed; of many the first ones."""
        self._num_reported += 1
        if self._num_reported > MAX_REPORTED:
            return
        cause = last_line(result.cause)
        more = "; further ones are counted" if self._num_reported == MAX_REPORTED else ""
        shard = result.task.shard
        line = f"shard {shard:,}: {cause}; {what}{more}"
        self.log.message(Message(line, level="warning", shard=shard))

    def _wait_for_store(self, error: PolyfitError) -> None:
        """Pause if the store fails for a moment; raise any other error."""
        if self.stopping:
            raise error
        first = self.retries.store_failed_at is None
        pause_s = self.retries.store_pause_s(error, time.monotonic())
        if first:
            line = f"{error}; trying again for up to {STORE_BUDGET_S:g} s"
            self.log.message(Message(line, level="warning"))
        time.sleep(random.uniform(pause_s / 2, pause_s))

    def _report_refused(self, result: TaskResult) -> None:
        """Report once for each cause why rows of the other run are not taken."""
        for cause, line in result.refused.items():
            if cause not in self._refused:
                self._refused.add(cause)
                self.log.message(f"{line}: fitting its fits again, and others like them")

    def _report_reused(self) -> None:
        computed, reused = self.tally.fits_computed, self.tally.fits_reused
        if self.job.reuse and computed:
            run = self.job.reuse.uri
            self.log.message(f"reused {reused:,} fits of {run}, fitted {computed - reused:,}")

    def _failures(self) -> str:
        failed = self.tally.failed
        number = min(failed)
        causes = self.retries.causes.get(number) or self.ledger.causes(number)
        last = last_line(causes[-1] if causes else None)
        others = "not all others are stored" if self.stopping else "the others are stored"
        # Damaged ones are looked at again by each attempt.
        again = "; --retry-failed tries them again" if failed - self.tally.damaged else ""
        return (
            f"{len(failed):,} of {self.plan.shards:,} shards failed, {others}; "
            f"shard {number}: {last} (causes in {self.job.run.uri}/failed/){again}"
        )

    def _stage(self, executor: Executor) -> str:
        """What a run with workers does; called by the heartbeat's thread."""
        if self.signals.number is not None:
            return "stopping"
        return executor.stage() or ("inspecting shards" if self.tally.all_computed else "fitting")


def last_line(cause: str | None) -> str:
    """The last line of why a shard failed: of a traceback the error."""
    lines = (cause or "").strip().splitlines()
    return lines[-1] if lines else "the cause is unknown"
