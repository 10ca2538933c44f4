"""Tables in the terminal, laid out by rich."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["format_table"]

TEXT_COLUMNS: Final = {
    "range", "statuses", "status", "basis", "target", "optimizer", "objective", "name", "run",
    "state", "changed", "last written", "predicted", "remedy",
}  # fmt: skip
"""Columns of words, aligned to the left; numbers are aligned to the right."""


def format_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text that ends with a newline, with bold heads if stdout is a terminal.

    It is as wide as it needs to be: a line that wraps is better than a number cut short. No line
    ends with blanks.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        justify: Literal["left", "right"] = "left" if head in TEXT_COLUMNS else "right"
        table.add_column(head, justify=justify, vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    needed = Console(width=10_000).measure(table).maximum
    console = Console(highlight=False, width=needed)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
