"""The runs in a store."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from polyfit.errors import DamagedRun, PlanMismatch, UsageError
from polyfit.run.address import default_store
from polyfit.run.keys import PLAN
from polyfit.run.ledger import Ledger
from polyfit.run.parallel import map_in_order
from polyfit.run.run_receipt import RunReceipt, stored_receipt
from polyfit.run.state import RunState, State, read_state
from polyfit.spec.fit import CANONICAL_ORDER
from polyfit.spec.plan import Plan
from polyfit.spec.schema import NAME
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store
from polyfit.store.subfolder import Subfolder
from polyfit.store.uri import is_s3

__all__ = ["ListedRun", "changes", "runs_below", "why_no_run"]

MAX_FOLDERS: Final = 10_000
"""Folders among which runs are looked for: a bucket may hold other things than runs."""

_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run that was found.

    Attributes:
        address: of its folder.
        name: of its spec.
        run_id: the last part of its address.
        plan: None where another version of polyfit made it.
        state: how far it is; None where the plan is.
        changed: what its spec changed against the run before it of the same name; None where it is
            the first, or a plan cannot be read.
        core_seconds: that its workers held; None where no attempt has noted any.
        attempts_unknown: how many attempts are not counted there: they left no note.
    """

    address: StoreAddress
    name: str
    run_id: str
    plan: Plan | None
    state: RunState | None
    changed: tuple[str, ...] | None = None
    core_seconds: float | None = None
    attempts_unknown: int | None = None

    @property
    def date(self) -> str:
        """When its driver last wrote to it; empty where that is not known."""
        return (self.state.updated_at if self.state else None) or ""


def runs_below(address: StoreAddress) -> list[ListedRun]:
    """The runs one or two levels below a folder, which is ``<store>/<name>`` or ``<store>``,
    by name and date.

    Raises:
        UsageError: there are more than ``MAX_FOLDERS`` folders.
        StoreError: the store cannot be used.
    """
    store = address.open()
    paths = _run_folders(store, address.uri)
    found = map_in_order(lambda path: _read(store, address, path), paths, _THREADS)
    runs = sorted(filter(None, found), key=lambda run: (run.name, run.date, run.run_id))
    return [
        replace(run, changed=changes(before, run) if before and before.name == run.name else None)
        for before, run in zip([None, *runs], runs, strict=False)
    ]


def why_no_run(address: StoreAddress, text: str) -> None:
    """Refuse a place without runs that was surely not meant; ``text`` is how it was named.

    Raises:
        UsageError: it is not there, is a run, or the name of runs in the default store.
    """
    if _exists(address.open(), PLAN):
        raise UsageError(f"{address.uri} is a run: polyfit status {text} shows it")
    if is_s3(address.uri) or os.path.isdir(address.uri):
        return
    named = StoreAddress.of(default_store()) if NAME.fullmatch(text) else None
    if named is not None and any(named.open().folders(f"{text}/")):
        raise UsageError(
            f"there is no folder {address.uri}; the runs called {text}: polyfit list "
            f"{default_store().rstrip('/')}/{text}"
        )
    raise UsageError(f"there is no folder {address.uri}")


def changes(before: ListedRun, run: ListedRun) -> tuple[str, ...] | None:
    """What two plans ask differently: fields of a fit, ``exclude``, ``record`` and ``engine``."""
    if before.plan is None or run.plan is None:
        return None
    old, new = _asked(before.plan), _asked(run.plan)
    return tuple(name for name in new if old[name] != new[name])


def _asked(plan: Plan) -> dict[str, Any]:
    """What a plan asks, as JSON: of each field a value for every grid."""
    canonical = plan.sweep.canonical()
    fields: dict[str, Any] = {name: [] for name in CANONICAL_ORDER}
    for grid in canonical.get("grids", [canonical]):
        for part in (grid["fit"], *grid["sweep"]):
            for name, value in part.items():
                fields[name].append(value)
    return {
        **fields,
        "exclude": canonical.get("exclude"),
        "record": plan.record.canonical(),
        "engine": plan.engine,
    }


def _run_folders(store: Store, uri: str) -> Iterator[str]:
    """The folders that may hold runs, as paths from ``store``; a run is not searched for runs."""
    budget = iter(range(MAX_FOLDERS))

    def subfolders(path: str) -> list[str]:
        names = []
        for name in store.folders(path):
            if next(budget, None) is None:
                raise UsageError(
                    f"{uri}: runs were looked for in {MAX_FOLDERS:,} folders and there "
                    "are more; name <store>/<name>"
                )
            if NAME.fullmatch(name):
                names.append(path + name)
        return names

    for folder in subfolders(""):
        if _exists(store, f"{folder}/{PLAN}"):
            yield folder
        else:
            yield from subfolders(f"{folder}/")


def _read(store: Store, address: StoreAddress, path: str) -> ListedRun | None:
    """The run at ``path``; None where there is none."""
    folder = Subfolder(store, path)
    under = address.under(path)
    *_, name, run_id = under.uri.split("/")
    try:
        data = folder.get(PLAN)
    except NoSuchKey:
        return None
    try:
        plan = Plan.from_json(data, f"{folder.uri}/{PLAN}")
    except PlanMismatch:
        return ListedRun(under, name, run_id, None, None)
    state = read_state(folder, plan)
    cores, unknown = _taken(folder, plan, state)
    return ListedRun(under, name, run_id, plan, state, core_seconds=cores, attempts_unknown=unknown)


def _taken(folder: Store, plan: Plan, state: RunState) -> tuple[float | None, int]:
    """Core-seconds of the attempts that noted any, and how many did not."""
    if state.state is State.STALE:  # a driver that died did not renew the receipt
        receipt: RunReceipt | None = RunReceipt.read(Ledger(folder, plan), complete=False)
    else:
        try:
            receipt = stored_receipt(folder)
        except DamagedRun:  # made of the same notes
            receipt = RunReceipt.read(Ledger(folder, plan), state.state is State.COMPLETE)
    if receipt is None:
        return None, 0
    noted = receipt.attempts > receipt.attempts_unknown
    cores = round(sum(receipt.core_seconds.values()), 3) if noted else None
    return cores, receipt.attempts_unknown


def _exists(store: Store, key: str) -> bool:
    try:
        store.size(key)
    except NoSuchKey:
        return False
    return True
