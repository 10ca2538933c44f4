"""A run in a store: its rows, its keys, its lease; reading it, verifying it, reusing its rows.

Third parties: pyarrow, polars, and pandas for frames. No torch, no Ray.
"""

__all__ = [
    "clock",
    "columns",
    "groups",
    "holder",
    "keys",
    "lease",
    "ledger",
    "listing",
    "manifest",
    "parquet",
    "reader",
    "renewal",
    "reuse",
    "rows",
    "schema",
    "stored_fit",
    "verify",
]
