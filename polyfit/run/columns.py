"""Names of columns that a user writes."""

from collections.abc import Sequence

from polyfit.errors import UsageError

__all__ = ["check_names"]


def check_names(names: Sequence[str], columns: Sequence[str]) -> None:
    """Check that each of ``names`` is one of ``columns``.

    Raises:
        UsageError: one is not; with all that are allowed.
    """
    for name in names:
        if name not in columns:
            raise UsageError(f"no column {name!r}; the columns are {', '.join(columns)}")
