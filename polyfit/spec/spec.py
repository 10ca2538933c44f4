"""YAML text -> frozen, validated Spec.

Every defect of a spec is reported at once, each with file, line, key path, what was found and
what is allowed.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from polyfit.errors import UsageError
from polyfit.spec.defects import Defects, dotted, shown
from polyfit.spec.disjoint import check_disjoint
from polyfit.spec.document import BY_SETTING, Document, Path
from polyfit.spec.fit import Fit
from polyfit.spec.fit_and_sweep import make_grids, read_exclude, read_fit, read_sweep
from polyfit.spec.parameter_grid import ParameterGrid
from polyfit.spec.record import Record
from polyfit.spec.rules import check_combinations, check_record
from polyfit.spec.schema import Limits, Resources, Schema
from polyfit.spec.settings import apply_settings, check_settings
from polyfit.spec.source import as_json, name_of, read_source
from polyfit.spec.storage import StoreAt, check_store, fill_variables, store_variables

__all__ = ["Spec"]

_FORMS: Final = "Spec.load(path), Spec.parse(text) or Spec.of(name=..., fit={...}, sweep={...})"


@dataclass(frozen=True, slots=True)
class Spec:
    """One job: what to fit, what to sweep, where to store it, what to run on.

    ``fit`` holds the value of every field that no axis varies (and the default of those that
    one does); ``grids`` follow one another. ``text`` is the document as submitted, ``source``
    its name in messages, ``store_variables`` the names of the environment's variables in its
    ``store``, ``lines`` the line of each of its keys and items, ``is_file`` whether somebody has
    seen those lines.
    """

    name: str
    fit: Fit
    grids: tuple[ParameterGrid, ...]
    record: Record
    engine: str
    shard: int | None
    run_id: str | None
    store: StoreAt | None
    resources: Resources
    limits: Limits
    on_failure: str
    text: str
    source: str
    is_file: bool = True
    store_variables: frozenset[str] = frozenset()
    lines: dict[Path, int] = field(default_factory=dict, compare=False, repr=False)

    def where(self, *paths: Path) -> str:
        """File, line and key of the first of ``paths`` that the spec states, for a message."""
        for path in paths:
            if path in self.lines:
                if self.lines[path] == BY_SETTING:
                    return f"--set {dotted(path)}"
                line = f":{self.lines[path]}" if self.is_file else ""
                return f"{self.source}{line}: {dotted(path)}"
        return f"{self.source}: {dotted(paths[0])}"

    def __new__(cls, *given: object, **fields: object) -> "Spec":
        if given:
            raise UsageError(f"Spec(...) is not called; allowed: {_FORMS}")
        return object.__new__(cls)

    @classmethod
    def of(
        cls,
        source: "Spec | Mapping[str, Any] | str | os.PathLike[str] | None" = None,
        /,
        **keys: Any,
    ) -> "Spec":
        """A spec as it is, or read from a mapping, from the file at a path, or from keywords.

        Values are as in a file; ranges, tuples, and numpy's arrays and numbers are taken too.

        >>> Spec.of(name="a", fit={"degree": 5}, sweep={"seed": range(100)}).fit.degree
        5

        Raises:
            SpecError: all that is wrong in it, a line each.
            UsageError: it is none of these.
        """
        if source is None and keys:
            return cls.parse(keys)
        if keys:
            raise UsageError(f"a spec is made of one source or of keywords; allowed: {_FORMS}")
        if isinstance(source, Spec):
            return source
        if isinstance(source, Mapping):
            return cls.parse(source)
        if isinstance(source, str | os.PathLike):
            return cls.load(source)
        raise UsageError(f"a spec cannot be a {type(source).__name__}; allowed: {_FORMS}")

    @classmethod
    def load(cls, path: str | os.PathLike[str], settings: Sequence[str] = ()) -> "Spec":
        """Read the spec in the file or pipe at ``path``, ``-`` being standard input.

        ``settings`` are texts KEY=VALUE that change it, such as ``fit.degree=5``.

        >>> Spec.load("my.yaml", ["fit.degree=5"]).fit.degree
        5

        Raises:
            SpecError: the file cannot be read, or all that is wrong in it, a line each.
        """
        return cls.parse(read_source(path), name_of(path), settings)

    @classmethod
    def parse(
        cls,
        data: str | bytes | Mapping[str, Any],
        source: str | None = None,
        settings: Sequence[str] = (),
    ) -> "Spec":
        """Read a spec from YAML or JSON text, or a mapping; ``source`` names it in messages.

        >>> Spec.parse("{name: a, fit: {degree: 5}}").fit.degree
        5

        Raises:
            SpecError: all that is wrong in it, a line each.
        """
        is_file = not isinstance(data, Mapping)
        source = source or ("<spec>" if is_file else "spec")
        if isinstance(data, Mapping):
            data = as_json(data, source)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        document = Document.read(data)
        defects = Defects(document, source, is_file)
        if not isinstance(document.value, dict):
            defects.raise_any()
        top, fit, grids, named = _sections(document, settings, defects)
        return cls(
            name=top.name,
            fit=fit,
            grids=grids,
            record=top.record,
            engine=top.engine,
            shard=None if top.shard == "auto" else top.shard,
            run_id=top.run_id,
            store=top.store,
            resources=top.resources,
            limits=top.limits,
            on_failure=top.on_failure,
            text=document.write() if settings else data.decode("utf-8"),
            source=source,
            is_file=is_file,
            store_variables=named,
            lines=document.lines,
        )


def _sections(
    document: Document, settings: Sequence[str], defects: Defects
) -> tuple[Schema, Fit, tuple[ParameterGrid, ...], frozenset[str]]:
    """The sections of a document, each read by itself; then what must hold between them.

    Returns also the names of the variables of the section ``store``.
    """
    raw = document.value
    if not isinstance(raw, dict):
        found = "an empty file" if raw is None else shown(raw)
        defects.refuse((), found, "a mapping with at least `name`")
        defects.raise_any()
    apply_settings(settings, defects)
    if isinstance(raw.get("store"), str):
        raw["store"] = {"uri": raw["store"]}
    named = store_variables(raw.get("store"))
    store, unfilled = fill_variables(raw.get("store"), defects)
    top = Schema.read({**raw, "store": store}, defects, unfilled)
    fit = read_fit(raw.get("fit", {}), defects)
    sweep = read_sweep(raw.get("sweep", {}), defects)
    exclude = read_exclude(raw.get("exclude", []), defects)
    defects.raise_any()
    assert top is not None, "without a defect"
    check_settings(sweep, defects)
    if top.store is not None:
        check_store(top.store, defects)
    actors = top.resources.actors
    if actors.max != "auto" and actors.max < actors.min:
        path = ("resources", "actors", "max")
        defects.refuse(path, str(actors.max), f"auto or at least min, {actors.min}")
    grids = make_grids(fit, sweep, exclude, defects)
    defects.raise_any()
    for grid in grids:
        check_combinations(grid, defects)
    check_record(top.record, grids, defects)
    check_disjoint(grids, defects)
    defects.raise_any()
    return top, fit, grids, named
