"""Recorded losses of many fits, as quantiles at a few updates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from polyfit.charts.histories import History
from polyfit.numerics.arrays import Array, Index
from polyfit.run.digest import sampled
from polyfit.run.grouping import SweptField
from polyfit.run.parquet import to_numpy
from polyfit.spec.plan import Plan

__all__ = ["HISTORY_COLUMNS", "history_shards", "loss_histories"]

HISTORY_COLUMNS: Final = ("fit", "steps", "status", "loss_history")

HISTORY_FITS: Final = 20_000
"""Fits whose histories are summed up; all of a smaller run."""

HISTORY_SHARDS: Final = 64
"""Shards that histories are read of, evenly spread over the run."""

SHOWN_UPDATES: Final = 48
"""Of each fit, evenly spread over the logarithm of the update."""

MAX_PANELS: Final = 9


def history_shards(numbers: Sequence[int]) -> list[int]:
    """Those of the stored shards that histories are read of."""
    if len(numbers) <= HISTORY_SHARDS:
        return list(numbers)
    places = np.linspace(0, len(numbers) - 1, HISTORY_SHARDS).astype(np.int64)
    return [numbers[int(place)] for place in places]


def loss_histories(
    plan: Plan,
    parts: Iterator[pa.Table],
    num_fits: int,
    panels: SweptField | None,
    series: SweptField | None,
    wanted: Sequence[int] = (),
) -> list[History]:
    """The course of the loss, for all fits or for each value of one or two fields.

    Args:
        plan: the run's.
        parts: rows with HISTORY_COLUMNS.
        num_fits: how many rows there are about.
        panels: a field with a panel for each value; of many values some are left out.
        series: a field with a line for each value.
        wanted: values of ``panels`` that are not left out.
    """
    fields = {"panel": panels, "series": series}
    frames = [
        frame for part in parts for frame in _long(plan, part, num_fits, fields) if len(frame)
    ]
    if not frames:
        return []
    quantiles = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
    loss = pl.col("loss")
    table = (
        pl.concat(frames)
        .filter(loss.is_finite())
        .group_by("panel", "series", "update")
        .agg(
            pl.len().alias("fits"), loss.min().alias("best"), loss.max().alias("worst"),
            *(loss.quantile(q, "linear").alias(name) for name, q in quantiles.items()),
        )
        .sort("panel", "series", "update")
    )  # fmt: skip
    return [
        History(
            f"{panels.title} {panels.labels[number]}" if panels else "all fits",
            series.title if series else "",
            series.labels if series else (),
            [
                {**record, "series": series.labels[record["series"]] if series else ""}
                for record in table.filter(pl.col("panel") == number).drop("panel").to_dicts()
            ],
        )
        for number in _some(table["panel"].unique(maintain_order=True).to_list(), wanted)
    ]


def _some(numbers: list[int], wanted: Sequence[int]) -> list[int]:
    """``MAX_PANELS`` of the panels at most, evenly spread, with some of those that are wanted."""
    if len(numbers) <= MAX_PANELS:
        return numbers
    places = np.linspace(0, len(numbers) - 1, MAX_PANELS).round().astype(np.int64)
    chosen = [numbers[int(place)] for place in places]
    for number in [n for n in wanted if n in numbers and n not in chosen][: MAX_PANELS - 2]:
        others = [one for one in chosen[1:-1] if one not in wanted]
        if others:
            chosen[chosen.index(min(others, key=lambda one: abs(one - number)))] = number
    return sorted(chosen)


def _long(
    plan: Plan, part: pa.Table, num_fits: int, fields: Mapping[str, SweptField | None]
) -> Iterator[pl.DataFrame]:
    """``fields``, ``update`` and ``loss`` of sampled fits, for each number of steps."""
    part = part.filter(pa.array(sampled(to_numpy(part["fit"]), num_fits, HISTORY_FITS)))
    fits, steps = (to_numpy(part[name]).astype(np.int64) for name in ("fit", "steps"))
    lists = part["loss_history"].combine_chunks()
    offsets, values = to_numpy(lists.offsets), to_numpy(lists.flatten()).astype(np.float64)
    offsets = offsets - offsets[:1] if len(offsets) else offsets
    diverged = np.array([word == "diverged" for word in part["status"].to_pylist()], dtype=np.bool_)
    for count in np.unique(steps):
        updates = np.array(plan.record.updates(int(count)), dtype=np.int64)
        rows = np.flatnonzero(steps == count)
        if not len(updates) or not len(values):
            continue
        places = _places(updates)
        loss = _matrix(values, offsets, rows, places, diverged)
        codes = {
            name: np.repeat(field.codes(plan, fits[rows]) if field else 0 * rows, len(places))
            for name, field in fields.items()
        }
        done = np.tile(updates[places], len(rows))
        yield pl.DataFrame({**codes, "update": done, "loss": loss.ravel()})


def _places(updates: Index) -> Index:
    """Which of the recorded updates are shown."""
    if len(updates) <= SHOWN_UPDATES:
        return np.arange(len(updates))
    wanted = np.geomspace(updates[0] + 1, updates[-1] + 1, SHOWN_UPDATES) - 1
    found = np.searchsorted(updates, wanted - 0.5).clip(0, len(updates) - 1)
    return np.unique(found)


def _matrix(
    values: Array, offsets: Index, rows: Index, places: Index, diverged: "np.ndarray[Any, Any]"
) -> Array:
    """The loss of ``rows`` at ``places``, shape (rows, places).

    A fit that ended early keeps its last loss, one that diverged has none after its end.
    """
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    held = np.minimum(places, np.maximum(lengths - 1, 0)[:, None])
    indices = np.minimum(starts[:, None] + held, len(values) - 1)
    loss: Array = values[indices]
    over = (places >= lengths[:, None]) & (diverged[rows] | (lengths == 0))[:, None]
    loss[over] = np.nan
    return loss
