"""The mathematics without torch: formulas and the elementary functions that they may call.

Everything is float64 numpy on one thread. Imports nothing of polyfit but ``errors``.
"""

__all__ = ["elementary", "formula"]
