"""A run in a store: its rows, its keys, its lease; reading it, verifying it, reusing its rows.

Third parties: pyarrow, polars, and pandas for frames. No torch, no Ray.
"""

__all__ = [
    "address",
    "clock",
    "columns",
    "compare",
    "digest",
    "export",
    "fit_curves",
    "grouping",
    "holder",
    "keys",
    "last_attempt",
    "lease",
    "ledger",
    "listing",
    "manifest",
    "parquet",
    "plot",
    "reader",
    "renewal",
    "resolve",
    "reusable",
    "reuse",
    "rows",
    "run_receipt",
    "schema",
    "sealed",
    "several",
    "state",
    "stored_fit",
    "stored_spec",
    "timeline",
    "verify",
]
