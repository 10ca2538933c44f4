"""A JSON Schema of specs, for editors: from the tables and models that read them.

It knows keys, types and ranges. What must hold between values, ``polyfit validate`` checks.
"""

from collections.abc import Mapping
from typing import Any, Final

from polyfit.spec.fields import FIELDS, Field
from polyfit.spec.generators import MAX_LISTED, MAX_RANDOM_SEED
from polyfit.spec.record import RECORD_WORDS
from polyfit.spec.schema import MAX_GRIDS, NAME, Schema

__all__ = ["spec_schema"]

_CONSTRAINTS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
"""What pydantic leaves as it is where a validator of ours stands before its own."""

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{"}
"""A text of ``store`` that an environment variable fills."""


def spec_schema() -> dict[str, Any]:
    """The schema, of draft 2020-12."""
    made = _cleaned(Schema.model_json_schema())
    definitions, properties = made["$defs"], made["properties"]
    grid = {"$ref": "#/$defs/Grid"}
    properties["name"]["pattern"] = f"^{NAME.pattern}$"
    properties["fit"] = _described(Schema, "fit", _mapping(_fields()))
    properties["sweep"] = _described(
        Schema,
        "sweep",
        {"anyOf": [grid, {"type": "array", "items": grid, "minItems": 1, "maxItems": MAX_GRIDS}]},
    )
    properties["exclude"]["items"] = {"type": "string"}
    properties["record"] = _described(
        Schema, "record", {"anyOf": [{"enum": [*RECORD_WORDS]}, {"$ref": "#/$defs/Record"}]}
    )
    properties["store"]["anyOf"].append({"type": "string"})
    definitions["Record"]["oneOf"] = [{"required": ["every"]}, {"required": ["at"]}]
    definitions["StoreAt"]["properties"] = {
        key: _or_variable(one) for key, one in definitions["StoreAt"]["properties"].items()
    }
    definitions |= {"Grid": _grid(), **_generators("integer"), **_generators("number")}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _cleaned(value: Any) -> Any:
    """pydantic's schema without titles, with JSON Schema's names of constraints."""
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        _CONSTRAINTS.get(key, key): _cleaned(one)
        for key, one in value.items()
        if not (key == "title" and isinstance(one, str)) and key != "default"
    }


def _described(model: type[Schema], key: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": model.model_fields[key].description, **schema}


def _mapping(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    parts = schema.pop("anyOf", None)
    return {**schema, "anyOf": [*parts, _VARIABLE]} if parts else schema


def _fields() -> dict[str, Any]:
    return {name: {"description": f.allowed, **f.schema} for name, f in FIELDS.items()}


# --- the sweep -------------------------------------------------------------------------------


def _grid() -> dict[str, Any]:
    zipped = _mapping({name: _axis(f, False) for name, f in FIELDS.items()}, minProperties=2)
    axes = {name: _axis(f, True) for name, f in FIELDS.items()}
    return _mapping({**axes, "zip": {"type": "array", "items": zipped}})


def _axis(field: Field, distinct: bool) -> dict[str, Any]:
    """A list or a generator of a field."""
    forms = [_list(field.schema, distinct)]
    if field.integer or field.real:
        generator = {"$ref": f"#/$defs/{'integer' if field.integer else 'number'}Generator"}
        forms.append(generator)
        if field.name == "lr":
            shares = {"anyOf": [_list({"type": "number", "exclusiveMinimum": 0}, True), generator]}
            forms.append(_mapping({"of_limit": shares}, required=["of_limit"]))
    return {"description": f"a list or generator of: {field.allowed}", "anyOf": forms}


def _list(items: Mapping[str, Any], distinct: bool) -> dict[str, Any]:
    more = {"uniqueItems": True} if distinct else {}
    return {"type": "array", "items": dict(items), "minItems": 1, **more}


def _generators(kind: str) -> dict[str, Any]:
    """The generators of integers or of numbers."""
    one, step = {"type": kind}, {"type": kind, "not": {"const": 0}}
    most = {} if kind == "integer" else {"maximum": MAX_LISTED}
    count = {"type": "integer", "minimum": 1, **most}
    seed = {"type": "integer", "minimum": 0, "maximum": MAX_RANDOM_SEED}
    forms = [
        _mapping({"count": count, "start": one, "step": step}, required=["count"]),
        _mapping({"start": one, "stop": one, "step": step}, required=["start", "stop"]),
        *(_mapping({name: _ends("number")}, required=[name]) for name in ("linspace", "logspace")),
        *(
            _mapping({name: _ends(kind), "seed": seed}, required=[name])
            for name in ("uniform", "log_uniform")
        ),
    ]
    return {f"{kind}Generator": {"anyOf": forms}}


def _ends(kind: str) -> dict[str, Any]:
    """[a, b, n]."""
    count = {"type": "integer", "minimum": 2, "maximum": MAX_LISTED}
    one = {"type": kind}
    return {"type": "array", "prefixItems": [one, one, count], "minItems": 3, "maxItems": 3}
