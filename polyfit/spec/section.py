"""What the sections of a spec share: a strict, frozen model, and types of numbers."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = ["Count", "PositiveNumber", "Section", "not_boolean"]


class Section(BaseModel):
    """A mapping of the spec; the ``description`` of a field says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def not_boolean(raw: Any) -> Any:
    """``raw``, unless it is a boolean: pydantic would take True for 1."""
    if isinstance(raw, bool):
        raise PydanticCustomError("type", "not a boolean")
    return raw


Count = Annotated[int, BeforeValidator(not_boolean), Field(strict=True, ge=1)]
PositiveNumber = Annotated[float, BeforeValidator(not_boolean), Field(gt=0, allow_inf_nan=False)]
