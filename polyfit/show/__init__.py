"""What a person or a program reads of plans and runs: tables, progress, one fit, JSON and CSV.

Third parties: rich for tables and the progress bar, numpy for the curve.
"""

__all__ = ["data", "fit", "plan", "progress", "rows", "runs", "state", "summary", "text", "verdict"]
