"""What in a spec is surely not meant, though it can be run."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from polyfit.spec.document import Path
from polyfit.spec.future import Future, Kind, two_digits
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.prediction import Prediction
from polyfit.spec.spec import Spec
from polyfit.spec.suggestions import of_exponents, surely_values
from polyfit.spec.sweep import Sweep

__all__ = ["advice"]

TINY_SHARE: Final = 1e-3
"""A rate of at most this share of the stability limit is called tiny."""

MANY_STEPS: Final = 1000


def advice(spec: Spec, sweep: Sweep, prediction: Prediction | None = None) -> list[str]:
    """A line for each thing that is surely not meant; empty where there is none.

    Without a prediction one is made where rates are stated: those of ``lr: auto`` are sound.
    """
    lines = [line for grid in sweep.grids for line in _about_noise(spec, grid)]
    lines += [line for grid in sweep.grids for line in _about_exponents(spec, grid)]
    lines += _about_exclusions(spec)
    if any(rate.kind != "auto" for rate in sweep.values("lr")):
        lines += _about_rates(spec, sweep, prediction or Prediction.of(sweep))
    return lines


def _about_noise(spec: Spec, grid: ParameterGrid) -> Iterator[str]:
    noisy = any(grid.values("noise"))
    if not noisy and _differ(grid.values("noise_seed")):
        where = spec.where(*_places(spec, grid, "noise_seed"))
        yield f"{where}: noise is 0, so all noise seeds give the same data"
    stated = any(path[-1:] == ("noise_seed",) for path in spec.lines)
    if noisy and not stated and _differ(grid.values("seed")):
        yield (
            f"{spec.where(*_places(spec, grid, 'seed'))}: all seeds have the same noise, because "
            "seed is of the start values; sweep noise_seed, or state it in fit if one noise is "
            "meant"
        )


def _differ(values: Iterable[Any]) -> bool:
    """Whether there are two values that differ; of many only the first are looked at."""
    found = iter(values)
    first = next(found)
    return any(value != first for value in found)


def _about_exponents(spec: Spec, grid: ParameterGrid) -> Iterator[str]:
    for values in (values for axis in grid.axes for values in axis.values):
        source = values.source if isinstance(values.source, dict) else {}
        low, high, count = source.get("of_limit", source).get("logspace", (0, 0, 0))
        if surely_values(low, high):
            where = spec.where(*_places(spec, grid, values.field))
            yield f"{where}: {10**low:.4g} to {10**high:.4g}{of_exponents(low, high, count)}"


def _about_exclusions(spec: Spec) -> Iterator[str]:
    for number in sorted(set.intersection(*(grid.kept.idle for grid in spec.grids))):
        text = spec.grids[0].exclude[number].text
        yield f"{spec.where(('exclude', number))}: {text}: this holds for no combination"


def _about_rates(spec: Spec, sweep: Sweep, prediction: Prediction) -> Iterator[str]:
    kinds = prediction.kinds
    if prediction.unchecked or not kinds:
        return
    where = spec.where(*_places(spec, sweep.grids[0], "lr"))
    shares = [kind.share for kind in kinds if kind.share is not None]
    of_all = f"all {prediction.fits:,} fits" if prediction.fits > 1 else "the fit"
    if all(kind.future == Future.DIVERGES for kind in kinds):
        yield (
            f"{where}: {of_all} will diverge: lr is {min(shares):.3g} times the stability limit or "
            "more; lr: auto is half of it"
        )
    elif all(_tiny(kind) for kind in kinds):
        needed = two_digits(min(kind.updates for kind in kinds if kind.updates is not None))
        yield (
            f"{where}: {of_all} will end far from the optimum: lr is {max(shares):.2g} of the "
            f"stability limit or less, which takes ~{needed:,} updates or more; lr: auto is half "
            "of the limit"
        )


def _tiny(kind: Kind) -> bool:
    tiny = kind.share is not None and kind.share <= TINY_SHARE
    late = kind.future == Future.TOO_SLOW and kind.updates is not None
    return tiny and late and kind.steps >= MANY_STEPS


def _places(spec: Spec, grid: ParameterGrid, name: str) -> list[Path]:
    """Where the spec may state ``name``, as the first fits have it."""
    inside = (*grid.path, "zip")
    zipped = [p for p in spec.lines if p[: len(inside)] == inside and p[-1:] == (name,)]
    return [*zipped, (*grid.path, name), ("fit", name), grid.path]
