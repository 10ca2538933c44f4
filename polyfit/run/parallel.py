"""Calls that wait for a store, some at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_in_order"]

S = TypeVar("S")
T = TypeVar("T")


def map_in_order(function: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """``function`` of each item, in order; no more than ``threads`` results are held.

    Executor.map would hold the results of all items.
    """
    if threads == 1:
        yield from map(function, items)
        return
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) == threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
