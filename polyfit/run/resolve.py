"""Finds the run that a user names: by its folder, its name, its id or its spec."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date as Date
from typing import Final

from polyfit.errors import RunNotFound, UsageError
from polyfit.run.address import default_store, run_address
from polyfit.run.keys import PLAN
from polyfit.run.parallel import map_in_order
from polyfit.run.state import last_change, sealed_bytes
from polyfit.spec.dates import fill_date, read_date
from polyfit.spec.plan import Plan
from polyfit.spec.run_id import run_id_of
from polyfit.spec.schema import NAME
from polyfit.spec.spec import Spec
from polyfit.store.address import StoreAddress
from polyfit.store.base import NoSuchKey, Store
from polyfit.store.subfolder import Subfolder

__all__ = ["LAST_COMPLETE", "earlier_complete", "find_run", "is_spec"]

LAST_COMPLETE: Final = "@last"
"""What stands for the last complete run before another one of its name."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

MIN_ID_CHARS: Final = 4
"""Of the beginning of an id without a name."""

MAX_SHOWN: Final = 10
_THREADS: Final = 8

_SPEC_SUFFIXES: Final = (".yaml", ".yml", ".json")
_NAMED: Final = re.compile(rf"({NAME.pattern})(?:@-(\d+))?")
_FORWARD: Final = re.compile(rf"({NAME.pattern})@\+?(\d+)")
_IN_NAME: Final = re.compile(rf"({NAME.pattern})/({NAME.pattern})")


def find_run(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str] | StoreAddress | None = None,
    endpoint_url: str | None = None,
    date: str | Date | None = None,
    run_id: str | None = None,
) -> StoreAddress:
    """The address of a run's folder; whether it holds a run is found out by opening it.

    Args:
        run: the folder, or one of: a name, for the latest run of that name; ``name@-1``, for the
            one before; an id or its beginning, also after ``name/``; a spec's file, for the run
            of the spec as it stands.
        store: where names and ids are looked for; ``POLYFIT_STORE`` or ``./runs`` if None. The
            run of a spec is in the spec's own store if None.
        endpoint_url: an S3 endpoint; the environment's if None.
        date: takes the place of ``{date}`` in all of these; today in UTC if None.
        run_id: of the run of a spec; the spec's own, else its plan's, if None.

    Raises:
        RunNotFound: no run has this name or id; with the names that there are.
        UsageError: several have; or it cannot be read.
        SpecError: all that is wrong in the spec.
        StoreError: the store cannot be used.
    """
    text = os.fspath(run) if isinstance(run, str | os.PathLike) else None
    if not isinstance(text, str):
        return StoreAddress.of(run, endpoint_url)  # says what is allowed
    day = read_date(date)
    if is_spec(text):
        return _run_of_spec(text, store, endpoint_url, day, run_id)
    text = fill_date(text, day)
    if (forward := _FORWARD.fullmatch(text)) is not None and not os.path.exists(text):
        name, back = forward.groups()
        raise UsageError(f"{text!r}: a run before the latest of {name} is {name}@-{back}")
    if _is_address(text):
        if isinstance(store, StoreAddress):
            return store.beside(text, endpoint_url)
        return StoreAddress.of(text, endpoint_url)
    where = store or default_store()
    if not isinstance(where, StoreAddress):
        where = StoreAddress.of(where, endpoint_url, str(day))
    found = _find(where, text)
    if found is not None:
        return where.under(found)
    if os.path.exists(text):
        return StoreAddress.of(text, endpoint_url)
    opened = where.open()
    if len(text) < MIN_ID_CHARS and _runs_by_id(opened, text):
        raise RunNotFound(
            f"there is no run {text!r} in {where.uri}; of an id at least {MIN_ID_CHARS} characters "
            "are needed"
        )
    raise RunNotFound(f"there is no run {text!r} in {where.uri}; {_names(opened)}")


def earlier_complete(run: StoreAddress) -> Iterator[StoreAddress]:
    """The complete runs of the same name before ``run``, the latest first.

    Before a run with a date in its id are those of earlier dates whose ids have the same text
    before it, whenever they were made and whatever follows the date: a night that was wrong is made
    again under another id. Of one date the last written is the first. Before another run are those
    that were written to before.

    Raises:
        StoreError: the store cannot be used.
    """
    folder, _, run_id = run.uri.rpartition("/")
    above = replace(run, uri=folder)
    store = above.open()
    for found in _before(store, [*store.folders()], run_id):
        if sealed_bytes(Subfolder(store, found)) is not None:
            yield above.under(found)


def _before(store: Store, ids: list[str], run_id: str) -> Iterator[str]:
    """Those of ``ids`` that come before ``run_id``, the latest first."""
    if (night := _DATE.search(run_id)) is None:
        latest_first = [found for _, found in _by_date(store, ids)]
        present = next((n for n, found in enumerate(latest_first) if found == run_id), 0)
        yield from latest_first[present + 1 :]
        return
    of_night: dict[str, list[str]] = {}
    for found in ids:
        other = _DATE.search(found)
        if other and found[: other.start()] == run_id[: night.start()] and other[0] < night[0]:
            of_night.setdefault(other[0], []).append(found)
    for day in sorted(of_night, reverse=True):
        yield from (found for _, found in _by_date(store, of_night[day]))


def _by_date(store: Store, paths: list[str]) -> list[tuple[str, str]]:
    """When each of these runs was last written to, and its path; the latest first."""
    dates = map_in_order(lambda path: last_change(Subfolder(store, path)), paths, _THREADS)
    return sorted(zip(dates, paths, strict=True), reverse=True)


def is_spec(text: str) -> bool:
    """Whether it is the name of a spec, rather than that of a run."""
    return text.endswith(_SPEC_SUFFIXES) or os.path.isfile(text)


def _is_address(text: str) -> bool:
    """Whether it is a path or a URI, rather than a name or an id."""
    named = _NAMED.fullmatch(text) or _IN_NAME.fullmatch(text)
    return named is None or os.path.isfile(os.path.join(text, PLAN))


def _run_of_spec(
    path: str,
    store: str | os.PathLike[str] | StoreAddress | None,
    endpoint_url: str | None,
    day: Date,
    run_id: str | None,
) -> StoreAddress:
    """The run of the spec as it stands, on ``day``.

    Raises:
        RunNotFound: it is not there.
    """
    spec = Spec.load(path)
    plan = Plan.of(spec)
    if isinstance(store, StoreAddress):
        address = store.under(f"{spec.name}/{run_id_of(spec, plan, day, run_id)}")
    else:
        address = run_address(spec, plan, store, endpoint_url, run_id, day)
    opened = address.open()
    try:
        opened.size(PLAN)
    except NoSuchKey:
        raise RunNotFound(
            f"{path}: this spec, as it stands, has not been run: {address.uri} is not there"
        ) from None
    return address


def _find(where: StoreAddress, text: str) -> str | None:
    """The path of the run that ``text`` names, from the store at ``where``; None if none."""
    store = where.open()
    if (match := _NAMED.fullmatch(text)) is not None:
        name, back = match[1], int(match[2] or 0)
        ids = [*store.folders(f"{name}/")]
        if ids:
            return _latest(store, name, ids, back)
        if match[2] is None and len(text) >= MIN_ID_CHARS:
            return _one(where, text, _runs_by_id(store, text))
    if (match := _IN_NAME.fullmatch(text)) is not None:
        ids = [found for found in store.folders(f"{match[1]}/") if found.startswith(match[2])]
        return _one(where, text, [f"{match[1]}/{found}" for found in ids])
    return None


def _latest(store: Store, name: str, ids: list[str], back: int) -> str:
    """The run of that name that was written to last, or the one so many before it.

    Raises:
        RunNotFound: there are not as many.
    """
    if back >= len(ids):
        raise RunNotFound(
            f"{name}@-{back}: {store.uri}/{name} has {len(ids)} run{'s' if len(ids) > 1 else ''}: "
            f"{_some(sorted(ids))}"
        )
    if len(ids) == 1:
        return f"{name}/{ids[0]}"
    return _by_date(store, [f"{name}/{found}" for found in ids])[back][1]


def _runs_by_id(store: Store, beginning: str) -> list[str]:
    return [path for path in _paths(store) if path.partition("/")[2].startswith(beginning)]


def _one(where: StoreAddress, text: str, paths: list[str]) -> str | None:
    """The only one of ``paths``, or the one whose id is ``text`` in full; None if there is none.

    Raises:
        UsageError: there are several.
    """
    exact = [path for path in paths if text in (path, path.partition("/")[2])]
    if len(paths) > 1 and len(exact) != 1:
        raise UsageError(
            f"{text!r} is the beginning of {len(paths)} runs in {where.uri}: "
            f"{_some(paths)}; write more of it"
        )
    return next(iter(exact or paths), None)


def _paths(store: Store) -> Iterator[str]:
    """The paths of all runs of a store."""
    for name in store.folders():
        if NAME.fullmatch(name):
            for found in store.folders(f"{name}/"):
                yield f"{name}/{found}"


def _names(store: Store) -> str:
    """Which names have runs, in words."""
    counts: dict[str, int] = {}
    for path in _paths(store):
        name = path.partition("/")[0]
        counts[name] = counts.get(name, 0) + 1
    if not counts:
        return "no run is there; --store names another store"
    listed = [f"{name} ({n} run{'s' if n > 1 else ''})" for name, n in counts.items()]
    return f"there are {_some(listed)}"


def _some(items: list[str]) -> str:
    left = len(items) - MAX_SHOWN
    return ", ".join(items[:MAX_SHOWN]) + (f" and {left} more" if left > 0 else "")
