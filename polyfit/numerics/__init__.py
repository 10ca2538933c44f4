"""The mathematics without torch: formulas, grids, design matrices, sums of squares.

Everything is float64 numpy on one thread. Imports nothing of polyfit but ``errors``.
"""

__all__ = [
    "arrays",
    "basis",
    "convergence",
    "design",
    "dtypes",
    "elementary",
    "formula",
    "grid",
    "observations",
    "reduction",
]
