"""YAML text -> frozen, validated Spec.

All schema is here and in ``fields``. Every defect of a spec is reported at once, each with file,
line, key path, what was found and what is allowed.
"""

import difflib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from polyfit.errors import SpecError, UsageError
from polyfit.spec.document import MAX_BYTES, Document, Path
from polyfit.spec.fields import CANONICAL_ORDER, FIELDS, Fit, ItemError, Optimizer, Rate, Values
from polyfit.store.address import AddressError, filled, masked, normal, normal_endpoint

__all__ = ["ENGINES", "NAME", "Actors", "Axis", "Limits", "Record", "Resources", "Spec", "StoreAt"]

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ENGINES: Final = ("auto", "eager", "compiled", "affine")
RECORDABLE: Final = ("loss", "coefficients", "gradient_norm")
MAX_RECORDED: Final = 10_000
MAX_SHARD_FITS: Final = 1_000_000_000
MAX_PROBLEMS: Final = 100
MAX_TOLD: Final = 2_000  # characters of one line about a problem
LEAST_SHARE: Final = 0.0001  # Ray counts in these
MOST_UNITS: Final = 1_000_000  # far beyond it Ray's count overflows, and asks for none
STDIN: Final = "-"
_TEXTS: Final = (("name",), ("store", "uri"))
"""Keys of any text: one that looks like a number may be meant."""

_KINDS: Final = {stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


def _plain(raw: Any) -> Any:
    """Numbers only where numbers are meant: pydantic would take True for 1."""
    if isinstance(raw, bool):
        raise PydanticCustomError("type", "not a boolean")
    return raw


_Count = Annotated[int, BeforeValidator(_plain), Field(strict=True, ge=1)]
_Share = Annotated[float, BeforeValidator(_plain), Field(gt=0, allow_inf_nan=False)]
_Cpus = Annotated[
    float,
    BeforeValidator(_plain),
    Field(ge=LEAST_SHARE, le=MOST_UNITS, allow_inf_nan=False),
]


def _gpus(raw: Any) -> Any:
    if isinstance(raw, float) and 0 < raw < LEAST_SHARE:
        raise PydanticCustomError("type", "a share that Ray cannot count")
    if isinstance(raw, float) and raw > 1 and not raw.is_integer():
        raise PydanticCustomError("type", "a share of more than one GPU")
    return _plain(raw)


_Gpus = Annotated[float, BeforeValidator(_gpus), Field(ge=0, le=MOST_UNITS, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _uri(raw: Any) -> Any:
    return _address(normal, raw)


def _url(raw: Any) -> Any:
    return None if raw is None else _address(normal_endpoint, raw)


def _address(read: Callable[[str], str], raw: Any) -> str:
    try:
        return read(raw if isinstance(raw, str) else "")
    except AddressError as error:
        raise PydanticCustomError("address", "{advice}", {"advice": error.advice}) from None


class StoreAt(_Section):
    """Where runs are kept: a folder, or ``s3://bucket/prefix`` at an endpoint.

    ``sse`` and ``kms_key_id`` are the server-side encryption of all that is written there;
    ``storage_class`` is that of the shards. A class that must be restored before it is read is
    none of them: a run reads its shards.
    """

    uri: Annotated[str, BeforeValidator(_uri)] = Field(
        description="a folder or s3://bucket/prefix, without credentials"
    )
    endpoint_url: Annotated[str | None, BeforeValidator(_url)] = Field(
        None, description="an http:// or https:// URL without credentials, or null"
    )
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        None, description="AES256 | aws:kms | aws:kms:dsse, or null"
    )
    kms_key_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9:/_.-]{1,2048}$")] = Field(
        None, description="a key's id, ARN or alias, or null"
    )
    storage_class: (
        Literal[
            "STANDARD",
            "STANDARD_IA",
            "ONEZONE_IA",
            "INTELLIGENT_TIERING",
            "GLACIER_IR",
            "REDUCED_REDUNDANCY",
        ]
        | None
    ) = Field(
        None,
        description="STANDARD | STANDARD_IA | ONEZONE_IA | INTELLIGENT_TIERING | GLACIER_IR | "
        "REDUCED_REDUNDANCY, or null: one that is read without being restored",
    )


class Actors(_Section):
    """How many actors to run: ``max: auto`` is what the cluster has room for."""

    min: _Count = Field(1, description="an integer from 1")
    max: _Count | Literal["auto"] = Field("auto", description="auto or an integer from 1")


class Resources(_Section):
    """What one actor asks of the cluster."""

    gpus_per_actor: _Gpus | Literal["auto"] = Field(
        "auto", description="auto, 0, a share from 0.0001 such as 0.5, or 1 to 1,000,000 whole GPUs"
    )
    cpus_per_actor: _Cpus = Field(1, description="a number from 0.0001 to 1,000,000")
    actors: Actors = Field(Actors(), description="a mapping of min and max")


class Limits(_Section):
    """The plan refuses to go beyond these; null is no limit."""

    fits: _Count | None = Field(None, description="an integer from 1, or null")
    core_hours: _Share | None = Field(None, description="a number above 0, or null")
    bytes: _Count | None = Field(None, description="an integer from 1, or null")


class Record(_Section):
    """What is kept of a fit's way: ``of`` at every ``every``-th update, or at updates ``at``."""

    every: _Count | None = Field(None, description="an integer from 1")
    at: Annotated[tuple[Annotated[int, Field(strict=True, ge=0)], ...], Field(strict=False)] = (
        Field(
            (),
            min_length=1,
            max_length=MAX_RECORDED,
            description="a rising list of integers from 0",
        )
    )
    of: Annotated[
        tuple[Literal["loss", "coefficients", "gradient_norm"], ...], Field(strict=False)
    ] = Field(
        ("loss",),
        min_length=1,
        description="a list out of " + ", ".join(RECORDABLE) + ", each once",
    )

    def updates(self, steps: int) -> list[int]:
        """The updates recorded in a fit of ``steps`` updates, counted from 0, rising."""
        if self.every is not None:
            return list(range(self.every - 1, steps, self.every))
        return [u for u in self.at if u < steps]

    def canonical(self) -> Any:
        """As JSON; ``none`` where nothing is recorded."""
        if not self.of:
            return "none"
        when = {"every": self.every} if self.every is not None else {"at": list(self.at)}
        return {**when, "of": [name for name in RECORDABLE if name in self.of]}

    @classmethod
    def restore(cls, source: Any) -> "Record":
        """The record that ``canonical`` wrote."""
        return _NOTHING if source == "none" else cls.model_validate(source)


_NOTHING: Final = Record.model_construct(every=None, at=(), of=())


def _record(raw: Any) -> Any:
    if raw == "none":
        return _NOTHING
    known = isinstance(raw, dict) and set(raw) <= set(Record.model_fields)
    if known and ("every" in raw) == ("at" in raw):  # a misspelt key is told as such instead
        raise PydanticCustomError("type", "either every or at")
    return raw


def _name(raw: Any) -> Any:
    if isinstance(raw, str) and NAME.fullmatch(raw):
        return raw
    raise PydanticCustomError("type", "not a name")


class _Schema(_Section):
    """The top level of a spec. fit and sweep are read by the table of fields."""

    name: Annotated[str, BeforeValidator(_name)] = Field(
        description="1 to 63 of a-z, 0-9 and -, not beginning with -"
    )
    fit: Annotated[dict[str, Any], Field(strict=True)] = Field(
        {}, description="a mapping of fields"
    )
    sweep: Annotated[dict[str, Any], Field(strict=True)] = Field(
        {}, description="a mapping of fields to lists or generators, and zip"
    )
    record: Annotated[Record, BeforeValidator(_record)] = Field(
        Record(every=100), description="{every: n, of: [...]}, {at: [...], of: [...]} or none"
    )
    engine: Literal["auto", "eager", "compiled", "affine"] = Field(
        "auto", description=" | ".join(ENGINES)
    )
    shard: Annotated[_Count, Field(le=MAX_SHARD_FITS)] | Literal["auto"] = Field(
        "auto", description=f"auto or an integer from 1 to {MAX_SHARD_FITS:,}"
    )
    store: StoreAt | None = Field(
        None,
        description="a mapping of uri, endpoint_url, sse, kms_key_id and storage_class",
    )
    resources: Resources = Field(Resources(), description="a mapping")
    limits: Limits = Field(Limits(), description="a mapping of fits, core_hours and bytes")
    on_failure: Literal["continue", "stop"] = Field("continue", description="continue | stop")


@dataclass(frozen=True, slots=True)
class Axis:
    """Fields that vary together; one field alone, or the fields of a zip entry."""

    values: tuple[Values, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(values.field for values in self.values)

    def __len__(self) -> int:
        return len(self.values[0])


_FORMS: Final = "Spec.load(path), Spec.parse(text) or Spec.parse({...})"


@dataclass(frozen=True, slots=True)
class Spec:
    """One job: what to fit, what to sweep, where to keep it, what to run on.

    ``fit`` holds the value of every field that no axis varies (and the default of those that
    one does); ``axes`` stand in canonical order, the slowest first.
    """

    name: str
    fit: Fit
    axes: tuple[Axis, ...]
    record: Record
    engine: str
    shard: int | None
    store: StoreAt | None
    resources: Resources
    limits: Limits
    on_failure: str
    text: str
    source: str
    lines: dict[Path, int] = field(default_factory=dict, compare=False, repr=False)

    def where(self, *paths: Path) -> str:
        """File, line and key of the first of ``paths`` that the spec states, for a message."""
        for path in paths:
            if path in self.lines:
                return f"{self.source}:{self.lines[path]}: {_dotted(path)}"
        return f"{self.source}: {_dotted(paths[0])}"

    def __new__(cls, *given: object, **fields: object) -> "Spec":
        if given:
            raise UsageError(f"Spec(...) is not called; allowed: {_FORMS}")
        return object.__new__(cls)

    @classmethod
    def of(cls, source: "Spec | Mapping[str, Any] | str | os.PathLike[str]") -> "Spec":
        """A spec as it is, or read from a mapping or from the file at a path.

        Raises:
            SpecError: all that is wrong in it, a line each.
            UsageError: it is none of these.
        """
        if isinstance(source, Spec):
            return source
        if isinstance(source, Mapping):
            return cls.parse(source)
        if isinstance(source, str | os.PathLike):
            return cls.load(source)
        raise UsageError(f"a spec cannot be a {type(source).__name__}; allowed: {_FORMS}")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Spec":
        """Read the spec in the file or pipe at ``path``, ``-`` being standard input.

        Raises:
            SpecError: the file cannot be read, or all that is wrong in it, a line each.
        """
        source = "<stdin>" if path == STDIN else str(path)
        try:
            data = _stdin() if path == STDIN else _file(path)
        except (OSError, ValueError) as error:  # ValueError: a path that no system has
            found = getattr(error, "strerror", None) or error
            raise SpecError(
                [f"{source}: {found}; allowed: a YAML or JSON file, or a pipe"]
            ) from None
        return cls.parse(data, source)

    @classmethod
    def parse(cls, data: str | bytes | Mapping[str, Any], source: str = "<spec>") -> "Spec":
        """Read a spec from YAML or JSON text, or a mapping; ``source`` names it in messages.

        Raises:
            SpecError: all that is wrong in it, a line each.
        """
        if isinstance(data, Mapping):
            data = _json(data, source)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        document = Document.read(data)
        reader = _Reader(document, source)
        if document.problems:
            raise SpecError(_lines(source, document.problems))
        return reader.spec(data.decode("utf-8"))


def _json(source: Mapping[str, Any], name: str) -> str:
    try:
        return json.dumps(source, indent=2, default=os.fspath)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = "mappings, lists, text, numbers, booleans and None"
        raise SpecError([f"{name}: {error}; allowed: {allowed}"]) from None


def _file(path: str | os.PathLike[str]) -> bytes:
    """As much of a file or pipe as a spec may have, and a byte more."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):  # a device never ends
        raise ValueError(_KINDS.get(stat.S_IFMT(mode), "a device"))
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def _stdin() -> bytes:
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


class _Reader:
    """Reads one document and gathers what is wrong in it."""

    def __init__(self, document: Document, source: str) -> None:
        self.document = document
        self.source = source
        self.problems: list[tuple[int, str]] = []
        self.unfilled: set[Path] = set()

    def spec(self, text: str) -> Spec:
        raw = self.document.value
        if not isinstance(raw, dict):
            found = "an empty file" if raw is None else _shown(raw)
            self.refuse((), found, "a mapping with at least `name`")
            self.finish()
        raw = {**raw, "store": self.filled(("store",), raw.get("store"))}
        top = self.schema(raw)
        fit = self.fit(raw.get("fit", {}))
        axes = self.axes(raw.get("sweep", {}))
        self.finish()
        assert top is not None
        if top.store is not None:
            self.endpoint(top.store)
        actors = top.resources.actors
        if actors.max != "auto" and actors.max < actors.min:
            path = ("resources", "actors", "max")
            self.refuse(path, str(actors.max), f"auto or at least min, {actors.min}")
        self.stored(top.store)
        self.combinations(fit, axes)
        self.recorded(top.record, fit, axes)
        self.finish()
        return Spec(
            name=top.name,
            fit=fit,
            axes=axes,
            record=top.record,
            engine=top.engine,
            shard=None if top.shard == "auto" else top.shard,
            store=top.store,
            resources=top.resources,
            limits=top.limits,
            on_failure=top.on_failure,
            text=text,
            source=self.source,
            lines=self.document.lines,
        )

    def stored(self, at: StoreAt | None) -> None:
        """What only S3 understands, and the key of an encryption that has none."""
        if at is None:
            return
        for name in ("sse", "kms_key_id", "storage_class"):
            value = getattr(at, name)
            if value is not None and not at.uri.startswith("s3://"):
                self.refuse(("store", name), _shown(value), "only with uri: s3://bucket/prefix")
            elif name == "kms_key_id" and value and at.sse in (None, "AES256"):
                self.refuse(("store", name), _shown(value), "only with sse: aws:kms[:dsse]")

    def refuse(self, path: Path, found: str, allowed: str) -> None:
        where = f"{_dotted(path)}: " if path else ""
        told = allowed if "; allowed: " in allowed else f"found {found}; allowed: {allowed}"
        self.problems.append((self.document.line(path), where + told))

    def unknown(self, path: Path, names: tuple[str, ...]) -> None:
        searched = len(self.problems) < MAX_PROBLEMS  # the others are not shown
        close = difflib.get_close_matches(str(path[-1]), names, 1) if searched else []
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        self.problems.append(
            (
                self.document.line(path),
                f"{_dotted(path)}: unknown key{hint}; allowed: {', '.join(names)}",
            )
        )

    def finish(self) -> None:
        if self.problems:
            raise SpecError(_lines(self.source, self.problems))

    def schema(self, raw: dict[str, Any]) -> _Schema | None:
        try:
            return _Schema.model_validate(raw)
        except ValidationError as error:
            seen = set(self.unfilled)
            for item in error.errors(include_url=False, include_context=False):
                path, info, model = _described(item["loc"])
                if item["type"] in ("extra_forbidden", "invalid_key"):
                    self.unknown(path, tuple(model.model_fields))
                elif path not in seen:
                    value = _reach(raw, path)
                    found = "nothing" if item["type"] == "missing" else _shown(value)
                    if path in _TEXTS and isinstance(value, int | float):
                        kind = "a boolean" if isinstance(value, bool) else "a number"
                        info += f"; {kind} in quotes is text"
                    if item["type"] == "address":
                        info += item["msg"]
                    self.refuse(path, found, info)
                seen.add(path)
            return None

    def filled(self, path: Path, raw: Any) -> Any:
        """What ``store`` holds, with the values of the environment's variables that it names."""
        if isinstance(raw, dict):
            return {key: self.filled((*path, key), value) for key, value in raw.items()}
        try:
            return filled(raw, os.environ) if isinstance(raw, str) else raw
        except AddressError as error:
            allowed = "${NAME} of a variable that is set, or ${NAME:-default}"
            self.refuse(path, "", f"{error}; allowed: {allowed}{error.advice}")
            self.unfilled.add(path)
            return raw

    def endpoint(self, store: StoreAt) -> None:
        """Refuse an endpoint that does not go with the place."""
        if store.endpoint_url is None:
            return
        try:
            normal_endpoint(store.endpoint_url, store.uri)
        except AddressError as error:
            allowed = f"the server of an s3:// URI alone{error.advice}"
            found = f"{_shown(store.endpoint_url)}, which {error}"
            self.refuse(("store", "endpoint_url"), found, allowed)

    def fit(self, raw: Any) -> Fit:
        values = {}
        for name, value in raw.items() if isinstance(raw, dict) else ():
            field = FIELDS.get(name)
            if field is None:
                self.unknown(("fit", name), CANONICAL_ORDER)
                continue
            try:
                values[name] = field.read(value)
            except ValueError as error:
                self.refuse(("fit", name), _shown(value), str(error) or field.allowed)
        return Fit(**values)

    def axes(self, raw: Any) -> tuple[Axis, ...]:
        if not isinstance(raw, dict):
            return ()
        axes = []
        taken: dict[str, Path] = {}
        for path, group in self.groups(raw):
            columns = []
            for name, value in group.items():
                here = (*path, name)
                if name not in FIELDS:
                    self.unknown(here, (*CANONICAL_ORDER, *(() if len(path) > 1 else ("zip",))))
                    continue
                if name in taken:
                    self.refuse(here, f"the field a second time ({_dotted(taken[name])})", "once")
                taken[name] = here
                column = self.values(here, name, value, distinct=len(path) == 1)
                if column is not None:
                    columns.append(column)
            if columns and self.zipped(path, columns):
                columns.sort(key=lambda column: CANONICAL_ORDER.index(column.field))
                axes.append(Axis(tuple(columns)))
        return tuple(sorted(axes, key=lambda axis: CANONICAL_ORDER.index(axis.fields[0])))

    def groups(self, raw: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
        for name, value in raw.items():
            if name != "zip":
                yield ("sweep",), {name: value}
        zips = raw.get("zip", [])
        if not isinstance(zips, list):
            self.refuse(("sweep", "zip"), _shown(zips), "a list of mappings, one per axis")
            return
        for i, entry in enumerate(zips):
            if isinstance(entry, dict) and len(entry) > 1:
                yield ("sweep", "zip", i), entry
            else:
                self.refuse(("sweep", "zip", i), _shown(entry), "a mapping of two fields or more")

    def values(self, path: Path, name: str, raw: Any, distinct: bool) -> Values | None:
        try:
            return Values.read(name, raw, distinct=distinct)
        except ItemError as error:
            for i, found, allowed in error.problems:
                self.refuse((*path, i), _shown(found), allowed)
        except ValueError as error:
            self.refuse(path, _shown(raw), str(error) or FIELDS[name].allowed)
        return None

    def zipped(self, path: Path, columns: list[Values]) -> bool:
        """Whether the columns of a zip entry fit together: equal lengths, no row twice."""
        if len(columns) == 1:
            return True
        lengths = {column.field: len(column) for column in columns}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{n} values of {name}" for name, n in lengths.items())
            self.refuse(path, shown, "equally many of each")
            return False
        if any(isinstance(column.source, dict) for column in columns):
            return True  # a generator makes no value twice, so no row stands twice
        seen: dict[tuple[Any, ...], int] = {}
        for i, row in enumerate(zip(*(column.items for column in columns), strict=True)):
            if row in seen:
                self.refuse((*path, columns[0].field, i), f"row {seen[row]} again", "each row once")
            seen.setdefault(row, i)
        return True

    def combinations(self, fit: Fit, axes: tuple[Axis, ...]) -> None:
        """Refuse fields that cannot go together in any one fit of the sweep."""
        for degree, points in _combinations(fit, axes, ("degree", "points"), lambda name, v: v):
            if points < degree + 1:
                kinds = {"points": points, "degree": degree}
                told = f"{points} points at degree {degree}"
                self.conflict(axes, kinds, f"at least degree + 1 = {degree + 1} points", told)
                break
        names = ("objective", "optimizer", "lr")
        for combination in _combinations(fit, axes, names, _kind):
            every = dict(zip(names, combination, strict=True))
            for together, allowed in _refusals(*combination):
                self.conflict(axes, {name: every[name] for name in together}, allowed)

    def conflict(
        self, axes: tuple[Axis, ...], kinds: dict[str, Any], allowed: str, told: str = ""
    ) -> None:
        """Refuse values that cannot go together, at the first of their fields that is stated.

        ``kinds`` are the fields, the one to change first, and their values as ``_kind`` sees them.
        """
        stated = {name: path for name in kinds if (path := self.place(axes, name, kinds))}
        first, *others = (
            f"{name} {kinds[name]}" for name in sorted(kinds, key=lambda n: n not in stated)
        )
        here, *there = stated.values() or [()]
        found = told or f"{first} with {' and '.join(others)}"
        if there:
            lines = (f"{_dotted(path)} on line {self.document.line(path)}" for path in there)
            found += f" ({', '.join(lines)})"
        if len({axis.fields for axis in axes if set(axis.fields) & set(kinds)}) > 1:
            allowed += "; or pair them under sweep.zip: here every value meets every other"
        self.refuse(here, found, allowed)

    def place(self, axes: tuple[Axis, ...], name: str, kinds: dict[str, Any]) -> Path | None:
        """Where the spec states the value of field ``name`` that goes with ``kinds``."""
        for axis in axes:
            if name not in axis.fields:
                continue
            zipped = (path for path in self.document.lines if path[:2] == ("sweep", "zip"))
            path = next((p for p in zipped if len(p) == 4 and p[3] == name), ("sweep", name))
            concerned = [values for values in axis.values if values.field in kinds]
            if not any(isinstance(values.source, list) for values in concerned):
                return path  # a generator has one line
            rows = zip(*(values.items for values in concerned), strict=True)
            row = next(
                i
                for i, row in enumerate(rows)
                if all(
                    _kind(c.field, v) == kinds[c.field] for c, v in zip(concerned, row, strict=True)
                )
            )
            return (*path, row) if (*path, row) in self.document.lines else path
        return ("fit", name) if ("fit", name) in self.document.lines else None

    def recorded(self, record: Record, fit: Fit, axes: tuple[Axis, ...]) -> None:
        (longest,) = max(_combinations(fit, axes, ("steps",), lambda name, v: v))
        path: Path = ("record",)
        if list(record.at) != sorted(set(record.at)):
            self.refuse((*path, "at"), _shown(list(record.at)), "a rising list, each update once")
        elif record.at and record.at[-1] >= longest:
            self.refuse(
                (*path, "at"), str(record.at[-1]), f"updates from 0 to steps - 1 = {longest - 1}"
            )
        elif record.every and longest // record.every > MAX_RECORDED:
            self.refuse(
                (*path, "every"),
                f"{longest // record.every:,} records of a fit of {longest:,} steps",
                f"at most {MAX_RECORDED:,}, so every: {-(-longest // MAX_RECORDED):,} or more",
            )
        if len(set(record.of)) != len(record.of):
            self.refuse((*path, "of"), _shown(list(record.of)), "each name once")


def _kind(name: str, value: Any) -> Any:
    """What decides whether objective, optimizer and rate go together: names, not numbers."""
    if isinstance(value, Rate):
        return value.kind
    return value.name if isinstance(value, Optimizer) else value


def _refusals(objective: str, optimizer: str, rate: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The fields that do not go together, the one to change first, and what would."""
    if optimizer == "newton" and objective == "l1":
        yield ("optimizer", "objective"), "another optimizer: l1 has no Hessian"
    elif rate != "number" and objective == "l1" and optimizer != "adam":
        allowed = "a number for lr: l1 has no stability limit"
        yield ("lr", "objective", "optimizer"), allowed
    elif rate == "auto" and objective == "l1":
        yield ("lr", "objective", "optimizer"), "a number for lr: l1 has no automatic rate"
    elif rate == "of_limit" and optimizer in ("adam", "newton"):
        allowed = f"auto or a number for lr: {optimizer} has no stability limit"
        yield ("lr", "optimizer"), allowed


def _combinations(
    fit: Fit, axes: tuple[Axis, ...], names: tuple[str, ...], view: Any
) -> Iterator[tuple[Any, ...]]:
    """All distinct combinations of (a view of) the named fields, without walking the sweep."""
    choices: list[list[dict[str, Any]]] = [
        [{name: view(name, getattr(fit, name)) for name in names}]
    ]
    for axis in axes:
        columns = [values for values in axis.values if values.field in names]
        if columns:
            rows = zip(*_few(columns), strict=True)
            distinct = {tuple(view(c.field, v) for c, v in zip(columns, row, strict=True)): None
                        for row in rows}  # fmt: skip
            choices.append(
                [dict(zip((c.field for c in columns), row, strict=True)) for row in distinct]
            )
    for parts in product(*choices):
        merged: dict[str, Any] = {}
        for part in parts:
            merged.update(part)
        yield tuple(merged[name] for name in names)


def _few(columns: list[Values]) -> list[Any]:
    """Even steps of integers are judged by their ends: every rule here is monotone."""
    items = [values.items for values in columns]
    if all(isinstance(one, range) for one in items) and len(items[0]) > 100_000:
        return [(one[0], one[-1]) for one in items]
    return items


def _described(loc: tuple[str | int, ...]) -> tuple[Path, str, type[BaseModel]]:
    """An error's place as a path of the document, what is allowed there, and its section.

    pydantic adds the names of union members to a place; they are no keys of the document.
    """
    model: type[BaseModel] = _Schema
    path: Path = ()
    allowed = ""
    for i, part in enumerate(loc):
        path = (*path, part)
        info = model.model_fields.get(str(part))
        if info is None:
            break
        allowed = info.description or ""
        section = next((s for s in _SECTIONS if info.annotation in (s, s | None)), None)
        if section is None or i + 1 == len(loc) or (
            not isinstance(loc[i + 1], str)
        ):  # fmt: skip
            break
        model = section
    return path, allowed, model


_SECTIONS: Final = (StoreAt, Actors, Resources, Limits, Record)


def _reach(raw: Any, path: Path) -> Any:
    for part in path:
        if isinstance(raw, dict) and part in raw:
            raw = raw[part]
    return raw


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _shown(value: Any) -> str:
    """A value as a message shows it: YAML's words, cut short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = masked(repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _lines(source: str, problems: list[tuple[int, str]]) -> list[str]:
    """One line per problem, each once, in the order of the file; the first of very many."""
    ordered = sorted(dict.fromkeys(problems))
    lines = [f"{source}:{line}: {_line(text)}" for line, text in ordered[:MAX_PROBLEMS]]
    if len(ordered) > MAX_PROBLEMS:
        line, more = ordered[MAX_PROBLEMS][0], len(ordered) - MAX_PROBLEMS
        lines.append(f"{source}:{line}: {more:,} more problems from here on")
    return lines


def _line(text: str) -> str:
    """A message fit for a terminal, whatever the keys of the spec hold."""
    text = masked(text)
    if len(text) > MAX_TOLD:
        text = f"{text[: MAX_TOLD // 2]} ... {text[-MAX_TOLD // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
