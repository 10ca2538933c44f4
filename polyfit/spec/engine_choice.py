"""Which engine a plan computes with."""

from collections.abc import Callable
from typing import Any

from polyfit.errors import SpecError
from polyfit.spec.document import Path
from polyfit.spec.fit import SQUARED
from polyfit.spec.spec import Spec
from polyfit.spec.sweep import Sweep

__all__ = ["chosen_engine"]


def chosen_engine(spec: Spec, sweep: Sweep) -> str:
    """The engine that the spec names; compiled where it names none.

    Raises:
        SpecError: engine affine where the iteration is no affine map.
    """
    if spec.engine == "affine":
        _check_affine(spec, sweep)
    return "compiled" if spec.engine == "auto" else spec.engine


def _check_affine(spec: Spec, sweep: Sweep) -> None:
    allowed: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "objective": ("sse | mse", lambda value: value in SQUARED),
        "optimizer": ("gd | {momentum: ...}", lambda value: value.traits.linear),
        "stop": ("none", lambda value: value is None),
    }
    defects = []
    for name, (words, is_allowed) in allowed.items():
        refused = [value for value in sweep.values(name) if not is_allowed(value)]
        if refused:
            swept = [(*grid.path, name) for grid in sweep.grids]
            places: list[Path] = [*swept, ("fit", name), ("sweep",), ("engine",)]
            defects.append(
                f"{spec.where(*places)}: {str(refused[0])!r} with engine affine; allowed: {words}, "
                "where every update is one affine map; or another engine"
            )
    if defects:
        raise SpecError(defects)
