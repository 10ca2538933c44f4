"""Fits that cannot start, found before anything is fitted and without torch.

A fit starts where its dtype holds its observations, its basis functions and its rate; else its row
says diverged, with no update taken.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from polyfit.spec.causes import Cause, find_causes
from polyfit.spec.document import Path
from polyfit.spec.fit_table import FitTable
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.representatives import representatives
from polyfit.spec.spec import Spec
from polyfit.spec.start_check import Reason, StartCheck
from polyfit.spec.sweep import Sweep

__all__ = ["Precheck"]

MAX_KINDS: Final = 1 << 18
"""Fits that are checked, each for all of its kind."""

MAX_COST: Final = 200_000_000
"""Additions that computing observations and designs may cost: about a second of one core."""

MAX_CAUSES: Final = 10
"""Causes that are reported one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class Precheck:
    """What was found: ``cannot_start`` of ``fits``, for ``causes``, each fit counted once.

    ``causes`` are the first ones, in the order of the fits; ``more`` counts the others.
    ``unchecked`` fits were not looked at.
    """

    fits: int
    cannot_start: int
    causes: tuple[Cause, ...]
    more: int
    unchecked: int

    @classmethod
    def of(cls, sweep: Sweep, max_cost: int = MAX_COST, max_kinds: int = MAX_KINDS) -> "Precheck":
        """Check ``sweep``, at the cost of so many additions and kinds of fit at most."""
        parts = [
            _checked(grid, max_cost // len(sweep.grids), max_kinds // len(sweep.grids))
            for grid in sweep.grids
        ]
        causes = [cause for part in parts for cause in part.causes]
        return cls(
            sweep.size,
            sum(part.cannot_start for part in parts),
            tuple(causes[:MAX_CAUSES]),
            sum(part.more for part in parts) + len(causes[MAX_CAUSES:]),
            sum(part.unchecked for part in parts),
        )

    def lines(self, spec: Spec) -> list[str]:
        """What to report, a line each: empty where every fit can start."""
        of_all = f"of {self.fits:,} fits cannot start"
        lines = [f"{_where(spec, c)}: {c.message}: {c.fits:,} {of_all}" for c in self.causes]
        if self.more:
            lines.append(f"{spec.source}: {self.more:,} more causes like these")
        if len(lines) > 1:
            lines.append(f"{spec.source}: in all {self.cannot_start:,} {of_all}")
        if self.unchecked:
            lines.append(
                f"{spec.source}: {self.unchecked:,} of {self.fits:,} fits were not checked: "
                "the check is limited to about a second of work"
            )
        return lines


def _checked(grid: ParameterGrid, max_cost: int, max_kinds: int) -> Precheck:
    """Check one grid."""
    fits, weights = representatives(grid, max_kinds)
    table = FitTable(grid, fits)
    with np.errstate(all="ignore"):
        check = StartCheck(table)
        check.budget = max_cost // 2
        check.check_bases()
        check.budget += max_cost // 2
        check.check_observations()
        reasons = check.reasons
        causes, more = find_causes(table, reasons, weights, MAX_CAUSES)
    return Precheck(
        grid.size,
        int(weights[reasons > Reason.UNKNOWN].sum()),
        causes,
        more,
        grid.size - int(weights[reasons != Reason.UNKNOWN].sum()),
    )


def _where(spec: Spec, cause: Cause) -> str:
    """File, line and key of the first of the fields concerned that the spec states."""
    paths: list[Path] = []
    inside, depth = (*cause.path, "zip"), len(cause.path) + 1
    for name, place in cause.places.items():
        zipped = [p for p in spec.lines if p[:depth] == inside and p[depth + 1 :] == (name,)]
        for path in ((*cause.path, name), *zipped):
            paths += [(*path, place), path]
        paths.append(("fit", name))
    return spec.where(*(path for path in paths if path in spec.lines), ("fit",))
