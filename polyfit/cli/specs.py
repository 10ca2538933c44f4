"""Reading specs, and what in them deserves a warning, for the commands that take specs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from polyfit.cli.output import write_line
from polyfit.errors import SpecError

if TYPE_CHECKING:
    from polyfit.spec.plan import Plan
    from polyfit.spec.precheck import Precheck
    from polyfit.spec.prediction import Prediction
    from polyfit.spec.spec import Spec

__all__ = ["load_specs", "refuse", "warn_or_refuse"]


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


def warn_or_refuse(
    spec: "Spec", plan: "Plan", strict: bool, prediction: "Prediction | None" = None
) -> "Precheck":
    """Warn of fits that cannot start, and of what is surely not meant.

    Raises:
        SpecError: there is such a thing, and ``strict``.
    """
    from polyfit.spec.advice import advice
    from polyfit.spec.precheck import Precheck

    found = Precheck.of(plan.sweep)
    more = advice(spec, plan.sweep, prediction)
    lines = found.lines(spec) + more
    if strict and (found.cannot_start or more):
        raise SpecError(lines)
    for line in lines:
        write_line(f"warning: {line}")
    return found


def refuse(specs: "list[Spec]") -> None:
    """Check all specs, without a warning: a run warns by itself.

    Raises:
        SpecError: one or more specs have fits that cannot start, or what is surely not meant.
    """
    from polyfit.spec.advice import advice
    from polyfit.spec.plan import Plan
    from polyfit.spec.precheck import Precheck

    problems: list[str] = []
    for spec in specs:
        sweep = Plan.of(spec).sweep
        found, more = Precheck.of(sweep), advice(spec, sweep)
        problems += found.lines(spec) + more if found.cannot_start or more else []
    if problems:
        raise SpecError(problems)
