"""A run in a store: its rows, its keys, its lease; reading it, verifying it, reusing its rows.

Third parties: pyarrow, and pandas for frames. No torch, no Ray.
"""

__all__ = ["lease", "ledger", "results", "reuse", "rows"]
