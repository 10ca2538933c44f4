"""Nominal times and sizes: for planning, not a promise.

Made from the sweep alone, so that a plan does not depend on who makes it. Constants were measured
on one kind of machine.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, product
from math import prod
from typing import Any, Final

from polyfit.spec.axis import Values
from polyfit.spec.fit import SQUARED
from polyfit.spec.optimizer import Optimizer, OptimizerTraits
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.record import Record
from polyfit.spec.sweep import Sweep

__all__ = [
    "COST_FIELDS",
    "NEWTON_STEPS",
    "cost_groups",
    "nominal_seconds",
    "row_bytes",
    "sweep_bytes",
    "sweep_seconds",
]

COST_FIELDS: Final = ("degree", "points", "objective", "optimizer", "steps")
"""The fields that a fit's nominal time depends on."""

_Rows = Counter[tuple[int, tuple[tuple[str, Any], ...]]]

_MAX_GROUPS: Final = 200_000
NEWTON_STEPS: Final = 30
"""Updates after which nearly every fit of a convex objective has converged."""

_SHARD_S: Final = 0.05
"""Of a shard of any size: its batches, its file, the store."""

_FIRST_KERNEL_S: Final = 0.1
"""Of the first kernel: loading LLVM."""

_SCALAR_BYTES: Final = 180
"""Of all columns of a row that are no lists."""

_STEP_BYTES: Final = 4
"""Of a recorded update's number."""


# --- one fit ---------------------------------------------------------------------------------


def nominal_seconds(
    degree: int, points: int, objective: str, optimizer: Optimizer, steps: int, *, engine: str
) -> float:
    """One fit's nominal time on one core, seconds."""
    size = degree + 1
    evaluation = 2e-9 * points * size + 5e-6 if engine == "eager" else 6e-11 * points * size + 2e-6
    if optimizer.traits.second_order:
        return evaluation + min(steps, NEWTON_STEPS) * _newton_step(size, points, objective)
    if engine == "affine":
        return evaluation
    return evaluation + steps * _STEP[engine](size, points, objective, optimizer.traits)


def _newton_step(size: int, points: int, objective: str) -> float:
    if objective in SQUARED:
        return 1e-9 * size**3 + 2e-8 * size**2
    return 2.5e-9 * points * size * (size + 3)


def _eager_step(size: int, points: int, objective: str, traits: OptimizerTraits) -> float:
    if objective in SQUARED:
        return 4e-9 * (size * (size + 1) / 2 + traits.eager_cost * size)
    return 2.5e-9 * points * (size + 1)


def _compiled_step(size: int, points: int, objective: str, traits: OptimizerTraits) -> float:
    update = traits.compiled_cost * size
    if objective in SQUARED:
        return 2e-11 * (2 * size * (size + 1) + update)
    point = 6e-12 * (4 * size + 10) + (3e-10 if objective == "log_cosh" else 0.0)
    return point * points + 2e-11 * update


_STEP: Final = {"eager": _eager_step, "compiled": _compiled_step}


def row_bytes(
    sweep: Sweep,
    record: Record,
    degree: int,
    points: int,
    objective: str,
    optimizer: Optimizer,
    steps: int,
) -> float:
    """One row before compression: scalars, two coefficient lists, what is recorded."""
    width = 8 if "float64" in sweep.values("dtype") else 4
    numbers = sum(degree + 1 if name == "coefficients" else 1 for name in record.of)
    per_update = width * numbers + _STEP_BYTES if numbers else 0
    return _SCALAR_BYTES + width * 2 * (degree + 1) + record.count(steps) * per_update


# --- a sweep ---------------------------------------------------------------------------------


def sweep_seconds(sweep: Sweep, engine: str, num_shards: int) -> float:
    """The nominal time of all fits, of their batches, and of compiling, on one core."""
    seconds = _total(sweep, lambda *values: nominal_seconds(*values, engine=engine))
    if engine == "eager":
        return seconds + num_shards * _total(sweep, _batch_seconds) / sweep.size
    return seconds + num_shards * _SHARD_S + _compiling_seconds(sweep)


def sweep_bytes(sweep: Sweep, record: Record) -> int:
    """The projected size of all rows before compression."""
    return int(_total(sweep, lambda *values: row_bytes(sweep, record, *values)))


def _batch_seconds(
    degree: int, points: int, objective: str, optimizer: Optimizer, steps: int
) -> float:
    """Of a shard's eager batches, whatever the number of fits: calls into torch."""
    size = degree + 1
    terms = size * (size + 1) / 2 if objective in SQUARED else size
    if optimizer.traits.second_order:
        steps, terms = min(steps, NEWTON_STEPS), terms * size
    return steps * (1e-4 + 2e-5 * terms)


def _compiling_seconds(sweep: Sweep) -> float:
    """Of making each kernel that the sweep needs once, where none is cached."""
    sizes = {degree + 1 for degree in sweep.values("degree")}
    names = {optimizer.name for optimizer in sweep.values("optimizer")}
    others = len({*sweep.values("objective")}) * len(names) * len({*sweep.values("dtype")})
    return _FIRST_KERNEL_S + others * float(sum(0.05 + 3.5e-4 * size * size for size in sizes))


def _total(sweep: Sweep, cost: Callable[..., float]) -> float:
    return float(sum(cost(*values) * count for values, count in cost_groups(sweep)))


# --- groups of fits that cost the same -------------------------------------------------------


def cost_groups(sweep: Sweep) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Combinations of the values of COST_FIELDS, with the number of fits that have each.

    Of an axis that makes too many combinations to list, all values count as the costliest.
    """
    return chain.from_iterable(_grid_groups(grid) for grid in sweep.grids)


def _grid_groups(grid: ParameterGrid) -> Iterator[tuple[tuple[Any, ...], int]]:
    fixed = {name: getattr(grid.base, name) for name in COST_FIELDS}
    involved: list[int] = []
    choices: list[_Rows] = []
    for number, axis in enumerate(grid.axes):
        columns = [values for values in axis.values if values.field in COST_FIELDS]
        if prod(len(choice) for choice in choices) * len(axis) > _MAX_GROUPS:
            for values in columns:
                fixed[values.field] = max(_range_ends(values.items), key=_cost_rank)
        elif columns:
            involved.append(number)
            choices.append(_rows(columns, grid.kept.segments(number)))
    rest = grid.kept.counts(involved)
    for parts in product(*(choice.items() for choice in choices)):
        others = rest[tuple(segment for (segment, _), _ in parts)]
        if others:
            merged = dict(fixed)
            for (_, row), _ in parts:
                merged.update(row)
            yield tuple(merged.values()), others * prod(count for _, count in parts)


def _rows(columns: list[Values], segments: list[range]) -> _Rows:
    """The rows of an axis' columns, with the segment that each stands in, and their number."""
    names = [values.field for values in columns]
    found: _Rows = Counter()
    for segment, places in enumerate(segments):
        items = (values.items[places.start : places.stop] for values in columns)
        for row in zip(*items, strict=True):
            found[segment, tuple(zip(names, row, strict=True))] += 1
    return found


def _range_ends(items: Sequence[Any]) -> Sequence[Any]:
    return (items[0], items[-1]) if isinstance(items, range) else items


def _cost_rank(value: Any) -> Any:
    """Orders the values of one of COST_FIELDS from cheap to costly."""
    if isinstance(value, str):
        return value not in SQUARED
    return value if isinstance(value, int) else value.traits.eager_cost
