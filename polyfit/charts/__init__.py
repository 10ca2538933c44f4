"""Charts: from aggregated numbers to Vega-Lite. Nothing here knows a run or a store.

Third parties: altair, vl_convert for files, numpy.
"""

__all__ = [
    "coefficients", "edge", "files", "fits", "groups", "histories", "theme", "timeline",
]  # fmt: skip
