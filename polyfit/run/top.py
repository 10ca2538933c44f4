"""The first rows in the order of one column, from rows that come part by part.

Arrow's ``select_k_unstable`` keeps no order among equal values; it sorts here with ``fit`` as the
second key. Memory holds one part and the rows found so far.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from polyfit.errors import UsageError
from polyfit.run.columns import sort_column

__all__ = ["first_rows", "parse_sort"]


def parse_sort(sort: str | None, schema: pa.Schema) -> tuple[str, str]:
    """The column and Arrow's order that ``sort`` names: descending with a leading ``-``.

    Raises:
        UsageError: there is no such column, or it holds lists.
    """
    name, descending = sort_column(sort or "fit", schema.names)
    if pa.types.is_nested(schema.field(name).type):
        raise UsageError(f"--sort {name}: a list has no order; name another column")
    return name, "descending" if descending else "ascending"


def first_rows(
    parts: Iterable[pa.Table], name: str, order: str, limit: int | None
) -> pa.Table | None:
    """The first ``limit`` rows by column ``name``, nulls last, equal values by fit; None if there
    are no parts.

    Args:
        parts: rows with that column and ``fit``, in the order of their fits.
        name: the column.
        order: "ascending" or "descending".
        limit: how many; all if None.
    """
    best: pa.Table | None = None
    for part in parts:
        rows = part if best is None else pa.concat_tables([best, part])
        rows = rows.unify_dictionaries()
        indices = _sort_indices(rows, name, order)
        best = rows.take(indices[:limit] if limit is not None else indices)
        if (name, order) == ("fit", "ascending") and limit is not None and len(best) >= limit:
            break  # all others come later
    return best


def _sort_indices(rows: pa.Table, name: str, order: str) -> pa.Array:
    column = rows[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    keys = pa.table({"key": column, "fit": rows["fit"]})
    return pc.sort_indices(
        keys, sort_keys=[("key", order, "at_end"), ("fit", "ascending", "at_end")]
    )
