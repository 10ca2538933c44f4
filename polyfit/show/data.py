"""What programs read: strict JSON, and what every JSON object says of its run."""

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `polyfit plan` needs no pyarrow
    from polyfit.run.reader import Run

__all__ = ["run_identity", "to_json", "without_non_finite"]


def to_json(value: Any) -> str:
    """One line of JSON.

    Raises:
        ValueError: a number is not finite; strict JSON has none.
    """
    return json.dumps(value, allow_nan=False)


def without_non_finite(value: Any) -> Any:
    """The same nested value, with None for every number that is not finite."""
    if isinstance(value, dict):
        return {name: without_non_finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_identity(run: "Run") -> dict[str, Any]:
    """Where the run is and which plan it has: the first two open it again in Python."""
    return {"run": run.uri, "endpoint_url": run.endpoint_url, "plan_hash": run.plan.hash}
