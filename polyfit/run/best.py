"""The best or the worst fit of each group, from rows that come part by part."""

from collections.abc import Iterable, Sequence

import polars as pl

from polyfit.run.groups import check_no_lists

__all__ = ["extreme_fits"]


def extreme_fits(
    parts: Iterable[pl.DataFrame], by: Sequence[str], worst: bool = False
) -> list[int]:
    """The fit with the least loss in each group, or with the largest if ``worst``.

    A fit without a loss is worse than all others; of equal ones the first counts. Memory holds one
    part and a row per group.

    Args:
        parts: rows with the columns ``fit``, ``loss`` and ``by``.
        by: the columns whose values make a group; all rows are one if empty.
        worst: whether the worst is looked for.

    Returns:
        Their indices, ascending.

    Raises:
        UsageError: a column of ``by`` holds lists.
    """
    loss = pl.col("loss").fill_null(float("inf"))
    found: pl.DataFrame | None = None
    for part in parts:
        check_no_lists(part, by)
        rows = part if found is None else pl.concat([found, part])
        rows = rows.sort(loss, "fit", descending=[worst, False])
        found = rows.unique(by, keep="first", maintain_order=True) if by else rows.head(1)
    return [] if found is None else sorted(found["fit"])
