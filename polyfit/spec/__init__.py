"""What is asked: from YAML text to a frozen, hashed plan.

Made without torch, Ray and the network, so that a plan can be made anywhere.
"""

__all__ = [
    "advice", "column", "condition_language", "cost", "dates", "fields", "fit", "future",
    "grid_overlap",
    "json_schema", "names", "optimizer", "parameter_grid", "plan", "precheck", "prediction",
    "rate", "run_id", "schema", "spec", "sweep", "template",
]  # fmt: skip
