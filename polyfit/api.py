"""``polyfit.sweep``: a spec from keywords, run at once, with its progress shown."""

import builtins
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from polyfit.run.reader import Run
from polyfit.show.progress import ProgressDisplay, is_shown
from polyfit.spec.fields import FIELDS
from polyfit.spec.spec import Spec
from polyfit.work.driver import execute

__all__ = ["sweep"]


def sweep(
    target: Any = None,
    *,
    name: str = "sweep",
    range: Any = None,
    points: Any = None,
    degree: Any = None,
    basis: Any = None,
    objective: Any = None,
    optimizer: Any = None,
    lr: Any = None,
    steps: Any = None,
    stop: Any = None,
    dtype: Any = None,
    seed: Any = None,
    noise: Any = None,
    noise_seed: Any = None,
    zip: Sequence[Mapping[str, Any]] = (),
    store: str | os.PathLike[str] | None = None,
    endpoint_url: str | None = None,
    executor: str = "auto",
    address: str | None = None,
    reuse: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **keys: Any,
) -> Run:
    """Fit every combination of the given values, and return the run; see ``polyfit.execute``.

    >>> run = polyfit.sweep("exp(-x**2)", range=(-3, 3), degree=range(4), seed=[1, 2])
    >>> len(run)
    8

    A field of a fit with one value is the same for all fits; with a list, tuple, range, array of
    numpy or generator it is swept, and all combinations are fitted. ``range=(-3, 3)`` is one
    range of x, ``range=[(-3, 3), (-1, 1)]`` are two. A field left out has its default. The same
    call finds its own run: a complete one is not fitted again, a broken one is resumed.

    Args:
        target, range, points, ..., noise_seed: fields of a fit, as in a spec.
        name: of the run.
        zip: fields that vary together, as in a spec: ``[{"optimizer": [...], "lr": [...]}]``.
        store: a folder or ``s3://bucket/prefix``; ``./runs`` if None.
        endpoint_url: an S3 endpoint; the environment's if None.
        executor: "ray", "inline" (this process), or "auto".
        address: a Ray cluster.
        reuse: another run, whose rows are taken where a fit here would have the same bits.
        progress: whether to show progress on stderr; if None, on a terminal and in a notebook.
        keys: other keys of a spec: record, engine, shard, exclude, resources, limits, on_failure.

    Raises:
        SpecError: all that is wrong in the values, a line each.
        PolyfitError: as ``polyfit.execute``.
    """
    given = {field: value for field, value in locals().items() if field in FIELDS}
    given = {field: value for field, value in given.items() if value is not None}
    swept = {field: value for field, value in given.items() if _is_axis(field, value)}
    fixed = {field: value for field, value in given.items() if field not in swept}
    axes = {**swept, **({"zip": zip} if len(zip) else {})}
    spec = Spec.of(name=name, fit=fixed, sweep=axes, **keys)
    where = {"store": store, "endpoint_url": endpoint_url, "reuse": reuse}
    return _run(spec, {**where, "executor": executor, "address": address}, progress)


def _run(spec: Spec, execution: dict[str, Any], progress: bool | None) -> Run:
    if not (is_shown() if progress is None else progress):
        return execute(spec, **execution)
    display = ProgressDisplay(spec.name, _write_line)
    with display:
        return execute(
            spec, **execution, on_progress=display.update, on_message=display.show_message
        )


def _write_line(line: str) -> None:
    with suppress(OSError):  # a closed stderr loses messages, and must not end a run
        print(line, file=sys.stderr)


def _is_axis(field: str, value: Any) -> bool:
    """Whether ``value`` is a list of values or a generator of them, and not one value."""
    if field == "range":
        return _is_list(value) and not _is_pair(value)
    if isinstance(value, Mapping):
        numeric = FIELDS[field].integer or FIELDS[field].real
        share = field == "lr" and set(value) == {"of_limit"}
        return _is_axis("noise", value["of_limit"]) if share else numeric
    return _is_list(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | builtins.range) or getattr(value, "ndim", 0) > 0


def _is_pair(value: Any) -> bool:
    """Whether ``value`` is one range of x: two ends."""
    return len(value) == 2 and not any(_is_list(end) for end in value)
