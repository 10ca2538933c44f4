"""Reading specs, and the check of which fits can start, for the commands that take specs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from polyfit.cli.output import write_line
from polyfit.errors import SpecError

if TYPE_CHECKING:
    from polyfit.spec.plan import Plan
    from polyfit.spec.precheck import Precheck
    from polyfit.spec.spec import Spec

__all__ = ["check_fits_can_start", "load_specs", "refuse_fits_that_cannot_start"]


def load_specs(paths: Iterable[str], settings: Sequence[str] = ()) -> "list[Spec]":
    """Read all specs, each with the ``settings`` KEY=VALUE.

    Raises:
        SpecError: one or more are wrong; it has the problems of all.
    """
    from polyfit.spec.spec import Spec

    specs: list[Spec] = []
    problems: list[str] = []
    excerpts: dict[str, str] = {}
    for path in paths:
        try:
            specs.append(Spec.load(path, settings))
        except SpecError as error:
            problems += error.problems
            excerpts |= error.excerpts
    if problems:
        raise SpecError(list(dict.fromkeys(problems)), excerpts)
    return specs


def check_fits_can_start(spec: "Spec", plan: "Plan", strict: bool) -> "Precheck":
    """Warn of fits that cannot start.

    Raises:
        SpecError: there are some, and ``strict``.
    """
    from polyfit.spec.precheck import Precheck

    found = Precheck.of(plan.sweep)
    lines = found.lines(spec)
    if strict and found.cannot_start:
        raise SpecError(lines)
    for line in lines:
        write_line(f"warning: {line}")
    return found


def refuse_fits_that_cannot_start(specs: "list[Spec]") -> None:
    """Check all specs, without a warning: a run warns by itself.

    Raises:
        SpecError: one or more specs have fits that cannot start.
    """
    from polyfit.spec.plan import Plan
    from polyfit.spec.precheck import Precheck

    problems: list[str] = []
    for spec in specs:
        found = Precheck.of(Plan.of(spec).sweep)
        if found.cannot_start:
            problems += found.lines(spec)
    if problems:
        raise SpecError(problems)
