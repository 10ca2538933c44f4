"""What is predicted of a sweep's fits, for ``polyfit plan``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from polyfit.show.table import format_table
from polyfit.show.text import format_duration
from polyfit.spec.cost import NEWTON_STEPS, nominal_seconds
from polyfit.spec.future import Future, Kind, two_digits
from polyfit.spec.optimizer import TRAITS, Optimizer
from polyfit.spec.prediction import Prediction

__all__ = ["prediction_facts", "prediction_text"]

MAX_LINES: Final = 20
"""Kinds of fits that the table shows; those that deserve a look first."""

_BEYOND: Final = "more than 10^12"
"""Updates that are not counted."""

_SEEDS: Final = ("seed", "noise_seed", "stop")

_WITHOUT_A_LINE: Final = (Future.ENDS, Future.UNKNOWN, Future.CANNOT_START)

_URGENCY: Final = (
    Future.DIVERGES, Future.UNSTABLE, Future.GROWS, Future.AT_LIMIT, Future.TOO_SLOW,
    Future.CONVERGES, Future.STABLE,
)  # fmt: skip
"""What deserves a look comes first."""


def prediction_facts(prediction: Prediction, varied: Sequence[str]) -> dict[str, Any]:
    """The prediction as JSON: how many fits have each future, and all kinds."""
    names = _swept(varied)
    kinds = _merged(prediction.kinds, names)
    return {
        "fits": {f.value: n for f in Future if (n := prediction.count(f))},
        "unchecked": prediction.unchecked,
        "kinds": [
            {
                "fits": kind.fits,
                "fields": {name: _plain(kind.values[name]) for name in names},
                "steps": kind.steps,
                "lr_limit": kind.limit,
                "lr_share": kind.share,
                "condition": kind.condition,
                "predicted": kind.future.value,
                "updates": kind.updates,
                "remedy": kind.remedy,
            }
            for kind in kinds
        ],
    }


def prediction_text(prediction: Prediction, varied: Sequence[str]) -> str:
    """A table of the kinds of fits of which something is predicted, and how many fits have which
    future."""
    names = _swept(varied)
    kinds = _merged(prediction.kinds, names)
    known = [kind for kind in kinds if kind.future not in _WITHOUT_A_LINE]
    shown = _most_urgent(known)
    remedies = any(kind.remedy for kind in shown)
    heads = [*names, "fits", "lr limit", "lr share", "condition", "predicted"]
    rows = [_cells(kind, names, remedies) for kind in shown]
    table = format_table([*heads, "remedy"] if remedies else heads, rows) if shown else ""
    lines = [line.rstrip() for line in table.splitlines() if line.strip()]
    if len(known) > len(shown):  # by two at least
        left_out = len(known) - len(shown)
        seen = " that were looked at and" if prediction.unchecked else " that"
        lines.append(f" and {left_out:,} kinds of fits{seen} are no worse than these")
    return "\n".join([*lines, *([""] if lines else []), f"in all     {_totals(prediction)}"])


def _merged(kinds: Sequence[Kind], names: list[str]) -> list[Kind]:
    """Kinds that a condition on seeds has split are one."""
    merged: dict[tuple[Any, ...], Kind] = {}
    for kind in kinds:
        told = (kind.limit, kind.share, kind.condition, kind.future, kind.updates, kind.remedy)
        key = (*(_word(kind.values[name]) for name in names), kind.steps, *told)
        first = merged.get(key)
        merged[key] = replace(first, fits=first.fits + kind.fits) if first else kind
    return list(merged.values())


def _most_urgent(kinds: list[Kind]) -> list[Kind]:
    """As many as the table shows, in the order of the fits; one more in place of a line that says
    that there is one more."""
    if len(kinds) == MAX_LINES + 1:
        return kinds
    ranked = sorted(kinds, key=lambda kind: (_URGENCY.index(kind.future), -(kind.updates or 0)))
    return sorted(ranked[:MAX_LINES], key=lambda kind: kind.fit)


def _cells(kind: Kind, names: list[str], remedies: bool) -> list[str]:
    cells = [
        *(_word(kind.values[name]) for name in names),
        f"{kind.fits:,}",
        _short(kind.limit),
        _share(kind.share),
        _short(kind.condition),
        _future(kind),
    ]
    return [*cells, _remedy(kind)] if remedies else cells


def _remedy(kind: Kind) -> str:
    """Of Newton's method with the time that all fits of the kind take on one core: an update of its
    costs far more than one of gradient descent."""
    if kind.remedy is None or "newton" not in kind.remedy:
        return kind.remedy or ""
    degree, points, objective = (kind.values[name] for name in ("degree", "points", "objective"))
    newton = Optimizer("newton", TRAITS["newton"].default_beta)
    fit_s = nominal_seconds(degree, points, objective, newton, NEWTON_STEPS, engine="compiled")
    seconds = kind.fits * fit_s
    time = f"~{format_duration(float(f'{seconds:.1g}'))}" if seconds >= 1 else "under 1 s"
    return f"{kind.remedy.removesuffix(')')}; {time})"


def _future(kind: Kind) -> str:
    updates = "" if kind.updates is None else f"~{two_digits(kind.updates):,}"
    match kind.future:
        case Future.CONVERGES:
            return f"converges in {updates} updates"
        case Future.TOO_SLOW:
            return f"not within {kind.steps:,} (needs {updates or _BEYOND})"
        case Future.AT_LIMIT:
            return "at the limit, never settles"
        case Future.GROWS:
            return f"grows, but not tenfold within {kind.steps:,}"
        case Future.UNSTABLE:
            return "above the limit, may diverge"
        case Future.STABLE:
            return "not above the limit"
        case Future.UNKNOWN:
            return "-"
    return kind.future.value


def _totals(prediction: Prediction) -> str:
    """``400 diverge; 350 converge in ~9 to ~780 updates``."""
    parts = []
    for future, words in _IN_ALL.items():
        number = prediction.count(future)
        if number:
            parts.append(f"{number:,} {words}{_span(prediction, future)}")
    if prediction.unchecked:
        parts.append(
            f"{prediction.unchecked:,} were not looked at, which would take longer; the others are "
            "a sample of all, with fewer of the costly ones"
        )
    return "; ".join(parts)


_IN_ALL: Final = {
    Future.CANNOT_START: "cannot start",
    Future.DIVERGES: "diverge",
    Future.UNSTABLE: "are above the limit and may diverge",
    Future.GROWS: "grow, but not tenfold within their steps",
    Future.AT_LIMIT: "are at the limit and never settle",
    Future.TOO_SLOW: "do not come near the optimum in their steps",
    Future.CONVERGES: "converge",
    Future.STABLE: "are not above the limit",
    Future.ENDS: f"end by themselves (newton), nearly all within {NEWTON_STEPS} updates",
    Future.UNKNOWN: "are not predicted (adam, l1)",
}


def _span(prediction: Prediction, future: Future) -> str:
    """In how many updates the fits of ``future`` come near the optimum."""
    if future not in (Future.CONVERGES, Future.TOO_SLOW):
        return ""
    kinds = [kind for kind in prediction.kinds if kind.future == future]
    counts = [two_digits(kind.updates) for kind in kinds if kind.updates is not None]
    verb = "in" if future == Future.CONVERGES else "but in"
    if not counts:
        return f" {verb} {_BEYOND} updates"
    least, most = f"~{min(counts):,}", f"~{max(counts):,}"
    if len(counts) < len(kinds):
        most = _BEYOND
    return f" {verb} {least}{f' to {most}' if most != least else ''} updates"


def _swept(varied: Sequence[str]) -> list[str]:
    return [name for name in varied if name not in _SEEDS]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    """With as many digits as tell it from 1."""
    texts = (_short(value), *(f"{value:.{digits}g}" for digits in (6, 9, 17) if value))
    return next((text for text in texts if text != "1"), "1")


def _word(value: Any) -> str:
    """A field's value in a table."""
    if isinstance(value, tuple):
        return f"[{', '.join(f'{end:.5g}' for end in value)}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A field's value as JSON."""
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, int | float | str) else str(value)
