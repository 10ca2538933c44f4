"""The section ``store``: where runs are stored, and how objects are written there."""

import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from polyfit.spec.defects import Defects, shown
from polyfit.spec.document import Path
from polyfit.spec.section import Section
from polyfit.store.uri import (
    AddressError,
    expand_variables,
    is_s3,
    normalize_endpoint,
    normalize_uri,
    variables,
)

__all__ = ["StoreAt", "check_store", "fill_variables", "store_variables"]


def _address(read: Callable[[str], str], raw: Any) -> str:
    try:
        return read(raw if isinstance(raw, str) else "")
    except AddressError as error:
        raise PydanticCustomError("address", "{advice}", {"advice": error.advice}) from None


def _uri(raw: Any) -> Any:
    return _address(normalize_uri, raw)


def _url(raw: Any) -> Any:
    return None if raw is None else _address(normalize_endpoint, raw)


class StoreAt(Section):
    """Where runs are stored: a folder, or ``s3://bucket/prefix`` at an endpoint.

    ``sse`` and ``kms_key_id`` are the server-side encryption of all objects; ``storage_class`` is
    that of the shards. Classes that must be restored before reading are not allowed: a run reads
    its shards.
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


def fill_variables(raw: Any, defects: Defects, path: Path = ("store",)) -> tuple[Any, set[Path]]:
    """``raw`` with the values of the environment's variables in its texts.

    Returns also the paths of texts that could not be filled: they stay as they are.
    """
    if isinstance(raw, dict):
        parts = {key: fill_variables(one, defects, (*path, key)) for key, one in raw.items()}
        unfilled = [paths for _, paths in parts.values()]
        return {key: value for key, (value, _) in parts.items()}, set().union(*unfilled)
    try:
        return (expand_variables(raw, os.environ) if isinstance(raw, str) else raw), set()
    except AddressError as error:
        allowed = "${NAME} of a variable that is set, or ${NAME:-default}"
        defects.refuse(path, "", f"{error}; allowed: {allowed}{error.advice}")
        return raw, {path}


def store_variables(raw: Any) -> frozenset[str]:
    """The names of the variables that ``fill_variables`` asks for."""
    if isinstance(raw, dict):
        return frozenset().union(*map(store_variables, raw.values()))
    return frozenset(variables(raw) if isinstance(raw, str) else ())


def check_store(store: StoreAt, defects: Defects) -> None:
    """Refuse what does not go together in the section."""
    _check_endpoint(store, defects)
    for name in ("sse", "kms_key_id", "storage_class"):
        value = getattr(store, name)
        if value is not None and not is_s3(store.uri):
            defects.refuse(("store", name), shown(value), "only with uri: s3://bucket/prefix")
        elif name == "kms_key_id" and value and store.sse in (None, "AES256"):
            defects.refuse(("store", name), shown(value), "only with sse: aws:kms[:dsse]")


def _check_endpoint(store: StoreAt, defects: Defects) -> None:
    if store.endpoint_url is None:
        return
    try:
        normalize_endpoint(store.endpoint_url, store.uri)
    except AddressError as error:
        allowed = f"the server of an s3:// URI alone{error.advice}"
        found = f"{shown(store.endpoint_url)}, which {error}"
        defects.refuse(("store", "endpoint_url"), found, allowed)
