"""What a person or a program reads of plans and runs: tables, progress, one fit, JSON and CSV.

Third parties: rich for tables and the progress bar, numpy for the curve, jinja2 for the report.
"""

__all__ = [
    "comparison",
    "data",
    "fit",
    "groups",
    "log_line",
    "markdown",
    "plan",
    "progress",
    "report",
    "rows",
    "runs",
    "state",
    "summary",
    "table",
    "text",
    "verdict",
]
