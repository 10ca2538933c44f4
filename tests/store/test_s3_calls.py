"""How calls of S3 and their retries are counted."""

from collections.abc import Iterator

import pytest
from odd import Answer, Asked, odd_s3, refusal

from polyfit.errors import StoreError
from polyfit.store.address import StoreAddress
from polyfit.store.s3_calls import CALLS, MAX_KEPT, Calls


def test_calls_and_what_was_sent_again_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    down, there = Answer(503), Answer(200, {"ETag": '"x"'}, b"bytes")
    answers: Iterator[Answer] = iter([down, down, there, there, refusal(403, "AccessDenied", "")])

    def answer(asked: Asked) -> Answer:
        return next(answers)

    with odd_s3(answer) as odd:
        store = StoreAddress.of("s3://bucket/p", odd.url).open()
        CALLS.take()
        assert store.get("key") == b"bytes"
        seconds, retries = CALLS.take()
        assert (len(seconds), retries) == (1, 2)
        store.get("key")
        with pytest.raises(StoreError):
            store.get("key")
        seconds, retries = CALLS.take()
        assert (len(seconds), retries) == (2, 0)
        assert CALLS.take() == ([], 0)


def test_of_many_calls_the_latest_are_kept() -> None:
    calls = Calls()
    for number in range(MAX_KEPT + 5):
        calls.add(float(number))
    assert calls.take() == ([float(number) for number in range(5, MAX_KEPT + 5)], 0)
