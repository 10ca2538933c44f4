"""The runs in a store."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from polyfit.errors import PlanMismatch, UsageError
from polyfit.run.keys import MANIFEST, PLAN
from polyfit.spec.plan import Plan
from polyfit.spec.schema import NAME
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store

__all__ = ["ListedRun", "runs_below"]

MAX_FOLDERS: Final = 10_000
"""Folders among which runs are looked for: a bucket may hold other things than runs."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run that was found; ``fits`` is None where another version of polyfit made its plan."""

    address: StoreAddress
    fits: int | None
    complete: bool


def runs_below(address: StoreAddress) -> Iterator[ListedRun]:
    """The runs one or two levels below a folder, which is ``<store>/<name>`` or ``<store>``.

    Raises:
        UsageError: there are more than ``MAX_FOLDERS`` folders.
        StoreError: the store cannot be used.
    """
    store = address.open()
    budget = iter(range(MAX_FOLDERS))

    def subfolders(path: str) -> Iterator[str]:
        for name in store.folders(path):
            if next(budget, None) is None:
                raise UsageError(
                    f"{address.uri}: runs were looked for in {MAX_FOLDERS:,} folders and there "
                    "are more; name <store>/<name>"
                )
            if NAME.fullmatch(name):
                yield path + name

    def runs(path: str, levels: int) -> Iterator[ListedRun]:
        for folder in subfolders(path):
            try:
                data = store.get(f"{folder}/{PLAN}")
            except NoSuchKey:
                if levels > 1:
                    yield from runs(f"{folder}/", levels - 1)
                continue
            try:
                fits: int | None = Plan.from_json(data, f"{address.uri}/{folder}/{PLAN}").fits
            except PlanMismatch:
                fits = None
            yield ListedRun(address.under(folder), fits, _exists(store, f"{folder}/{MANIFEST}"))

    return runs("", 2)


def _exists(store: Store, key: str) -> bool:
    try:
        store.size(key)
    except NoSuchKey:
        return False
    return True
