"""The runs in a store, for ``polyfit results`` on a folder of runs."""

import csv
from typing import Any, TextIO

from polyfit.run.listing import ListedRun
from polyfit.show.text import format_count

__all__ = ["run_line", "runs_facts", "write_runs_csv"]


def runs_facts(listed: list[ListedRun]) -> list[dict[str, Any]]:
    """Each run with the two values that open it again, as JSON."""
    return [
        {
            "run": run.address.uri,
            "endpoint_url": run.address.endpoint_url,
            "fits": run.fits,
            "complete": run.complete,
        }
        for run in listed
    ]


def write_runs_csv(listed: list[ListedRun], file: TextIO) -> None:
    """A header and a line per run; ``listed`` is not empty."""
    runs = runs_facts(listed)
    writer = csv.DictWriter(file, list(runs[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(runs)


def run_line(run: ListedRun) -> str:
    """The run's address, ready to paste after ``polyfit results``, and its size."""
    size = "made by another version" if run.fits is None else format_count(run.fits, "fit")
    return f"{run.address}  ({size}{'' if run.complete else ', not complete'})"
