"""A plan before it is run, for ``polyfit plan``."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from polyfit.show.prediction import prediction_facts, prediction_text
from polyfit.show.text import format_bytes, format_count, format_duration, format_pairs
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.plan import Plan
from polyfit.spec.precheck import Precheck
from polyfit.spec.prediction import Prediction
from polyfit.spec.spec import Spec

if TYPE_CHECKING:  # it needs pyarrow
    from polyfit.run.reusable import Reusable

__all__ = ["plan_facts", "plan_text"]

_WIDTH: Final = 10
"""Of the names in the text."""


def plan_facts(
    spec: Spec,
    plan: Plan,
    precheck: Precheck,
    prediction: Prediction,
    num_cores: int,
    run_id: str,
    reusable: "Reusable | None" = None,
) -> dict[str, Any]:
    """The plan as JSON: its size, its projected cost, which fits cannot start, and what will come
    of the others."""
    return {
        "name": spec.name,
        "fits": plan.fits,
        "shards": plan.shards,
        "fits_per_shard": plan.shard_fits,
        "axes": _axes_facts(spec.grids[0]) if len(spec.grids) == 1 else [],
        "grids": [_grid_facts(grid) for grid in spec.grids],
        "engine": plan.engine,
        "projected_bytes": plan.projected_bytes,
        "projected_core_seconds": plan.seconds,
        "projected_seconds": plan.wall_seconds(num_cores),
        "projected_actors": plan.actors(num_cores),
        "plan_hash": plan.hash,
        "run_id": run_id,
        "cannot_start": {
            "fits": precheck.cannot_start,
            "unchecked": precheck.unchecked,
            "causes": [{"cause": cause.message, "fits": cause.fits} for cause in precheck.causes],
        },
        "prediction": prediction_facts(prediction, plan.sweep.varied),
        "reusable": None if reusable is None else asdict(reusable),
    }


def _grid_facts(grid: ParameterGrid) -> dict[str, Any]:
    excluded = grid.full_size - grid.size
    return {"fits": grid.size, "excluded": excluded, "axes": _axes_facts(grid)}


def _axes_facts(grid: ParameterGrid) -> list[dict[str, Any]]:
    return [{"fields": list(axis.fields), "values": len(axis)} for axis in grid.axes]


def _grid_text(grid: ParameterGrid) -> str:
    axes = " x ".join(f"{'+'.join(axis.fields)} {len(axis):,}" for axis in grid.axes)
    excluded = grid.full_size - grid.size
    return (axes or "none") + (f", less {excluded:,} excluded" if excluded else "")


def _workers(plan: Plan, num_cores: int) -> str:
    actors = plan.actors(num_cores)
    return f"by {format_count(actors, 'actor')}" if actors else "in one process"


def _reuse_text(plan: Plan, reusable: "Reusable") -> str:
    if reusable.obstacle is not None:
        return f"nothing of {reusable.uri}: {reusable.obstacle}"
    about = "" if reusable.exact else "about "
    return f"{about}{reusable.fits:,} of {plan.fits:,} fits are stored in {reusable.uri}"


def plan_text(
    spec: Spec,
    plan: Plan,
    prediction: Prediction,
    num_cores: int,
    run_id: str,
    reusable: "Reusable | None" = None,
) -> str:
    """The plan in words, and a table of what will come of its fits."""
    # Two digits: more would promise what a projection cannot know.
    time_s = float(f"{plan.wall_seconds(num_cores):.2g}")
    pairs = [
        ("fits", f"{plan.fits:,}"),
        ("axes", f"\n{'':<{_WIDTH}} ".join(_grid_text(grid) for grid in spec.grids)),
        ("shards", f"{plan.shards:,} of {plan.shard_fits:,} fits"),
        ("engine", plan.engine),
        ("work", f"{format_duration(plan.seconds)} on one core, nominal"),
        ("time", f"about {format_duration(time_s)} here, {_workers(plan, num_cores)}"),
        ("bytes", f"{format_bytes(plan.projected_bytes)} projected, before compression"),
        ("plan hash", plan.hash),
        ("run id", run_id),
        *([("reuse", _reuse_text(plan, reusable))] if reusable else []),
    ]
    predicted = prediction_text(prediction, plan.sweep.varied)
    return f"{format_pairs(pairs, width=_WIDTH)}\n\n{predicted}"
