"""The runs that a command's arguments and its options of ``options.found`` name."""

from typing import TYPE_CHECKING, Any

from polyfit.errors import UsageError

if TYPE_CHECKING:
    from polyfit.run.reader import Run
    from polyfit.store.address import StoreAddress

__all__ = ["find", "open_run", "open_runs"]


def find(run: str, found_by: dict[str, Any]) -> "StoreAddress":
    """The address of the run that ``run`` names.

    Raises:
        UsageError, PolyfitError: as ``find_run``; or --run-id is of no use.
    """
    from polyfit.run.resolve import find_run

    _check([run], found_by)
    return find_run(run, **found_by)


def open_run(run: str, found_by: dict[str, Any]) -> "Run":
    """The run that ``run`` names; raises as ``find`` does."""
    return open_runs([run], found_by)[0]


def open_runs(runs: list[str], found_by: dict[str, Any]) -> "list[Run]":
    """The runs that ``runs`` name; raises as ``find`` does."""
    from polyfit.run.reader import Run

    _check(runs, found_by)
    return [Run.open(run, **found_by) for run in runs]


def _check(runs: list[str], found_by: dict[str, Any]) -> None:
    from polyfit.run.resolve import is_spec

    if found_by["run_id"] is not None and not any(map(is_spec, runs)):
        raise UsageError(
            f"--run-id is of the run of a spec, and {runs[-1]!r} is no spec; without a spec a run "
            "is NAME/ID"
        )
