"""Which failures are tried again, how often, and with which pauses."""

import pytest

from polyfit.errors import ClusterError, PolyfitError, StoreError
from polyfit.work.retry import (
    MAX_STORE_PAUSE_S,
    MAX_TRIES,
    MAX_WORKER_DEATHS,
    STORE_BUDGET_S,
    RetryPolicy,
)
from polyfit.work.task import Task, TaskResult

TASK = Task("compute", 3)
RAISED = TaskResult(TASK, cause="it raised")
DIED = TaskResult(TASK, cause="the actor has died", lost=True)
PREEMPTED = TaskResult(TASK, cause="its node was taken back", lost=True, preempted=True)
SILENT = TaskResult(TASK)


@pytest.mark.parametrize(
    ("results", "retried"),
    [
        ([RAISED], [True]),
        ([RAISED] * MAX_TRIES, [True] * (MAX_TRIES - 1) + [False]),
        ([DIED] * MAX_WORKER_DEATHS, [True] * (MAX_WORKER_DEATHS - 1) + [False]),
        ([PREEMPTED] * 100, [True] * 100),
        ([RAISED, DIED, RAISED, DIED, RAISED], [True, True, True, True, False]),
        ([DIED] * 5 + [PREEMPTED] * 50 + [RAISED, RAISED], [True] * 57),
    ],
    ids=["once", "thrice", "workers that die", "spot nodes", "both are counted apart", "mixed"],
)
def test_a_shard_is_tried_again_until_it_or_its_workers_have_failed_too_often(
    results: list[TaskResult], retried: list[bool]
) -> None:
    policy = RetryPolicy()
    assert [policy.retries_after(result) for result in results] == retried


def test_shards_are_counted_apart_and_every_cause_is_kept() -> None:
    policy = RetryPolicy()
    for shard in range(5):
        for result in (RAISED, SILENT):
            assert policy.retries_after(TaskResult(Task("compute", shard), cause=result.cause))
    assert policy.causes == {shard: ["it raised", "no error reported"] for shard in range(5)}


MOMENT = StoreError("503", transient=True)


def test_pauses_for_a_store_grow_to_a_limit_and_begin_again_once_it_works() -> None:
    policy = RetryPolicy()
    pauses = [policy.store_pause_s(MOMENT, 10.0 + n) for n in range(7)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, MAX_STORE_PAUSE_S]
    policy.note_stored()
    assert policy.store_pause_s(MOMENT, 1000.0) == 0.5


def test_a_store_that_does_not_come_back_ends_the_run() -> None:
    policy = RetryPolicy()
    policy.store_pause_s(MOMENT, 100.0)
    policy.store_pause_s(MOMENT, 100.0 + STORE_BUDGET_S - 0.1)
    with pytest.raises(StoreError, match="503"):
        policy.store_pause_s(MOMENT, 100.0 + STORE_BUDGET_S)


@pytest.mark.parametrize("error", [StoreError("no such bucket"), ClusterError("another torch")])
def test_what_waiting_does_not_mend_is_raised_at_once(error: PolyfitError) -> None:
    with pytest.raises(type(error)) as caught:
        RetryPolicy().store_pause_s(error, 0.0)
    assert caught.value is error
