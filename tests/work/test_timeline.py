"""The time line of an attempt: spans by the driver's clock, few however many shards there are."""

from polyfit.run.timeline import timeline
from polyfit.work.task import Task, TaskResult
from polyfit.work.timeline import MAX_SPANS, Timeline


def test_a_span_ends_when_its_result_arrives_and_is_as_long_as_the_worker_says() -> None:
    times = iter([100.0, 101.0, 107.0, 108.0])
    line = Timeline(clock=lambda: next(times))
    line.note_stage("fitting")
    line.note_result(TaskResult(Task("compute", 0), worker="host 7", seconds=4.0))
    line.note_result(TaskResult(Task("compute", 1), lost=True))  # has no worker to name

    assert line.facts() == {"stages": [[1.0, "fitting"]], "shards": [["host 7", 3.0, 7.0, 1]]}


def test_no_shard_is_lost_where_spans_are_joined() -> None:
    seconds = iter(range(10**6))
    line = Timeline(clock=lambda: float(next(seconds)))
    for number in range(5 * MAX_SPANS):
        worker = f"host {number % 3}"
        line.note_result(TaskResult(Task("compute", number), worker=worker, seconds=0.5))

    spans = line.facts()["shards"]
    assert len(spans) <= MAX_SPANS
    assert sum(count for *_, count in spans) == 5 * MAX_SPANS


def test_stages_end_where_the_next_begins_and_actors_have_lanes() -> None:
    facts = {
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:00:10Z",
        "stages": [[0.0, "loading torch"], [4.0, "fitting"]],
        "shards": [["host 7", 5.0, 9.0, 2]],
    }

    spans = [(one["lane"], one["what"], one["start"], one["end"]) for one in timeline([facts, {}])]
    assert spans == [
        ("loading torch", "loading torch", 0.0, 4.0),
        ("fitting", "fitting", 4.0, 10.0),
        ("actor 1 (host 7)", "2 shards", 5.0, 9.0),
    ]
