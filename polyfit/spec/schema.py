"""The top level of a spec and its sections, as pydantic models.

``fit`` and ``sweep`` are plain mappings here: the table of fields reads them.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from polyfit.spec.dates import undated
from polyfit.spec.defects import Defects, shown
from polyfit.spec.document import Path
from polyfit.spec.fields import FIELDS
from polyfit.spec.record import AUTOMATIC, RECORDABLE, Record, read_record
from polyfit.spec.section import Count, PositiveNumber, Section, not_boolean
from polyfit.spec.storage import StoreAt

__all__ = ["NAME", "Actors", "Limits", "Resources", "Schema"]

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MAX_SHARD_FITS: Final = 1_000_000_000
MIN_SHARE: Final = 0.0001  # Ray counts in these
MAX_UNITS: Final = 1_000_000  # far beyond it Ray's count overflows, and asks for none

MAX_GRIDS: Final = 100
MAX_CONDITIONS: Final = 100

_ENGINES: Final = ("auto", "eager", "compiled", "affine")
_TEXTS: Final = (("name",), ("run_id",), ("store", "uri"))
"""Keys of any text: one that looks like a number may be meant."""


def _gpus(raw: Any) -> Any:
    if isinstance(raw, float) and 0 < raw < MIN_SHARE:
        raise PydanticCustomError("type", "a share that Ray cannot count")
    if isinstance(raw, float) and raw > 1 and not raw.is_integer():
        raise PydanticCustomError("type", "a share of more than one GPU")
    return not_boolean(raw)


_Cpus = Annotated[
    float,
    BeforeValidator(not_boolean),
    Field(ge=MIN_SHARE, le=MAX_UNITS, allow_inf_nan=False),
]
_Gpus = Annotated[float, BeforeValidator(_gpus), Field(ge=0, le=MAX_UNITS, allow_inf_nan=False)]


class Actors(Section):
    """How many actors to run: ``max: auto`` is as many as the cluster has room for."""

    min: Count = Field(1, description="an integer from 1")
    max: Count | Literal["auto"] = Field("auto", description="auto or an integer from 1")


class Resources(Section):
    """What one actor asks of the cluster."""

    gpus_per_actor: _Gpus | Literal["auto"] = Field(
        "auto", description="auto, 0, a share from 0.0001 such as 0.5, or 1 to 1,000,000 whole GPUs"
    )
    cpus_per_actor: _Cpus = Field(1, description="a number from 0.0001 to 1,000,000")
    actors: Actors = Field(Actors(), description="a mapping of min and max")


class Limits(Section):
    """The plan refuses to go beyond these; null is no limit."""

    fits: Count | None = Field(None, description="an integer from 1, or null")
    core_hours: PositiveNumber | None = Field(None, description="a number above 0, or null")
    bytes: Count | None = Field(None, description="an integer from 1, or null")


def _name(raw: Any) -> Any:
    if isinstance(raw, str) and NAME.fullmatch(raw):
        return raw
    raise PydanticCustomError("type", "not a name")


def _run_id(raw: Any) -> Any:
    if raw is None or (isinstance(raw, str) and NAME.fullmatch(undated(raw))):
        return raw
    raise PydanticCustomError("type", "no run id")


def _sweep(raw: Any) -> Any:
    if isinstance(raw, dict) or (isinstance(raw, list) and 1 <= len(raw) <= MAX_GRIDS):
        return raw
    raise PydanticCustomError("type", "no grids")


class Schema(Section):
    """The top level of a spec."""

    name: Annotated[str, BeforeValidator(_name)] = Field(
        description="1 to 63 of a-z, 0-9 and -, not beginning with -"
    )
    fit: Annotated[dict[str, Any], Field(strict=True)] = Field(
        {}, description="a mapping of fields"
    )
    sweep: Annotated[Any, BeforeValidator(_sweep)] = Field(
        {},
        description="a mapping of fields to lists or generators, and zip; or a list of up to "
        f"{MAX_GRIDS} such mappings",
    )
    exclude: Annotated[list[Any], Field(strict=True, max_length=MAX_CONDITIONS)] = Field(
        [], description=f"a list of up to {MAX_CONDITIONS} conditions on fields"
    )
    record: Annotated[Record, BeforeValidator(read_record)] = Field(
        AUTOMATIC, description="auto, {every: n, of: [...]}, {at: [...], of: [...]} or none"
    )
    engine: Literal["auto", "eager", "compiled", "affine"] = Field(
        "auto", description=" | ".join(_ENGINES)
    )
    shard: Annotated[Count, Field(le=MAX_SHARD_FITS)] | Literal["auto"] = Field(
        "auto", description=f"auto or an integer from 1 to {MAX_SHARD_FITS:,}"
    )
    run_id: Annotated[str | None, BeforeValidator(_run_id)] = Field(
        None, description='a name as that of name, in which "{date}", in quotes, may stand, or null'
    )
    store: StoreAt | None = Field(
        None,
        description="an address, or a mapping of uri, endpoint_url, sse, kms_key_id and "
        "storage_class",
    )
    resources: Resources = Field(Resources(), description="a mapping")
    limits: Limits = Field(Limits(), description="a mapping of fits, core_hours and bytes")
    on_failure: Literal["continue", "stop"] = Field("continue", description="continue | stop")

    @classmethod
    def read(cls, raw: dict[str, Any], defects: Defects, refused: set[Path]) -> "Schema | None":
        """The sections of ``raw``, or None and what is wrong in them.

        ``refused`` are paths with a defect already: theirs are not added again.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            refused = set(refused)
            for item in error.errors(include_url=False, include_context=False):
                path, allowed, section = _described(item["loc"])
                if item["type"] in ("extra_forbidden", "invalid_key"):
                    name = str(path[-1])
                    moved = ("fit", name) if len(path) == 1 and name in FIELDS else ()
                    defects.unknown_key(path, tuple(section.model_fields), moved)
                elif path not in refused:
                    value = _wrong_name(_reach(raw, path))
                    defects.refuse(path, *_found_and_allowed(item, raw, path, allowed), value)
                refused.add(path)
            return None


def _wrong_name(value: Any) -> Any:
    """Of a list of names the first that may not stand there, else the value itself."""
    if isinstance(value, list):
        return next((one for one in value if one not in RECORDABLE), None)
    return value


def _found_and_allowed(
    item: ErrorDetails, raw: dict[str, Any], path: Path, allowed: str
) -> tuple[str, str]:
    value = _reach(raw, path)
    found = "nothing" if item["type"] == "missing" else shown(value)
    if path in _TEXTS and isinstance(value, int | float):
        kind = "a boolean" if isinstance(value, bool) else "a number"
        allowed += f"; {kind} in quotes is text"
    if item["type"] == "address":
        allowed += item["msg"]
    return found, allowed


def _described(loc: tuple[str | int, ...]) -> tuple[Path, str, type[BaseModel]]:
    """An error's place as a path of the document, what is allowed there, and its section.

    pydantic adds the names of union members to a place; they are no keys of the document.
    """
    section: type[BaseModel] = Schema
    path: Path = ()
    allowed = ""
    for i, part in enumerate(loc):
        path = (*path, part)
        info = section.model_fields.get(str(part))
        if info is None:
            break
        allowed = info.description or ""
        inner = next((s for s in _SECTIONS if info.annotation in (s, s | None)), None)
        if inner is None or i + 1 == len(loc) or not isinstance(loc[i + 1], str):
            break
        section = inner
    return path, allowed, section


_SECTIONS: Final = (StoreAt, Actors, Resources, Limits, Record)


def _reach(raw: Any, path: Path) -> Any:
    """The value at ``path``, or the last one on the way there."""
    for part in path:
        if isinstance(raw, dict) and part in raw:
            raw = raw[part]
    return raw
