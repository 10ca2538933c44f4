"""``polyfit.sweep``: a spec from keywords, run at once, with its progress shown."""

import builtins
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from polyfit.errors import SpecError
from polyfit.numerics.formula import FUNCTIONS
from polyfit.run.reader import Run
from polyfit.show.progress import ProgressDisplay, is_shown
from polyfit.spec.fields import FIELDS
from polyfit.spec.names import meant
from polyfit.spec.schema import Schema
from polyfit.spec.spec import Spec
from polyfit.work.driver import execute

__all__ = ["sweep"]

_KEYS: Final = tuple(
    key for key in Schema.model_fields if key not in ("name", "fit", "sweep", "store")
)  # of a spec, that are keywords as they are

_FORMULA: Final = "a formula in x as text, such as 'sin(x)', or a list of them"


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
        keys: other keys of a spec: record, engine, shard, exclude, run_id, resources, limits,
            on_failure.

    Raises:
        SpecError: all that is wrong in the values, a line each.
        PolyfitError: as ``polyfit.execute``.
    """
    given = {field: value for field, value in locals().items() if field in FIELDS}
    wrong = [*_wrong_keywords(keys), *_wrong_target(target)]
    given = {field: value for field, value in given.items() if value is not None}
    if _wrong_target(target):
        del given["target"]
    swept = {field: value for field, value in given.items() if _is_axis(field, value)}
    fixed = {field: value for field, value in given.items() if field not in swept}
    axes = {**swept, **({"zip": zip} if len(zip) else {})}
    known = {key: value for key, value in keys.items() if key in _KEYS}
    spec = _spec({"name": name, "fit": fixed, "sweep": axes, **known}, wrong)
    where = {"store": store, "endpoint_url": endpoint_url, "reuse": reuse}
    return _run(spec, {**where, "executor": executor, "address": address}, progress)


def _spec(source: dict[str, Any], wrong: list[str]) -> Spec:
    """The spec, if nothing was ``wrong`` before it is read.

    Raises:
        SpecError: all that is wrong.
    """
    problems = list(wrong)
    try:
        spec = Spec.of(source)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(problems)
    return spec


def _wrong_keywords(keys: Mapping[str, Any]) -> Iterator[str]:
    own = [name for name in inspect.signature(sweep).parameters if name != "keys"]
    for key in keys:
        if key not in _KEYS:
            near = meant(key, (*own, *_KEYS))
            hint = f" (did you mean {near!r}?)" if near else ""
            allowed = ", ".join((*own, *_KEYS))
            yield f"polyfit.sweep: {key}: unknown keyword{hint}; allowed: {allowed}"


def _wrong_target(target: Any) -> list[str]:
    """What to say of a function or of values of y, which a target cannot be."""
    several = list(target) if _is_list(target) else [target]
    function = next((one for one in several if callable(one)), None)
    if function is not None:
        name = getattr(function, "__name__", type(function).__name__)
        same = name.replace("arc", "a")
        found, hint = f"the function {name}", f"; did you mean '{same}(x)'?"
        hint = hint if same in FUNCTIONS else ""
    elif _is_list(target) and several and not any(isinstance(one, str) for one in several):
        found, hint = f"{len(several):,} values without a formula", ""
    else:
        return []
    return [f"polyfit.sweep: target: found {found}; allowed: {_FORMULA}{hint}"]


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
